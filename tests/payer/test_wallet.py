"""The payer's transactions on real chains: journaled opens, lanes used again, exits, approvals."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from channelpay.chain.connection import connect
from channelpay.chain.contract import Erc20, PaymentChannelsContract
from channelpay.chain.sender import NotConfirmed, Sender, SendPolicy
from channelpay.errors import (
    BudgetExceeded,
    ChainReverted,
    ChannelFinalized,
    ConfigError,
    InputError,
    InsufficientFunds,
    NetworkError,
    NotFound,
    StoreUnavailable,
    WrongChain,
)
from channelpay.payer import observer
from channelpay.payer.backup import back_up
from channelpay.payer.budgets import Purse
from channelpay.payer.client import Payer
from channelpay.payer.fundings import FUNDING_SECONDS_MAX
from channelpay.payer.limits import Limits
from channelpay.payer.records import Funding
from channelpay.payer.recovery import rebuild
from channelpay.payer.steps import Add, Answer, Open, Send
from channelpay.protocol.types import (
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelStatus,
    Deployment,
)
from channelpay.protocol.wire import ChallengeIssuer, Credential, OpenPayload, SessionRequest
from channelpay.testing.furnished import FurnishedChain
from tests.support.chains import sender_of

ETHER = 10**18


@pytest.fixture
def new_payer(furnished: FurnishedChain, tmp_path: Path) -> Iterator[Callable[..., Payer]]:
    payers: list[Payer] = []

    def make(**changes: Any) -> Payer:
        settings: dict[str, Any] = {
            "account": furnished.chain.accounts[1].private_key,
            "connection": furnished.chain.rpc_url,
            "state": tmp_path / "payer.sqlite3",
            "contract": furnished.deployment.contract,
        }
        payers.append(Payer(**(settings | changes)))
        return payers[-1]

    yield make
    for payer in payers:
        payer.close()


@pytest.fixture
def payer(new_payer: Callable[..., Payer]) -> Payer:
    return new_payer()


@pytest.fixture
def payee(furnished: FurnishedChain) -> Address:
    return furnished.chain.accounts[2].address


def close_by_payee(furnished: FurnishedChain, channel: Any, *voucher: Any) -> None:
    """``voucher`` is its amount and its signature; without it, nothing is taken."""
    connection = connect(furnished.chain.rpc_url)
    contract = PaymentChannelsContract(connection, furnished.deployment)
    sender_of(connection, furnished.chain.accounts[2]).send(contract.close(channel, *voucher))


def test_an_opened_channel_is_on_chain_and_in_the_books(
    payer: Payer, payee: Address, contract: PaymentChannelsContract
) -> None:
    entry = payer.open_channel(payee, ETHER, url="https://site.example/")
    assert contract.state(entry.channel).deposit == ETHER
    assert contract.channel_id(entry.channel) == entry.channel_id
    assert payer.channels() == [entry]
    assert (entry.status, entry.url) == (ChannelStatus.OPEN, "https://site.example/")


def test_an_open_that_was_interrupted_is_found_again(
    payer: Payer,
    payee: Address,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process dies after the transaction left and before its hash is in the books."""
    submit = Sender.submit

    def submit_and_die(self: Sender, call: Any, _: Any) -> bytes:
        submit(self, call)
        raise KeyboardInterrupt

    monkeypatch.setattr(Sender, "submit", submit_and_die)
    with pytest.raises(KeyboardInterrupt):
        payer.open_channel(payee, ETHER)
    monkeypatch.undo()
    (lost,) = payer.state.channels(payer.address)
    assert (lost.status, lost.open_transaction) == (ChannelStatus.ABSENT, None)
    (found,) = payer.channels()
    assert (found.status, found.deposit) == (ChannelStatus.OPEN, ETHER)
    assert found.open_transaction is not None
    receipt = payer.wallet._connection.receipt(found.open_transaction)
    assert receipt is not None
    assert receipt.succeeded


def test_an_open_that_two_processes_see_mined_is_no_top_up(payer: Payer, payee: Address) -> None:
    """One has entered it, and has not said yet that it is over."""
    entry = payer.open_channel(payee, ETHER)
    assert entry.open_transaction is not None
    payer.state.record_funding(Funding(entry.channel_id, entry.open_transaction, 0, ETHER))

    assert payer.channels() == [entry]
    assert payer.state.unpresented_top_ups(entry.channel_id) == []
    assert payer.state.fundings(entry.channel_id) == []


