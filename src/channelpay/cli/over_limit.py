"""A payment beyond a limit: asked about at a terminal, or refused in words and human units."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from channelpay.cli.common import format_amount_of
from channelpay.cli.output import Output, visible
from channelpay.errors import BudgetExceeded
from channelpay.protocol.types import NATIVE, Address

if TYPE_CHECKING:
    from channelpay.payer.budgets import Question
    from channelpay.payer.client import Payer
    from channelpay.payer.records import Token

_SCOPES = {
    "request": "",
    "place": " for what was promised to this payee elsewhere, and not charged yet,",
    "origin-day": " for this origin today",
    "day": " for today",
    "total": " in all",
}
_SETTING = "in [budget] of config.toml. See: channelpay budget. Nothing was paid."


@dataclass(frozen=True, slots=True)
class Asking:
    """Asks once for each URL. In a program there is nobody to ask."""

    output: Output
    granted: dict[str, int] = field(default_factory=dict)

    def confirm(self, payer: Payer, question: Question) -> bool:
        """Whether to go beyond a limit."""
        if question.price <= self.granted.get(question.url, -1):
            return True
        if payer.state.is_allowed_today(payer.address, question):
            return True
        if self.output.as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return False
        answer = _answer(question, token_of(payer, question.token))
        if answer == "n":
            return False
        if answer == "a":
            payer.state.allow_today(payer.address, question)
        self.granted[question.url] = question.price
        return True


def _answer(question: Question, token: Token) -> str:
    told = {"price": question.price, "limit": question.limit, "used": question.used}
    click.echo(visible(f"{question.url}: {_sentence(question.kind, told, token)}."), err=True)
    asked = visible(f"Pay it? [y]es, [n]o, [a]lways today, for {question.origin}")
    answers = click.Choice(["y", "n", "a"])
    answer: str = click.prompt(asked, "n", type=answers, show_choices=False, err=True)
    return answer


def token_of(payer: Payer, address: Address) -> Token:
    """How amounts of a token are written."""
    from channelpay.payer.records import ETHER

    return ETHER if address == NATIVE else payer.token(address)


def in_units(error: BudgetExceeded, token: Token) -> BudgetExceeded:
    """The same in human units, where it is about the price or the cost."""
    told = error.context
    if "price" in told:
        kind = str(told.get("kind", "request"))
        amounts = {name: int(told.get(name, 0)) for name in ("price", "limit", "used")}
        hint = _hint(kind, amounts, token)
        return BudgetExceeded(_sentence(kind, amounts, token), hint=hint, **told)
    if "paid" in told:
        paid, limit = (format_amount_of(int(told[name]), token) for name in ("paid", "limit"))
        reason = f"the limit is {limit}"
        if isinstance(error.__cause__, BudgetExceeded):
            reason = in_units(error.__cause__, token).detail
        return BudgetExceeded(
            f"stopped when it had cost up to {paid}: {reason}",
            hint="If more of it is worth more to you, raise --max-cost or the deposit.",
            **told,
        )
    return error


def _sentence(kind: str, amounts: Mapping[str, int], token: Token) -> str:
    price, limit, used = (format_amount_of(one, token) for one in amounts.values())
    spent = f", of which {used} is used" if amounts["used"] else ""
    costs = "could cost" if kind == "place" else "costs"
    return f"it {costs} {price}, and the limit{_SCOPES[kind]} is {limit}{spent}"


def _hint(kind: str, amounts: Mapping[str, int], token: Token) -> str:
    if kind == "total":
        return f"Raise the total {_SETTING}"
    needed = format_amount_of(amounts["used"] + amounts["price"], token).partition(" ")[0]
    if kind in {"request", "place"}:
        return (
            f"If it is worth that much to you: --max {needed}, or --max-cost where the price"
            " is that of a unit. Nothing was paid."
        )
    return f"Raise it for now with --max-day {needed}, or {_SETTING}"
