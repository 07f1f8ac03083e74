"""A payer without ether, and a shop that carries the gas: both as programs use them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from channelpay.errors import InsufficientFunds
from channelpay.payer.client import Payer
from channelpay.payer.gasless import GasChoice, Gasless
from channelpay.protocol.types import ChannelId, ChannelStatus
from channelpay.protocol.wire import SessionRequest
from channelpay.testing.furnished import FurnishedChain, give
from tests.payee.carrying import (
    CARRYING,
    Poor,
    carried,
    carrying_shop,
    client_of,
    poor_payer,
    program_of,
)
from tests.payee.shop import DEPOSIT, PRICE, Shop, opened_shop
from tests.payee.shop import Payer as RichPayer

pytestmark = pytest.mark.anyio


@pytest.fixture
def poor(furnished: FurnishedChain) -> Poor:
    return poor_payer(furnished)


@pytest.fixture
def shop(furnished: FurnishedChain, tmp_path: Path) -> Iterator[Shop]:
    least = {furnished.token: PRICE}
    with carrying_shop(furnished, tmp_path, replace(CARRYING, deposit_min=least)) as shop:
        yield shop


@pytest.fixture
def payer(poor: Poor, tmp_path: Path) -> Iterator[Payer]:
    with program_of(poor, tmp_path) as payer:
        yield payer


async def test_an_account_without_ether_pays(shop: Shop, payer: Payer, poor: Poor) -> None:
    costs = [await _paid(shop, payer) for _ in range(3)]

    assert costs == [PRICE] * 3
    (entry,) = payer.state.channels(payer.address)
    assert (entry.status, entry.spent, entry.authorized) == (ChannelStatus.OPEN, 3 * PRICE, None)
    assert poor.contract.state(entry.channel).deposit == DEPOSIT
    assert len(carried(shop)) == 1


async def test_requests_at_the_same_time_open_one_channel(shop: Shop, payer: Payer) -> None:
    costs = []

    async def buy() -> None:
        costs.append(await _paid(shop, payer))

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(buy)

    assert costs == [PRICE] * 4
    assert len(payer.channels()) == 1
    assert len(carried(shop)) == 1


async def test_a_channel_that_is_used_up_is_topped_up_by_the_payee(
    shop: Shop, poor: Poor, tmp_path: Path
) -> None:
    with program_of(poor, tmp_path, deposit=2 * PRICE, top_up=2 * PRICE) as payer:
        costs = [await _paid(shop, payer) for _ in range(3)]

        assert costs == [PRICE] * 3
        (entry,) = payer.channels()
        assert (entry.deposit, entry.spent) == (4 * PRICE, 3 * PRICE)
        assert [one.purpose.split()[1] for one in carried(shop)] == ["open", "top-up"]


async def test_who_died_after_signing_goes_on_with_the_same_channel(
    shop: Shop, poor: Poor, tmp_path: Path
) -> None:
    with program_of(poor, tmp_path) as payer:
        signed = _signed_open(shop, payer)
    with program_of(poor, tmp_path) as payer:
        await _paid(shop, payer)

        assert [one.channel_id for one in payer.channels()] == [signed]
        assert len(carried(shop)) == 1


async def test_who_died_after_signing_a_top_up_adds_it_once(
    shop: Shop, poor: Poor, tmp_path: Path
) -> None:
    with program_of(poor, tmp_path, deposit=PRICE, top_up=PRICE) as payer:
        await _paid(shop, payer)
        (entry,) = payer.channels()
        payer.wallet.top_up(entry.channel_id, PRICE, entry.deposit, _choice(shop))
        assert payer.state.signed.of(entry.channel_id) is not None
        assert payer.wallet.top_up(entry.channel_id, PRICE) is None
    with program_of(poor, tmp_path, deposit=PRICE, top_up=PRICE) as payer:
        await _paid(shop, payer)

        (entry,) = payer.channels()
        assert (entry.deposit, entry.spent) == (2 * PRICE, 2 * PRICE)
        assert payer.state.signed.of(entry.channel_id) is None
        assert len(carried(shop)) == 2


async def test_what_nobody_used_runs_out_and_another_channel_takes_its_place(
    shop: Shop, payer: Payer, poor: Poor, furnished: FurnishedChain
) -> None:
    signed = _signed_open(shop, payer)
    snapshot = furnished.chain.snapshot()
    furnished.advance(700)

    assert payer.channels() == []
    await _paid(shop, payer)

    (entry,) = payer.channels()
    assert entry.channel_id != signed
    assert poor.contract.state(entry.channel).status is ChannelStatus.OPEN
    furnished.chain.revert(snapshot)


async def test_who_has_ether_pays_for_its_own_gas(shop: Shop, payer: Payer, poor: Poor) -> None:
    give(poor.furnished, poor.account.address, 10**18, 0)

    await _paid(shop, payer)

    assert not carried(shop)


async def test_gas_can_be_left_to_the_payee_all_the_same(
    shop: Shop, poor: Poor, tmp_path: Path
) -> None:
    give(poor.furnished, poor.account.address, 10**18, 0)
    with program_of(poor, tmp_path, Gasless.ALWAYS) as payer:
        await _paid(shop, payer)

    assert len(carried(shop)) == 1


async def test_who_wants_nothing_carried_needs_ether(
    shop: Shop, poor: Poor, tmp_path: Path
) -> None:
    with program_of(poor, tmp_path, Gasless.NEVER) as payer:
        with pytest.raises(InsufficientFunds):
            await _paid(shop, payer)

        assert not carried(shop)
        assert payer.channels() == []


async def test_own_ether_opens_the_very_channel_that_was_signed_for(
    furnished: FurnishedChain, poor: Poor, tmp_path: Path
) -> None:
    """The site stopped to carry the gas, and may still use what it was given."""
    with program_of(poor, tmp_path) as payer:
        with carrying_shop(furnished, tmp_path) as shop:
            signed = _signed_open(shop, payer)
        give(furnished, poor.account.address, 10**18, 0)
        with opened_shop(furnished, tmp_path, RichPayer(furnished)) as shop:
            await _paid(shop, payer)

        assert [one.channel_id for one in payer.channels()] == [signed]


async def test_a_refusal_is_the_answer_and_locks_nothing(
    furnished: FurnishedChain, poor: Poor, tmp_path: Path
) -> None:
    with (
        carrying_shop(furnished, tmp_path, replace(CARRYING, payer_max=0)) as shop,
        program_of(poor, tmp_path) as payer,
    ):
        async with client_of(shop, payer) as client:
            response = await client.get("/page")

        assert response.status_code == 402
        assert response.json()["code"] == "gas-not-carried"
        (entry,) = payer.channels()
        assert poor.contract.state(entry.channel).status is ChannelStatus.ABSENT
        assert poor.tokens == 10 * DEPOSIT


async def _paid(shop: Shop, payer: Payer) -> int:
    """Buy a page, and say what it cost."""
    async with client_of(shop, payer) as client:
        response = await client.get("/page")
    assert response.status_code == 200, response.text
    paid: Any = response.extensions["channelpay"]
    return int(paid.cost)


def _choice(shop: Shop) -> GasChoice:
    return GasChoice.of(SessionRequest.decode(shop.challenge().request), Gasless.AUTO)


def _signed_open(shop: Shop, payer: Payer) -> ChannelId:
    """What a program has in its books that ended right after it signed."""
    request = SessionRequest.decode(shop.challenge().request)
    opened = payer.wallet.open_unless_usable(
        request.recipient, request.currency, DEPOSIT, None, _choice(shop)
    )
    assert opened is None
    (entry,) = payer.state.channels(payer.address)
    assert entry.authorized is not None
    return entry.channel_id