def test_an_open_of_which_the_fate_is_unknown_stays_in_the_books(
    payer: Payer, payee: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(self: Sender, transaction_hash: bytes, call: Any) -> None:
        raise NotConfirmed

    monkeypatch.setattr(Sender, "wait", never)
    with pytest.raises(NotConfirmed):
        payer.open_channel(payee, ETHER)
    monkeypatch.undo()
    (found,) = payer.channels()
    assert found.status is ChannelStatus.OPEN


@pytest.mark.parametrize("failing", ["record_chain_state", "end_funding"])
def test_an_open_that_was_sent_is_not_forgotten_when_the_books_fail(
    payer: Payer, payee: Address, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def locked(*_: object, **__: object) -> None:
        raise StoreUnavailable("database is locked")

    monkeypatch.setattr(payer.state, failing, locked)
    with pytest.raises(StoreUnavailable):
        payer.open_channel(payee, ETHER)
    monkeypatch.undo()
    (found,) = payer.channels()
    assert (found.status, found.deposit) == (ChannelStatus.OPEN, ETHER)


def test_an_open_that_cannot_be_journaled_is_not_sent(
    payer: Payer, payee: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: object) -> None:
        raise StoreUnavailable("database is locked")

    before = payer.wallet.balance(NATIVE)
    monkeypatch.setattr(payer.state, "record_funding", locked)
    with pytest.raises(StoreUnavailable):
        payer.open_channel(payee, ETHER)
    assert payer.channels() == []
    assert payer.wallet.balance(NATIVE) == before


def test_an_open_that_ended_before_its_transaction_is_forgotten_after_a_while(
    payer: Payer, payee: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No money is shown as locked where none is; and who comes back late sends nothing."""

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    before = payer.wallet.balance(NATIVE)
    monkeypatch.setattr(Sender, "submit", die)
    with pytest.raises(KeyboardInterrupt):
        payer.open_channel(payee, ETHER)
    monkeypatch.undo()
    (begun,) = payer.channels()
    assert begun.status is ChannelStatus.ABSENT
    monkeypatch.setattr(payer.state, "_clock", lambda: time.time() + 2 * FUNDING_SECONDS_MAX)
    assert payer.channels() == []
    with pytest.raises(StoreUnavailable):
        payer.wallet._open_planned(begun)
    assert payer.wallet.balance(NATIVE) == before


class Withheld:
    """A node's pool: transactions are taken, and mined when the test says so. It may also forget
    them, though they are still about somewhere.
    """

    def __init__(
        self, payer: Payer, monkeypatch: pytest.MonkeyPatch, *, forgets: bool = False
    ) -> None:
        self.raw: list[bytes] = []
        self._connection = payer.wallet._connection
        sender = payer.wallet._sender
        monkeypatch.setattr(sender, "_policy", SendPolicy(deadline_seconds=0.05))
        monkeypatch.setattr(sender, "_broadcast", lambda raw, _: self.raw.append(raw))
        monkeypatch.setattr(self._connection, "has_transaction", lambda _: not forgets)

    def mine(self) -> None:
        """In the order in which they came; one whose nonce is used is refused."""
        while self.raw:
            with suppress(NetworkError):
                self._connection.send_raw_transaction(self.raw.pop(0))


def use_up_the_nonce(furnished: FurnishedChain) -> None:
    connection = connect(furnished.chain.rpc_url)
    approve = Erc20(connection, furnished.token).approve(furnished.deployment.contract, 1)
    sender_of(connection, furnished.chain.accounts[1]).send(approve)


def test_a_top_up_that_may_still_be_mined_is_not_sent_again(
    payer: Payer, payee: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = payer.open_channel(payee, 1000)
    pool = Withheld(payer, monkeypatch)
    with pytest.raises(NotConfirmed):
        payer.perform(Add(entry.channel_id, 500, 1000))
    monkeypatch.setattr(payer.state, "_clock", lambda: time.time() + 10 * FUNDING_SECONDS_MAX)
    payer.perform(Add(entry.channel_id, 500, 1000))
    assert len(pool.raw) == 1
    pool.mine()
    (found,) = payer.channels()
    assert found.deposit == 1500
    assert [known.amount for known in payer.state.unpresented_top_ups(entry.channel_id)] == [500]
    monkeypatch.undo()
    payer.top_up(entry.channel_id, 1)


@pytest.mark.parametrize("latest_first", [False, True])
def test_a_top_up_that_the_node_dropped_is_replaced_and_never_doubled(
    payer: Payer, payee: Address, monkeypatch: pytest.MonkeyPatch, latest_first: bool
) -> None:
    entry = payer.open_channel(payee, 1000)
    pool = Withheld(payer, monkeypatch, forgets=True)
    with pytest.raises(NotConfirmed):
        payer.perform(Add(entry.channel_id, 500, 1000))
    monkeypatch.setattr(payer.state, "_clock", lambda: time.time() + 10 * FUNDING_SECONDS_MAX)
    with pytest.raises(NotConfirmed):
        payer.perform(Add(entry.channel_id, 500, 1000))
    assert len(pool.raw) == 2
    if latest_first:
        pool.raw.reverse()
    pool.mine()
    (found,) = payer.channels()
    assert found.deposit == 1500
    assert [known.amount for known in payer.state.unpresented_top_ups(entry.channel_id)] == [500]
    monkeypatch.undo()
    payer.top_up(entry.channel_id, 1)


def test_a_top_up_that_waits_for_an_earlier_one_names_its_transaction(
    payer: Payer, payee: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = payer.open_channel(payee, 1000)
    Withheld(payer, monkeypatch)
    with pytest.raises(NotConfirmed) as first:
        payer.top_up(entry.channel_id, 500)
    with pytest.raises(NotConfirmed) as second:
        payer.top_up(entry.channel_id, 500)
    assert second.value.context["txHash"] == first.value.context["txHash"]


def test_an_open_that_the_node_dropped_is_sent_again_as_the_same_channel(
    payer: Payer, payee: Address, furnished: FurnishedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = open_step(furnished, payee)
    pool = Withheld(payer, monkeypatch, forgets=True)
    for _ in range(2):
        with pytest.raises(NotConfirmed):
            payer.perform(step)
    assert len(pool.raw) == 2
    pool.mine()
    (found,) = payer.channels()
    assert (found.status, found.deposit) == (ChannelStatus.OPEN, ETHER)


def test_an_open_that_another_program_is_about_to_send_is_not_taken_for_a_dropped_one(
    new_payer: Callable[..., Payer],
    payee: Address,
    furnished: FurnishedChain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step, first, second = open_step(furnished, payee), new_payer(), new_payer()
    sender = first.wallet._sender
    broadcast = sender._broadcast

    def meanwhile(raw: bytes, transaction_hash: bytes) -> None:
        second.perform(step)
        broadcast(raw, transaction_hash)

    monkeypatch.setattr(sender, "_broadcast", meanwhile)
    monkeypatch.setattr(second.wallet._sender, "submit", lambda *_: pytest.fail("sent twice"))
    first.perform(step)

    (found,) = second.channels()
    assert found.status is ChannelStatus.OPEN


def test_an_open_that_may_still_be_mined_is_the_only_one(
    payer: Payer, payee: Address, furnished: FurnishedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = open_step(furnished, payee)
    pool = Withheld(payer, monkeypatch)
    with pytest.raises(NotConfirmed):
        payer.perform(step)
    monkeypatch.setattr(payer.state, "_clock", lambda: time.time() + 10 * FUNDING_SECONDS_MAX)
    payer.perform(step)
    assert len(pool.raw) == 1
    pool.mine()
    payer.perform(step)
    (found,) = payer.channels()
    assert (found.status, found.deposit, pool.raw) == (ChannelStatus.OPEN, ETHER, [])


def test_a_funding_whose_nonce_another_transaction_used_gives_way(
    payer: Payer, payee: Address, furnished: FurnishedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = payer.open_channel(payee, 1000)
    Withheld(payer, monkeypatch)
    with pytest.raises(NotConfirmed):
        payer.top_up(entry.channel_id, 500)
    use_up_the_nonce(furnished)
    monkeypatch.undo()
    assert payer.channels()[0].deposit == 1000
    payer.top_up(entry.channel_id, 500)
    assert payer.channels()[0].deposit == 1500


@pytest.mark.parametrize(
    ("deposit", "error"),
    [(10**6 * ETHER, InsufficientFunds), (0, InputError), (2**96, InputError)],
)
def test_an_open_that_cannot_be_leaves_nothing_in_the_books(
    payer: Payer, payee: Address, deposit: int, error: type[Exception]
) -> None:
    with pytest.raises(error):
        payer.open_channel(payee, deposit)
    assert payer.channels() == []


def test_no_money_goes_to_code_that_is_not_the_contract(
    new_payer: Callable[..., Payer], furnished: FurnishedChain, payee: Address
) -> None:
    payer = new_payer(contract=furnished.token)
    with pytest.raises(NotFound, match="not the PaymentChannels contract"):
        payer.open_channel(payee, ETHER)


def test_a_finalized_lane_is_used_again_in_its_next_epoch(
    payer: Payer, payee: Address, furnished: FurnishedChain
) -> None:
    first = payer.open_channel(payee, ETHER)
    close_by_payee(furnished, first.channel)
    assert payer.channels()[0].status is ChannelStatus.FINALIZED
    second = payer.open_channel(payee, ETHER)
    assert second.channel.lane == first.channel.lane
    assert (first.channel.epoch, second.channel.epoch) == (0, 1)
    third = payer.open_channel(payee, ETHER)
    assert third.channel.lane != first.channel.lane


def test_what_a_channel_cost_is_known_after_its_lane_is_used_again(
    payer: Payer, payee: Address, furnished: FurnishedChain
) -> None:
    """The payee closed it, and the books did not look before the next open: the total counts it."""
    first = payer.open_channel(payee, ETHER)
    held = payer.state.reserve(first.channel_id, 7, payer._sign)
    payer.state.settle(held, 7)
    close_by_payee(furnished, first.channel, 7, held.voucher.signature)

    second = payer.open_channel(payee, ETHER)
    payer.channels()

    assert second.channel.lane == first.channel.lane
    assert payer.state.channel(first.channel_id).settled == 7
    assert payer.state.promised_ever(Purse.of(first)) == 7


def test_a_close_is_foreseen_by_what_the_chain_says(
    payer: Payer, payee: Address, furnished: FurnishedChain
) -> None:
    """The payee closed it already, and the books have not looked since."""
    entry = payer.open_channel(payee, ETHER, url="http://127.0.0.1:1/")
    close_by_payee(furnished, entry.channel)

    with pytest.raises(ChannelFinalized, match="closed already"):
        payer.foresee_close(entry.channel_id)


def test_a_lane_whose_vouchers_only_another_program_signs_is_not_used_again(
    payer: Payer, payee: Address, furnished: FurnishedChain
) -> None:
    """Else the deposit could not be paid with."""
    theirs = Channel(payer.address, payee, NATIVE, Address(b"\x07" * 20), bytes(32))
    contract = payer.wallet.contract_at(furnished.deployment)
    payer.wallet._sender.send(contract.open(theirs, 1000))
    close_by_payee(furnished, theirs)
    rebuild(contract, payer.address, payer.state)
    (found,) = payer.channels()
    assert found.status is ChannelStatus.FINALIZED

    entry = payer.open_channel(payee, 1000)

    assert entry.channel.lane != theirs.lane
    payer.state.reserve(entry.channel_id, 5, payer._sign)


def test_a_lane_that_the_account_itself_signs_for_is_used_again(
    payer: Payer, payee: Address, furnished: FurnishedChain
) -> None:
    own = Channel(payer.address, payee, NATIVE, ZERO_ADDRESS, bytes(32))
    contract = payer.wallet.contract_at(furnished.deployment)
    payer.wallet._sender.send(contract.open(own, 1000))
    close_by_payee(furnished, own)
    rebuild(contract, payer.address, payer.state)

    entry = payer.open_channel(payee, 1000)

    assert entry.channel == own.with_epoch(1)
    payer.state.reserve(entry.channel_id, 5, payer._sign)


@pytest.mark.parametrize("is_closed", [False, True])
def test_old_books_open_a_fresh_lane_where_theirs_went_on_without_them(
    new_payer: Callable[..., Payer],
    payee: Address,
    furnished: FurnishedChain,
    tmp_path: Path,
    is_closed: bool,
) -> None:
    payer = new_payer()
    first = payer.open_channel(payee, 1000)
    close_by_payee(furnished, first.channel)
    payer.channels()
    back_up(tmp_path / "payer.sqlite3", tmp_path / "old.sqlite3")
    second = payer.open_channel(payee, 1000)
    assert second.channel.lane == first.channel.lane
    if is_closed:
        close_by_payee(furnished, second.channel)

    entry = new_payer(state=tmp_path / "old.sqlite3").open_channel(payee, 1000)

    assert (entry.status, entry.channel.lane == first.channel.lane) == (ChannelStatus.OPEN, False)


def test_two_processes_do_not_open_the_same_epoch(
    new_payer: Callable[..., Payer],
    payee: Address,
    furnished: FurnishedChain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other = new_payer(), new_payer()
    close_by_payee(furnished, one.open_channel(payee, 1000).channel)
    planned = other.wallet.plan(payee, NATIVE, 1000, None)
    monkeypatch.setattr(other.wallet, "plan", lambda *_: planned)
    opened = one.open_channel(payee, 1000)
    assert opened.channel_id == planned.channel_id

    with pytest.raises(ConfigError, match="another process"):
        other.open_channel(payee, 1000)

    assert one.state.channel(opened.channel_id) == opened


def test_a_channel_of_another_program_does_not_stand_before_ours(
    payer: Payer, payee: Address, furnished: FurnishedChain
) -> None:
    theirs = Channel(payer.address, payee, NATIVE, Address(b"\x07" * 20), bytes(32))
    contract = payer.wallet.contract_at(furnished.deployment)
    payer.wallet._sender.send(contract.open(theirs, 1000))
    rebuild(contract, payer.address, payer.state)
    own = payer.open_channel(payee, 1000)

    first, _ = payer.state.channels_to(furnished.deployment, payer.address, payee, NATIVE)

    assert first == own


def test_a_channel_of_another_program_does_not_keep_a_session_from_opening_its_own(
    payer: Payer, payee: Address, furnished: FurnishedChain
) -> None:
    theirs = Channel(payer.address, payee, NATIVE, Address(b"\x07" * 20), bytes(32))
    contract = payer.wallet.contract_at(furnished.deployment)
    payer.wallet._sender.send(contract.open(theirs, 1000))
    rebuild(contract, payer.address, payer.state)
    for _ in range(2):
        payer.perform(open_step(furnished, payee))
    payer.allow(Limits(NATIVE, price_max=10))
    issuer = ChallengeIssuer(b"s" * 32, "site")
    challenge = issuer.issue(open_step(furnished, payee).request, time.time() + 60)
    steps = payer.session("https://site.example/").run()

    assert steps.send(None) == Send({})
    paying = steps.send(Answer(402, "https://site.example/", (challenge.to_header(),)))

    _, own = payer.state.channels(payer.address)
    assert isinstance(paying, Send)
    payload = Credential.parse(paying.headers["Authorization"]).payload
    assert isinstance(payload, OpenPayload)
    assert payload.voucher.channel_id == own.channel_id != theirs.id(furnished.deployment)


def test_an_erc20_deposit_is_approved_exactly_and_only_if_need_be(
    payer: Payer, payee: Address, furnished: FurnishedChain
) -> None:
    connection = connect(furnished.chain.rpc_url)
    token = Erc20(connection, furnished.token)
    spender = furnished.deployment.contract
    sender = sender_of(connection, furnished.chain.accounts[1])
    sender.send(token.approve(spender, 0))
    payer.open_channel(payee, 5_000_000, furnished.token)
    assert token.allowance(payer.address, spender) == 0
    sender.send(token.approve(spender, 9))
    before = connection.next_nonce(payer.address)
    payer.open_channel(payee, 9, furnished.token)
    assert connection.next_nonce(payer.address) == before + 1


def test_a_top_up_counts_and_takes_a_close_request_back(
    payer: Payer, payee: Address, furnished: FurnishedChain
) -> None:
    entry = payer.open_channel(payee, ETHER)
    payer.request_close(entry.channel_id)
    assert payer.state.channel(entry.channel_id).status is ChannelStatus.CLOSING
    top_up = payer.top_up(entry.channel_id, ETHER)
    assert payer.state.unpresented_top_ups(entry.channel_id) == [top_up]
    known = payer.state.channel(entry.channel_id)
    assert payer.channels() == [known]
    assert (known.status, known.deposit) == (ChannelStatus.OPEN, 2 * ETHER)


def test_the_payer_gets_out_without_the_payee(
    payer: Payer, payee: Address, furnished: FurnishedChain
) -> None:
    entry = payer.open_channel(payee, ETHER)
    withdrawable_at = payer.request_close(entry.channel_id)
    with pytest.raises(ChainReverted, match="CloseNotReady"):
        payer.withdraw(entry.channel_id)
    requested_at = payer.state.channel(entry.channel_id).close_requested_at
    assert withdrawable_at == requested_at + furnished.grace_seconds
    assert payer.state.channel(entry.channel_id).withdrawable_at == withdrawable_at
    furnished.chain.increase_time(furnished.grace_seconds)
    before = payer.wallet.balance(NATIVE)
    payer.withdraw(entry.channel_id)
    assert payer.wallet.balance(NATIVE) > before + ETHER * 99 // 100
    assert payer.state.channel(entry.channel_id).status is ChannelStatus.FINALIZED


def open_step(furnished: FurnishedChain, payee: Address) -> Open:
    request = SessionRequest(1, NATIVE, payee, furnished.deployment)
    return Open(request, ETHER, "https://site.example/")


def test_a_session_opens_once_while_the_channel_is_usable(
    payer: Payer, payee: Address, furnished: FurnishedChain
) -> None:
    for _ in range(2):
        payer.perform(open_step(furnished, payee))
    (entry,) = payer.channels()
    assert entry.url == "https://site.example/"


def test_a_session_locks_no_second_deposit_while_the_payee_refuses_an_open_channel(
    payer: Payer, payee: Address, furnished: FurnishedChain
) -> None:
    entry = payer.open_channel(payee, ETHER)
    payer.state.refuse(entry.channel_id, "channel-finalized")
    with pytest.raises(BudgetExceeded, match="though it is open"):
        payer.perform(open_step(furnished, payee))
    close_by_payee(furnished, entry.channel)
    payer.perform(open_step(furnished, payee))
    assert payer.channels()[-1].status is ChannelStatus.OPEN


def test_a_channel_on_another_chain_is_not_touched(
    payer: Payer, payee: Address, furnished: FurnishedChain
) -> None:
    elsewhere = Deployment(1, furnished.deployment.contract)
    entry = payer.open_channel(payee, ETHER)
    foreign = type(entry).planned(elsewhere, entry.channel, 5, None, 0)
    payer.state.begin_open(foreign)
    assert len(payer.channels()) == 2
    with pytest.raises(WrongChain):
        payer.top_up(foreign.channel_id, 1)


def test_a_node_of_another_chain_than_the_one_that_is_meant_is_not_used(
    new_payer: Callable[..., Payer], furnished: FurnishedChain, payee: Address
) -> None:
    for connection in (furnished.chain.rpc_url, connect(furnished.chain.rpc_url)):
        payer = new_payer(connection=connection, chain_id=1)
        with pytest.raises(WrongChain):
            payer.open_channel(payee, ETHER)
        assert payer.state.channels(payer.address) == []


def test_a_token_is_asked_for_its_symbol_once(
    payer: Payer, furnished: FurnishedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = payer.wallet.token(furnished.token)
    assert (token.symbol, token.decimals) == (furnished.token_symbol, furnished.token_decimals)
    monkeypatch.setattr(Erc20, "symbol", lambda self: pytest.fail("asked again"))
    assert payer.wallet.token(furnished.token) == token


def test_limits_are_per_token(new_payer: Callable[..., Payer]) -> None:
    payer = new_payer(limits=[Limits(NATIVE, 5)], policy=SendPolicy(confirmations=1))
    assert payer._terms.limits == {NATIVE: Limits(NATIVE, 5)}


class HostileToken:
    """An ERC-20 that says of itself what it likes."""

    def __init__(self, symbol: str, decimals: int) -> None:
        self.address = Address(bytes(20))
        self._symbol = symbol
        self._decimals = decimals

    def symbol(self) -> str:
        return self._symbol

    def decimals(self) -> int:
        return self._decimals


def test_a_tokens_symbol_is_short_and_moves_no_cursor() -> None:
    described = observer._described(HostileToken("\x1b[2JUSD\n" + "x" * 50, 6))  # type: ignore[arg-type]
    assert described.symbol == "[2JUSD" + "x" * 10


def test_a_token_with_absurd_decimals_is_refused() -> None:
    with pytest.raises(InputError, match="decimals"):
        observer._described(HostileToken("USD", 255))  # type: ignore[arg-type]
