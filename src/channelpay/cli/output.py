"""What the program prints: tables for people, JSON for programs, errors and progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import click

from channelpay.errors import ChannelPayError

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from channelpay.chain.types import Progress
    from channelpay.cli.steps import Steps

INTERRUPTED = 130
_MAYBE = "A transaction may still be mined. "
Members = Mapping[str, Any]
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


@dataclass
class Output:
    """One run's way to print. ``pending`` says what to do after an interruption now."""

    as_json: bool
    pending: str = ""
    _after_interrupt: str = ""
    _sent: str | None = None
    _steps: Steps | None = None

    @classmethod
    def of_process(cls) -> Self:
        """JSON unless a person looks on."""
        return cls(as_json=not sys.stdout.isatty())

    def show(self, members: Members | Sequence[Members], table: Callable[[], Table]) -> None:
        """Print a result, as one line of JSON or as a table."""
        if self.as_json:
            click.echo(json.dumps(members))
            return
        from rich.console import Console

        Console().print(table())

    def note(self, text: str, members: Members) -> None:
        """Say something beside the result, on stderr."""
        click.echo(json.dumps(members) if self.as_json else text, err=True)

    @property
    def has_a_person(self) -> bool:
        """Whether somebody reads this who can be asked."""
        return not self.as_json and sys.stdin.isatty() and sys.stderr.isatty()

    def ask_about(self, table: Callable[[], Table]) -> None:
        """Show what a question is about, where the question is."""
        from rich.console import Console

        self.pending = "Nothing was done."
        Console(stderr=True).print(table())

    def error(self, error: ChannelPayError) -> None:
        """For programs one line, with the exit code."""
        if self.as_json:
            click.echo(json.dumps(error.as_problem() | {"exitCode": error.exit_code}), err=True)
            return
        click.echo(f"Error: {error.detail}", err=True)
        for name in ("txHash", "channelId"):
            if name in error.context:
                click.echo(f"  {name} {error.context[name]}", err=True)
        if error.hint:
            click.echo(f"Hint: {error.hint}", err=True)

    def interrupted(self) -> None:
        """Ctrl-C: what is left, and how to go on."""
        if self.as_json:
            members = {"code": "interrupted", "detail": "Interrupted", "hint": self.pending}
            sent = {"txHash": self._sent} if self._sent else {}
            click.echo(json.dumps(members | sent | {"exitCode": INTERRUPTED}), err=True)
            return
        click.echo(f"\nInterrupted. {self.pending}".rstrip(), err=True)

    @contextmanager
    def waiting(self, text: str, *, after_interrupt: str) -> Iterator[None]:
        """While a transaction is under way: its steps for people, and what to run if Ctrl-C comes
        in between.
        """
        self.pending = f"{_MAYBE}{after_interrupt}"
        self._after_interrupt = after_interrupt
        try:
            with self._shown_steps(text) as self._steps:
                yield
        except Exception:
            self.pending = ""
            raise
        finally:
            self._steps = None
        self.pending = ""

    def told(self, progress: Progress) -> None:
        """How far a transaction is: a listener for whoever sends."""
        name = f"0x{progress.transaction_hash.hex()}"
        is_under_way = progress.depth < progress.needed
        sent = f"The transaction {name} is sent. " if is_under_way else ""
        self._sent = name if is_under_way else None
        self.pending = f"{sent or _MAYBE}{self._after_interrupt}"
        if self._steps is not None:
            self._steps.tell(progress)

    def _shown_steps(self, text: str) -> AbstractContextManager[Steps | None]:
        if self.as_json or not sys.stderr.isatty():
            return nullcontext()
        from channelpay.cli.steps import steps

        return steps(text)


def json_option(command: Decorated) -> Decorated:
    """``--json``: JSON also on a terminal."""
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_choose_json,
        help="Print JSON, also on a terminal.",
    )(command)


def _choose_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Output).as_json = True


def facts_table(facts: Mapping[str, str]) -> Table:
    """Names and values in two columns. Long values are folded, never cut: they are to be copied."""
    from rich.table import Table

    table = Table(show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(*cells(name, value))
    return table


def cells(*texts: str) -> Iterator[Text]:
    """A table's row of what others wrote: nothing in it is markup."""
    from rich.text import Text

    return (Text(visible(text)) for text in texts)


def visible(text: str) -> str:
    """What others wrote, without what a terminal would act upon: that is spelled out."""
    kept = (one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text)
    return "".join(kept)
