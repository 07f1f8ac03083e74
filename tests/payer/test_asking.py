"""What a site offers and what it would cost this payer: asked without signing anything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from channelpay.errors import ConfigError
from channelpay.payer.asking import OFFERS_MAX, Asking, Offered, offers_in
from channelpay.payer.steps import Answer, Send
from channelpay.protocol.notes import PriceNote
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import NATIVE, ChannelId
from channelpay.protocol.wire import Credential, Receipt, VoucherPayload
from tests.payer.site import URL, Ground, Site

NOTE = PriceNote(10, 7, (("sale", -3),), credit=4, points=5)
ONE = {
    "id": "0123456789abcdef",
    "kind": "volume",
    "label": "volume discount",
    "amounts": {to_hex(NATIVE): "8"},
    "terms": "20 % off",
}


class TellingSite(Site):
    """Says in its receipts what things cost."""

    def receipt(self, channel_id: ChannelId) -> Receipt:
        return replace(super().receipt(channel_id), price=NOTE)


@pytest.fixture
def site() -> Site:
    return TellingSite()


def refusal(**problem: Any) -> Answer:
    challenge = Site().challenge(10)
    return Answer(402, URL, (challenge,), problem=problem)


def test_what_a_site_lists_is_read_as_far_as_it_is_well_formed() -> None:
    broken: list[Any] = [3, {}, ONE | {"amounts": {"0x12": "8"}}, ONE | {"label": ""}]

    found = offers_in(refusal(offers=[ONE, *broken]))

    assert found == [
        Offered("0123456789abcdef", "volume", "volume discount", {NATIVE: 8}, "20 % off")
    ]
    assert len(offers_in(refusal(offers=[ONE] * (OFFERS_MAX + 1)))) == OFFERS_MAX


def test_of_a_site_that_lists_nothing_the_challenges_say_what_it_asks() -> None:
    (found,) = offers_in(refusal())

    assert (found.kind, dict(found.amounts)) == ("per-request", {NATIVE: 10})
    assert offers_in(Answer(200, URL)) == []


def test_the_own_price_is_asked_with_the_last_voucher_and_head(ground: Ground) -> None:
    entry = ground.open()
    ground.pay()
    signed = list(ground.signed)
    seen: list[Send] = []

    steps = Asking(ground.state, ground.payer, refusal()).run()
    _, own = ground.drive(steps, URL, seen.append)  # type: ignore[arg-type]

    assert own.price == NOTE
    assert own.channel.channel_id == entry.channel_id
    (step,) = seen
    payload = Credential.parse(step.headers["Authorization"]).payload
    assert isinstance(payload, VoucherPayload)
    assert payload.voucher.cumulative_amount == ground.state.channel(entry.channel_id).signed
    assert (step.head, step.bare) == (True, True)
    assert ground.signed == signed


def test_a_channel_that_never_paid_is_not_shown(ground: Ground) -> None:
    ground.open()

    steps = Asking(ground.state, ground.payer, refusal()).run()

    with pytest.raises(StopIteration) as stopped:
        next(steps)
    assert stopped.value.value is None


def test_a_voucher_is_shown_only_where_its_channel_was_used(ground: Ground) -> None:
    """Another site may name the same payee, whose address is public."""
    ground.open()
    ground.pay()
    answer = replace(refusal(), url="https://other.example/page")

    with pytest.raises(StopIteration) as stopped:
        next(Asking(ground.state, ground.payer, answer).run())
    assert stopped.value.value is None


def test_no_credential_goes_over_plain_http(ground: Ground) -> None:
    ground.open()
    ground.pay()
    answer = replace(refusal(), url="http://site.example/page")

    with pytest.raises(ConfigError, match="over plain http"):
        next(Asking(ground.state, ground.payer, answer).run())
