"""The cooperative close: what the payer offers, and what it makes of the answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from channelpay.errors import (
    ChannelNotFound,
    ConfigError,
    InputError,
    NetworkError,
    PaymentRefused,
)
from channelpay.payer.closing import Closed, CloseSession, ForeseenClose
from channelpay.payer.records import PayerChannel
from channelpay.payer.steps import Answer, Send, Wait
from channelpay.protocol.eip712 import VoucherHasher
from channelpay.protocol.types import Address, ChannelId
from channelpay.protocol.wire import ClosePayload, Credential, OpenPayload, Receipt
from tests.payer.selling import Reading
from tests.payer.site import DEPLOYMENT, NOW, URL, Ground, Site, refused

HASH = b"\x0c" * 32


def receipt_of(entry: PayerChannel, **changes: Any) -> str:
    fields: dict[str, Any] = {
        "channel_id": entry.channel_id,
        "chain_id": 31337,
        "challenge_id": "c",
        "accepted": 2,
        "spent": 1,
        "timestamp": NOW,
        "transaction_hash": HASH,
    }
    return Receipt(**(fields | changes)).to_header()


def closing(ground: Ground, entry: PayerChannel, url: str = URL, **terms: Any) -> Any:
    return CloseSession(ground.terms(**terms), ground.state, entry, url, ground.clock).run()


def paid_channel(ground: Ground) -> PayerChannel:
    """A channel on which 2 are signed and 1 is spent."""
    entry = ground.open()
    ground.pay()
    ground.site.failing = True
    ground.pay()
    ground.site.failing = False
    return ground.state.channel(entry.channel_id)


def test_the_voucher_is_for_exactly_what_was_spent(ground: Ground) -> None:
    entry = paid_channel(ground)
    assert (entry.signed, entry.spent) == (2, 1)
    steps = closing(ground, entry)
    step = next(steps)
    payload = Credential.parse(step.headers["Authorization"]).payload
    assert isinstance(payload, ClosePayload)
    assert step.bare
    assert payload.voucher.cumulative_amount == 1
    VoucherHasher(DEPLOYMENT).check(payload.voucher, ground.payer)
    with pytest.raises(StopIteration) as end:
        steps.send(Answer(200, URL, receipt=receipt_of(entry)))
    assert isinstance(end.value.value, Closed)
    assert end.value.value.transaction_hash == HASH


def test_without_a_known_challenge_the_site_is_asked_for_one(ground: Ground, site: Site) -> None:
    entry = ground.open()
    steps = closing(ground, entry)
    assert next(steps) == Send({}, bare=True)
    step = steps.send(Answer(402, URL, challenges=(site.challenge(1),)))
    assert "Authorization" in step.headers


def foreseeing(ground: Ground, entry: PayerChannel, url: str = URL) -> Any:
    return CloseSession(ground.terms(), ground.state, entry, url, ground.clock).foresee()


def test_a_close_is_foreseen_by_what_the_payee_charged_and_nothing_changes(ground: Ground) -> None:
    entry = paid_channel(ground)
    signed = list(ground.signed)
    steps: list[Any] = []

    _, seen = ground.drive(foreseeing(ground, entry), URL, steps.append)

    assert seen == ForeseenClose(entry, URL, settled=1)
    assert [(step.bare, step.method) for step in steps] == [(True, None), (True, "HEAD")]
    assert ground.signed == signed
    assert ground.state.channel(entry.channel_id) == entry


@pytest.mark.parametrize(
    ("known", "told", "settled"),
    [
        ({}, {"spent": 1, "accepted": 2}, 1),
        ({}, {"spent": 2, "accepted": 2}, 2),
        ({"spent": 2}, {"spent": 1, "accepted": 2}, 2),
        ({"unsure": True, "credible": 7, "signed": 9}, {"spent": 6, "accepted": 9}, 6),
        ({"unsure": True, "credible": 5, "signed": 9}, {"spent": 6, "accepted": 9}, 9),
        ({"in_doubt": True, "signed": 9}, {"spent": 6, "accepted": 9}, 6),
        ({}, {"spent": 10**9, "accepted": 10**9}, 100),
    ],
    ids=["as known", "more", "less", "unsure", "beyond belief", "in doubt", "a lie"],
)
def test_a_payee_that_charged_more_than_the_close_offers_takes_all_that_it_can(
    ground: Ground, site: Site, known: dict[str, Any], told: dict[str, int], settled: int
) -> None:
    entry = replace(paid_channel(ground), **known)
    site.scripted = [
        Answer(402, URL, challenges=(site.challenge(1),)),
        Answer(200, URL, receipt=receipt_of(entry, **told)),
    ]

    _, seen = ground.drive(foreseeing(ground, entry), URL)

    assert seen.settled == settled


def test_a_close_is_foreseen_elsewhere_without_showing_a_voucher(ground: Ground) -> None:
    """Whoever is shown it could spend what is left of it."""
    entry = paid_channel(ground)
    steps: list[Any] = []

    ground.drive(foreseeing(ground, entry, "https://other.example/"), URL, steps.append)

    assert steps == [Send({}, bare=True)]


def test_what_cannot_be_closed_is_not_foreseen(ground: Ground) -> None:
    steps = foreseeing(ground, paid_channel(ground))
    next(steps)
    with pytest.raises(InputError, match="asks for no payment"):
        steps.send(Answer(200, URL))


def test_a_stale_challenge_is_replaced_once(ground: Ground, site: Site) -> None:
    entry = paid_channel(ground)
    steps = closing(ground, entry)
    next(steps)
    stale = Answer(402, URL, challenges=(site.challenge(1),), problem={"code": "invalid-challenge"})
    assert "Authorization" in steps.send(stale).headers
    with pytest.raises(PaymentRefused):
        steps.send(stale)


def test_a_busy_payee_is_waited_for(ground: Ground) -> None:
    entry = paid_channel(ground)
    steps = closing(ground, entry)
    next(steps)
    assert steps.send(Answer(503, URL, retry_after="4")) == Wait(4.0)
    assert isinstance(steps.send(None), Send)


def test_a_free_address_cannot_close(ground: Ground) -> None:
    steps = closing(ground, ground.open())
    next(steps)
    with pytest.raises(InputError, match="asks for no payment"):
        steps.send(Answer(200, URL))


def test_another_payees_address_cannot_close(ground: Ground, site: Site) -> None:
    site.request_fields = {"recipient": Address(b"\x02" * 20)}
    steps = closing(ground, ground.open())
    next(steps)
    with pytest.raises(PaymentRefused, match="does not belong"):
        steps.send(Answer(402, URL, challenges=(site.challenge(1),)))


def test_the_credential_does_not_go_over_plain_http(ground: Ground) -> None:
    with pytest.raises(ConfigError, match="plain http"):
        next(closing(ground, ground.open(), "http://site.example/"))


@pytest.mark.parametrize(
    "changes",
    [{"channel_id": bytes(32)}, {"transaction_hash": None}],
    ids=["other channel", "no transaction"],
)
def test_an_answer_without_our_receipt_is_no_close(ground: Ground, changes: dict[str, Any]) -> None:
    entry = paid_channel(ground)
    steps = closing(ground, entry)
    next(steps)
    with pytest.raises(PaymentRefused, match="without a receipt"):
        steps.send(Answer(200, URL, receipt=receipt_of(entry, **changes)))


def test_a_refusal_becomes_its_error_with_the_way_out(ground: Ground) -> None:
    entry = paid_channel(ground)
    steps = closing(ground, entry)
    next(steps)
    with pytest.raises(ChannelNotFound, match=r"what .*channel") as refusal:
        steps.send(refused(410, "channel-not-found", detail="what \x1b[31mchannel"))
    assert "close --request" in refusal.value.hint
    assert refusal.value.detail.startswith("the site says: ")
    assert "\x1b" not in str(refusal.value)


def test_a_payee_in_trouble_is_a_network_error(ground: Ground) -> None:
    steps = closing(ground, paid_channel(ground))
    next(steps)
    with pytest.raises(NetworkError):
        steps.send(Answer(502, URL))


def test_a_channel_that_was_never_used_is_presented_before_it_is_closed(
    ground: Ground, site: Site
) -> None:
    steps = closing(ground, ground.open())
    next(steps)
    opening = steps.send(Answer(402, URL, challenges=(site.challenge(1),)))
    close = steps.send(refused(402, "insufficient-balance"))

    first, second = (
        Credential.parse(step.headers["Authorization"]).payload for step in (opening, close)
    )
    assert isinstance(first, OpenPayload)
    assert isinstance(second, ClosePayload)
    assert first.voucher.cumulative_amount == second.voucher.cumulative_amount == 0


@pytest.fixture
def unsure(ground: Ground, site: Site) -> PayerChannel:
    """A channel of which 30 were promised to a response that broke off after it had cost 4."""
    site.metered, site.media_type = True, "text/event-stream"
    site.request_fields = {"unit_type": "token"}
    ground.limits = replace(ground.limits, metered_max=30, ahead=30)
    broken = Reading(ground, [1] * 10)
    broken.selling.content(4)
    broken.metered.settle()
    (entry,) = ground.state.channels(ground.payer)
    assert (entry.signed, entry.spent) == (30, 0)
    return entry


def test_after_a_response_that_broke_off_the_payee_is_asked_what_it_charged(
    ground: Ground, site: Site, unsure: PayerChannel
) -> None:
    steps = closing(ground, unsure)
    asking = next(steps)
    assert (asking.bare, asking.head) == (True, True)
    close = steps.send(site.answer(URL, asking))
    payload = Credential.parse(close.headers["Authorization"]).payload
    assert isinstance(payload, ClosePayload)
    assert payload.voucher.cumulative_amount == 4


@pytest.mark.parametrize(
    "receipt",
    [None, "nonsense", Receipt(ChannelId(bytes(32)), 31337, "c", 9, 9, NOW).to_header(), 31],
    ids=["none", "malformed", "another channel", "over what was signed"],
)
def test_a_payee_that_does_not_tell_closes_with_what_is_known(
    ground: Ground, unsure: PayerChannel, receipt: str | int | None
) -> None:
    if isinstance(receipt, int):
        receipt = receipt_of(unsure, spent=receipt)
    steps = closing(ground, unsure)
    next(steps)
    close = steps.send(Answer(200, URL, receipt=receipt))
    payload = Credential.parse(close.headers["Authorization"]).payload
    assert isinstance(payload, ClosePayload)
    assert payload.voucher.cumulative_amount == 0
