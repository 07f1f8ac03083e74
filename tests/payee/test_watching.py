"""What the payee learns from the chain by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelpay.chain.connection import Connection, connect
from channelpay.chain.contract import PaymentChannelsContract
from channelpay.chain.events import BlockCursor
from channelpay.errors import (
    ChainBehind,
    ChannelClosing,
    ChannelNotFound,
    ConfigError,
    NetworkError,
)
from channelpay.payee import daemon as daemon_module
from channelpay.payee import follower as follower_module
from channelpay.payee.acceptance import Confirmations, Followed
from channelpay.payee.chain_link import ChainLink
from channelpay.payee.follower import DENSE_BLOCKS, Follower, _extended, followed_cursor
from channelpay.payee.terms import ETHER, Terms
from channelpay.protocol.types import ABSENT, ChannelStatus
from channelpay.testing import embedded_chain
from channelpay.testing.clock import FakeClock
from channelpay.testing.furnished import FurnishedChain, furnish
from tests.payee.office import Office, office_on
from tests.payee.shop import DEPOSIT, PRICE, OpenChannel, Payer, Shop, opened_shop, wait_for
from tests.support.chains import fake_node
from tests.support.rpc_faults import Contradicting, StaleHead, faulty_node


@pytest.fixture
def office(furnished: FurnishedChain, payer: Payer) -> Office:
    """Has followed the chain up to now."""
    office = office_on(furnished, payer)
    office.follow()
    return office


def test_a_top_up_that_nobody_told_is_entered(office: Office) -> None:
    channel, follower = office.channel(), office.follower()
    follower.step()

    office.payer.top_up(channel, PRICE)
    follower.step()

    assert office.record(channel).chain.deposit == DEPOSIT + PRICE


def test_vouchers_on_a_channel_whose_close_is_requested_are_refused(office: Office) -> None:
    channel, follower = office.channel(PRICE), office.follower()
    follower.step()

    office.payer.request_close(channel)
    follower.step()

    assert office.record(channel).chain.status is ChannelStatus.CLOSING
    with pytest.raises(ChannelClosing):
        office.buy(channel, 2 * PRICE)


def test_a_close_request_taken_back_opens_the_channel_again(office: Office) -> None:
    channel, follower = office.channel(PRICE), office.follower()
    office.payer.request_close(channel)
    follower.step()

    office.payer.top_up(channel, PRICE)
    follower.step()

    office.buy(channel, 2 * PRICE)
    assert office.record(channel).chain.status is ChannelStatus.OPEN


def test_a_settlement_and_a_close_by_whomever_are_entered(office: Office) -> None:
    settled, closed, follower = office.channel(PRICE), office.channel(PRICE), office.follower()
    follower.step()

    office.settle(settled)
    office.close(closed)
    follower.step()

    assert office.record(settled).chain.settled == PRICE
    assert office.record(settled).chain.status is ChannelStatus.OPEN
    assert office.record(closed).chain.status is ChannelStatus.FINALIZED


def test_a_close_is_entered_whole_though_the_next_channel_has_its_slot(office: Office) -> None:
    channel, follower = office.channel(PRICE), office.follower()
    follower.step()

    office.close(channel)
    following = channel.channel.with_epoch(channel.channel.epoch + 1)
    office.payer.open(salt=following.salt)
    follower.step()

    state = office.record(channel).chain
    assert (state.status, state.settled) == (ChannelStatus.FINALIZED, PRICE)
    assert state.deposit == DEPOSIT


def test_what_happened_while_nobody_followed_is_read_at_the_next_start(office: Office) -> None:
    channel = office.channel()
    office.follow()

    office.payer.top_up(channel, PRICE)
    office.payer.furnished.chain.mine(3)
    office.follow()

    assert office.record(channel).chain.deposit == DEPOSIT + PRICE


def test_after_a_long_absence_every_live_channel_is_asked_for(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = office.channel()
    office.follow()
    monkeypatch.setattr(follower_module, "CATCH_UP_BLOCKS_MAX", 2)

    office.payer.request_close(channel)
    office.payer.furnished.chain.mine(3)
    monkeypatch.setattr(Follower, "_events", _not_to_be_asked)
    office.follow()

    assert office.record(channel).chain.status is ChannelStatus.CLOSING


def _not_to_be_asked(*_: object) -> Any:
    raise AssertionError


def test_books_that_nobody_followed_before_are_brought_up_to_date(
    furnished: FurnishedChain, payer: Payer
) -> None:
    office = office_on(furnished, payer)
    channel = office.channel(PRICE)
    office.payer.request_close(channel)
    furnished.chain.mine(2)

    office.follow()

    assert office.record(channel).chain.status is ChannelStatus.CLOSING


def test_a_top_up_counts_for_the_follower_once_it_is_confirmed(
    furnished: FurnishedChain, payer: Payer
) -> None:
    office = office_on(furnished, payer, confirmations=3)
    channel = payer.open()
    furnished.chain.mine(2)
    office.enter(channel)
    follower = office.follower()
    follower.step()

    payer.top_up(channel, PRICE)
    follower.step()
    too_early = office.record(channel).chain.deposit
    furnished.chain.mine()
    payer.top_up(channel, PRICE)
    follower.step()
    beside_a_fresh_one = office.record(channel).chain.deposit
    furnished.chain.mine(2)
    follower.step()

    assert (too_early, beside_a_fresh_one) == (DEPOSIT, DEPOSIT + PRICE)
    assert office.record(channel).chain.deposit == DEPOSIT + 2 * PRICE


def test_a_top_up_that_waits_for_confirmations_outlives_a_restart(
    furnished: FurnishedChain, payer: Payer
) -> None:
    office = office_on(furnished, payer, confirmations=3)
    channel = payer.open()
    furnished.chain.mine(2)
    office.enter(channel)

    payer.top_up(channel, PRICE)
    office.follow()
    furnished.chain.mine(2)
    office.follow()

    assert office.record(channel).chain.deposit == DEPOSIT + PRICE


def test_large_amounts_take_more_confirmations_also_in_small_pieces(
    furnished: FurnishedChain, payer: Payer
) -> None:
    steps = Confirmations(1, {furnished.token: [(3 * PRICE, 4)]})
    office = office_on(furnished, payer, steps)
    channel, follower = payer.open(PRICE), office.follower()
    office.enter(channel)
    follower.step()

    payer.top_up(channel, PRICE)
    follower.step()
    small = office.record(channel).chain.deposit
    payer.top_up(channel, PRICE)
    follower.step()
    together = office.record(channel).chain.deposit
    furnished.chain.mine(3)
    follower.step()

    assert (small, together) == (2 * PRICE, 2 * PRICE)
    assert office.record(channel).chain.deposit == 3 * PRICE


def test_a_close_request_counts_at_once_whatever_deposits_take(
    furnished: FurnishedChain, payer: Payer
) -> None:
    office = office_on(furnished, payer, confirmations=3)
    channel = payer.open()
    furnished.chain.mine(2)
    office.enter(channel)
    office.follow()

    payer.request_close(channel)
    office.follow()

    assert office.record(channel).chain.status is ChannelStatus.CLOSING


def test_after_a_reorganisation_the_books_say_what_the_chain_says_now() -> None:
    with embedded_chain() as chain:
        furnished = furnish(chain)
        office = office_on(furnished, Payer(furnished))
        follower = office.follower()
        channel = office.channel()
        follower.step()
        snapshot = chain.snapshot()
        office.payer.request_close(channel)
        follower.step()
        assert office.record(channel).chain.status is ChannelStatus.CLOSING

        chain.revert(snapshot)
        chain.mine(3)
        follower.step()

        assert office.record(channel).chain.status is ChannelStatus.OPEN
        office.forget_nonces()
        office.payer.top_up(channel, PRICE)
        follower.step()
        assert office.record(channel).chain.deposit == DEPOSIT + PRICE


def test_a_reorganisation_while_nobody_followed_is_noticed_at_the_next_start() -> None:
    with embedded_chain() as chain:
        furnished = furnish(chain)
        office = office_on(furnished, Payer(furnished))
        office.follow()
        channel = office.channel()
        office.follow()
        snapshot = chain.snapshot()
        office.payer.request_close(channel)
        office.follow()

        chain.revert(snapshot)
        chain.mine(3)
        office.follow()

        assert office.record(channel).chain.status is ChannelStatus.OPEN


def test_a_channel_entered_beside_the_follower_is_unlearned_with_its_block() -> None:
    """The follower never read the block that the channel was opened in."""
    with embedded_chain() as chain:
        furnished = furnish(chain)
        office = office_on(furnished, Payer(furnished))
        office.follow()
        snapshot = chain.snapshot()
        channel = office.channel(PRICE)

        chain.revert(snapshot)
        chain.mine(3)
        office.follow()

        assert office.record(channel).chain == ABSENT
        with pytest.raises(ChannelNotFound):
            office.buy(channel, 2 * PRICE)


def test_a_channel_opened_anew_with_more_holds_what_it_holds_now() -> None:
    with embedded_chain() as chain:
        furnished = furnish(chain)
        office = office_on(furnished, Payer(furnished))
        follower = office.follower()
        follower.step()
        snapshot = chain.snapshot()
        channel = office.channel()
        follower.step()
        chain.revert(snapshot)
        chain.mine(3)
        follower.step()

        office.forget_nonces()
        office.payer.sender.send(office.payer.contract.open(channel.channel, 2 * DEPOSIT))
        follower.step()

        assert office.record(channel).chain.deposit == 2 * DEPOSIT


def test_a_chain_that_shares_nothing_with_the_trail_is_read_from_scratch(office: Office) -> None:
    channel = office.channel()
    office.follow()
    name = office.follower()._trail_cursor
    office.payer.request_close(channel)
    office.store.save_cursor(name, f"1:{'00' * 32} 2:{'11' * 32}").result()

    office.follow()

    assert office.record(channel).chain.status is ChannelStatus.CLOSING


def test_a_node_that_is_late_unlearns_nothing_and_is_not_followed(
    furnished: FurnishedChain, payer: Payer
) -> None:
    with faulty_node(furnished.chain.rpc_url) as node:
        office = office_on(furnished, payer)
        contract = PaymentChannelsContract(connect(node.url), furnished.deployment)
        office.link = ChainLink(contract)
        channel = office.channel()
        head = node.head()
        payer.request_close(channel)
        furnished.chain.mine()
        office.follow()
        followed = office.store.cursor(followed_cursor(office.terms))

        node.behave(StaleHead(head))
        with pytest.raises(ChainBehind):
            office.follow()

        assert office.record(channel).chain.status is ChannelStatus.CLOSING
        assert office.store.cursor(followed_cursor(office.terms)) == followed
        node.behave()
        office.follow()


def test_a_node_that_contradicts_what_was_read_changes_nothing_that_is_so(
    furnished: FurnishedChain, payer: Payer
) -> None:
    with faulty_node(furnished.chain.rpc_url) as node:
        office = office_on(furnished, payer)
        contract = PaymentChannelsContract(connect(node.url), furnished.deployment)
        office.link = ChainLink(contract)
        office.follow()
        channel = office.channel(PRICE)
        office.follow()
        before = office.record(channel)

        for faults in ((Contradicting(since=node.head()),), ()):
            node.behave(*faults)
            office.follow()
            assert office.record(channel) == before


def test_a_step_that_failed_is_made_up_for_by_the_next(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = office.channel()
    office.follow()
    office.payer.request_close(channel)

    def away(*_: object) -> object:
        raise NetworkError("away")

    with monkeypatch.context() as patched:
        patched.setattr(ChainLink, "views", away)
        with pytest.raises(NetworkError):
            office.follow()
    assert office.record(channel).chain.status is ChannelStatus.OPEN
    office.follow()

    assert office.record(channel).chain.status is ChannelStatus.CLOSING


def test_how_far_it_is_says_when_and_the_time_of_the_head(office: Office) -> None:
    Follower(office.terms, office.link, office.store, now=lambda: 1234.5).step()

    position = office.store.cursor(followed_cursor(office.terms))
    assert position is not None
    head = office.link.latest_block()
    assert Followed.parse(position) == Followed(1234.5, head.timestamp)


def test_without_news_the_contract_is_not_asked(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.channel()
    office.follow()
    office.follow()
    monkeypatch.setattr(PaymentChannelsContract, "states", _not_to_be_asked)
    monkeypatch.setattr(Connection, "logs", _not_to_be_asked)

    office.follow()


def test_a_close_request_that_the_nodes_logs_keep_back_is_found_by_asking(
    furnished: FurnishedChain, payer: Payer
) -> None:
    """As behind a balancer: one machine knows the block, another one answers without its logs."""

    def without_logs(method: str, _: list[Any], forward: Callable[[], Any]) -> Any:
        return [] if method == "eth_getLogs" else forward()

    with fake_node(furnished.chain.rpc_url, without_logs) as url:
        office, clock = office_on(furnished, payer), FakeClock()
        office.link = ChainLink(PaymentChannelsContract(connect(url), furnished.deployment))
        channel = office.channel(PRICE)
        follower = Follower(office.terms, office.link, office.store, clock=clock)
        follower.step()
        office.payer.request_close(channel)
        follower.step()
        passed_over = office.record(channel).chain.status
        clock.advance(office.link.grace_seconds / follower_module.SWEEPS)
        follower.step()

    assert passed_over is ChannelStatus.OPEN
    assert office.record(channel).chain.status is ChannelStatus.CLOSING


def test_a_token_that_is_no_longer_taken_is_followed_nevertheless(office: Office) -> None:
    channel = office.channel(PRICE)
    office.follow()
    office.terms = Terms(office.terms.deployment, office.terms.payee, (ETHER,))

    office.payer.request_close(channel)
    office.follow()

    assert office.record(channel).chain.status is ChannelStatus.CLOSING


@given(st.lists(st.integers(1, 400), min_size=1, max_size=150))
def test_a_trail_stays_short_and_reaches_back_ever_farther(gaps: list[int]) -> None:
    trail: tuple[BlockCursor, ...] = ()
    number = 0
    for gap in gaps:
        number += gap
        trail = _extended(trail, [BlockCursor(number, bytes(32))])

    numbers = [one.block_number for one in trail]
    assert numbers == sorted(set(numbers))
    assert (numbers[0], numbers[-1]) == (gaps[0], number)
    assert len(trail) <= DENSE_BLOCKS + 1 + number.bit_length()


@pytest.mark.anyio
async def test_presenting_the_open_again_brings_a_channel_back_that_was_absent(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    with opened_shop(furnished, tmp_path, payer, watches=False) as shop:
        channel = await shop.opened()
        verifier = shop.verifier
        (view,) = verifier._link.views([channel.channel])
        verifier._store.update_chain(channel.id, replace(view, state=ABSENT)).result()
        assert (await shop.pay(channel, PRICE)).json()["code"] == ChannelNotFound.code

        assert (await shop.open(channel)).status_code == 200

        assert (await shop.pay(channel, DEPOSIT)).status_code == 200


def test_channels_that_were_never_presented_stay_out_of_the_books(office: Office) -> None:
    office.payer.open()
    office.follow()

    assert office.store.records() == []


def test_a_contract_with_a_short_grace_period_is_not_accepted(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(office.link.contract, "grace_period_seconds", lambda: 599)

    with pytest.raises(ConfigError):
        ChainLink(office.link.contract)


@pytest.mark.anyio
async def test_a_payee_follows_and_settles_from_its_creation_on(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "INTERVAL_SECONDS", 0.05)
    with opened_shop(furnished, tmp_path, payer) as shop:
        channel = await shop.opened()
        await shop.pay(channel, PRICE)
        payer.request_close(channel)
        wait_for(_settled(shop, channel))

        assert (await shop.pay(channel, 2 * PRICE)).status_code == 410


@pytest.mark.anyio
async def test_a_close_requested_while_its_channel_is_entered_is_not_missed(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened_shop(furnished, tmp_path, payer, watches=False) as shop:
        channel = payer.open()
        opened, verifier = ChainLink.opened, shop.verifier
        follower = Follower(shop.payee.terms, verifier._link, verifier._store)

        def then_request_the_close(link: ChainLink, *arguments: Any) -> object:
            view = opened(link, *arguments)
            payer.request_close(channel)
            follower.step()
            return view

        monkeypatch.setattr(ChainLink, "opened", then_request_the_close)
        header = shop.header(channel.open_payload(PRICE), source=channel.source)

        response = await shop.get("/page", header)

        assert response.json()["code"] == "channel-closing"


def _settled(shop: Shop, channel: OpenChannel) -> Callable[[], bool]:
    def is_settled() -> bool:
        (view,) = shop.verifier._link.views([channel.channel])
        return view.state.settled == PRICE

    return is_settled
