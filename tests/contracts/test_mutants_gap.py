"""Rules that a contract could break while all other tests pass; `make mutants` asked for them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from channelpay.protocol.types import (
    DEPOSIT_MAX,
    NATIVE,
    ZERO_ADDRESS,
    Address,
    ChannelState,
    ChannelStatus,
)
from scripts import build_contracts
from tests.contracts.abi import Abi
from tests.contracts.funding import Form, authorized_open, open_nonce
from tests.contracts.funding import deploy_token as deploy_funding_token
from tests.contracts.test_payouts import ANNA, BERT, pay, payouts, said
from tests.contracts.test_splitter import AUTHOR, TRIO, new_splitter, releasable
from tests.contracts.world import (
    GRACE_SECONDS,
    UNLIMITED,
    Contract,
    Mock,
    Wallet,
    World,
    as_struct,
    reverts,
)

__all__ = ["payouts"]

TRUE, FALSE, TWO = (number.to_bytes(32, "big") for number in (1, 0, 2))
SHORT = bytes(31)
"""Nearly a word: written over the last answer, it leaves that one's last byte."""

SOURCE = """
// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {MockToken} from "contracts/mocks/HostileTokens.sol";
import {MockWallet} from "contracts/mocks/HostileWallets.sol";

/// @notice Moves what it is asked to, and then answers what it was told to answer to this receiver.
contract AnsweringToken is MockToken {
    mapping(address => bytes) private _answers;

    function answer(address to, bytes calldata data) external {
        _answers[to] = data;
    }

    function transfer(address to, uint256 value) external {
        _move(msg.sender, to, value);
        _end(_answers[to]);
    }

    function transferFrom(address from, address to, uint256 value) external {
        _pull(from, to, value);
        _end(_answers[to]);
    }

    function _end(bytes memory data) private pure {
        assembly ("memory-safe") {
            return(add(data, 0x20), mload(data))
        }
    }
}

/// @notice Reverts with a word that looks like a balance.
contract TalkativeToken {
    function balanceOf(address) external pure {
        assembly ("memory-safe") {
            mstore(0, 1000)
            revert(0, 0x20)
        }
    }
}

/// @notice Comes back from its next payment, once: one that comes back each time runs out of gas in
/// the end, and undoes what it gained.
contract OnceReentrantWallet is MockWallet {
    address private _target;
    bytes private _data;
    bool private _refusing;

    function setRefusing(bool value) external {
        _refusing = value;
    }

    function plan(address target, bytes calldata data) external {
        (_target, _data) = (target, data);
    }

    receive() external payable {
        require(!_refusing);
        address target = _target;
        if (target == address(0)) return;
        _target = address(0);
        (bool success,) = target.call(_data);
        success; // the attempt costs nothing
    }
}
"""


@cache
def gap_mocks() -> dict[str, Mock]:
    """The contracts above by name, compiled once per test run."""
    path = "GapMocks.sol"
    needed = [f"contracts/mocks/Hostile{kind}.sol" for kind in ("Tokens", "Wallets")]
    sources = build_contracts.read_sources()
    output = build_contracts.compile_sources(
        {one: sources[one] for one in needed} | {path: SOURCE},
        {path: build_contracts.CODE_OUTPUTS},
    )
    return {
        name: Mock(Abi(contract["abi"]), bytes.fromhex(contract["evm"]["bytecode"]["object"]))
        for name, contract in output["contracts"][path].items()
    }


@pytest.fixture
def token(world: World) -> Contract:
    """An answering token, of which the payer holds much, all of it approved."""
    mock = gap_mocks()["AnsweringToken"]
    token = Contract(world.deploy(mock.bytecode), mock.abi)
    world.fund(world.payer, token)
    return token


@pytest.fixture
def wallet(world: World) -> Wallet:
    """A wallet that comes back once, with 100 wei; strangers have 1,000 wei in the contract."""
    mock = gap_mocks()["OnceReentrantWallet"]
    wallet = Wallet(world.deploy(mock.bytecode), world.stranger)
    world.senders[wallet.address] = wallet
    world.give_ether(wallet, 100)
    world.open(world.channel(salt=1 << 32), 1000)
    return wallet


