"""What the payee learns from the chain by itself, and how it takes its money there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from channelpay.chain.connection import Connection, connect
from channelpay.chain.contract import Erc20, PaymentChannelsContract
from channelpay.chain.sender import Sender
from channelpay.errors import (
    ChainReverted,
    ChannelClosing,
    ChannelNotFound,
    ChannelPayError,
    ConfigError,
    NetworkError,
    PaymentRefused,
)
from channelpay.payee import watcher as watcher_module
from channelpay.payee.chain_link import ChainLink
from channelpay.payee.closer import Closer
from channelpay.payee.terms import Terms, Token
from channelpay.payee.watcher import Watcher
from channelpay.protocol.rules import ChannelRecord, Purchase
from channelpay.protocol.types import ABSENT, ChannelStatus
from channelpay.store import MemoryStore
from channelpay.testing import embedded_chain
from channelpay.testing.furnished import FurnishedChain, furnish
from tests.payee.shop import DEPOSIT, PRICE, OpenChannel, Payer, Shop, opened_shop, wait_for


@dataclass
class Office:
    """A payee's back office: books in memory, a link to the chain, the payee's key."""

    payer: Payer
    store: MemoryStore
    terms: Terms
    link: ChainLink
    closer: Closer

    def watcher(self, closer: Closer | None = None) -> Watcher:
        return Watcher(self.terms, self.link, self.store, closer)

    def channel(self, cumulative: int = 0, deposit: int = DEPOSIT) -> OpenChannel:
        """An open channel in the books, with one voucher that bought something."""
        channel = self.payer.open(deposit)
        view = self.link.opened(channel.id, channel.channel, channel.transaction_hash)
        self.store.add_channel(channel.id, channel.channel, view).result()
        if cumulative:
            self.buy(channel, cumulative)
        return channel

    def buy(self, channel: OpenChannel, cumulative: int) -> None:
        voucher = channel.sign(cumulative)
        purchase = Purchase(voucher, PRICE, "GET /page", 0, str(cumulative))
        (answer,) = self.store.accept([purchase]).result()
        if isinstance(answer, ChannelPayError):
            raise answer

    def record(self, channel: OpenChannel) -> ChannelRecord:
        record = self.store.record(channel.id)
        assert record is not None
        return record

    def payee_tokens(self) -> int:
        connection = self.link.contract.connection
        return Erc20(connection, self.terms.tokens[0].address).balance(self.terms.payee)


@pytest.fixture
def office(furnished: FurnishedChain, payer: Payer) -> Office:
    return _office(furnished, payer)


def _office(furnished: FurnishedChain, payer: Payer, confirmations: int = 1) -> Office:
    connection = connect(furnished.chain.rpc_url)
    contract = PaymentChannelsContract(connection, furnished.deployment)
    account = furnished.chain.accounts[2]
    token = Token(furnished.token, "TUSD", 6)
    terms = Terms(furnished.deployment, account.address, (token,))
    store, link = MemoryStore(), ChainLink(contract, confirmations)
    sender = Sender(connection, Account.from_key(account.private_key))
    return Office(payer, store, terms, link, Closer(link, sender, store))


def test_a_top_up_that_nobody_told_is_entered(office: Office) -> None:
    channel, watcher = office.channel(), office.watcher()
    watcher.step()

    office.payer.top_up(channel, PRICE)
    watcher.step()

    assert office.record(channel).chain.deposit == DEPOSIT + PRICE


def test_vouchers_on_a_channel_whose_close_is_requested_are_refused(office: Office) -> None:
    channel, watcher = office.channel(PRICE), office.watcher()
    watcher.step()

    office.payer.request_close(channel)
    watcher.step()

    assert office.record(channel).chain.status is ChannelStatus.CLOSING
    with pytest.raises(ChannelClosing):
        office.buy(channel, 2 * PRICE)


def test_a_close_request_taken_back_opens_the_channel_again(office: Office) -> None:
    channel, watcher = office.channel(PRICE), office.watcher()
    watcher.step()
    office.payer.request_close(channel)
    watcher.step()

    office.payer.top_up(channel, PRICE)
    watcher.step()

    office.buy(channel, 2 * PRICE)
    assert office.record(channel).chain.status is ChannelStatus.OPEN


def test_a_requested_close_is_answered_with_the_best_voucher(office: Office) -> None:
    channel, watcher = office.channel(3 * PRICE), office.watcher(office.closer)
    watcher.step()
    before = office.payee_tokens()

    office.payer.request_close(channel)
    watcher.step()

    chain = office.record(channel).chain
    assert (chain.status, chain.settled) == (ChannelStatus.FINALIZED, 3 * PRICE)
    assert office.payee_tokens() - before == 3 * PRICE


def test_a_requested_close_without_vouchers_is_left_to_the_payer(office: Office) -> None:
    channel, watcher = office.channel(), office.watcher(office.closer)
    watcher.step()

    office.payer.request_close(channel)
    watcher.step()

    assert office.record(channel).chain.status is ChannelStatus.CLOSING


def test_a_close_that_was_owed_at_the_last_stop_is_made_at_the_next_start(office: Office) -> None:
    channel, without_key = office.channel(PRICE), office.watcher()
    without_key.step()
    office.payer.request_close(channel)
    without_key.step()

    office.watcher(office.closer).step()

    assert office.record(channel).chain.status is ChannelStatus.FINALIZED


def test_a_close_that_fails_is_tried_again_and_holds_no_other_up(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels = [office.channel(PRICE), office.channel(PRICE)]
    watcher = office.watcher(office.closer)
    watcher.step()
    for channel in channels:
        office.payer.request_close(channel)
    close, tried = office.closer.close, []

    def fail_once_each(record: ChannelRecord) -> object:
        tried.append(record.channel_id)
        if tried.count(record.channel_id) == 1:
            raise NetworkError("the node is away")
        return close(record)

    monkeypatch.setattr(office.closer, "close", fail_once_each)
    watcher.step()
    assert {*tried} == {channel.id for channel in channels}
    watcher.step()

    states = {office.record(channel).chain.status for channel in channels}
    assert states == {ChannelStatus.FINALIZED}


def test_where_a_close_is_reverted_the_payee_is_settled(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A payer's wallet can make every close fail: it is not to keep what it owes."""
    channel = office.channel(PRICE)
    watcher = office.watcher(office.closer)
    watcher.step()
    office.payer.request_close(channel)

    def reverted(record: ChannelRecord) -> object:
        raise ChainReverted(error="GasTooLow")

    monkeypatch.setattr(office.closer, "close", reverted)
    watcher.step()

    assert office.record(channel).chain.settled == PRICE


