"""Typed calls: what is sent arrives, what is read is what the protocol's own code computes."""

from __future__ import annotations

import secrets

import pytest

from channelpay.chain.connection import Connection
from channelpay.chain.contract import PUSH_GAS_RESERVE, Erc20, PaymentChannelsContract
from channelpay.chain.events import (
    ChannelClosed,
    ChannelOpened,
    CloseCancelled,
    CloseRequested,
    Event,
    EventFilter,
    EventReader,
    RowSkipped,
    Settled,
    ToppedUp,
    events_in,
)
from channelpay.chain.sender import Sender
from channelpay.chain.types import ContractCall
from channelpay.errors import ChainReverted, InputError, NotFound, NotGenuine, WrongChain
from channelpay.protocol.eip712 import (
    VoucherHasher,
    VoucherSigner,
    domain_separator,
    sign_close_authorization,
)
from channelpay.protocol.types import (
    ABSENT,
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelState,
    ChannelStatus,
    Deployment,
    Voucher,
)
from channelpay.testing.accounts import TOKENS_EACH
from channelpay.testing.furnished import FurnishedChain
from tests.support.chains import sender_of

DEPOSIT = 1_000_000


class Parties:
    """A payer and a payee on a furnished chain, and a fresh channel between them."""

    def __init__(self, furnished: FurnishedChain, contract: PaymentChannelsContract) -> None:
        self.contract = contract
        self.accounts = furnished.chain.accounts
        self.token = furnished.token
        self.payer = sender_of(contract.connection, self.accounts[0])
        self.payee = sender_of(contract.connection, self.accounts[1])
        self.signer = VoucherSigner(furnished.deployment, self.accounts[0].private_key)

    def channel(self, token: Address = NATIVE) -> Channel:
        salt = secrets.token_bytes(28) + bytes(4)
        return Channel(self.payer.address, self.payee.address, token, ZERO_ADDRESS, salt)

    def voucher(self, channel: Channel, amount: int) -> tuple[int, bytes]:
        voucher = self.signer.sign(channel.id(self.contract.deployment), amount)
        return voucher.cumulative_amount, voucher.signature

    def events(self, sender: Sender, call: ContractCall) -> list[Event]:
        return list(events_in(sender.send(call), self.contract))


@pytest.fixture
def parties(furnished: FurnishedChain, contract: PaymentChannelsContract) -> Parties:
    return Parties(furnished, contract)


def test_ids_digests_and_domain_are_those_of_the_protocol(
    contract: PaymentChannelsContract, parties: Parties
) -> None:
    channel, deployment = parties.channel(), contract.deployment
    channel_id = channel.id(deployment)
    assert contract.channel_id(channel) == channel_id
    assert contract.domain_separator() == domain_separator(deployment)
    for amount in (0, 1, 2**128 - 1):
        digest = VoucherHasher(deployment).digest(channel_id, amount)
        assert contract.voucher_digest(channel_id, amount) == digest
    assert contract.grace_period_seconds() == 86_400


@pytest.mark.parametrize("native", [True, False], ids=["ETH", "ERC-20"])
def test_a_channels_life_is_read_from_state_and_events(parties: Parties, native: bool) -> None:
    contract, channel = parties.contract, parties.channel(NATIVE if native else parties.token)
    erc20 = Erc20(contract.connection, parties.token)
    place = contract.deployment.contract
    if not native:
        parties.payer.send(erc20.approve(place, 2 * DEPOSIT))
        assert erc20.allowance(parties.payer.address, place) == 2 * DEPOSIT

    (opened,) = parties.events(parties.payer, contract.open(channel, DEPOSIT))
    assert isinstance(opened, ChannelOpened)
    assert (opened.channel, opened.deposit) == (channel, DEPOSIT)
    assert opened.channel_id == channel.id(contract.deployment)
    assert contract.state(channel) == ChannelState(ChannelStatus.OPEN, DEPOSIT)

    (requested,) = parties.events(parties.payer, contract.request_close(channel))
    assert isinstance(requested, CloseRequested)
    closing = contract.state(channel)
    assert closing.status is ChannelStatus.CLOSING
    assert requested.withdrawable_at == closing.close_requested_at + 86_400

    cancelled, topped_up = parties.events(parties.payer, contract.top_up(channel, DEPOSIT))
    assert isinstance(cancelled, CloseCancelled)
    assert isinstance(topped_up, ToppedUp)
    assert (topped_up.amount, topped_up.deposit) == (DEPOSIT, 2 * DEPOSIT)

    settle = contract.settle(channel, *parties.voucher(channel, 300))
    (settled,) = parties.events(parties.payee, settle)
    assert isinstance(settled, Settled)
    assert settled.cumulative_amount == 300
    assert contract.state(channel) == ChannelState(ChannelStatus.OPEN, 2 * DEPOSIT, 300)

    close = contract.close(channel, *parties.voucher(channel, 500))
    (closed,) = parties.events(parties.payee, close)
    assert isinstance(closed, ChannelClosed)
    assert (closed.settled, closed.refund) == (500, 2 * DEPOSIT - 500)
    assert (closed.payer, closed.payee) == (channel.payer, channel.payee)
    assert contract.state(channel).status is ChannelStatus.FINALIZED
    assert erc20.balance(parties.payee.address) == TOKENS_EACH + (0 if native else 500)


