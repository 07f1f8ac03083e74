"""Asking a payee for the receipt that it signs of a purchase, without I/O: see
:mod:`channelpay.payer.steps`.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from channelpay.errors import InputError, ReceiptNotValid, ReceiptNotYet
from channelpay.payer.offers import Terms
from channelpay.payer.origins import check_transport, origin_of
from channelpay.payer.proving import signed_for
from channelpay.payer.records import PayerChannel
from channelpay.payer.refusals import error_of
from channelpay.payer.steps import Answer, Send, Step, Wait
from channelpay.protocol.passes import PLACE as SHOP
from channelpay.protocol.proofs import HEADER as PROOF
from channelpay.protocol.receipts import PLACE, SignedReceipt, receipt_place
from channelpay.protocol.text import to_hex

PAUSES_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""A payee may enter the end of a response just after it sent the last byte: it is asked again."""


def ask_receipt(
    terms: Terms, entry: PayerChannel, url: str, key: str
) -> Generator[Step, Any, SignedReceipt]:
    """Yields bare requests that show no voucher; returns the receipt of what was bought at ``url``
    with the Idempotency-Key ``key``. Raises the payee's refusal, and :class:`ReceiptNotValid`.
    """
    check_transport(url, allow_plain_http=terms.allow_plain_http)
    place = receipt_place(entry.channel_id, key)
    proof = signed_for(terms, entry, place)
    target = f"{origin_of(url)}{SHOP}{PLACE}{to_hex(entry.channel_id)}"
    asking = Send({PROOF: proof, "Idempotency-Key": key}, bare=True, to=target)
    answer: Answer = yield asking
    for seconds in PAUSES_SECONDS:
        if answer.code != ReceiptNotYet.code:
            break
        yield Wait(seconds)
        answer = yield asking
    if answer.signed_receipt is None:
        raise error_of(answer)
    return proof_in(answer.signed_receipt, entry)


def proof_in(header: str, entry: PayerChannel) -> SignedReceipt:
    """The receipt in an answer's header. Raises :class:`ReceiptNotValid` unless it holds, is one of
    this channel, and claims no more than we signed.
    """
    try:
        receipt = SignedReceipt.from_header(header)
    except InputError as error:
        raise ReceiptNotValid(error.detail) from error
    receipt.check()
    if receipt.channel_id != entry.channel_id:
        raise ReceiptNotValid("it is of another channel")
    if receipt.spent > entry.signed:
        raise ReceiptNotValid(f"it says that {receipt.spent} was spent; {entry.signed} was signed")
    return receipt