def test_what_happened_while_nobody_watched_is_read_at_the_next_start(office: Office) -> None:
    channel = office.channel()
    office.watcher().step()

    office.payer.top_up(channel, PRICE)
    office.watcher().step()

    assert office.record(channel).chain.deposit == DEPOSIT + PRICE


def test_a_top_up_counts_for_the_watcher_once_it_is_confirmed(
    furnished: FurnishedChain, payer: Payer
) -> None:
    office = _office(furnished, payer, confirmations=3)
    channel = payer.open()
    furnished.chain.mine(2)
    view = office.link.opened(channel.id, channel.channel, channel.transaction_hash)
    office.store.add_channel(channel.id, channel.channel, view).result()
    watcher = office.watcher()
    watcher.step()

    payer.top_up(channel, PRICE)
    watcher.step()
    too_early = office.record(channel).chain.deposit
    furnished.chain.mine()
    payer.top_up(channel, PRICE)
    watcher.step()
    beside_a_fresh_one = office.record(channel).chain.deposit
    furnished.chain.mine(2)
    watcher.step()

    assert (too_early, beside_a_fresh_one) == (DEPOSIT, DEPOSIT + PRICE)
    assert office.record(channel).chain.deposit == DEPOSIT + 2 * PRICE


def test_after_a_reorganisation_the_books_say_what_the_chain_says_now() -> None:
    with embedded_chain() as chain:
        furnished = furnish(chain)
        office = _office(furnished, Payer(furnished))
        watcher = office.watcher()
        channel = office.channel()
        watcher.step()
        snapshot = chain.snapshot()
        office.payer.request_close(channel)
        watcher.step()
        assert office.record(channel).chain.status is ChannelStatus.CLOSING

        chain.revert(snapshot)
        chain.mine(3)
        watcher.step()

        assert office.record(channel).chain.status is ChannelStatus.OPEN
        office.payer.sender._next_nonce = 0
        office.payer.top_up(channel, PRICE)
        watcher.step()
        assert office.record(channel).chain.deposit == DEPOSIT + PRICE