def test_batches_pay_their_rows_and_name_those_that_they_skip(parties: Parties) -> None:
    contract, signer = parties.contract, parties.signer
    first, second, absent = (parties.channel() for _ in range(3))
    for channel in (first, second):
        parties.payer.send(contract.open(channel, DEPOSIT))
    ids = {one: one.id(contract.deployment) for one in (first, second, absent)}
    rows = [(one, signer.sign(channel_id, 300)) for one, channel_id in ids.items()]

    batch = contract.settle_batch(parties.payee.address, NATIVE, rows)
    *settled, skipped = parties.events(parties.payer, batch)
    assert [type(one) for one in settled] == [Settled, Settled]
    assert isinstance(skipped, RowSkipped)
    assert skipped.channel_id == ids[absent]
    assert {one.settled for one in contract.states([first, second])} == {300}

    *closed, skipped = parties.events(parties.payee, contract.close_batch(NATIVE, rows))
    assert [type(one) for one in closed] == [ChannelClosed, ChannelClosed]
    only = EventFilter(channel_ids=frozenset({ids[absent]}))
    batches = EventReader(contract, only).read(EventReader(contract).cursor_at(0))
    assert [type(event) for one in batches for event in one.events] == [RowSkipped, RowSkipped]


def test_a_payee_signs_a_close_that_anyone_sends(parties: Parties) -> None:
    contract, channel = parties.contract, parties.channel()
    parties.payer.send(contract.open(channel, DEPOSIT))
    amount, signature = parties.voucher(channel, 300)
    authorization = sign_close_authorization(
        contract.deployment, parties.accounts[1].private_key, channel.id(contract.deployment), 300
    )

    call = contract.close_with_authorization(channel, amount, signature, authorization)
    (closed,) = parties.events(parties.payer, call)

    assert isinstance(closed, ChannelClosed)
    assert (closed.settled, closed.refund) == (300, DEPOSIT - 300)


def test_every_push_of_a_call_has_gas_in_reserve(parties: Parties) -> None:
    """Else a receiver that refuses only once it is mined could stop every close."""
    contract, channel = parties.contract, parties.channel()
    amount, signature = parties.voucher(channel, 1)
    row = (channel, Voucher(channel.id(contract.deployment), amount, signature))
    payee = parties.payee.address

    assert contract.settle(channel, amount, signature).gas_reserve == PUSH_GAS_RESERVE
    assert contract.close(channel, amount, signature).gas_reserve == 2 * PUSH_GAS_RESERVE
    assert contract.settle_batch(payee, NATIVE, [row] * 3).gas_reserve == PUSH_GAS_RESERVE
    assert contract.close_batch(NATIVE, [row] * 3).gas_reserve == 4 * PUSH_GAS_RESERVE


@pytest.mark.parametrize("signature", [b"", bytes(64), bytes(65), bytes(64) + b"\x1d"])
def test_a_row_takes_no_signature_in_another_form(parties: Parties, signature: bytes) -> None:
    channel = parties.channel()
    voucher = Voucher(channel.id(parties.contract.deployment), 1, signature)

    with pytest.raises(InputError):
        parties.contract.settle_batch(channel.payee, NATIVE, [(channel, voucher)])


