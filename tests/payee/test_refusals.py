"""Every way in which a payment is refused: a problem of its own code, and nothing in the books."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from channelpay.chain import endpoints
from channelpay.chain.connection import Connection, NodeRefused
from channelpay.chain.sender import Sender
from channelpay.errors import (
    AmountExceedsDeposit,
    ChainReverted,
    ChallengeExpired,
    ChannelClosing,
    ChannelFinalized,
    ChannelNotFound,
    ChannelPayError,
    CredentialTooLarge,
    IdempotencyKeyReused,
    InputError,
    InsufficientBalance,
    InvalidChallenge,
    InvalidSignature,
    MalformedCredential,
    MalleableSignature,
    MethodUnsupported,
    NetworkError,
    NodesDisagree,
    OtherChain,
    PaymentRefused,
    PaymentRequired,
    PriceRaised,
    SignerMismatch,
    TooFewConfirmations,
    WrongRecoveryId,
)
from channelpay.payee.chain_link import ChainLink
from channelpay.payee.verifier import Verifier
from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.types import ChannelId, Deployment, Voucher
from channelpay.protocol.wire import (
    Challenge,
    ClosePayload,
    Payload,
    Source,
    TopUpPayload,
    VoucherPayload,
    encode_base64url,
)
from channelpay.testing.furnished import FurnishedChain
from tests.payee.shop import (
    DEPOSIT,
    PRICE,
    OpenChannel,
    Payer,
    Shop,
    challenges_of,
    opened_shop,
)
from tests.support.rpc_faults import (
    Contradicting,
    Down,
    Fault,
    Malformed,
    Refusing,
    Resetting,
    TooManyRequests,
    faulty_node,
)

pytestmark = pytest.mark.anyio

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
UNCHECKED = "the payment could not be checked; the fault is the site's"
Headers = list[tuple[str, str]]


@dataclass(frozen=True)
class Attempt:
    """What a case has to work with: a channel that bought one page with the key ``used``."""

    shop: Shop
    channel: OpenChannel

    def voucher(self, cumulative: int = 2 * PRICE) -> Voucher:
        return self.channel.sign(cumulative)

    def with_payload(
        self, payload: Payload, challenge: Challenge | None = None, source: Source | None = None
    ) -> Headers:
        header = self.shop.header(payload, challenge, source=source)
        return [("Authorization", header), ("Idempotency-Key", "fresh")]

    def with_voucher(self, voucher: Voucher, challenge: Challenge | None = None) -> Headers:
        return self.with_payload(VoucherPayload(voucher), challenge)

    def with_signature(self, signature: bytes) -> Headers:
        return self.with_voucher(replace(self.voucher(), signature=signature))

    def with_json(self, credential: object) -> Headers:
        text = json.dumps(credential).encode()
        return [("Authorization", "Payment " + encode_base64url(text))]

    def with_changed_payload(self, **changes: object) -> Headers:
        challenge = self.shop.challenge().members()
        payload = VoucherPayload(self.voucher()).members() | changes
        return self.with_json({"challenge": challenge, "payload": payload})

    def signed_elsewhere(self, deployment: Deployment) -> Voucher:
        signer = VoucherSigner(deployment, self.shop.payer.secret)
        return signer.sign(self.channel.id, 2 * PRICE)

    @property
    def deployment_of_another_chain(self) -> Deployment:
        return replace(self.shop.deployment, chain_id=1)

    @property
    def source_on_another_chain(self) -> Source:
        return replace(self.channel.source, chain_id=1)


Case = Callable[[Attempt], Headers]


def no_payment(attempt: Attempt) -> Headers:
    return []


def wrong_signature(attempt: Attempt) -> Headers:
    return attempt.with_signature(bytes(31) + b"\x01" + bytes(31) + b"\x01" + b"\x1b")


def impossible_signature(attempt: Attempt) -> Headers:
    return attempt.with_signature(b"\xff" * 32 + bytes(31) + b"\x01" + b"\x1b")


def signed_by_a_stranger(attempt: Attempt) -> Headers:
    stranger = VoucherSigner(attempt.shop.deployment, b"\x07" * 32)
    return attempt.with_voucher(stranger.sign(attempt.channel.id, 2 * PRICE))


def voucher_of_another_amount(attempt: Attempt) -> Headers:
    return attempt.with_voucher(replace(attempt.voucher(), cumulative_amount=3 * PRICE))


def voucher_of_another_channel(attempt: Attempt) -> Headers:
    other = attempt.shop.payer.open()
    return attempt.with_voucher(replace(other.sign(2 * PRICE), channel_id=attempt.channel.id))


def voucher_of_another_chain(attempt: Attempt) -> Headers:
    voucher = attempt.signed_elsewhere(attempt.deployment_of_another_chain)
    return attempt.with_payload(VoucherPayload(voucher), source=attempt.source_on_another_chain)


def voucher_of_another_chain_that_does_not_say_so(attempt: Attempt) -> Headers:
    return attempt.with_voucher(attempt.signed_elsewhere(attempt.deployment_of_another_chain))


def voucher_of_another_contract(attempt: Attempt) -> Headers:
    contract = attempt.channel.channel.payer
    elsewhere = replace(attempt.shop.deployment, contract=contract)
    return attempt.with_voucher(attempt.signed_elsewhere(elsewhere))


def close_of_another_chain(attempt: Attempt) -> Headers:
    voucher = attempt.signed_elsewhere(attempt.deployment_of_another_chain)
    return attempt.with_payload(ClosePayload(voucher), source=attempt.source_on_another_chain)


def top_up_of_another_chain(attempt: Attempt) -> Headers:
    payload = TopUpPayload(attempt.channel.id, attempt.channel.transaction_hash, PRICE)
    return attempt.with_payload(payload, source=attempt.source_on_another_chain)


def unknown_channel(attempt: Attempt) -> Headers:
    return attempt.with_voucher(attempt.channel.signer.sign(ChannelId(b"\x05" * 32), PRICE))


def opened_on_chain_but_not_presented(attempt: Attempt) -> Headers:
    return attempt.with_voucher(attempt.shop.payer.open().sign(PRICE))


def above_deposit(attempt: Attempt) -> Headers:
    return attempt.with_voucher(attempt.voucher(DEPOSIT + 1))


def below_price(attempt: Attempt) -> Headers:
    return attempt.with_voucher(attempt.voucher(2 * PRICE - 1))


def voucher_that_bought_something_else(attempt: Attempt) -> Headers:
    return attempt.with_voucher(attempt.voucher(PRICE))


def price_above_the_challenge(attempt: Attempt) -> Headers:
    cheaper = attempt.shop.asked(PRICE - 1)
    challenge = attempt.shop.payee._issuer.issue(cheaper, 2**32)
    return attempt.with_voucher(attempt.voucher(), challenge)


def v_is_26(attempt: Attempt) -> Headers:
    return attempt.with_signature(attempt.voucher().signature[:64] + bytes([26]))


def v_is_0(attempt: Attempt) -> Headers:
    return attempt.with_signature(attempt.voucher().signature[:64] + bytes([0]))


def high_s(attempt: Attempt) -> Headers:
    signature = attempt.voucher().signature
    s = ORDER - int.from_bytes(signature[32:64], "big")
    high = signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])
    return attempt.with_signature(high)


def forged_challenge(attempt: Attempt) -> Headers:
    dearer = attempt.shop.asked(1).encode()
    return attempt.with_voucher(
        attempt.voucher(), replace(attempt.shop.challenge(), request=dearer)
    )


def challenge_of_another_realm(attempt: Attempt) -> Headers:
    challenge = replace(attempt.shop.challenge(), realm="elsewhere")
    return attempt.with_voucher(attempt.voucher(), challenge)


def challenge_of_other_terms(attempt: Attempt) -> Headers:
    request = replace(attempt.shop.asked(), recipient=attempt.channel.channel.payer)
    challenge = attempt.shop.payee._issuer.issue(request, 2**32)
    return attempt.with_voucher(attempt.voucher(), challenge)


def expired_challenge(attempt: Attempt) -> Headers:
    request = attempt.shop.asked()
    return attempt.with_voucher(
        attempt.voucher(), attempt.shop.payee._issuer.issue(request, 1_000_000)
    )


def prolonged_challenge(attempt: Attempt) -> Headers:
    challenge = replace(attempt.shop.challenge(), expires="2999-01-01T00:00:00Z")
    return attempt.with_voucher(attempt.voucher(), challenge)


def another_method(attempt: Attempt) -> Headers:
    return attempt.with_voucher(
        attempt.voucher(), replace(attempt.shop.challenge(), method="tempo")
    )


def not_base64(attempt: Attempt) -> Headers:
    return [("Authorization", "Payment ***")]


def padded_base64(attempt: Attempt) -> Headers:
    return [("Authorization", "Payment e30=")]


def empty_credential(attempt: Attempt) -> Headers:
    return [("Authorization", "Payment ")]


def not_json(attempt: Attempt) -> Headers:
    return [("Authorization", "Payment " + encode_base64url(b"{"))]


def deep_json(attempt: Attempt) -> Headers:
    return [("Authorization", "Payment " + encode_base64url(b"[" * 5000))]


def no_payload(attempt: Attempt) -> Headers:
    return attempt.with_json({"challenge": attempt.shop.challenge().members()})


def unknown_action(attempt: Attempt) -> Headers:
    return attempt.with_changed_payload(action="refund")


def negative_amount(attempt: Attempt) -> Headers:
    return attempt.with_changed_payload(cumulativeAmount="-1")


def amount_as_number(attempt: Attempt) -> Headers:
    return attempt.with_changed_payload(cumulativeAmount=2 * PRICE)


def amount_beyond_uint128(attempt: Attempt) -> Headers:
    return attempt.with_changed_payload(cumulativeAmount=str(2**128))


def short_signature(attempt: Attempt) -> Headers:
    return attempt.with_changed_payload(signature="0x00")


def upper_case_channel_id(attempt: Attempt) -> Headers:
    return attempt.with_changed_payload(channelId="0x" + attempt.channel.id.hex().upper())


def two_authorization_headers(attempt: Attempt) -> Headers:
    headers = attempt.with_voucher(attempt.voucher())
    return [headers[0], *headers]


def payment_beside_basic(attempt: Attempt) -> Headers:
    return [("Authorization", "Basic dTpw"), *attempt.with_voucher(attempt.voucher())]


def over_the_size_limit(attempt: Attempt) -> Headers:
    return [("Authorization", "Payment " + "e" * 9000)]


def key_that_bought_another_page(attempt: Attempt) -> Headers:
    return [*attempt.with_voucher(attempt.voucher())[:1], ("Idempotency-Key", "used")]


def overlong_key(attempt: Attempt) -> Headers:
    return [*attempt.with_voucher(attempt.voucher())[:1], ("Idempotency-Key", "k" * 256)]


def two_keys(attempt: Attempt) -> Headers:
    return [*attempt.with_voucher(attempt.voucher()), ("Idempotency-Key", "another")]


def open_of_another_description(attempt: Attempt) -> Headers:
    payload = attempt.shop.payer.open().open_payload(PRICE)
    return attempt.with_payload(replace(payload, salt=b"\x01" * 32), source=attempt.channel.source)


def open_of_another_chain(attempt: Attempt) -> Headers:
    payload = attempt.shop.payer.open().open_payload(PRICE)
    return attempt.with_payload(payload, source=attempt.source_on_another_chain)


def open_to_another_payee(attempt: Attempt) -> Headers:
    other = attempt.shop.payer.furnished.chain.accounts[3].address
    opened = attempt.shop.payer.open(payee=other)
    return attempt.with_payload(opened.open_payload(PRICE), source=opened.source)


def open_in_another_token(attempt: Attempt) -> Headers:
    opened = attempt.shop.payer.open(token=bytes(20))
    return attempt.with_payload(opened.open_payload(PRICE), source=opened.source)


def open_by_the_transaction_of_another_channel(attempt: Attempt) -> Headers:
    opened = attempt.shop.payer.open()
    payload = replace(opened.open_payload(PRICE), transaction_hash=attempt.channel.transaction_hash)
    return attempt.with_payload(payload, source=opened.source)


def open_by_an_unmined_transaction(attempt: Attempt) -> Headers:
    opened = attempt.shop.payer.open()
    payload = replace(opened.open_payload(PRICE), transaction_hash=b"\x09" * 32)
    return attempt.with_payload(payload, source=opened.source)


def open_signed_by_a_stranger(attempt: Attempt) -> Headers:
    opened = attempt.shop.payer.open()
    stranger = VoucherSigner(attempt.shop.deployment, b"\x07" * 32)
    payload = replace(opened.open_payload(PRICE), voucher=stranger.sign(opened.id, PRICE))
    return attempt.with_payload(payload, source=opened.source)


def open_of_a_channel_that_is_closing(attempt: Attempt) -> Headers:
    opened = attempt.shop.payer.open()
    attempt.shop.payer.request_close(opened)
    return attempt.with_payload(opened.open_payload(PRICE), source=opened.source)


def top_up_of_an_unknown_channel(attempt: Attempt) -> Headers:
    payload = TopUpPayload(ChannelId(b"\x05" * 32), attempt.channel.transaction_hash, PRICE)
    return attempt.with_payload(payload, source=attempt.channel.source)


def top_up_by_the_opening_transaction(attempt: Attempt) -> Headers:
    payload = TopUpPayload(attempt.channel.id, attempt.channel.transaction_hash, DEPOSIT)
    return attempt.with_payload(payload, source=attempt.channel.source)


def top_up_of_another_amount(attempt: Attempt) -> Headers:
    payload = attempt.shop.payer.top_up(attempt.channel, PRICE)
    return attempt.with_payload(
        replace(payload, additional_deposit=2 * PRICE), source=attempt.channel.source
    )


def close_signed_by_a_stranger(attempt: Attempt) -> Headers:
    stranger = VoucherSigner(attempt.shop.deployment, b"\x07" * 32)
    return attempt.with_payload(ClosePayload(stranger.sign(attempt.channel.id, PRICE)))


def close_above_deposit(attempt: Attempt) -> Headers:
    return attempt.with_payload(ClosePayload(attempt.voucher(DEPOSIT + 1)))


CASES: list[tuple[Case, type[ChannelPayError]]] = [
    (no_payment, PaymentRequired),
    (wrong_signature, SignerMismatch),
    (impossible_signature, InvalidSignature),
    (signed_by_a_stranger, SignerMismatch),
    (voucher_of_another_amount, SignerMismatch),
    (voucher_of_another_channel, SignerMismatch),
    (voucher_of_another_chain, OtherChain),
    (voucher_of_another_chain_that_does_not_say_so, SignerMismatch),
    (close_of_another_chain, OtherChain),
    (top_up_of_another_chain, OtherChain),
    (voucher_of_another_contract, SignerMismatch),
    (unknown_channel, ChannelNotFound),
    (opened_on_chain_but_not_presented, ChannelNotFound),
    (above_deposit, AmountExceedsDeposit),
    (below_price, InsufficientBalance),
    (voucher_that_bought_something_else, InsufficientBalance),
    (price_above_the_challenge, PriceRaised),
    (v_is_26, WrongRecoveryId),
    (v_is_0, WrongRecoveryId),
    (high_s, MalleableSignature),
    (forged_challenge, InvalidChallenge),
    (challenge_of_another_realm, InvalidChallenge),
    (challenge_of_other_terms, InvalidChallenge),
    (expired_challenge, ChallengeExpired),
    (prolonged_challenge, InvalidChallenge),
    (another_method, MethodUnsupported),
    (not_base64, MalformedCredential),
    (padded_base64, MalformedCredential),
    (empty_credential, MalformedCredential),
    (not_json, MalformedCredential),
    (deep_json, MalformedCredential),
    (no_payload, MalformedCredential),
    (unknown_action, MalformedCredential),
    (negative_amount, MalformedCredential),
    (amount_as_number, MalformedCredential),
    (amount_beyond_uint128, MalformedCredential),
    (short_signature, MalformedCredential),
    (upper_case_channel_id, MalformedCredential),
    (two_authorization_headers, MalformedCredential),
    (payment_beside_basic, MalformedCredential),
    (over_the_size_limit, CredentialTooLarge),
    (key_that_bought_another_page, IdempotencyKeyReused),
    (overlong_key, InputError),
    (two_keys, InputError),
    (open_of_another_description, ChannelNotFound),
    (open_of_another_chain, OtherChain),
    (open_to_another_payee, ChannelNotFound),
    (open_in_another_token, ChannelNotFound),
    (open_by_the_transaction_of_another_channel, ChannelNotFound),
    (open_by_an_unmined_transaction, TooFewConfirmations),
    (open_signed_by_a_stranger, SignerMismatch),
    (open_of_a_channel_that_is_closing, ChannelClosing),
    (top_up_of_an_unknown_channel, ChannelNotFound),
    (top_up_by_the_opening_transaction, PaymentRefused),
    (top_up_of_another_amount, PaymentRefused),
    (close_signed_by_a_stranger, SignerMismatch),
    (close_above_deposit, AmountExceedsDeposit),
]


@pytest.mark.parametrize(("case", "error"), CASES, ids=[case.__name__ for case, _ in CASES])
async def test_a_refusal_is_a_problem_of_its_own_and_writes_nothing(
    shop: Shop, case: Case, error: type[ChannelPayError]
) -> None:
    channel = await shop.opened()
    await shop.pay(channel, PRICE, "/first", key="used")
    served = len(shop.application.scopes)
    headers = case(Attempt(shop, channel))
    before = shop.dump()

    response = await shop.request("/page", headers)

    problem = response.json()
    assert (problem["code"], response.status_code) == (error.code, error.status), problem
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    assert (problem["type"], problem["title"]) == (error.problem, error.title)
    assert problem["status"] == response.status_code
    assert problem["detail"]
    assert bool(challenges_of(response)) == (response.status_code in (402, 410))
    assert "payment-receipt" not in response.headers
    assert shop.dump() == before
    assert len(shop.application.scopes) == served


async def test_the_channel_still_pays_after_a_refusal(shop: Shop) -> None:
    channel = await shop.opened()
    await shop.request("/page", high_s(Attempt(shop, channel)))

    assert (await shop.pay(channel, PRICE)).status_code == 200


async def test_a_refusal_for_money_says_how_much_is_needed(shop: Shop) -> None:
    channel = await shop.opened()
    await shop.pay(channel, PRICE)

    problem = (await shop.pay(channel, PRICE + 1, "/other")).json()

    assert problem["requiredCumulative"] == str(2 * PRICE)
    assert (problem["acceptedCumulative"], problem["spent"]) == (str(PRICE), str(PRICE))


async def test_a_closed_channel_is_refused_and_stays_as_it_was(shop: Shop) -> None:
    channel = await shop.opened()
    await shop.pay(channel, PRICE)
    await shop.close(channel, PRICE)
    before = shop.dump()

    response = await shop.pay(channel, 2 * PRICE)

    assert response.status_code == 410
    assert response.json()["code"] == ChannelFinalized.code
    assert shop.dump() == before


async def test_a_channel_closed_on_chain_cannot_be_presented_again(
    shop: Shop, furnished: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    channel = await shop.opened()
    await shop.close(channel, 0)
    (tmp_path / "other").mkdir()
    with opened_shop(furnished, tmp_path / "other", payer) as other:
        header = other.header(channel.open_payload(PRICE), source=channel.source)
        response = await other.get("/page", header)

        assert response.json()["code"] == ChannelFinalized.code
        assert other.dump() == ([], [])


async def test_an_open_that_failed_on_chain_is_refused_at_once(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = shop.payer.open()
    monkeypatch.setattr(Sender, "wait", lambda self, hash_, call: hash_)
    monkeypatch.setattr(Sender, "submit", _submit_without_trying)
    failed = shop.payer.sender.send(shop.payer.contract.open(first.channel, DEPOSIT))
    payload = replace(first.open_payload(PRICE), transaction_hash=failed)  # type: ignore[arg-type]

    response = await shop.get("/page", shop.header(payload, source=first.source))

    assert (response.status_code, response.json()["code"]) == (409, ChainReverted.code)


def _submit_without_trying(sender: Sender, call: object) -> bytes:
    return sender._sign_and_broadcast(call, 200_000, sender._fees(), None)  # type: ignore[arg-type]


async def test_a_fresh_open_waits_for_its_confirmations(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    with opened_shop(furnished, tmp_path, payer, confirmations=3) as shop:
        channel = payer.open()
        header = shop.header(channel.open_payload(PRICE), source=channel.source)

        too_early = await shop.get("/page", header)
        furnished.chain.mine(2)
        in_time = await shop.confirmed(header)

    assert too_early.status_code == 402
    assert too_early.json()["code"] == TooFewConfirmations.code
    assert int(too_early.headers["retry-after"]) > 0
    assert in_time.status_code == 200


async def test_a_fresh_top_up_does_not_count_before_its_confirmations(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    with opened_shop(furnished, tmp_path, payer, confirmations=2) as shop:
        channel = payer.open(deposit=PRICE)
        furnished.chain.mine()
        await shop.open(channel)
        top_up = payer.top_up(channel, PRICE)

        too_early = await shop.top_up(channel, top_up)
        refused = await shop.pay(channel, 2 * PRICE)
        furnished.chain.mine()
        in_time = await shop.confirmed(shop.header(top_up, source=channel.source))
        paid = await shop.pay(channel, 2 * PRICE)

    assert too_early.json()["code"] == TooFewConfirmations.code
    assert refused.json()["code"] == AmountExceedsDeposit.code
    assert (in_time.status_code, paid.status_code) == (204, 200)


async def test_a_payee_without_its_key_does_not_close_on_request(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    payee = "0x" + furnished.chain.accounts[2].address.hex()
    with opened_shop(furnished, tmp_path, payer, account=None, payee=payee) as shop:
        channel = await shop.opened()

        response = await shop.close(channel, 0)

        assert (response.status_code, response.json()["code"]) == (400, MethodUnsupported.code)
        assert (await shop.pay(channel, PRICE)).status_code == 200


NODE_FAULTS = {
    "down": Down(),
    "resetting": Resetting(),
    "erring": Refusing(),
    "rate-limited": TooManyRequests(),
    "making no sense": Malformed(b"<html>It works!</html>"),
}


@pytest.mark.parametrize("fault", NODE_FAULTS.values(), ids=NODE_FAULTS.keys())
async def test_trouble_with_the_chain_is_not_the_payers_bill(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path, fault: Fault
) -> None:
    with (
        faulty_node(furnished.chain.rpc_url) as node,
        opened_shop(furnished, tmp_path, payer, rpc=node.url) as shop,
    ):
        known, unknown = await shop.opened(), shop.payer.open()
        node.behave(fault)

        header = shop.header(unknown.open_payload(PRICE), source=unknown.source)
        response = await shop.get("/page", header)

        assert (response.status_code, response.json()["code"]) == (503, "network")
        assert int(response.headers["retry-after"]) > 0
        assert challenges_of(response) == []
        assert (await shop.pay(known, PRICE)).status_code == 200
        node.behave()
        await _served_again(shop, header)


async def test_nodes_that_contradict_each_other_are_not_the_payers_bill(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "SURVEY_SECONDS", 0.0)
    with (
        faulty_node(furnished.chain.rpc_url) as liar,
        opened_shop(furnished, tmp_path, payer, rpc=[furnished.chain.rpc_url, liar.url]) as shop,
    ):
        known, unknown = await shop.opened(), shop.payer.open()
        liar.behave(Contradicting(since=1))

        header = shop.header(unknown.open_payload(PRICE), source=unknown.source)
        response = await shop.get("/page", header)

        assert response.status_code == 503
        assert challenges_of(response) == []
        assert (await shop.pay(known, PRICE)).status_code == 200
        liar.behave()
        await _served_again(shop, header)


async def _served_again(shop: Shop, header: str) -> None:
    """A node that failed is left alone for a moment."""
    deadline = time.monotonic() + 20
    while (response := await shop.get("/page", header)).status_code != 200:
        assert response.status_code == 503
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("error", "code"), [(NodeRefused, "network"), (NodesDisagree, "nodes-disagree")]
)
async def test_what_the_node_says_is_not_for_the_public(
    shop: Shop,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[NetworkError],
    code: str,
) -> None:
    def refuse(*_: object) -> object:
        raise error("over the quota of key 12345")

    channel = shop.payer.open()
    header = shop.header(channel.open_payload(PRICE), source=channel.source)
    monkeypatch.setattr(ChainLink, "opened", refuse)

    response = await shop.get("/page", header)

    problem = response.json()
    assert (problem["code"], problem["detail"]) == (code, UNCHECKED)
    assert problem["hint"] == NetworkError.hint
    assert "12345" not in response.text
    assert "12345" in caplog.text


async def test_trouble_with_the_books_is_not_the_payers_bill(shop: Shop) -> None:
    channel = await shop.opened()
    shop.payee.close()

    response = await shop.pay(channel, PRICE)

    assert (response.status_code, response.json()["code"]) == (503, "store-unavailable")
    assert response.json()["detail"] == UNCHECKED
    assert challenges_of(response) == []


async def test_a_bug_of_ours_is_not_the_payers_bill(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = await shop.opened()
    monkeypatch.setattr(Verifier, "verify", None)

    response = await shop.pay(channel, PRICE)

    assert (response.status_code, response.json()["code"]) == (503, "network")


async def test_the_last_gas_money_is_not_spent_on_closes_that_anybody_may_ask_for(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = await shop.opened()
    with monkeypatch.context() as patched:
        patched.setattr(Connection, "balance_wei", lambda *_: 10**6)
        refused = await shop.close(channel, 0)
        sold = await shop.pay(channel, PRICE)
    closed = await shop.close(channel, PRICE)

    assert (refused.status_code, sold.status_code, closed.status_code) == (400, 200, 200)
    assert "Request the close on chain" in refused.text


async def test_a_close_that_the_chain_does_not_take_leaves_the_channel_usable(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = await shop.opened()
    with monkeypatch.context() as patched:
        patched.setattr(Connection, "estimate_gas", _away)
        response = await shop.close(channel, 0)

    assert response.status_code == 503
    assert (await shop.pay(channel, PRICE)).status_code == 200


def _away(*_: object) -> int:
    raise NetworkError("the node is away")


@pytest.fixture
def quiet(furnished: FurnishedChain, payer: Payer, tmp_path: Path) -> Iterator[Shop]:
    """A shop in which nobody looks after transactions."""
    with opened_shop(furnished, tmp_path, payer, watches=False) as shop:
        yield shop


def _lose_transactions(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The payee's node takes transactions and does not pass them on; they are in the list."""
    closer = shop.verifier._closer
    assert closer is not None
    held: list[bytes] = []
    wait = closer.sender.wait
    monkeypatch.setattr(Connection, "send_raw_transaction", lambda _, raw: held.append(raw))
    monkeypatch.setattr(closer.sender, "wait", lambda number: wait(number, 0.1))
    return held


