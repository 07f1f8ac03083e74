"""The settler on a real chain: what it takes, what it survives, and what it says."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from eth_account import Account

from channelpay.chain import outgoing as outgoing_module
from channelpay.chain.connection import connect
from channelpay.chain.fees import FeePolicy
from channelpay.chain.outgoing import TransactionSender, Urgency
from channelpay.chain.types import ContractCall
from channelpay.errors import ChainReverted, InsufficientFunds, NetworkError, StoreUnavailable
from channelpay.observe.alerts import AlertName, Alerts
from channelpay.payee import settler as settler_module
from channelpay.payee.chain_link import ChainLink
from channelpay.payee.closer import Closer, Work
from channelpay.payee.policy import Kind, Moment, SettlementPolicy, watchtower_policy
from channelpay.payee.settler import Settler
from channelpay.protocol.transactions import Outgoing, TransactionStatus
from channelpay.protocol.types import Address, ChannelStatus
from channelpay.testing.furnished import FurnishedChain
from tests.payee.office import Office, office_on
from tests.payee.shop import DEPOSIT, PRICE, OpenChannel, Payer

EAGER = SettlementPolicy(age_max_seconds=0)


class Staff:
    """Who settles for an office, with the account of the given number."""

    def __init__(
        self,
        office: Office,
        furnished: FurnishedChain,
        policy: SettlementPolicy = SettlementPolicy(),  # noqa: B008  a frozen value
        index: int = 2,
        key: bytes | None = None,
    ) -> None:
        self.office = office
        self.alerts = Alerts(())
        secret = key or furnished.chain.accounts[index].private_key
        connection = office.link.contract.connection
        self.sender = TransactionSender(connection, Account.from_key(secret), office.store)
        self.closer = Closer(office.link, self.sender, office.store)
        self.policy = policy
        self.settler = self.fresh()

    def fresh(self) -> Settler:
        """One that was just started and knows what is in the books."""
        return Settler(self.closer, self.office.terms.payee, self.policy, self.alerts)

    def work(self) -> None:
        """Follow and settle, until nothing is left to do."""
        for _ in range(4):
            self.office.follow()
            self.settler.step()

    @property
    def journal(self) -> list[tuple[Work | None, TransactionStatus]]:
        """Oldest first."""
        rows = self.office.store.transactions()[::-1]
        return [(Work.of(one), one.status) for one in rows]

    @property
    def told(self) -> list[AlertName]:
        return [alert.name for alert in self.alerts.active]


@pytest.fixture
def office(furnished: FurnishedChain, payer: Payer) -> Office:
    return office_on(furnished, payer)


@pytest.fixture
def staff(office: Office, furnished: FurnishedChain) -> Staff:
    return Staff(office, furnished)


def give_ether(office: Office, account: Address, amount_wei: int) -> None:
    office.payer.sender.send(ContractCall(account, value_wei=amount_wei))


def request_close(office: Office, *channels: OpenChannel) -> None:
    for channel in channels:
        office.payer.request_close(channel)
    office.follow()


def test_a_requested_close_is_answered_with_the_best_voucher(staff: Staff, office: Office) -> None:
    channel = office.channel(3 * PRICE)
    request_close(office, channel)
    before = office.payee_tokens()

    staff.work()

    chain = office.record(channel).chain
    assert (chain.status, chain.settled) == (ChannelStatus.FINALIZED, 3 * PRICE)
    assert office.payee_tokens() - before == 3 * PRICE


def test_many_requested_closes_are_one_transaction(staff: Staff, office: Office) -> None:
    channels = [office.channel((number + 1) * PRICE) for number in range(3)]
    request_close(office, *channels)
    before = office.payee_tokens()

    staff.work()

    assert {office.record(one).chain.status for one in channels} == {ChannelStatus.FINALIZED}
    assert office.payee_tokens() - before == 6 * PRICE
    ((work, status),) = staff.journal
    assert work is not None
    assert (work.kind, status) == (Kind.CLOSE, TransactionStatus.CONFIRMED)
    assert {*work.channel_ids} == {one.id for one in channels}


def test_what_is_not_worth_its_gas_stays_until_the_payer_wants_its_close(
    office: Office, furnished: FurnishedChain
) -> None:
    token = office.terms.tokens[0].address
    staff = Staff(office, furnished, replace(EAGER, eth_price={token: 10**30}))
    channel = office.channel(PRICE)
    staff.work()
    assert staff.journal == []
    request_close(office, channel)
    staff.work()
    assert office.record(channel).chain.settled == PRICE


def test_what_the_policy_wants_settled_is_settled_in_one_batch_and_the_channels_go_on(
    office: Office, furnished: FurnishedChain
) -> None:
    token = office.terms.tokens[0].address
    staff = Staff(office, furnished, replace(EAGER, value_min={token: 2 * PRICE}))
    channels = [office.channel(amount * PRICE) for amount in (1, 2, 3)]
    staff.work()
    settled = [office.record(one).chain.settled for one in channels]
    assert settled == [0, 2 * PRICE, 3 * PRICE]
    assert len(staff.journal) == 1
    office.buy(channels[2], 4 * PRICE)


def test_somebody_elses_account_settles_and_never_closes(
    office: Office, furnished: FurnishedChain
) -> None:
    staff = Staff(office, furnished, watchtower_policy(SettlementPolicy(), 0), index=5)
    channel = office.channel(2 * PRICE)
    request_close(office, channel)
    before = office.payee_tokens()
    staff.work()
    chain = office.record(channel).chain
    assert (chain.status, chain.settled) == (ChannelStatus.CLOSING, 2 * PRICE)
    assert office.payee_tokens() - before == 2 * PRICE


def test_nothing_is_sent_twice_for_a_channel_under_way(
    staff: Staff, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = office.channel(PRICE)
    request_close(office, channel)
    monkeypatch.setattr(staff.sender, "_broadcast", lambda signed: None)
    monkeypatch.setattr(settler_module, "UNFINISHED_SECONDS", 0)
    for _ in range(3):
        staff.settler.step()
        staff.fresh().step()
    assert len(staff.journal) == 1


def test_a_close_that_was_begun_and_not_sent_is_sent_by_the_next_settler(
    staff: Staff, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process was killed between the mark in the books and the journal."""
    channel = office.channel(PRICE)
    office.store.begin_close(channel.id, None).result()
    staff.work()
    assert staff.journal == []  # who began it may be about to send it

    monkeypatch.setattr(settler_module, "UNFINISHED_SECONDS", 0)
    staff.work()

    chain = office.record(channel).chain
    assert (chain.status, chain.settled) == (ChannelStatus.FINALIZED, PRICE)
    assert office.record(channel).closes_begun == 1  # no other one was begun


