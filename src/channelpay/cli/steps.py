"""What people see on stderr while they wait for the chain."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from channelpay.cli.explorer import transaction_link
from channelpay.protocol.text import to_hex

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from channelpay.chain.types import Progress


class Steps:
    """A line that moves, and above it what has been reached."""

    def __init__(self, bar: Bar, task: TaskID, text: str) -> None:
        self._bar = bar
        self._task = task
        self._text = text
        self._sent: bytes | None = None

    def tell(self, progress: Progress) -> None:
        """How far a transaction is."""
        if progress.transaction_hash != self._sent:
            self._sent = progress.transaction_hash
            link = transaction_link(progress.transaction_hash)
            self._say(f"Sent       {link or to_hex(progress.transaction_hash)}")
        if progress.depth >= progress.needed:
            self._say(f"Confirmed  {progress.depth} of {progress.needed} confirmations")
            self._bar.update(self._task, description=self._text)
        else:
            waiting = f"{self._text}: {progress.depth} of {progress.needed} confirmations"
            self._bar.update(self._task, description=waiting)

    def _say(self, text: str) -> None:
        """As it is: a hash is to be copied, also where it is wider than the terminal."""
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def steps(text: str) -> Iterator[Steps]:
    """While something is under way that is called ``text``."""
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    console = Console(file=sys.stderr)
    with Bar(*columns, console=console, transient=True) as bar:
        yield Steps(bar, bar.add_task(text, total=None), text)
