"""Books that may be too old, without I/O: what the payee is asked, and what its answer proves.

Whoever restored a copy of the books, or rebuilt them from the chain, has signed more than they say.
The payee knows: it is shown the last voucher that is known, and tells in its receipt how much it
holds. That it holds more is believed only of a voucher that it shows, by our own signature.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from channelpay.errors import InputError, PaymentRefused
from channelpay.payer.offers import Terms
from channelpay.payer.records import PayerChannel
from channelpay.payer.state import PayerState
from channelpay.payer.steps import Answer, Send, Step
from channelpay.protocol.eip712 import VoucherHasher
from channelpay.protocol.parse import parse_signature
from channelpay.protocol.types import Voucher
from channelpay.protocol.wire import Receipt


def last_voucher(terms: Terms, entry: PayerChannel) -> Voucher:
    """The highest voucher that the books know; one for nothing if they know of none."""
    if entry.signature:
        return Voucher(entry.channel_id, entry.signed, entry.signature)
    return terms.sign(entry, entry.signed)


def ask(
    state: PayerState, entry: PayerChannel, headers: Callable[[], dict[str, str]]
) -> Generator[Step, Any, None]:
    """Show the payee the last known voucher, which buys nothing by HEAD, and take in what its
    receipt says. One of a higher voucher proves nothing; the doubt stays then.
    """
    answer: Answer = yield Send(headers(), bare=True, head=True)
    receipt = receipt_in(answer, entry)
    if receipt is not None and receipt.accepted <= entry.signed:
        state.end_doubt(entry.channel_id, receipt.spent)


def receipt_in(answer: Answer, entry: PayerChannel) -> Receipt | None:
    """The receipt of an answer, if there is one of this channel."""
    try:
        receipt = None if answer.receipt is None else Receipt.parse(answer.receipt)
    except InputError:
        return None
    if receipt is None or answer.status >= 300:
        return None
    ours = (entry.channel_id, entry.deployment.chain_id)
    return receipt if (receipt.channel_id, receipt.chain_id) == ours else None


def learn(state: PayerState, entry: PayerChannel, answer: Answer) -> None:
    """Take in what a payee says, and shows, that refuses a voucher because it charged more."""
    accepted, spent = answer.amount("acceptedCumulative"), answer.amount("spent")
    if accepted is None or spent is None or spent > accepted:
        return
    if accepted <= entry.signed:
        state.end_doubt(entry.channel_id, spent)
    elif (last := _proven(answer, entry, accepted)) is not None:
        state.end_doubt(entry.channel_id, spent, last)


def _proven(answer: Answer, entry: PayerChannel, amount: int) -> Voucher | None:
    """The voucher for this amount that the payee shows, if we signed it."""
    try:
        signature = parse_signature(answer.problem.get("acceptedSignature"))
        voucher = Voucher(entry.channel_id, amount, signature)
        VoucherHasher(entry.deployment).check(voucher, entry.channel.signer)
    except (InputError, PaymentRefused):
        return None
    return voucher
