"""What a payee lets stand open, and when it sells nothing at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from channelpay.errors import (
    ChainBehind,
    ChannelClosing,
    ConfigError,
    RiskLimitReached,
    StoreUnavailable,
)
from channelpay.payee import PaymentMiddleware, PriceRule
from channelpay.payee import acceptance as acceptance_module
from channelpay.payee.acceptance import (
    CONFIRMATIONS_MAX,
    FIRST_SECONDS,
    Acceptance,
    Confirmations,
    Followed,
    Guard,
)
from channelpay.payee.follower import Follower, followed_cursor
from channelpay.payee.policy import Kind
from channelpay.protocol.types import NATIVE, Address
from channelpay.protocol.wire import VoucherPayload
from channelpay.store import MemoryStore
from channelpay.testing.furnished import FurnishedChain
from tests.payee.shop import (
    DEPOSIT,
    PRICE,
    Payer,
    Shop,
    challenges_of,
    opened_shop,
    wait_on_loop_for,
)

OTHER = Address(b"\x11" * 20)
GRACE_SECONDS = 86_400
NOW = 1_800_000_000.0


# --- confirmations -------------------------------------------------------------------------------


def test_an_amount_needs_what_the_highest_step_that_it_reaches_says() -> None:
    rules = Confirmations(2, {NATIVE: [(10, 3), (100, 12)]})

    assert [rules.needed(NATIVE, amount) for amount in (0, 9, 10, 99, 100, 10**30)] == [
        2,
        2,
        3,
        3,
        12,
        12,
    ]
    assert rules.needed(OTHER, 10**30) == 2
    assert rules.most == 12


@pytest.mark.parametrize(
    ("default", "steps"),
    [
        (0, []),
        (CONFIRMATIONS_MAX + 1, []),
        (1, [(10, 3), (10, 4)]),
        (1, [(10, 3), (5, 4)]),
        (1, [(10, 4), (20, 3)]),
        (5, [(10, 4)]),
        (1, [(-1, 4)]),
        (1, [(10, CONFIRMATIONS_MAX + 1)]),
    ],
)
def test_steps_that_do_not_rise_are_refused(default: int, steps: list[tuple[int, int]]) -> None:
    with pytest.raises(ConfigError):
        Confirmations(default, {NATIVE: steps})


# --- the chain that was not followed -------------------------------------------------------------


def test_unless_said_otherwise_half_of_the_grace_period_is_left_but_no_more_than_six_hours() -> (
    None
):
    assert Acceptance().unseen_seconds_max(600) == 300
    assert Acceptance().unseen_seconds_max(GRACE_SECONDS) == 18 * 3600
    assert Acceptance(grace_min_seconds=3600).unseen_seconds_max(GRACE_SECONDS) == 23 * 3600


@pytest.mark.parametrize("least", [0, -1, GRACE_SECONDS, GRACE_SECONDS + 1])
def test_a_grace_period_that_leaves_nothing_is_refused(least: int) -> None:
    with pytest.raises(ConfigError):
        Acceptance(grace_min_seconds=least).unseen_seconds_max(GRACE_SECONDS)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@given(
    at=st.floats(NOW - 1e6, NOW, allow_nan=False),
    chain_time=st.integers(int(NOW) - 10**6, int(NOW) + 10**6),
    least=st.integers(1, GRACE_SECONDS - 1),
)
def test_a_close_requested_unseen_leaves_the_time_that_was_asked_for(
    at: float, chain_time: int, least: int
) -> None:
    """The earliest that it can have been requested is right after the last block that was seen,
    whenever it was seen.
    """
    store, clock = MemoryStore(), Clock()
    guard = Guard(Acceptance(grace_min_seconds=least), store, "followed", GRACE_SECONDS, clock)
    followed = Followed(at, chain_time)
    store.save_cursor("followed", str(followed)).result()
    guard.read_followed()

    unseen_since = min(float(f"{at:.3f}"), chain_time)
    assert guard.is_behind == (unseen_since + GRACE_SECONDS - NOW < least)


def test_books_that_nobody_ever_followed_for_are_usable_for_a_moment(clock: Clock) -> None:
    guard = Guard(Acceptance(), MemoryStore(), "followed", GRACE_SECONDS, clock)
    guard.read_followed()
    assert not guard.is_behind

    clock.now += FIRST_SECONDS + 1
    guard.read_followed()

    with pytest.raises(ChainBehind):
        guard.require_followed()


def test_a_guard_goes_on_reading_after_trouble_with_the_books(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(acceptance_module, "REREAD_SECONDS", 0.01)
    store = MemoryStore()
    guard = Guard(Acceptance(), store, "followed", GRACE_SECONDS)
    cursor, failures = store.cursor, iter([StoreUnavailable, ValueError])

    def fail_twice(name: str) -> str | None:
        error = next(failures, None)
        if error is not None:
            raise error("away")
        return cursor(name)

    guard.start()
    monkeypatch.setattr(store, "cursor", fail_twice)
    try:
        store.save_cursor("followed", str(Followed(1.0, 1))).result()
        deadline = time.monotonic() + 20
        while not guard.is_behind:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        guard.close()


# --- in a shop -----------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_nothing_is_sold_and_nobody_billed_while_the_chain_is_not_followed(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    with opened_shop(furnished, tmp_path, payer, watches=False) as shop:
        channel = await shop.opened()
        header = shop.header(VoucherPayload(channel.sign(PRICE)))
        _follow_last(shop, time.time() - GRACE_SECONDS)

        refused = await shop.get("/page", header)
        uninvited = await shop.get("/page")
        free = await shop.get("/free/page")
        _follow_last(shop, time.time())
        served = await shop.get("/page", header)

    assert (refused.status_code, refused.json()["code"]) == (503, ChainBehind.code)
    assert (uninvited.status_code, uninvited.json()["code"]) == (503, ChainBehind.code)
    assert refused.json()["hint"]
    assert int(refused.headers["retry-after"]) > 0
    assert challenges_of(refused) == challenges_of(uninvited) == []
    assert free.status_code == 200
    assert served.status_code == 200


def _follow_last(shop: Shop, at: float) -> None:
    """As a follower would have written it, and every process soon reads."""
    store = shop.verifier._store
    cursor = followed_cursor(shop.payee.terms)
    store.save_cursor(cursor, str(Followed(at, int(at)))).result()
    shop.payee.guard.read_followed()


@pytest.mark.anyio
async def test_a_payer_may_close_also_while_the_chain_is_not_followed(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    with opened_shop(furnished, tmp_path, payer, watches=False) as shop:
        channel = await shop.opened()
        assert (await shop.pay(channel, PRICE)).status_code == 200
        _follow_last(shop, time.time() - GRACE_SECONDS)

        assert (await shop.close(channel, PRICE)).status_code == 200


@pytest.mark.anyio
async def test_a_closing_channel_is_refused_by_every_process(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    """One of them follows, as soon as it has seen the request no other one sells on."""
    with (
        opened_shop(furnished, tmp_path, payer, watches=False) as one,
        opened_shop(furnished, tmp_path, payer, watches=False) as other,
    ):
        channel = await one.opened()
        assert (await other.pay(channel, PRICE)).status_code == 200
        payer.request_close(channel)
        verifier = one.verifier
        follower = Follower(one.payee.terms, verifier._link, verifier._store)
        await asyncio.to_thread(follower.step)

        refused = [await shop.pay(channel, 2 * PRICE) for shop in (one, other)]

    assert {answer.json()["code"] for answer in refused} == {ChannelClosing.code}


@pytest.fixture
def risky(furnished: FurnishedChain, payer: Payer, tmp_path: Path) -> Iterator[Shop]:
    """Two pages per channel and three in all may wait for their settlement."""
    acceptance = Acceptance(
        risk_max_per_channel={furnished.token: 2 * PRICE},
        risk_max_total={furnished.token: 3 * PRICE},
    )
    with opened_shop(furnished, tmp_path, payer, acceptance=acceptance, watches=False) as shop:
        yield shop


@pytest.mark.anyio
async def test_a_channel_does_not_cost_more_than_its_risk_before_it_is_settled(
    risky: Shop,
) -> None:
    channel = await risky.opened()
    served = [await risky.pay(channel, DEPOSIT) for _ in range(2)]

    refused = await risky.pay(channel, DEPOSIT)
    await _settle_all(risky)

    assert {answer.status_code for answer in served} == {200}
    assert (refused.status_code, refused.json()["code"]) == (503, RiskLimitReached.code)
    assert refused.json()["hint"]
    assert int(refused.headers["retry-after"]) > 0
    assert challenges_of(refused) == []
    assert (await risky.prove(channel, DEPOSIT)).status_code == 200


@pytest.mark.anyio
async def test_all_channels_together_do_not_cost_more_than_the_total_risk(risky: Shop) -> None:
    one, other = await risky.opened(), await risky.opened()
    for channel in (one, one, other):
        assert (await risky.pay(channel, DEPOSIT)).status_code == 200

    refused = await risky.pay(other, DEPOSIT)
    await _settle_all(risky)
    await wait_on_loop_for(lambda: not risky.payee.guard._risk.get(one.channel.token))

    assert (refused.status_code, refused.json()["code"]) == (503, RiskLimitReached.code)
    assert (await risky.prove(other, DEPOSIT)).status_code == 200


@pytest.mark.anyio
async def test_what_others_sell_counts_for_the_total_risk(
    risky: Shop, furnished: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    """A second process over the same books begins with what they say."""
    channels = [await risky.opened(), await risky.opened()]
    for channel in channels:
        await risky.pay(channel, DEPOSIT)
    acceptance = Acceptance(risk_max_total={furnished.token: 2 * PRICE})

    with opened_shop(furnished, tmp_path, payer, acceptance=acceptance, watches=False) as other:
        refused = await other.pay(channels[0], DEPOSIT)

    assert refused.json()["code"] == RiskLimitReached.code


async def _settle_all(shop: Shop) -> None:
    """With what the books hold; and read what became of it."""
    verifier = shop.verifier
    closer = verifier._closer
    assert closer is not None

    def settle() -> None:
        for record in verifier._store.owed():
            closer.wait(closer.send(Kind.SETTLE, [record]))

    await asyncio.to_thread(settle)


@pytest.mark.anyio
@pytest.mark.parametrize("is_total", [False, True], ids=["per channel", "total"])
async def test_a_metered_response_ends_at_the_risk(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path, is_total: bool
) -> None:
    async def charge_three(request: Request) -> Response:
        paid = request.scope["channelpay"]
        charged = 0
        try:
            for _ in range(3):
                await paid.charge(paid.price)
                charged += 1
        except RiskLimitReached as refusal:
            return PlainTextResponse(f"{charged} {refusal.code}")
        return PlainTextResponse("all")

    limit = {furnished.token: 2 * PRICE}
    acceptance = (
        Acceptance(risk_max_total=limit) if is_total else Acceptance(risk_max_per_channel=limit)
    )
    rules = [PriceRule("/words", "0.01", unit="word")]
    with opened_shop(
        furnished, tmp_path, payer, acceptance=acceptance, watches=False, prices=rules
    ) as shop:
        application = Starlette(routes=[Route("/words", charge_three)])
        shop.middleware = PaymentMiddleware(application, shop.payee)
        channel = payer.open()
        (challenge,) = shop.challenges("/words")
        payload = channel.open_payload(DEPOSIT)
        header = shop.header(payload, challenge, source=channel.source)

        response = await shop.get("/words", header)

    assert response.text == f"2 {RiskLimitReached.code}"


@pytest.mark.anyio
async def test_large_opens_wait_for_more_confirmations(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    rules = Confirmations(1, {furnished.token: [(DEPOSIT + 1, 3)]})
    with opened_shop(
        furnished, tmp_path, payer, acceptance=Acceptance(rules), watches=False
    ) as shop:
        small, large = payer.open(), payer.open(DEPOSIT + 1)

        accepted, too_early = await shop.open(small), await shop.open(large)
        furnished.chain.mine(2)
        header = shop.header(large.open_payload(PRICE), source=large.source)
        in_time = await shop.confirmed(header)

    assert (accepted.status_code, too_early.status_code) == (200, 402)
    assert in_time.status_code == 200


def test_confirmations_are_named_once(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    with (
        pytest.raises(ConfigError),
        opened_shop(furnished, tmp_path, payer, acceptance=Acceptance(), confirmations=2),
    ):
        raise AssertionError


def test_a_payee_that_could_not_answer_a_close_in_time_is_not_made(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    acceptance = Acceptance(grace_min_seconds=GRACE_SECONDS)
    with (
        pytest.raises(ConfigError),
        opened_shop(furnished, tmp_path, payer, acceptance=acceptance),
    ):
        raise AssertionError