def test_an_opening_that_a_reorganisation_mines_again_keeps_the_channel_usable() -> None:
    with embedded_chain() as chain:
        furnished = furnish(chain)
        office = _office(furnished, Payer(furnished))
        watcher = office.watcher()
        snapshot = chain.snapshot()
        channel = office.channel()
        watcher.step()

        chain.revert(snapshot)
        chain.mine(3)
        watcher.step()
        assert office.record(channel).chain.status is ChannelStatus.ABSENT
        with pytest.raises(ChannelNotFound):
            office.buy(channel, PRICE)
        office.payer.sender._next_nonce = 0
        office.payer.sender.send(office.payer.contract.open(channel.channel, DEPOSIT))
        watcher.step()

        office.buy(channel, DEPOSIT)
        assert office.record(channel).chain.deposit == DEPOSIT


def test_a_channel_opened_anew_with_more_holds_what_it_holds_now() -> None:
    with embedded_chain() as chain:
        furnished = furnish(chain)
        office = _office(furnished, Payer(furnished))
        watcher = office.watcher()
        snapshot = chain.snapshot()
        channel = office.channel()
        watcher.step()
        chain.revert(snapshot)
        chain.mine(3)
        watcher.step()

        office.payer.sender._next_nonce = 0
        office.payer.sender.send(office.payer.contract.open(channel.channel, 2 * DEPOSIT))
        watcher.step()

        assert office.record(channel).chain.deposit == 2 * DEPOSIT