def plan(world: World, wallet: Wallet, function: str, *arguments: object) -> None:
    """What the wallet calls when it is paid next."""
    data = world.contract.abi.encode(function, *arguments)
    configure(world, wallet, "plan", world.contract.address, data)


def configure(world: World, wallet: Wallet, function: str, *values: object) -> None:
    """Call a setter of the wallet."""
    contract = Contract(wallet.address, gap_mocks()["OnceReentrantWallet"].abi)
    world.send(world.stranger, contract, function, *values)


def answers(world: World, token: Contract, receiver: Address, data: bytes) -> None:
    """What the token returns from now on when it has moved something to the receiver."""
    world.send(world.stranger, token, "answer", receiver, data)


@pytest.mark.parametrize("data", [FALSE, TWO, SHORT], ids=["false", "two", "short"])
def test_a_deposit_whose_token_does_not_answer_true_is_refused(
    world: World, token: Contract, data: bytes
) -> None:
    """Even if all of it arrived. The balance of one unit, read before, is no answer."""
    answers(world, token, world.contract.address, data)
    world.send(world.stranger, token, "mint", world.contract.address, 1)

    with reverts("TokenTransferFailed", token.address):
        world.open(world.channel(token.address), 100)


@pytest.mark.parametrize("data", [FALSE, TWO, SHORT], ids=["false", "two", "short"])
def test_a_share_whose_token_does_not_answer_true_is_kept(
    world: World, token: Contract, data: bytes
) -> None:
    """The answer to the payee's push, just before, is no answer to the payer's."""
    channel = world.channel(token.address)
    world.open(channel, 100)
    answers(world, token, world.payee.address, TRUE)
    answers(world, token, world.payer.address, data)

    world.close(channel, 60)

    assert world.kept(token.address, world.payee.address) == 0
    assert world.kept(token.address, world.payer.address) == 40


@pytest.mark.parametrize("data", [FALSE, TWO, SHORT], ids=["false", "two", "short"])
def test_a_payout_whose_token_does_not_answer_true_is_skipped(
    world: World, payouts: Contract, token: Contract, data: bytes
) -> None:
    """The answer for the row before is none for this one."""
    world.send(world.payer, token, "approve", payouts.address, UNLIMITED)
    answers(world, token, ANNA, TRUE)
    answers(world, token, BERT, data)

    pay(world, payouts, token.address, 0, [(ANNA, 60), (BERT, 40)])

    assert said(world, payouts) == [(ANNA, 60, True), (BERT, 40, False)]


@pytest.mark.parametrize("data", [TRUE, b""], ids=["true", "nothing"])
def test_a_share_that_was_paid_is_not_kept_as_well(
    world: World, token: Contract, data: bytes
) -> None:
    """It would be paid twice; a token may answer true, or nothing."""
    channel = world.channel(token.address)
    world.open(channel, 100)
    for party in (world.payee, world.payer):
        answers(world, token, party.address, data)

    with world.pays(token.address, {world.payee: 60, world.payer: 40}):
        receipt = world.close(channel, 60)

    assert [event.name for event in receipt.events] == ["ChannelClosed"]
    assert world.kept(token.address, world.payee.address) == 0


def test_what_a_token_says_when_it_reverts_is_no_balance(world: World) -> None:
    token = world.deploy(gap_mocks()["TalkativeToken"].bytecode)
    splitter = new_splitter(world, TRIO)

    assert releasable(world, splitter, token, AUTHOR) == 0


@pytest.mark.parametrize("action", ["settle", "close"])
def test_a_payee_that_comes_back_once_is_paid_once(
    world: World, wallet: Wallet, action: str
) -> None:
    channel = world.channel(payee=wallet)
    world.open(channel, 100)
    plan(world, wallet, action, as_struct(channel), 60, world.sign(channel, 60))

    with world.pays(NATIVE, {wallet: 60}):
        getattr(world, action)(channel, 60)


