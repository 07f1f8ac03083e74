"""``open``: who locks what, what is refused, what the log says."""

from __future__ import annotations

import pytest

from channelpay.protocol.types import (
    DEPOSIT_MAX,
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelState,
    ChannelStatus,
)
from tests.contracts.abi import Event
from tests.contracts.world import GRACE_SECONDS, World, as_struct, reverts

SALT = 0xA1B2C3 << 32 | 7


def test_open_locks_the_deposit_of_the_caller(world: World, asset: Address) -> None:
    channel = world.channel(asset)

    with world.pays(asset, {world.payer: -100, world.payee: 0, world.contract: 100}):
        world.open(channel, 100)

    assert world.state(channel) == ChannelState(ChannelStatus.OPEN, 100)


def test_the_log_of_an_open_carries_the_whole_description(world: World, asset: Address) -> None:
    channel = world.channel(asset, signer=world.session_key, salt=SALT)

    receipt = world.open(channel, 100)

    assert receipt.events == (
        Event(
            "ChannelOpened",
            {
                "channelId": world.id(channel),
                "payer": channel.payer,
                "payee": channel.payee,
                "token": asset,
                "authorizedSigner": channel.authorized_signer,
                "salt": channel.salt,
                "deposit": 100,
            },
        ),
    )


def test_open_answers_the_channel_id(world: World) -> None:
    channel = world.channel(world.token.address, salt=SALT)
    arguments = (channel.payee, channel.token, 100, channel.salt, ZERO_ADDRESS)

    answer = world.read_as(channel.payer, world.contract, "open", *arguments)

    assert answer == world.id(channel)


def test_two_payers_may_use_the_same_salt(world: World, asset: Address) -> None:
    ours, theirs = world.channel(asset), world.channel(asset, payer=world.stranger)

    world.open(ours, 100)
    world.open(theirs, 30)

    assert (world.state(ours).deposit, world.state(theirs).deposit) == (100, 30)


def test_a_deposit_of_nothing_is_refused(world: World, asset: Address) -> None:
    with reverts("ZeroDeposit"):
        world.open(world.channel(asset), 0)


def test_the_greatest_deposit_fits(world: World) -> None:
    channel = world.channel(world.token.address)

    world.open(channel, DEPOSIT_MAX)

    assert world.state(channel).deposit == DEPOSIT_MAX


@pytest.mark.parametrize("deposit", [DEPOSIT_MAX + 1, 2**128 - 1])
def test_a_greater_deposit_is_refused(world: World, asset: Address, deposit: int) -> None:
    with reverts("DepositOverflow", deposit):
        world.open(world.channel(asset), deposit, value=0)


def test_nobody_pays_the_zero_address(world: World, asset: Address) -> None:
    channel = Channel(world.payer.address, ZERO_ADDRESS, asset, ZERO_ADDRESS, bytes(32))

    with reverts("InvalidPayee"):
        world.open(channel, 100)


@pytest.mark.parametrize("sent", [0, 99, 101])
def test_the_value_sent_must_be_the_deposit(world: World, sent: int) -> None:
    with reverts("WrongValue", 100, sent):
        world.open(world.channel(), 100, value=sent)


def test_no_value_comes_with_a_deposit_of_tokens(world: World) -> None:
    with reverts("WrongValue", 0, 1):
        world.open(world.channel(world.token.address), 100, value=1)


def test_a_token_without_code_is_refused(world: World) -> None:
    nowhere = Address(b"\x77" * 20)

    with reverts("InvalidToken", nowhere):
        world.open(world.channel(nowhere), 100)


@pytest.mark.parametrize("missing", ["allowance", "balance"])
def test_tokens_that_the_payer_cannot_move_are_refused(world: World, missing: str) -> None:
    poor = world.accounts[5]
    if missing == "balance":
        world.send(poor, world.token, "approve", world.contract.address, 100)
    else:
        world.send(poor, world.token, "mint", poor.address, 100)

    with reverts("TokenTransferFailed", world.token.address):
        world.open(world.channel(world.token.address, payer=poor), 100)


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_live_channel_is_not_opened_again(world: World, asset: Address, epoch: int) -> None:
    channel = world.channel(asset)
    world.open(channel, 100)
    again = channel.with_epoch(epoch)

    with reverts("ChannelAlreadyExists", world.id(again)):
        world.open(again, 50)

    assert world.state(channel) == ChannelState(ChannelStatus.OPEN, 100)


def test_a_closing_channel_is_not_opened_again(world: World, asset: Address) -> None:
    channel = world.channel(asset)
    world.open(channel, 100)
    world.request_close(channel)
    again = channel.with_epoch(1)

    with reverts("ChannelAlreadyExists", world.id(again)):
        world.open(again, 50)


def test_a_contract_wallet_pays_with_a_session_key(world: World) -> None:
    wallet = world.deploy_wallet("FriendlyWallet")
    world.give_ether(wallet, 100)
    channel = world.channel(payer=wallet, signer=world.session_key)

    world.open(channel, 100)
    with world.pays(NATIVE, {world.payee: 60, wallet: 40}):
        world.close(channel, 60)


@pytest.mark.parametrize("grace_seconds", [0, 1, 599])
def test_a_grace_period_under_ten_minutes_is_refused(world: World, grace_seconds: int) -> None:
    with reverts("GracePeriodTooShort", grace_seconds):
        world.deploy_channels(grace_seconds)


def test_ten_minutes_are_enough(world: World) -> None:
    contract = world.deploy_channels(600)

    assert world.read(contract, "gracePeriod") == 600 == GRACE_SECONDS


def test_the_contract_takes_no_money_outside_of_a_channel(world: World) -> None:
    with reverts(""):
        world.send_data(world.stranger, world.contract.address, b"", value=1)


FUNCTIONS_WITHOUT_VALUE = ["settle", "close", "requestClose", "withdraw"]


@pytest.mark.parametrize("function", FUNCTIONS_WITHOUT_VALUE)
def test_only_deposits_take_value(world: World, function: str) -> None:
    channel = world.channel()
    world.open(channel, 100)
    voucher = (50, world.sign(channel, 50)) if function in ("settle", "close") else ()

    with reverts(""):
        world.send(world.payer, world.contract, function, as_struct(channel), *voucher, value=1)
