"""``--confirmations``: how deep an open or a top-up has to be before it counts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from channelpay.cli.common import chosen_network, token_address
from channelpay.protocol.types import Address

if TYPE_CHECKING:
    from channelpay.payee.acceptance import Confirmations
    from channelpay.payee.terms import Token

_RULE = re.compile(r"(?:(?:(?P<token>[^=:]+)=)?(?P<amount>[^=:]+):)?(?P<depth>[0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Step:
    """``depth`` confirmations from ``amount`` on, in units of the token that is called ``token``,
    or of the first one.
    """

    token: str | None
    amount: str
    depth: int


@dataclass(frozen=True, slots=True)
class Confirming:
    """What was asked for on the command line: ``default`` below the first step."""

    default: int
    steps: tuple[Step, ...] = ()

    @property
    def tokens_named(self) -> set[Address]:
        return {token_address(step.token) for step in self.steps if step.token is not None}

    def in_tokens(self, tokens: Sequence[Token]) -> Confirmations:
        """In base units. Raises :class:`~channelpay.errors.InputError` for a token that is not one
        of ``tokens``, and :class:`~channelpay.errors.ConfigError` unless depths rise with amounts.
        """
        from channelpay.payee.acceptance import Confirmations
        from channelpay.payee.amounts import parse_price

        by_token: dict[Address, list[tuple[int, int]]] = {}
        for step in self.steps:
            text = step.amount if step.token is None else {step.token: step.amount}
            (price,) = parse_price(text, tokens, "confirmations")
            by_token.setdefault(price.token.address, []).append((price.amount, step.depth))
        return Confirmations(self.default, {one: sorted(rule) for one, rule in by_token.items()})


def confirmations_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--confirmations``: the command gets a :class:`Confirming`."""
    return click.option(
        "--confirmations",
        multiple=True,
        metavar="[[TOKEN=]AMOUNT:]N",
        callback=_confirming,
        help="What an open or top-up needs before it counts (default: that of the network, or 1)."
        " With AMOUNT: where a channel holds so much. Repeat it for several amounts.",
    )(command)


def _confirming(
    context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]
) -> Confirming:
    defaults, steps = [], []
    for text in given:
        rule = _RULE.fullmatch(text)
        if rule is None:
            raise click.BadParameter(f"{text[:80]!r} is not N, AMOUNT:N or TOKEN=AMOUNT:N")
        token, amount, depth = rule["token"], rule["amount"], int(rule["depth"])
        if amount is None:
            defaults.append(depth)
        else:
            steps.append(Step(token, amount, depth))
    if len(defaults) > 1:
        raise click.BadParameter("N without an AMOUNT is given twice")
    return Confirming(defaults[0] if defaults else confirmations_of_network(context), tuple(steps))


def confirmations_of_network(context: click.Context) -> int:
    """What the network's settings ask for, or 1."""
    network = chosen_network(context)
    return 1 if network is None else network.confirmations