def test_a_payer_that_comes_back_once_is_refunded_once(world: World, wallet: Wallet) -> None:
    channel = world.channel(payer=wallet, signer=world.session_key)
    world.open(channel, 100)
    world.next_block_at(world.request_close(channel).timestamp + GRACE_SECONDS)
    plan(world, wallet, "withdraw", as_struct(channel))

    with world.pays(NATIVE, {wallet: 100}):
        world.withdraw(channel)


def test_a_claimer_that_comes_back_once_is_paid_once(world: World, wallet: Wallet) -> None:
    channel = world.channel(payee=wallet)
    world.open(channel, 100)
    configure(world, wallet, "setRefusing", True)
    world.settle(channel, 60)
    configure(world, wallet, "setRefusing", False)
    plan(world, wallet, "claim", NATIVE, wallet.address)

    with world.pays(NATIVE, {wallet: 60}):
        world.claim(wallet, NATIVE, wallet.address)


def test_each_deployment_has_the_grace_period_it_was_given(world: World) -> None:
    contract = world.deploy_channels(3600)

    assert world.read(contract, "gracePeriod") == 3600


def test_a_top_up_by_the_payee_cancels_nothing(world: World) -> None:
    channel = world.channel()
    world.open(channel, 100)
    requested_at = world.request_close(channel).timestamp

    world.top_up(channel, 30, sender=world.payee)

    assert world.state(channel) == ChannelState(ChannelStatus.CLOSING, 130, 0, requested_at)


def test_nothing_is_pushed_to_one_who_gets_nothing(world: World) -> None:
    """A receiver that burns gas would cost the payee some of it, and leave a log of nothing."""
    payee = world.deploy_wallet("GasBurningWallet")
    channel = world.channel(payee=payee)
    world.open(channel, 100)

    receipt = world.close(channel, 0, b"")

    assert [event.name for event in receipt.events] == ["ChannelClosed"]


@pytest.mark.parametrize("bit", [0, 63, 64, 94])
def test_a_settlement_replaces_every_bit_of_the_one_before(world: World, bit: int) -> None:
    channel = world.channel(world.token.address)
    world.open(channel, DEPOSIT_MAX)

    world.settle(channel, 2**bit)
    world.settle(channel, 2 ** (bit + 1))

    assert world.state(channel).settled == 2 ** (bit + 1)


def test_a_signature_that_no_key_made_never_stands_for_the_signer_of_the_row_before(
    world: World,
) -> None:
    """Nobody is recovered from it, and the memory for the answer held the payer just before."""
    good, bad = world.channel(), world.channel(salt=1 << 32)
    world.open(good, 100)
    world.open(bad, 100)
    forged = (*world.row(bad, 60)[:4], bytes(32), bytes(32))

    with world.pays(NATIVE, {world.payee: 60}):
        world.settle_batch(world.payee.address, NATIVE, [world.row(good, 60), forged])

    assert world.state(bad) == ChannelState(ChannelStatus.OPEN, 100)


def test_a_signature_that_no_key_made_never_stands_for_a_payer_of_zero(world: World) -> None:
    """A token that believes everyone moves money of the zero address, too."""
    token = deploy_funding_token(world, "HookFundingToken")
    world.send(world.stranger, token, "mint", ZERO_ADDRESS, 100)
    channel = world.channel(token.address)
    call = authorized_open(world, channel, 100, Form.BYTES).changed("from", ZERO_ADDRESS)
    call.changed("nonce", open_nonce(call.values)).send(world)
    nobodys = replace(channel, payer=ZERO_ADDRESS)
    assert world.state(nobodys) == ChannelState(ChannelStatus.OPEN, 100)

    with reverts("InvalidSignature"):
        world.send(
            world.stranger, world.contract, "settle", as_struct(nobodys), 60, bytes(64) + b"\x1b"
        )
