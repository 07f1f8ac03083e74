"""The payer's books: its channels, what it signed for each, and the prices it was told.

Every section stands in a module of its own, as a class over the file that they share
(:mod:`channelpay.payer.books`). What the numbers of a channel mean, and how they move, is said in
:mod:`channelpay.payer.promises`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from channelpay.payer.channels import Channels
from channelpay.payer.fundings import Fundings
from channelpay.payer.passes import Passes
from channelpay.payer.prices import Prices
from channelpay.payer.promises import Promises
from channelpay.payer.purchased import Purchases
from channelpay.payer.signed_fundings import SignedFundings
from channelpay.payer.silence import Silence
from channelpay.payer.spending import Budgets
from channelpay.payer.tabs import Tabs


class PayerState(Channels, Fundings, Promises, Budgets, Silence, Prices):
    """The books in one SQLite file, which several processes may share. Every method that writes is
    one atomic, durable step.

    ``clock`` gives Unix seconds. Raises :class:`StoreUnavailable` when the file cannot be used.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        super().__init__(path, clock)
        self.signed: SignedFundings = SignedFundings(self._database)
        self.purchases: Purchases = Purchases(self._database)
        self.tabs: Tabs = Tabs(self._database, clock)
        self.passes: Passes = Passes(self._database, clock)