def test_a_transaction_that_was_journaled_and_not_broadcast_is_broadcast_by_the_next_settler(
    staff: Staff, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process was killed between the journal and the node."""
    channel = office.channel(PRICE)
    request_close(office, channel)
    with monkeypatch.context() as killed:
        killed.setattr(staff.sender, "_broadcast", lambda signed: None)
        staff.settler.step()
    assert [status for _, status in staff.journal] == [TransactionStatus.PENDING]

    staff.settler = staff.fresh()
    staff.work()

    assert office.record(channel).chain.status is ChannelStatus.FINALIZED
    assert [status for _, status in staff.journal] == [TransactionStatus.CONFIRMED]


def test_where_a_close_is_refused_the_payee_is_settled(
    staff: Staff, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A payer's wallet can make every close fail: it is not to keep what it owes."""
    channels = [office.channel(PRICE), office.channel(PRICE)]
    request_close(office, *channels)
    refuse(monkeypatch, staff, lambda purpose: purpose.startswith("close"))

    staff.work()

    assert {office.record(one).chain.settled for one in channels} == {PRICE}
    assert {office.record(one).closes_begun for one in channels} == {0}
    assert {work.kind for work, _ in staff.journal if work} == {Kind.SETTLE}


def test_one_channel_that_fails_does_not_hold_up_the_others(
    staff: Staff, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels = [office.channel(PRICE) for _ in range(3)]
    request_close(office, *channels)
    bad = channels[1].id.hex()
    refuse(monkeypatch, staff, lambda purpose: bad in purpose)

    staff.work()

    settled = [office.record(one).chain.settled for one in channels]
    assert settled == [PRICE, 0, PRICE]
    assert AlertName.TRANSACTION_FAILED in staff.told


def refuse(monkeypatch: pytest.MonkeyPatch, staff: Staff, refuses: Callable[[str], bool]) -> None:
    """The contract would refuse the transactions whose purpose this says."""
    send = staff.sender.send

    def checked(call: Any, purpose: str, *, urgency: float = 0.0) -> Any:
        if refuses(purpose):
            raise ChainReverted(error="GasTooLow")
        return send(call, purpose, urgency=urgency)

    monkeypatch.setattr(staff.sender, "send", checked)


def test_a_void_voucher_is_told_and_holds_up_no_other(staff: Staff, office: Office) -> None:
    channels = [office.channel(PRICE), office.channel(PRICE)]
    bad = office.record(channels[0])
    office.store._rows.records[bad.channel_id] = replace(bad, signature=bytes(65))
    request_close(office, *channels)
    staff.work()
    assert [office.record(one).chain.settled for one in channels] == [0, PRICE]
    assert AlertName.BAD_VOUCHER in staff.told


def test_without_gas_money_nothing_is_sent_and_it_goes_on_when_there_is_some(
    office: Office, furnished: FurnishedChain
) -> None:
    key = bytes([7]) * 32
    staff = Staff(office, furnished, key=key)
    staff.policy = replace(staff.policy, closes=False)
    staff.settler = staff.fresh()
    channel = office.channel(PRICE)
    request_close(office, channel)

    staff.work()
    assert (staff.journal, staff.told[0]) == ([], AlertName.NO_GAS_MONEY)
    assert staff.alerts.exit_code == InsufficientFunds.exit_code

    give_ether(office, staff.sender.address, 10**18)
    staff.work()
    assert office.record(channel).chain.settled == PRICE
    assert AlertName.NO_GAS_MONEY not in staff.told


def test_an_account_that_cannot_pay_for_a_batch_pays_for_one_channel_after_the_other(
    office: Office, furnished: FurnishedChain
) -> None:
    key = bytes([8]) * 32
    staff = Staff(office, furnished, replace(SettlementPolicy(), closes=False), key=key)
    channels = [office.channel(PRICE), office.channel(PRICE)]
    request_close(office, *channels)
    moment = staff.settler.moment()
    # Enough for about 320 000 gas: the reserve of one channel's receiver and its own gas.
    give_ether(office, staff.sender.address, 330_000 * moment.gas_price_wei)
    for _ in range(4):
        staff.work()
    assert {office.record(one).chain.settled for one in channels} == {PRICE}


def test_the_last_gas_money_is_kept_for_what_brings_more_than_its_gas(
    office: Office, furnished: FurnishedChain
) -> None:
    token = office.terms.tokens[0].address
    small, large = PRICE, 50 * PRICE
    moment = Staff(office, furnished).settler.moment()
    worth = 100_000 * moment.gas_price_wei
    policy = SettlementPolicy(closes=False, eth_price={token: 10**18 * large // worth})
    staff = Staff(office, furnished, policy, key=bytes([10]) * 32)
    give_ether(office, staff.sender.address, 500_000 * moment.gas_price_wei)
    dust = [office.channel(small) for _ in range(3)]
    request_close(office, *dust)
    staff.work()
    assert staff.journal == []
    real = office.channel(large)
    request_close(office, real)
    staff.work()
    assert office.record(real).chain.settled == large
    give_ether(office, staff.sender.address, 10**18)
    staff.work()
    assert {office.record(one).chain.settled for one in dust} == {small}


def test_a_low_balance_is_told_before_it_is_too_late(
    office: Office, furnished: FurnishedChain
) -> None:
    staff = Staff(office, furnished, replace(SettlementPolicy(), closes=False), key=bytes([9]) * 32)
    give_ether(office, staff.sender.address, 10**15)
    request_close(office, office.channel(PRICE))
    staff.settler.step()
    assert AlertName.GAS_MONEY_LOW in staff.told
    staff.work()
    assert staff.told == []  # nothing is owed any more


def test_the_urgent_part_of_a_grace_period_is_told_until_the_channel_is_settled(
    staff: Staff, office: Office, furnished: FurnishedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = furnished.chain.snapshot()
    channel = office.channel(PRICE)
    request_close(office, channel)
    furnished.chain.increase_time(furnished.grace_seconds - 3600)
    with monkeypatch.context() as failing:
        refuse(failing, staff, lambda purpose: True)
        staff.settler.step()
    assert AlertName.DEADLINE_NEAR in staff.told
    staff.settler = staff.fresh()
    staff.work()
    assert office.record(channel).chain.settled == PRICE
    assert AlertName.DEADLINE_NEAR not in staff.told
    furnished.chain.revert(snapshot)


def test_a_transaction_is_as_urgent_as_the_most_urgent_one_behind_it(
    office: Office, furnished: FurnishedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = furnished.chain.snapshot()
    token = office.terms.tokens[0].address
    staff = Staff(office, furnished, replace(EAGER, value_min={token: 0}))
    monkeypatch.setattr(staff.sender, "_broadcast", lambda signed: None)
    office.channel(PRICE)
    staff.settler.step()
    late = office.channel(PRICE)
    request_close(office, late)
    furnished.chain.increase_time(furnished.grace_seconds - 60)
    staff.settler.step()
    asked: list[float] = []

    def step(urgency: Urgency) -> list[Outgoing]:
        asked.extend(map(urgency, staff.settler.pending()))
        return []

    monkeypatch.setattr(staff.sender, "step", step)
    staff.settler.step()
    assert asked == [1.0, 1.0]
    furnished.chain.revert(snapshot)


def test_a_process_that_may_no_longer_work_sends_nothing_more(staff: Staff, office: Office) -> None:
    request_close(office, office.channel(PRICE))
    asked = []

    def check() -> None:
        asked.append(1)
        if len(asked) > 1:
            raise NetworkError("another process works")

    with pytest.raises(NetworkError):
        staff.settler.step(check)
    assert staff.journal == []


def test_a_process_that_may_no_longer_work_stops_between_the_channels_of_a_batch(
    staff: Staff, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_close(office, *(office.channel(PRICE) for _ in range(3)))
    refuse(monkeypatch, staff, lambda purpose: len(purpose.split()) > 2)

    def check() -> None:
        if staff.journal:
            raise NetworkError("another process works")

    with pytest.raises(NetworkError):
        staff.settler.step(check)
    assert len(staff.journal) == 1


def test_a_close_whose_journal_nobody_knows_the_end_of_stays_begun(
    staff: Staff, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = office.channel(PRICE)

    def lost(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("the connection broke")

    with monkeypatch.context() as broken:
        broken.setattr(staff.sender, "send", lost)
        with pytest.raises(StoreUnavailable):
            staff.closer.close(office.record(channel))
    assert office.record(channel).closes_begun == 1


def test_channels_of_another_payee_are_left_alone(
    staff: Staff, office: Office, furnished: FurnishedChain
) -> None:
    stranger = furnished.chain.accounts[4].address
    channel = office.payer.open(DEPOSIT, payee=stranger)
    view = office.link.views([channel.channel])[0]
    office.store.add_channel(channel.id, channel.channel, view).result()
    office.store.begin_close(channel.id, channel.sign(PRICE)).result()
    assert staff.settler.plan() == []
    staff.work()
    assert staff.journal == []


def test_a_plan_that_is_only_shown_sends_nothing(staff: Staff, office: Office) -> None:
    request_close(office, office.channel(PRICE))
    (plan,) = staff.settler.plan()
    assert (plan.kind, plan.value) == (Kind.CLOSE, PRICE)
    assert staff.journal == []


def test_a_fee_limit_is_kept_whatever_the_urgency(
    office: Office, furnished: FurnishedChain
) -> None:
    staff = Staff(office, furnished)
    account = Account.from_key(furnished.chain.accounts[2].private_key)
    connection = connect(furnished.chain.rpc_url)
    sender = TransactionSender(connection, account, office.store, FeePolicy(fee_per_gas_wei_max=1))
    link = ChainLink(office.link.contract)
    staff.closer = Closer(link, sender, office.store)
    staff.settler = staff.fresh()
    request_close(office, office.channel(PRICE))
    staff.settler.step()
    assert staff.journal == []


def test_a_close_that_fails_on_chain_is_not_tried_again_and_the_payee_is_settled(
    staff: Staff, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wallet may let the trial pass and the transaction fail: that is to cost gas once."""
    channel = office.channel(PRICE)
    request_close(office, channel)
    with monkeypatch.context() as out_of_gas:
        out_of_gas.setattr(outgoing_module, "gas_limit", lambda *_: 40_000)
        staff.settler.step()
    monkeypatch.setattr(settler_module, "REST_SECONDS", 0)
    staff.work()
    assert office.record(channel).chain.settled == PRICE
    assert office.record(channel).closes_begun == 0
    assert [(work.kind, status) for work, status in staff.journal if work] == [
        (Kind.CLOSE, TransactionStatus.FAILED),
        (Kind.SETTLE, TransactionStatus.CONFIRMED),
    ]


def test_a_close_that_its_batch_passes_over_is_not_paid_for_again_and_again(
    staff: Staff, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vouchers above what is left of the deposits, after a reorganisation took the top-ups."""
    monkeypatch.setattr(settler_module, "UNFINISHED_SECONDS", 0.0)
    for channel in [office.channel() for _ in range(2)]:
        view, _ = office.link.opened(channel.id, channel.channel, channel.transaction_hash)
        more = replace(view, state=replace(view.state, deposit=2 * DEPOSIT))
        office.store.update_chain(channel.id, more).result()
        office.buy(channel, DEPOSIT + PRICE)
        office.store.begin_close(channel.id, None).result()
    for _ in range(3):
        staff.work()
    assert len(staff.journal) == 1


def test_what_a_close_took_is_known_also_where_the_next_channel_is_in_the_slot(
    staff: Staff, office: Office
) -> None:
    channel, following = in_one_slot(office)
    outgoing = staff.closer.send(Kind.CLOSE, [office.record(channel)])
    office.payer.open(salt=following)

    (taken,) = staff.closer.wait(outgoing)

    assert (taken.amount, taken.record.chain.status) == (PRICE, ChannelStatus.FINALIZED)
    assert taken.record.chain.settled == PRICE


def test_what_another_took_and_the_contract_forgot_is_left_to_who_reads_the_log(
    staff: Staff, office: Office
) -> None:
    channel, following = in_one_slot(office)
    office.follow()
    office.close(channel)
    office.payer.open(salt=following)

    (seen,) = staff.closer.look([office.record(channel)])
    assert seen.record.chain.status is ChannelStatus.OPEN
    office.follow()

    state = office.record(channel).chain
    assert (state.status, state.settled) == (ChannelStatus.FINALIZED, PRICE)


def in_one_slot(office: Office) -> tuple[OpenChannel, bytes]:
    """A channel that bought something, and the salt of the next one in its slot."""
    lane = os.urandom(28)
    channel = office.payer.open(salt=lane + bytes(4))
    office.enter(channel)
    office.buy(channel, PRICE)
    return channel, lane + bytes([0, 0, 0, 1])


def test_a_channel_without_its_top_up_is_settled_with_the_voucher_from_before_it(
    staff: Staff, office: Office
) -> None:
    channel = office.channel(PRICE)
    view, _ = office.link.opened(channel.id, channel.channel, channel.transaction_hash)
    topped_up = replace(view.state, deposit=2 * DEPOSIT)
    office.store.update_chain(channel.id, replace(view, state=topped_up)).result()
    office.buy(channel, DEPOSIT + PRICE)
    request_close(office, channel)

    staff.work()

    state = office.record(channel).chain
    assert (state.status, state.settled) == (ChannelStatus.FINALIZED, PRICE)


def test_what_nobody_waits_for_is_planned_from_time_to_time(
    office: Office, furnished: FurnishedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = office.terms.tokens[0].address
    staff = Staff(office, furnished, replace(EAGER, value_min={token: 10 * PRICE}))
    office.channel(PRICE)
    planned = []
    moment = staff.settler.moment

    def noted() -> Moment:
        planned.append(1)
        return moment()

    monkeypatch.setattr(staff.settler, "moment", noted)
    for _ in range(3):
        staff.settler.step()
    assert len(planned) == 1
