"""What the commands of a payer would do, before they do it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from channelpay.cli.common import format_amount_of, short
from channelpay.cli.consent import Preview
from channelpay.payer.records import PayerChannel, Token
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import Address, ChannelStatus
from channelpay.protocol.wire import format_time

if TYPE_CHECKING:
    from channelpay.payer.client import Payer


def preview_open(
    payer: Payer,
    payee: Address,
    deposit: int,
    token: Token,
    url: str | None,
    *,
    gasless: bool = False,
) -> Preview:
    from channelpay.payer.trials import try_open

    planned = payer.wallet.plan(payee, token.address, deposit, url)
    result: dict[str, object] = {
        "status": ChannelStatus.OPEN.value,
        "payer": checksum_address(payer.address),
        "payee": checksum_address(payee),
        "token": checksum_address(token.address),
        "chainId": planned.deployment.chain_id,
        "contract": checksum_address(planned.deployment.contract),
        "deposit": str(deposit),
    }
    facts = {
        "Would": "open a channel",
        "Payee": checksum_address(payee),
        "Deposit": format_amount_of(deposit, token),
        "From": checksum_address(payer.address),
        "Chain id": str(planned.deployment.chain_id),
        "Contract": checksum_address(planned.deployment.contract),
    }
    tried = [] if gasless else try_open(payer.wallet, planned)
    return Preview("open", tried, result, facts, "Lock the deposit and open the channel?")


def preview_top_up(
    payer: Payer, entry: PayerChannel, token: Token, amount: int, *, is_free: bool = False
) -> Preview:
    """``is_free``: somebody else pays the gas."""
    from channelpay.payer.trials import try_top_up

    grown = entry.deposit + amount
    facts = {
        "Would": f"top up {to_hex(entry.channel_id)}",
        "Payee": checksum_address(entry.channel.payee),
        "Adds": format_amount_of(amount, token),
        "Deposit": format_amount_of(grown, token),
    }
    if entry.status is ChannelStatus.CLOSING:
        facts["And"] = "take the close request back"
    result = _result(entry, ChannelStatus.OPEN) | {"deposit": str(grown)}
    tried = [] if is_free else try_top_up(payer.wallet, entry, amount)
    return Preview("topUp", tried, result, facts, "Top the channel up?")


def preview_request_close(payer: Payer, entry: PayerChannel, token: Token) -> Preview:
    from channelpay.payer.trials import try_request_close

    tried = try_request_close(payer.wallet, entry)
    grace_seconds = payer.wallet.contract_at(entry.deployment).grace_period_seconds()
    since = entry.close_requested_at or payer.wallet.chain_time()
    at = since + grace_seconds
    facts = {
        "Would": f"start to close {to_hex(entry.channel_id)}",
        "Payee": f"{checksum_address(entry.channel.payee)}, which can settle until then",
        "Deposit": format_amount_of(entry.deposit, token),
        "Back": f"what is not settled, from about {_time_text(at)}",
    }
    result = _result(entry, ChannelStatus.CLOSING) | {"withdrawableAt": at}
    return Preview("requestClose", tried, result, facts, "Request the close?")


def preview_close(payer: Payer, entry: PayerChannel, token: Token, url: str | None) -> Preview:
    seen = payer.foresee_close(entry.channel_id, url)
    refund = seen.channel.deposit - seen.settled
    facts = {
        "Would": f"ask {seen.url} to close {to_hex(entry.channel_id)}",
        "Paid": format_amount_of(seen.settled, token),
        "Back": format_amount_of(refund, token),
    }
    result = _result(entry, ChannelStatus.FINALIZED) | {
        "settled": str(seen.settled),
        "refund": str(refund),
    }
    return Preview("close", (), result, facts, "Close the channel?")


def preview_withdraw(payer: Payer, entries: Sequence[PayerChannel]) -> Preview:
    from channelpay.payer.trials import try_withdraw

    tried = [one for entry in entries for one in try_withdraw(payer.wallet, entry)]
    facts = {"Would": "withdraw"}
    for entry in entries:
        token = payer.wallet.token(entry.channel.token)
        refund = format_amount_of(entry.deposit - entry.settled, token)
        facts[short(entry.channel_id)] = f"{refund} back"
    results = [
        _result(entry, ChannelStatus.FINALIZED)
        | {"settled": str(entry.settled), "refund": str(entry.deposit - entry.settled)}
        for entry in entries
    ]
    return Preview("withdraw", tried, {"channels": results}, facts, "Withdraw?")


def _result(entry: PayerChannel, status: ChannelStatus) -> dict[str, str | int]:
    return {"channelId": to_hex(entry.channel_id), "status": status.value}


def _time_text(seconds: int) -> str:
    return format_time(seconds).replace("T", " ").replace("Z", " UTC")