def test_the_states_of_many_channels_come_in_order_in_one_call(parties: Parties) -> None:
    contract = parties.contract
    opened, absent = parties.channel(), parties.channel()
    parties.payer.send(contract.open(opened, DEPOSIT))
    states = contract.states([absent, opened, absent])
    assert states == [ABSENT, ChannelState(ChannelStatus.OPEN, DEPOSIT), ABSENT]
    assert contract.states([]) == []


def test_states_are_read_as_of_an_older_block(parties: Parties) -> None:
    contract, channel = parties.contract, parties.channel()
    before = contract.connection.latest_block().number
    parties.payer.send(contract.open(channel, DEPOSIT))

    assert contract.states([channel], block=before) == [ABSENT]
    opened = ChannelState(ChannelStatus.OPEN, DEPOSIT)
    assert contract.states([channel], block=before + 1) == [opened]


def test_the_payer_leaves_alone_once_the_grace_period_is_over(
    furnished: FurnishedChain, parties: Parties
) -> None:
    contract, channel = parties.contract, parties.channel()
    parties.payer.send(contract.open(channel, DEPOSIT))
    parties.payer.send(contract.request_close(channel))
    with pytest.raises(ChainReverted) as caught:
        parties.payer.send(contract.withdraw(channel))
    assert caught.value.error == "CloseNotReady"

    furnished.chain.increase_time(86_400)

    (closed,) = parties.events(parties.payer, contract.withdraw(channel))
    assert isinstance(closed, ChannelClosed)
    assert (closed.settled, closed.refund) == (0, DEPOSIT)


def test_a_voucher_still_settles_after_a_close_request(parties: Parties) -> None:
    contract, channel = parties.contract, parties.channel()
    parties.payer.send(contract.open(channel, DEPOSIT))
    parties.payer.send(contract.request_close(channel))
    parties.payee.send(contract.settle(channel, *parties.voucher(channel, DEPOSIT)))
    assert contract.state(channel).settled == DEPOSIT


def test_nothing_is_kept_for_a_payee_who_can_receive(parties: Parties) -> None:
    assert parties.contract.kept_share(NATIVE, parties.payee.address) == 0
    with pytest.raises(ChainReverted) as caught:
        parties.payee.send(parties.contract.claim(NATIVE, parties.payee.address))
    assert caught.value.error == "NothingToClaim"


def test_the_token_names_itself(furnished: FurnishedChain, connection: Connection) -> None:
    token = Erc20(connection, furnished.token)
    assert (token.name(), token.symbol(), token.decimals()) == ("Test Dollar", "TUSD", 6)


def test_a_value_outside_its_type_is_an_input_error(
    contract: PaymentChannelsContract, parties: Parties
) -> None:
    channel = parties.channel()
    with pytest.raises(InputError):
        contract.open(channel, 2**128)
    with pytest.raises(InputError):
        contract.open(channel, -1)
    with pytest.raises(InputError):
        contract.voucher_digest(channel.id(contract.deployment), 2**128)


def test_where_there_is_no_contract_nothing_answers(connection: Connection) -> None:
    nowhere = Address(b"\x22" * 20)
    contract = PaymentChannelsContract(connection, Deployment(31337, nowhere))
    with pytest.raises(NotFound, match="gracePeriod"):
        contract.grace_period_seconds()
    with pytest.raises(NotFound):
        Erc20(connection, nowhere).symbol()


def test_a_contract_is_bound_to_its_chain(connection: Connection) -> None:
    with pytest.raises(WrongChain):
        PaymentChannelsContract(connection, Deployment(1, Address(b"\x22" * 20)))


def test_only_the_shipped_code_is_genuine(
    furnished: FurnishedChain, contract: PaymentChannelsContract, connection: Connection
) -> None:
    contract.require_genuine()
    impostor = PaymentChannelsContract(connection, Deployment(31337, furnished.token))
    with pytest.raises(NotGenuine, match="not the PaymentChannels contract"):
        impostor.require_genuine()
    person = Deployment(31337, furnished.chain.accounts[0].address)
    with pytest.raises(NotFound, match="there is no contract"):
        PaymentChannelsContract(connection, person).require_genuine()
