"""What the payer's own wallet is to send, where there is no key of it here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from channelpay.cli.common import LOOK_AT_CHANNELS
from channelpay.cli.consent import words
from channelpay.cli.output import Members, Output
from channelpay.protocol.text import checksum_address, to_hex

if TYPE_CHECKING:
    from channelpay.payer.client import Payer
    from channelpay.payer.outside import Errand, Planned
    from channelpay.payer.records import PayerChannel


def done_outside(
    output: Output, payer: Payer, planned: Planned, is_done: Callable[[PayerChannel], bool]
) -> PayerChannel:
    """Say what the wallet has to send, and wait until the chain has it."""
    channel_id = planned.channel.channel_id
    sender = checksum_address(payer.address)
    members = {
        "channelId": to_hex(channel_id),
        "from": sender,
        "transactions": [_members(one) for one in planned.errands],
    }
    output.note("\n".join(_text(sender, one) for one in planned.errands), members)
    with output.waiting("Waiting for the wallet", after_interrupt=LOOK_AT_CHANNELS):
        return payer.outside.wait(channel_id, is_done)


def _members(errand: Errand) -> Members:
    call = errand.call
    return {
        "purpose": errand.purpose,
        "chainId": errand.chain_id,
        "to": checksum_address(call.to),
        "value": str(call.value_wei),
        "data": to_hex(call.data),
    }


def _text(sender: str, errand: Errand) -> str:
    call = errand.call
    return (
        f"To {words(errand.purpose)}, send from {sender} on chain {errand.chain_id}:\n"
        f"  to     {checksum_address(call.to)}\n"
        f"  value  {call.value_wei} wei\n"
        f"  data   {to_hex(call.data)}"
    )
