"""Signed receipts: only the payee's key, or one that it authorised, makes one that holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from channelpay.errors import InputError, ReceiptNotValid
from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.receipts import ReceiptKey, ReceiptSigner, SignedReceipt
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import ZERO_ADDRESS, Address, Channel, Deployment

PLACE = Deployment(31337, Address(b"\xc0" * 20))
SECRET, OTHER = b"\x11" * 32, b"\x22" * 32
PAYEE = VoucherSigner(PLACE, SECRET).address
CHANNEL = Channel(Address(b"\xa0" * 20), PAYEE, Address(b"\x70" * 20), ZERO_ADDRESS, bytes(32))
PLAIN = SignedReceipt(PLACE, CHANNEL, 7, 10**15, 3 * 10**15, "GET https://s.example/ä", 1_800_000)
SIGNED = ReceiptSigner(SECRET).sign(PLAIN)
UNTIL = PLAIN.time // 1000


def by_key(secret: bytes = OTHER, until: int = UNTIL, payee: bytes = SECRET) -> SignedReceipt:
    key = ReceiptKey.made(PLACE, payee, VoucherSigner(PLACE, OTHER).address, until)
    return ReceiptSigner(secret, key).sign(PLAIN)


@pytest.mark.parametrize("receipt", [SIGNED, by_key()])
def test_a_receipt_holds_after_it_was_written_and_read(receipt: SignedReceipt) -> None:
    read = SignedReceipt.from_header(receipt.to_header())

    read.check()
    assert read == receipt


def test_a_wallet_signs_the_same_digest() -> None:
    """The types are EIP-712 as anybody's library knows them."""
    message = {
        "channelId": SIGNED.channel_id,
        "paymentId": SIGNED.payment_id,
        "amount": SIGNED.amount,
        "spent": SIGNED.spent,
        "resource": SIGNED.resource,
        "time": SIGNED.time,
    }
    kinds = ("bytes32", "uint256", "uint128", "uint128", "string", "uint64")
    fields = [{"name": n, "type": kind} for n, kind in zip(message, kinds, strict=True)]
    domain = {
        "name": "EVM Payment Channel",
        "version": "1",
        "chainId": PLACE.chain_id,
        "verifyingContract": to_hex(PLACE.contract),
    }
    typed = encode_typed_data(domain, {"PaymentReceipt": fields}, message)

    assert bytes(Account.sign_message(typed, SECRET).signature) == SIGNED.signature


CHANGES: list[dict[str, Any]] = [
    {"amount": 1},
    {"spent": 0},
    {"payment_id": 8},
    {"resource": "GET https://s.example/b"},
    {"time": 1_800_001},
    {"deployment": Deployment(1, PLACE.contract)},
    {"channel": replace(CHANNEL, payer=Address(b"\xa1" * 20))},
    {"channel": replace(CHANNEL, payee=Address(b"\xb1" * 20))},
    {"signature": bytes(65)},
    {"signature": b""},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
@pytest.mark.parametrize("receipt", [SIGNED, by_key()], ids=["own", "key"])
def test_one_that_was_changed_does_not(receipt: SignedReceipt, change: dict[str, Any]) -> None:
    with pytest.raises(ReceiptNotValid):
        replace(receipt, **change).check()


@pytest.mark.parametrize(
    "forged",
    [
        ReceiptSigner(OTHER).sign(PLAIN),
        by_key(secret=b"\x33" * 32),
        by_key(until=UNTIL - 1),
        by_key(payee=OTHER),
        replace(by_key(), key=replace(by_key().key or ReceiptKey(PAYEE, 0, b""), valid_until=9**9)),
    ],
    ids=["stranger", "not the key", "too late", "not authorised", "made longer"],
)
def test_one_by_another_key_does_not(forged: SignedReceipt) -> None:
    with pytest.raises(ReceiptNotValid):
        forged.check()


@given(st.integers(0, len(SIGNED.to_json()) - 1), st.sampled_from('0a"}{9 '))
def test_no_text_but_what_was_signed_is_taken_for_it(place: int, other: str) -> None:
    text = SIGNED.to_json()
    changed = text[:place] + other + text[place + 1 :]
    try:
        read = SignedReceipt.from_json(changed.encode())
        read.check()
    except (InputError, ReceiptNotValid):
        return
    assert replace(read, signature=SIGNED.signature) == SIGNED


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"x" * 20_000, SIGNED.to_json().encode()[:-1]])
def test_what_is_no_receipt_is_refused(text: bytes) -> None:
    with pytest.raises(InputError):
        SignedReceipt.from_json(text)
