"""A payee that carries the gas: what it sends, what it refuses, and what that costs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from eth_account import Account

from channelpay.chain.contract import Erc20
from channelpay.chain.outgoing import TransactionSender
from channelpay.chain.sender import Sender, not_confirmed
from channelpay.chain.types import TransactionReceipt
from channelpay.errors import ConfigError
from channelpay.payee.carrier import Carrying
from channelpay.protocol.funding import PERMIT2, FundingMethod, TransferAuthorization
from channelpay.protocol.transactions import TransactionStatus
from channelpay.protocol.types import ChannelStatus
from channelpay.protocol.wire import SessionRequest
from channelpay.store import SqliteStore
from channelpay.testing.furnished import FurnishedChain
from tests.payee.carrying import (
    CARRYING,
    Poor,
    carried,
    carrying_shop,
    permit2_at_its_place,
    poor_payer,
)
from tests.payee.shop import DEPOSIT, PRICE, Shop, opened_shop
from tests.payee.shop import Payer as RichPayer

pytestmark = pytest.mark.anyio


@pytest.fixture
def poor(furnished: FurnishedChain) -> Poor:
    return poor_payer(furnished)


@pytest.fixture
def shop(furnished: FurnishedChain, tmp_path: Path) -> Iterator[Shop]:
    with carrying_shop(furnished, tmp_path) as shop:
        yield shop


async def test_one_request_opens_the_channel_and_is_paid(shop: Shop, poor: Poor) -> None:
    channel = poor.channel()
    payload = poor.open(poor.sign(poor.authorization(channel)), channel)

    response = await shop.get("/page", shop.header(payload), key="one")

    assert (response.status_code, response.text) == (200, "content")
    assert poor.contract.state(channel).deposit == DEPOSIT
    (sent,) = carried(shop)
    assert sent.status is TransactionStatus.CONFIRMED
    assert sent.fee_wei
    assert poor.connection.balance_wei(poor.account.address) == 0

    again = await shop.get("/page", shop.header(payload), key="one")

    assert again.status_code == 200
    assert len(carried(shop)) == 1


async def test_a_challenge_says_what_is_carried(shop: Shop) -> None:
    asked = SessionRequest.decode(shop.challenge().request)

    assert asked.carried is not None
    assert asked.carried.methods == (FundingMethod.EIP3009,)
    assert asked.carried.deposit_min == 1_000_000  # The suggested deposit.
    assert asked.takes_hash


async def test_permit2_opens_a_channel_for_a_token_that_was_approved(
    furnished: FurnishedChain, poor: Poor, tmp_path: Path
) -> None:
    """The allowance is a transaction that somebody has to have sent once."""
    payer = replace(poor, account=furnished.accounts[1])
    channel = payer.channel(b"permit2".ljust(32, b"\0"))
    with permit2_at_its_place(furnished), carrying_shop(furnished, tmp_path) as shop:
        _approve_permit2(shop.payer, furnished)
        signed = payer.sign(payer.authorization(channel, method=FundingMethod.PERMIT2))
        response = await shop.get("/page", shop.header(payer.open(signed, channel)))

        adding = payer.top_up(channel, DEPOSIT, method=FundingMethod.PERMIT2)
        added = await shop.get("/page", shop.header(adding))

        assert (response.status_code, added.status_code) == (200, 204)
        assert poor.contract.state(channel).deposit == 2 * DEPOSIT
        assert len(carried(shop)) == 2


async def test_a_top_up_is_carried_once(shop: Shop, poor: Poor) -> None:
    channel = poor.channel()
    await _opened(shop, poor)
    header = shop.header(poor.top_up(channel, DEPOSIT))

    answers = [(await shop.get("/page", header)).status_code for _ in range(2)]

    assert answers == [204, 204]
    assert poor.contract.state(channel).deposit == 2 * DEPOSIT
    assert [one.purpose.split()[1] for one in carried(shop)] == ["open", "top-up"]


@pytest.mark.parametrize("flaw", ["signature", "recipient", "amount", "ended", "voucher", "payee"])
async def test_what_cannot_be_sent_costs_no_gas(shop: Shop, poor: Poor, flaw: str) -> None:
    channel = poor.channel()
    if flaw == "payee":
        channel = replace(channel, payee=poor.furnished.accounts[3].address)
    authorization = poor.authorization(channel, seconds=5 if flaw == "ended" else 600)
    assert isinstance(authorization, TransferAuthorization)
    signed = poor.sign(authorization, b"\x08" * 32 if flaw == "signature" else None)
    if flaw == "recipient":
        signed = poor.sign(replace(authorization, to=poor.account.address))
    if flaw == "amount":
        signed = replace(signed, authorization=replace(authorization, amount=2 * DEPOSIT))
    payload = poor.open(signed, channel, 2 * DEPOSIT if flaw == "voucher" else PRICE)

    response = await shop.get("/page", shop.header(payload))

    assert (response.status_code, response.json()["code"]) == {
        "signature": (402, "invalid-signature"),
        "recipient": (402, "invalid-signature"),
        "amount": (402, "invalid-signature"),
        "ended": (402, "gas-not-carried"),
        "voucher": (402, "amount-exceeds-deposit"),
        "payee": (410, "channel-not-found"),
    }[flaw]
    assert not carried(shop)
    assert poor.contract.state(channel).status is ChannelStatus.ABSENT


async def test_an_account_without_so_many_tokens_costs_no_gas(shop: Shop, poor: Poor) -> None:
    channel = poor.channel()
    payload = poor.open(poor.sign(poor.authorization(channel, 100 * DEPOSIT)), channel)

    response = await shop.get("/page", shop.header(payload))

    assert (response.status_code, response.json()["code"]) == (409, "transaction-reverted")
    assert not carried(shop)


@pytest.mark.parametrize(
    ("carrying", "amount", "reason"),
    [
        (replace(CARRYING, gas_price_max_wei=1), DEPOSIT, "gas is too dear"),
        (replace(CARRYING, budget_wei=1), DEPOSIT, "budget of these 24 hours"),
        (replace(CARRYING, payer_max=0), DEPOSIT, "often enough today"),
        (CARRYING, 999_999, "1000000 base units or more"),
    ],
)
async def test_beyond_a_bound_nothing_is_sent(
    furnished: FurnishedChain,
    poor: Poor,
    tmp_path: Path,
    carrying: Carrying,
    amount: int,
    reason: str,
) -> None:
    channel = poor.channel()
    with carrying_shop(furnished, tmp_path, carrying) as shop:
        payload = poor.open(poor.sign(poor.authorization(channel, amount)), channel)

        response = await shop.get("/page", shop.header(payload))

        assert (response.status_code, response.json()["code"]) == (402, "gas-not-carried")
        assert reason in response.json()["detail"]
        assert not carried(shop)


async def test_a_payer_gets_so_many_a_day_also_if_they_fail(
    furnished: FurnishedChain, poor: Poor, tmp_path: Path
) -> None:
    with carrying_shop(furnished, tmp_path, replace(CARRYING, payer_max=2)) as shop:
        codes = []
        for number in range(3):
            channel = poor.channel(bytes(27) + bytes([number + 1]) + bytes(4))
            payload = poor.open(poor.sign(poor.authorization(channel)), channel)
            codes.append((await shop.get("/page", shop.header(payload))).status_code)

        assert codes == [200, 200, 402]
        assert len(carried(shop)) == 2


async def test_while_the_budget_is_used_up_nothing_is_offered(
    furnished: FurnishedChain, poor: Poor, tmp_path: Path
) -> None:
    channel = poor.channel()
    with carrying_shop(furnished, tmp_path, replace(CARRYING, budget_wei=1)) as shop:
        payload = poor.open(poor.sign(poor.authorization(channel)), channel)
        await shop.get("/page", shop.header(payload))

        assert SessionRequest.decode(shop.challenge().request).carried is None


async def test_what_somebody_else_sent_first_is_found_and_costs_nothing(
    shop: Shop, poor: Poor
) -> None:
    channel = poor.channel()
    signed = poor.sign(poor.authorization(channel))
    relay = Sender(poor.connection, Account.from_key(poor.furnished.accounts[4].private_key))
    relay.send(poor.contract.open_signed(channel, signed))

    response = await shop.get("/page", shop.header(poor.open(signed, channel)))

    assert response.status_code == 200, response.text
    assert not carried(shop)


async def test_an_authorization_used_while_ours_waits_is_found_too(
    shop: Shop, poor: Poor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody copies it out of the mempool: our transaction fails, and the channel is there."""
    channel = poor.channel()
    signed = poor.sign(poor.authorization(channel))
    relay = Sender(poor.connection, Account.from_key(poor.furnished.accounts[4].private_key))
    broadcast = TransactionSender._broadcast

    def late(self: TransactionSender, one: object) -> object:
        if poor.contract.state(channel).status is ChannelStatus.ABSENT:
            relay.send(poor.contract.open_signed(channel, signed))
        return broadcast(self, one)  # type: ignore[arg-type]

    monkeypatch.setattr(TransactionSender, "_broadcast", late)
    response = await shop.get("/page", shop.header(poor.open(signed, channel)))

    assert response.status_code == 200, response.text
    (ours,) = carried(shop)
    assert ours.status is TransactionStatus.FAILED


