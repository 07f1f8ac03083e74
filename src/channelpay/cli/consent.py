"""What comes before a command spends money: it says what it would do and cost, and asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from channelpay.cli.output import Members, Output, facts_table
from channelpay.errors import Declined
from channelpay.protocol.text import format_amount

if TYPE_CHECKING:
    from rich.table import Table

    from channelpay.chain.types import Tried

DRY_RUN_PASSED = 10
"""The exit code of a dry run without an error."""
ETHER_DECIMALS = 18
_DIGITS = 3

dry_run_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--dry-run",
    is_flag=True,
    help="Show what it would do and cost now, and do nothing. Exits with 10.",
)
_yes_option = click.option(
    "--yes", "-y", is_flag=True, help="Do not ask. (It asks on a terminal only.)"
)


@dataclass(frozen=True, slots=True)
class Preview:
    """What a command would do: ``result`` for programs, ``facts`` for people, and the question that
    they are asked. Without transactions, somebody else pays for the gas.
    """

    action: str
    transactions: Sequence[Tried]
    result: Members
    facts: Mapping[str, str]
    question: str

    @property
    def gas(self) -> int:
        return sum(one.trial.gas for one in self.transactions)

    @property
    def cost_wei(self) -> int:
        return sum(one.trial.cost_wei for one in self.transactions)

    def members(self) -> Members:
        transactions = [
            {
                "purpose": one.purpose,
                "gas": one.trial.gas,
                "costWei": str(one.trial.cost_wei),
                "tried": one.was_tried,
            }
            for one in self.transactions
        ]
        return {
            "dryRun": True,
            "action": self.action,
            "transactions": transactions,
            "gas": self.gas,
            "costWei": str(self.cost_wei),
            "result": self.result,
        }

    def table(self) -> Table:
        return facts_table({**self.facts, "Gas": self._gas_text(), "Costs": self._cost_text()})

    def _gas_text(self) -> str:
        if not self.transactions:
            return "none"
        parts = [f"{one.trial.gas:,} to {words(one.purpose)}" for one in self.transactions]
        return ", ".join(parts)

    def _cost_text(self) -> str:
        return f"about {about_ether(self.cost_wei)} of gas" if self.transactions else "nothing"


@dataclass(frozen=True, slots=True)
class Consent:
    """``--dry-run`` and ``--yes``."""

    dry_run: bool
    yes: bool

    def looks_first(self, output: Output) -> bool:
        """Whether somebody is to see what would be done."""
        return self.dry_run or (output.has_a_person and not self.yes)

    def given(self, output: Output, preview: Callable[[], Preview]) -> bool:
        """Whether to go on; not after a dry run. Raises what the trial raises, and
        :class:`~channelpay.errors.Declined`.
        """
        if not self.looks_first(output):
            return True
        found = preview()
        return self.given_to(output, found.members(), found.table, found.question)

    def given_to(
        self,
        output: Output,
        members: Members | Sequence[Members],
        table: Callable[[], Table],
        question: str,
    ) -> bool:
        """The same for what is shown in another way."""
        if self.dry_run:
            output.show(members, table)
            return False
        if output.has_a_person and not self.yes:
            output.ask_about(table)
            if not click.confirm(question, err=True):
                raise Declined("nothing was done")
        return True


def consent_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--dry-run --yes``; the command gets them as ``consent``."""

    @dry_run_option
    @_yes_option
    @wraps(command)
    def with_consent(*arguments: Any, dry_run: bool, yes: bool, **options: Any) -> Any:
        return command(*arguments, consent=Consent(dry_run, yes), **options)

    return with_consent


def words(purpose: str) -> str:
    """``requestClose`` as people write it."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in purpose)


def about_ether(amount_wei: int) -> str:
    """To three digits, rounded up: fees change with every block."""
    unit = 10 ** max(0, len(str(amount_wei)) - _DIGITS)
    return format_amount(-(-amount_wei // unit) * unit, ETHER_DECIMALS, "ETH")