async def test_after_a_close_that_was_not_confirmed_no_voucher_is_taken(
    quiet: Shop, furnished: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    shop, channel = quiet, await quiet.opened()
    await shop.pay(channel, PRICE)
    with pytest.MonkeyPatch.context() as patched:
        held = _lose_transactions(shop, patched)
        response = await shop.close(channel, PRICE)
    assert (response.status_code, len({*held})) == (503, 1)

    refused = await shop.pay(channel, 2 * PRICE)
    with opened_shop(furnished, tmp_path, payer, watches=False) as another_worker:
        refused_there = await another_worker.pay(channel, 3 * PRICE)

    assert refused.json()["code"] == refused_there.json()["code"] == ChannelClosing.code
    shop.verifier._link.contract.connection.send_raw_transaction(held[0])
    (view,) = shop.verifier._link.views([channel.channel])
    assert view.state.settled == shop.spent(channel) == PRICE


async def test_a_close_that_was_not_confirmed_may_be_asked_for_again(quiet: Shop) -> None:
    shop, channel = quiet, await quiet.opened()
    await shop.pay(channel, PRICE)
    with pytest.MonkeyPatch.context() as patched:
        held = _lose_transactions(shop, patched)
        unconfirmed = [await shop.close(channel, PRICE) for _ in range(2)]
    assert {answer.status_code for answer in unconfirmed} == {503}
    assert len({*held}) == 1
    assert (await shop.pay(channel, 2 * PRICE)).json()["code"] == ChannelClosing.code

    response = await shop.close(channel, PRICE)

    assert (response.status_code, response.json()["settled"]) == (200, str(PRICE))