@pytest.mark.parametrize("place", ["before the node had it", "before it saw it mined"])
async def test_a_payee_that_died_while_sending_goes_on_with_what_it_sent(
    furnished: FurnishedChain,
    poor: Poor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    channel = poor.channel()
    payload = poor.open(poor.sign(poor.authorization(channel)), channel)

    def die(*_: object, **__: object) -> TransactionReceipt:
        raise not_confirmed("the process ends here", bytes(32))

    with carrying_shop(furnished, tmp_path, watches=False) as shop:
        monkeypatch.setattr(TransactionSender, "wait", die)
        if place == "before the node had it":
            monkeypatch.setattr(TransactionSender, "_broadcast", lambda *_: None)
        waiting = await shop.get("/page", shop.header(payload))
        monkeypatch.undo()
        assert (waiting.status_code, waiting.json()["code"]) == (402, "too-few-confirmations")
        assert waiting.headers["retry-after"]
        with closing(SqliteStore(shop.books)) as store:
            assert store.record(payload.voucher.channel_id) is None

    with carrying_shop(furnished, tmp_path, watches=False) as shop:
        response = await shop.get("/page", shop.header(payload))

        assert response.status_code == 200, response.text
        assert len(carried(shop)) == 1


async def test_two_workers_send_one_transaction(
    furnished: FurnishedChain, poor: Poor, tmp_path: Path
) -> None:
    channel = poor.channel()
    payload = poor.open(poor.sign(poor.authorization(channel)), channel)
    secret = b"s" * 32
    with (
        carrying_shop(furnished, tmp_path, challenge_secret=secret) as one,
        carrying_shop(furnished, tmp_path, watches=False, challenge_secret=secret) as other,
    ):
        header = one.header(payload)
        answers = await _together(one, other, header)

        assert set(answers) <= {200, 402}
        assert (await other.get("/page", header, key="later")).status_code in {200, 402}
        assert len(carried(one)) == 1


async def test_a_shop_that_does_not_carry_refuses(
    furnished: FurnishedChain, poor: Poor, tmp_path: Path
) -> None:
    channel = poor.channel()
    with opened_shop(furnished, tmp_path, RichPayer(furnished)) as shop:
        payload = poor.open(poor.sign(poor.authorization(channel)), channel)
        response = await shop.get("/page", shop.header(payload))

        assert (response.status_code, response.json()["code"]) == (400, "method-unsupported")


def test_ether_alone_cannot_be_carried(furnished: FurnishedChain, tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="none of the tokens"),
        carrying_shop(furnished, tmp_path, token="eth", prices=[]),
    ):
        pass


async def _opened(shop: Shop, poor: Poor) -> None:
    channel = poor.channel()
    payload = poor.open(poor.sign(poor.authorization(channel)), channel)
    assert (await shop.get("/page", shop.header(payload))).status_code == 200


async def _together(one: Shop, other: Shop, header: str) -> list[int]:
    answers: list[int] = []

    async def ask(shop: Shop, key: str) -> None:
        answers.append((await shop.get("/page", header, key=key)).status_code)

    async with anyio.create_task_group() as group:
        group.start_soon(ask, one, "one")
        group.start_soon(ask, other, "other")
    return answers


def _approve_permit2(rich: RichPayer, furnished: FurnishedChain) -> None:
    token = Erc20(rich.sender.connection, furnished.token)
    rich.sender.send(token.approve(PERMIT2, 2**255))
