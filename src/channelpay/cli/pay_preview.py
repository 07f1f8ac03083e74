"""``channelpay pay --dry-run``: what it would open, top up and promise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from channelpay.cli.common import format_amount_of, short
from channelpay.cli.consent import DRY_RUN_PASSED, about_ether
from channelpay.cli.output import Members, Output, visible
from channelpay.cli.over_limit import in_units, token_of
from channelpay.errors import BudgetExceeded
from channelpay.payer.steps import Add, Open
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import NATIVE

if TYPE_CHECKING:
    from channelpay.chain.types import Tried
    from channelpay.payer.client import Payer
    from channelpay.payer.foresight import Foreseen
    from channelpay.payer.records import Token


def preview_payments(
    output: Output, payer: Payer, urls: Sequence[str], token: Token, gasless: str
) -> int:
    """Say of each URL by itself what paying for it would do now. Raises what paying would raise
    before anything is signed.
    """
    for url in urls:
        try:
            seen = payer.foresee(url)
        except BudgetExceeded as over:
            raise in_units(over, token) from over
        if seen is None:
            _say(output, f"free: {url}", {"url": url, "cost": "0"})
            continue
        tried = _tried(payer, seen, gasless)
        _say(output, _text(payer, seen, tried), _members(seen, tried))
    return DRY_RUN_PASSED


def _say(output: Output, text: str, members: Members) -> None:
    import json

    import click

    click.echo(json.dumps({"dryRun": True, **members}) if output.as_json else visible(text))


def _tried(payer: Payer, seen: Foreseen, gasless: str) -> Sequence[Tried]:
    """The transactions of the payer's own; none where the payee carries the gas."""
    from channelpay.payer.trials import try_open, try_top_up

    step = seen.step
    has_carrier = seen.request.carried is not None and seen.request.currency != NATIVE
    if step is None or (has_carrier and (gasless == "always" or _has_no_ether(payer, gasless))):
        return ()
    if isinstance(step, Add):
        return try_top_up(payer.wallet, payer.state.channel(step.channel_id), step.amount)
    recipient, currency = step.request.recipient, step.request.currency
    planned = payer.wallet.plan(recipient, currency, step.deposit, step.url)
    return try_open(payer.wallet, planned)


def _has_no_ether(payer: Payer, gasless: str) -> bool:
    return gasless == "auto" and payer.wallet.balance(NATIVE) == 0


def _members(seen: Foreseen, tried: Sequence[Tried]) -> Members:
    step = seen.step
    return {
        "url": seen.url,
        "payee": checksum_address(seen.request.recipient),
        "token": checksum_address(seen.request.currency),
        "channelId": None if seen.channel is None else to_hex(seen.channel.channel_id),
        "open": str(step.deposit) if isinstance(step, Open) else None,
        "topUp": str(step.amount) if isinstance(step, Add) else None,
        "promised": str(seen.promised),
        "costMax": str(seen.cost_max),
        "gas": sum(one.trial.gas for one in tried),
        "costWei": str(sum(one.trial.cost_wei for one in tried)),
    }


def _text(payer: Payer, seen: Foreseen, tried: Sequence[Tried]) -> str:
    token = token_of(payer, seen.request.currency)

    def shown(amount: int) -> str:
        return format_amount_of(amount, token)

    step, parts = seen.step, []
    if isinstance(step, Open):
        parts.append(f"open a channel with {shown(step.deposit)}")
    elif isinstance(step, Add):
        parts.append(f"top channel {short(step.channel_id)} up by {shown(step.amount)}")
    if tried:
        parts.append(f"pay about {about_ether(sum(one.trial.cost_wei for one in tried))} of gas")
    parts.append(f"promise {shown(seen.promised)} more")
    cost = f"up to {shown(seen.cost_max)}" if seen.promised < seen.cost_max else ""
    return f"would {', '.join(parts)}{f', and {cost} in the end' if cost else ''}: {seen.url}"
