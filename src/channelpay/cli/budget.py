"""``channelpay budget``: what was spent today, by origin, and what the limits leave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from channelpay.cli.common import (
    account_option,
    chosen_account,
    chosen_network,
    format_amount_of,
    open_books,
    pass_output,
)
from channelpay.cli.config import read_settings
from channelpay.cli.limits import TokenBudget, default_budget
from channelpay.cli.networks import Network
from channelpay.cli.output import Output, cells, json_option
from channelpay.protocol.text import checksum_address
from channelpay.protocol.types import NATIVE, Address

if TYPE_CHECKING:
    from rich.table import Table

    from channelpay.payer.budgets import Purse, Spending
    from channelpay.payer.records import Token
    from channelpay.payer.state import PayerState

_LIMITS = {"request": "request", "origin_day": "originDay", "day": "day", "total": "total"}
_COLUMNS = ("Origin", "Paid today", "Promised today", "Left today")


@click.command(epilog="Example: channelpay budget --json")
@account_option
@json_option
@pass_output
def budget(output: Output, account: str | None) -> None:
    """What was spent today (UTC), by origin, and what is left by the settings file.

    Promised is what a payee can take at most, paid what receipts say. What was promised and not
    used pays for the next requests over the same channel.
    """
    payer = chosen_account(account).address
    network = chosen_network(click.get_current_context())
    with open_books() as state:
        standings = [_standing(state, purse, network) for purse in _purses(state, payer)]
    output.show([one.members() for one in standings], lambda: _table(standings))


def _purses(state: PayerState, payer: Address) -> list[Purse]:
    """What there is a channel for: nothing else can be spent."""
    from channelpay.payer.budgets import Purse

    return list(dict.fromkeys(Purse.of(entry) for entry in state.channels(payer)))


@dataclass(frozen=True, slots=True)
class _Standing:
    """What is spent of one token; limits are in base units, None where there is none."""

    purse: Purse
    token: Token | None
    limits: dict[str, int | None]
    today: list[Spending]
    ever: int

    @property
    def promised(self) -> int:
        return sum(one.promised for one in self.today)

    @property
    def paid(self) -> int:
        return sum(one.paid for one in self.today)

    def left(self, at_origin: int = 0) -> int | None:
        """What may be promised today where so much was promised already."""
        used = {"origin_day": at_origin, "day": self.promised, "total": self.ever}
        limits = ((self.limits[name], amount) for name, amount in used.items())
        return min(
            (max(0, limit - one) for limit, one in limits if limit is not None), default=None
        )

    def members(self) -> dict[str, Any]:
        """Amounts are decimal strings in base units."""
        return {
            "chainId": self.purse.chain_id,
            "token": checksum_address(self.purse.token),
            "symbol": None if self.token is None else self.token.symbol,
            "limits": {json: _text(self.limits[name]) for name, json in _LIMITS.items()},
            "paid": str(self.paid),
            "promised": str(self.promised),
            "promisedEver": str(self.ever),
            "left": _text(self.left()),
            "origins": [
                {
                    "origin": one.origin,
                    "paid": str(one.paid),
                    "promised": str(one.promised),
                    "left": _text(self.left(one.promised)),
                    "allowedUpTo": str(one.allowed) if one.allowed else None,
                }
                for one in self.today
            ],
        }

    def rows(self) -> Iterator[tuple[str, ...]]:
        for one in self.today:
            yield self._row(one.origin, one.paid, one.promised, self.left(one.promised))
        yield self._row("any other", 0, 0, self.left())
        day = None if self.limits["day"] is None else max(0, self.limits["day"] - self.promised)
        yield self._row("all", self.paid, self.promised, day)

    def _row(self, name: str, *amounts: int | None) -> tuple[str, ...]:
        shown = (
            "no limit" if one is None else format_amount_of(one, self.token) for one in amounts
        )
        return (name, *shown)


def _text(amount: int | None) -> str | None:
    return None if amount is None else str(amount)


def _standing(state: PayerState, purse: Purse, network: Network | None) -> _Standing:
    from channelpay.payer.records import ETHER

    token = ETHER if purse.token == NATIVE else state.token(purse.chain_id, purse.token)
    found: TokenBudget | None = read_settings().budget.of(purse.token, network)
    found = found or default_budget(purse.token, network)
    known = None if token is None else found
    limits = {
        name: None if known is None or token is None else known.amount(name, token)
        for name in _LIMITS
    }
    return _Standing(purse, token, limits, state.spending_today(purse), state.promised_ever(purse))


def _table(standings: list[_Standing]) -> Table:
    from rich.table import Table

    table = Table(*_COLUMNS)
    for one in standings:
        for row in one.rows():
            table.add_row(*cells(*row))
        table.add_section()
    return table