def test_a_node_that_does_not_know_the_channel_takes_nothing_of_its_deposit(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, watcher = office.channel(PRICE), office.watcher()
    watcher.step()
    views = office.link.views
    with monkeypatch.context() as patched:
        patched.setattr(
            office.link, "views", lambda some: [replace(v, state=ABSENT) for v in views(some)]
        )
        office.payer.request_close(channel)
        watcher.step()
    assert office.record(channel).chain.status is ChannelStatus.ABSENT

    taken = office.closer.settle(office.record(channel))

    assert (taken.record.chain.status, taken.record.chain.deposit) == (
        ChannelStatus.CLOSING,
        DEPOSIT,
    )


@pytest.mark.anyio
async def test_presenting_the_open_again_brings_a_channel_back_that_was_absent(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    with opened_shop(furnished, tmp_path, payer) as shop:
        channel = await shop.opened()
        verifier = shop.payee._verifier
        (view,) = verifier._link.views([channel.channel])
        verifier._store.update_chain(channel.id, replace(view, state=ABSENT)).result()
        assert (await shop.pay(channel, PRICE)).json()["code"] == ChannelNotFound.code

        assert (await shop.open(channel)).status_code == 200

        assert (await shop.pay(channel, DEPOSIT)).status_code == 200


def test_channels_that_were_never_presented_stay_out_of_the_books(office: Office) -> None:
    watcher = office.watcher()
    watcher.step()

    office.payer.open()
    watcher.step()

    assert office.store.records() == []


def test_a_settlement_takes_what_is_promised_and_leaves_the_channel_open(office: Office) -> None:
    channel = office.channel(2 * PRICE)
    before = office.payee_tokens()

    taken = office.closer.settle(office.record(channel))

    assert taken.record.chain.settled == 2 * PRICE
    assert taken.record.chain.status is ChannelStatus.OPEN
    assert office.payee_tokens() - before == 2 * PRICE
    with pytest.raises(PaymentRefused):
        office.closer.settle(office.record(channel))


def test_a_top_up_entered_beside_a_settlement_is_kept(office: Office) -> None:
    channel = office.channel(PRICE)
    stale = office.record(channel)
    top_up = office.payer.top_up(channel, PRICE)
    view = office.link.topped_up(stale, top_up.transaction_hash, PRICE)
    office.store.update_chain(channel.id, view).result()

    taken = office.closer.settle(stale)

    assert taken.record.chain.deposit == DEPOSIT + PRICE


def test_the_payee_is_paid_in_full_inside_the_grace_period(
    office: Office, furnished: FurnishedChain
) -> None:
    channel = office.channel(5 * PRICE)
    office.payer.request_close(channel)
    furnished.chain.increase_time(furnished.grace_seconds - 60)

    taken = office.closer.settle(office.record(channel))

    assert taken.record.chain.settled == 5 * PRICE
    assert taken.record.chain.status is ChannelStatus.CLOSING


def test_a_refused_close_still_corrects_the_books(office: Office) -> None:
    channel = office.channel(PRICE)
    # As another program with the payee's key would close it.
    office.closer._sender.send(office.link.contract.close(channel.channel))

    with pytest.raises(ChainReverted):
        office.closer.close(office.record(channel))

    assert office.record(channel).chain.status is ChannelStatus.FINALIZED


def test_a_contract_with_a_short_grace_period_is_not_accepted(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(office.link.contract, "grace_period_seconds", lambda: 599)

    with pytest.raises(ConfigError):
        ChainLink(office.link.contract)


def test_the_watch_goes_on_after_trouble_with_the_chain(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher_module, "INTERVAL_SECONDS", 0.01)
    channel, watcher = office.channel(), office.watcher()
    latest_block, failures = Connection.latest_block, iter([NetworkError, ValueError])

    def fail_twice(connection: Connection) -> object:
        error = next(failures, None)
        if error is not None:
            raise error("away")
        return latest_block(connection)

    watcher.step()
    monkeypatch.setattr(Connection, "latest_block", fail_twice)
    watcher.start()
    try:
        office.payer.top_up(channel, PRICE)
        wait_for(lambda: office.record(channel).chain.deposit == DEPOSIT + PRICE)
    finally:
        watcher.close()


@pytest.mark.anyio
async def test_a_payee_watches_from_its_creation_on(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher_module, "INTERVAL_SECONDS", 0.05)
    with opened_shop(furnished, tmp_path, payer) as shop:
        channel = await shop.opened()
        await shop.pay(channel, PRICE)
        payer.request_close(channel)
        wait_for(_finalized(shop, channel))

        assert (await shop.pay(channel, 2 * PRICE)).status_code == 410


@pytest.mark.anyio
async def test_a_close_requested_while_its_channel_is_entered_is_not_missed(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened_shop(furnished, tmp_path, payer) as shop:
        channel = payer.open()
        opened, verifier = ChainLink.opened, shop.payee._verifier
        watcher = Watcher(shop.payee.terms, verifier._link, verifier._store, None)

        def then_request_the_close(link: ChainLink, *arguments: Any) -> object:
            view = opened(link, *arguments)
            payer.request_close(channel)
            watcher.step()
            return view

        monkeypatch.setattr(ChainLink, "opened", then_request_the_close)
        header = shop.header(channel.open_payload(PRICE), source=channel.source)

        response = await shop.get("/page", header)

        assert response.json()["code"] == "channel-closing"


def _finalized(shop: Shop, channel: OpenChannel) -> Callable[[], bool]:
    def is_finalized() -> bool:
        (view,) = shop.payee._verifier._link.views([channel.channel])
        return view.state.status is ChannelStatus.FINALIZED

    return is_finalized
