"""``openWithPermit2`` and ``topUpWithPermit2`` against the real Permit2: its creation code, as
published on npm, deployed at its address (see :mod:`tests.contracts.funding`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from eth_abi.abi import encode
from eth_account import Account as EthAccount

from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import (
    DEPOSIT_MAX,
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelState,
    ChannelStatus,
)
from channelpay.testing.execution import CHAIN_ID, CallMessage
from tests.contracts.funding import (
    PERMIT2,
    FundingCall,
    deploy_signing_wallet,
    deploy_token,
    new_permit2_world,
    opened,
    permit2_open,
    permit2_top_up,
    revoke_allowance,
    selector,
    topped_up,
)
from tests.contracts.world import (
    GRACE_SECONDS,
    UNLIMITED,
    Contract,
    World,
    reverts,
)

OPEN_WITNESS = "ChannelOpenWitness(address payee,bytes32 salt,address authorizedSigner)"
TOP_UP_WITNESS = "ChannelTopUpWitness(bytes32 channelId)"
PERMISSIONS = "TokenPermissions(address token,uint256 amount)"
TRANSFER = (
    "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,"
    "uint256 deadline,"
)


@pytest.fixture(scope="module")
def permit2_world() -> World:
    """A chain with Permit2."""
    return new_permit2_world()


@pytest.fixture
def world(permit2_world: World) -> Iterator[World]:
    """That chain, as it was before, for one test."""
    with permit2_world.rolled_back():
        yield permit2_world


@pytest.fixture
def channel(world: World) -> Channel:
    """Not open yet."""
    return world.channel(world.token.address, signer=world.session_key, salt=5)


@pytest.fixture
def live(world: World, channel: Channel) -> Channel:
    """Open, with a deposit of 100."""
    permit2_open(world, channel, 100, nonce=99).send(world)
    return channel


def is_refused(world: World, call: FundingCall) -> None:
    """The token was not moved, and nobody lost anything."""
    token = call.values["token"] if "token" in call.values else call.values["channel"][2]
    parties = {world.payer: 0, world.stranger: 0, world.contract: 0}
    with world.pays(world.token.address, parties), reverts("TokenTransferFailed", token):
        call.send(world)


def is_used(world: World, nonce: int) -> bool:
    """Whether Permit2 has seen this nonce of the payer."""
    data = keccak256(b"nonceBitmap(address,uint256)")[:4] + encode(
        ["address", "uint256"], [world.payer.address, nonce >> 8]
    )
    bitmap = world.chain.call(CallMessage(to=PERMIT2, data=data), world.chain.pending_header())
    return bool(int.from_bytes(bitmap, "big") >> (nonce & 0xFF) & 1)


# Open


def test_a_stranger_opens_with_the_payers_permit2_signature(world: World, channel: Channel) -> None:
    call = permit2_open(world, channel, 100)

    with world.pays(channel.token, {world.payer: -100, world.stranger: 0, world.contract: 100}):
        receipt = call.send(world, world.stranger)

    assert receipt.events == (opened(world, channel, 100),)
    assert world.state(channel) == ChannelState(ChannelStatus.OPEN, 100)


def test_an_open_with_permit2_returns_the_channels_id(world: World, channel: Channel) -> None:
    assert permit2_open(world, channel, 100).ask(world) == world.id(channel)


def test_a_channel_opened_by_permit2_pays_out_like_any_other(world: World, live: Channel) -> None:
    with world.pays(live.token, {world.payee: 60, world.payer: 40, world.contract: -100}):
        world.close(live, 60)


CHANGES = [
    ("payee", b"\x0a" * 20),
    ("deposit", 99),
    ("deposit", 101),
    ("salt", b"\x0a" * 32),
    ("authorizedSigner", b"\x0a" * 20),
    ("authorizedSigner", ZERO_ADDRESS),
    ("nonce", 1),
    ("deadline", 2**255),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_permit2_signature_opens_no_other_channel(
    world: World, channel: Channel, change: tuple[str, object]
) -> None:
    is_refused(world, permit2_open(world, channel, 100).changed(*change))


def test_a_permit2_signature_opens_for_its_signer_alone(world: World, channel: Channel) -> None:
    call = permit2_open(world, channel, 100)

    is_refused(world, call.changed("from", world.stranger.address))
    is_refused(world, call.signed(call.message.sign(world.stranger)))


def test_a_permit2_signature_moves_no_other_token(world: World, channel: Channel) -> None:
    other = world.deploy_token("TestToken")
    for spender in (PERMIT2, world.contract.address):
        world.send(world.payer, other, "approve", spender, UNLIMITED)

    is_refused(world, permit2_open(world, channel, 100).changed("token", other.address))


def test_a_permit2_signature_is_for_one_contract(world: World, channel: Channel) -> None:
    """The spender that is signed is the one who calls Permit2."""
    call = permit2_open(world, channel, 100)
    other = world.deploy_channels(GRACE_SECONDS)
    contract = Contract(other.address, call.contract_abi)

    with reverts("TokenTransferFailed", channel.token):
        world.send(world.stranger, contract, call.function, *call.arguments)


def test_a_permit2_signature_is_for_one_chain(world: World, channel: Channel) -> None:
    is_refused(world, permit2_open(world, channel, 100, chain_id=CHAIN_ID + 1))


def test_nobody_uses_a_permit2_signature_at_permit2_itself(world: World, channel: Channel) -> None:
    """The caller would be the spender, and that one is signed."""
    call = permit2_open(world, channel, 100)

    for receiver in (world.stranger.address, world.contract.address):
        data = direct_transfer(call, receiver)
        with world.pays(channel.token, {world.payer: 0}), reverts(selector("InvalidSigner()")):
            world.send_data(world.stranger, PERMIT2, data)

    call.send(world)


def direct_transfer(call: FundingCall, to: Address) -> bytes:
    """Data of a ``permitWitnessTransferFrom`` with the words and the signature of an open."""
    values = call.values
    witness = witness_hash(values)
    types = ["((address,uint256),uint256,uint256)", "(address,uint256)", "address", "bytes32"]
    signature = f"permitWitnessTransferFrom({','.join(types)},string,bytes)"
    permit = ((values["token"], values["deposit"]), values["nonce"], values["deadline"])
    rest = (f"ChannelOpenWitness witness){OPEN_WITNESS}{PERMISSIONS}", call.signature)
    details = (to, values["deposit"])
    return keccak256(signature.encode())[:4] + encode(
        [*types, "string", "bytes"], [permit, details, values["from"], witness, *rest]
    )


def witness_hash(values: dict[str, object]) -> bytes:
    """``hashStruct`` of an open's witness, by hand."""
    words = [keccak256(OPEN_WITNESS.encode()), values["payee"], values["salt"]]
    return keccak256(
        encode(["bytes32", "address", "bytes32", "address"], [*words, values["authorizedSigner"]])
    )


def test_a_permit2_signature_opens_once(world: World, channel: Channel) -> None:
    call = permit2_open(world, channel, 100)
    call.send(world)

    with reverts("ChannelAlreadyExists", world.id(channel)):
        call.send(world)
    world.close(channel, 0)
    with reverts("ChannelAlreadyExists", world.id(channel)):
        call.send(world)


def test_a_permit2_nonce_pays_once(world: World, channel: Channel) -> None:
    """Whatever the second signature says."""
    permit2_open(world, channel, 100, nonce=7).send(world)

    other = world.channel(world.token.address, salt=1 << 32)
    is_refused(world, permit2_open(world, other, 100, nonce=7))
    is_refused(world, permit2_top_up(world, channel, 100, nonce=7))
    permit2_open(world, other, 100, nonce=8).send(world)


@pytest.mark.parametrize("nonces", [(5, 3), (0, 255, 256), (2**256 - 1, 2**255)])
def test_permit2_nonces_come_in_any_order(world: World, nonces: tuple[int, ...]) -> None:
    for lane, nonce in enumerate(nonces):
        channel = world.channel(world.token.address, salt=lane << 32)
        permit2_open(world, channel, 100, nonce=nonce).send(world)
        assert world.state(channel) == ChannelState(ChannelStatus.OPEN, 100)
        assert is_used(world, nonce)


def test_a_permit2_signature_holds_until_its_deadline(world: World, channel: Channel) -> None:
    call = permit2_open(world, channel, 100, deadline=world.timestamp + 100)

    with world.rolled_back():
        world.next_block_at(call.values["deadline"])
        call.send(world)
    world.next_block_at(call.values["deadline"] + 1)
    is_refused(world, call)


def test_without_an_allowance_for_permit2_nothing_opens(world: World, channel: Channel) -> None:
    """An allowance for the contract itself does not count."""
    revoke_allowance(world, PERMIT2)
    world.send(world.payer, world.token, "approve", world.contract.address, UNLIMITED)

    is_refused(world, permit2_open(world, channel, 100))
    assert not is_used(world, 0)


def test_a_lane_is_opened_again_with_a_new_permit2_signature(world: World, live: Channel) -> None:
    world.close(live, 0)
    later = replace(live, salt=(6).to_bytes(32, "big"))

    permit2_open(world, later, 70).send(world)

    assert world.state(later) == ChannelState(ChannelStatus.OPEN, 70)


def test_a_contract_wallet_opens_with_permit2_and_a_session_key(world: World) -> None:
    """Permit2 asks the wallet itself (EIP-1271)."""
    wallet = deploy_signing_wallet(world)
    world.send(world.stranger, world.token, "mint", wallet.address, 100)
    world.send(wallet, world.token, "approve", PERMIT2, UNLIMITED)
    channel = world.channel(world.token.address, payer=wallet, signer=world.session_key)

    with world.pays(channel.token, {wallet: -100, world.contract: 100}):
        permit2_open(world, channel, 100).send(world)
    with world.pays(channel.token, {wallet: 40, world.payee: 60}):
        world.close(channel, 60)


@pytest.mark.parametrize("kind", ["TaxedFundingToken", "ShortFundingToken", "LavishFundingToken"])
def test_a_token_that_moves_another_amount_by_permit2_is_refused(world: World, kind: str) -> None:
    token = deploy_token(world, kind)
    world.send(world.payer, token, "approve", PERMIT2, UNLIMITED)

    is_refused(world, permit2_open(world, world.channel(token.address), 100))


@pytest.mark.parametrize("token", [NATIVE, Address(b"\x77" * 20)])
def test_permit2_moves_no_token_without_code(world: World, token: Address) -> None:
    with reverts("InvalidToken", token):
        permit2_open(world, world.channel(token), 100).send(world)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("payee", ZERO_ADDRESS), ("InvalidPayee",)),
        (("deposit", 0), ("ZeroDeposit",)),
        (("deposit", DEPOSIT_MAX + 1), ("DepositOverflow", DEPOSIT_MAX + 1)),
    ],
)
def test_the_rules_of_an_open_hold_with_permit2(
    world: World, channel: Channel, change: tuple[str, object], error: tuple[str, *tuple[int, ...]]
) -> None:
    with reverts(*error):
        permit2_open(world, channel, 100).changed(*change).send(world)


# Top up


@pytest.mark.parametrize("who", ["payer", "stranger"])
def test_a_permit2_signature_tops_up_whoever_signed_it(
    world: World, live: Channel, who: str
) -> None:
    funder, sender = getattr(world, who), world.accounts[7]
    call = permit2_top_up(world, live, 30, funder=funder)

    with world.pays(live.token, {funder: -30, sender: 0, world.contract: 30}):
        receipt = call.send(world, sender)

    assert receipt.events == (topped_up(world, live, 30, 130),)
    assert world.state(live) == ChannelState(ChannelStatus.OPEN, 130)


@pytest.mark.parametrize("sender", ["payer", "stranger"])
@pytest.mark.parametrize("funder", ["payer", "stranger"])
def test_a_top_up_with_permit2_cancels_nothing(
    world: World, live: Channel, funder: str, sender: str
) -> None:
    """Not even the payer's own, sent by the payer: the signature may be older than the request."""
    requested_at = world.request_close(live).timestamp

    call = permit2_top_up(world, live, 30, funder=getattr(world, funder))
    receipt = call.send(world, getattr(world, sender))

    assert receipt.events == (topped_up(world, live, 30, 130),)
    assert world.state(live) == ChannelState(ChannelStatus.CLOSING, 130, 0, requested_at)


@pytest.mark.parametrize(
    "change", [("amount", 29), ("amount", 31), ("nonce", 1), ("deadline", 2**255)]
)
def test_a_permit2_top_up_is_for_what_was_signed(
    world: World, live: Channel, change: tuple[str, int]
) -> None:
    is_refused(world, permit2_top_up(world, live, 30).changed(*change))


def test_a_permit2_top_up_is_for_one_channel(world: World, live: Channel) -> None:
    other = world.channel(world.token.address, salt=1 << 32)
    permit2_open(world, other, 100).send(world)
    struct = permit2_top_up(world, other, 30).values["channel"]

    is_refused(world, permit2_top_up(world, live, 30, nonce=1).changed("channel", struct))


def test_a_permit2_top_up_is_for_its_signer_alone(world: World, live: Channel) -> None:
    call = permit2_top_up(world, live, 30)

    is_refused(world, call.changed("from", world.stranger.address))
    is_refused(world, call.signed(call.message.sign(world.stranger)))


def test_a_permit2_top_up_is_for_one_chain(world: World, live: Channel) -> None:
    is_refused(world, permit2_top_up(world, live, 30, chain_id=CHAIN_ID + 1))


def test_a_permit2_top_up_is_for_one_contract(world: World, live: Channel) -> None:
    """Where the same description is open as well."""
    other = world.deploy_channels(GRACE_SECONDS)
    call = permit2_top_up(world, live, 30)
    world.send(world.payer, world.token, "approve", other.address, UNLIMITED)
    parameters = (live.payee, live.token, 100, live.salt, live.authorized_signer)
    world.send(world.payer, other, "open", *parameters)

    with reverts("TokenTransferFailed", live.token):
        contract = Contract(other.address, call.contract_abi)
        world.send(world.stranger, contract, call.function, *call.arguments)


def test_a_permit2_top_up_pays_once(world: World, live: Channel) -> None:
    call = permit2_top_up(world, live, 30)
    call.send(world)

    is_refused(world, call)


def test_a_permit2_top_up_holds_until_its_deadline(world: World, live: Channel) -> None:
    call = permit2_top_up(world, live, 30, deadline=world.timestamp + 100)

    world.next_block_at(call.values["deadline"] + 1)
    is_refused(world, call)


def test_an_open_by_permit2_is_no_top_up_and_the_other_way_round(
    world: World, live: Channel
) -> None:
    other = world.channel(world.token.address, salt=1 << 32)
    open_call = permit2_open(world, other, 30, nonce=1)
    top_up_call = permit2_top_up(world, live, 30, nonce=1)

    is_refused(world, top_up_call.signed(open_call.signature))
    is_refused(world, open_call.signed(top_up_call.signature))


def test_a_permit2_top_up_of_a_closed_channel_is_refused_and_stays_unspent(
    world: World, live: Channel
) -> None:
    call = permit2_top_up(world, live, 30)
    world.close(live, 0)

    with (
        world.pays(live.token, {world.payer: 0}),
        reverts("ChannelFinalized", world.id(live)),
    ):
        call.send(world)
    assert not is_used(world, 0)


def test_a_permit2_top_up_of_an_older_epoch_adds_nothing_to_the_new_one(
    world: World, live: Channel
) -> None:
    call = permit2_top_up(world, live, 30)
    world.close(live, 0)
    later = replace(live, salt=(6).to_bytes(32, "big"))
    permit2_open(world, later, 70, nonce=1).send(world)

    struct = permit2_top_up(world, later, 30).values["channel"]
    is_refused(world, call.changed("channel", struct))


def test_a_permit2_top_up_needs_a_channel_and_an_amount(world: World, channel: Channel) -> None:
    with reverts("ChannelNotFound", world.id(channel)):
        permit2_top_up(world, channel, 30).send(world)
    permit2_open(world, channel, 100).send(world)
    with reverts("ZeroDeposit"):
        permit2_top_up(world, channel, 0, nonce=1).send(world)
    with reverts("DepositOverflow", DEPOSIT_MAX + 1):
        permit2_top_up(world, channel, DEPOSIT_MAX - 99, nonce=1).send(world)


# EIP-712 by hand


def digest(world: World, types: str, witness: bytes, amount: int) -> bytes:
    """What Permit2 checks of a transfer with nonce 0 and no deadline, from ``types`` as given."""
    domain_type = b"EIP712Domain(string name,uint256 chainId,address verifyingContract)"
    domain = keccak256(
        encode(
            ["bytes32", "bytes32", "uint256", "address"],
            [keccak256(domain_type), keccak256(b"Permit2"), CHAIN_ID, PERMIT2],
        )
    )
    permissions = keccak256(
        encode(
            ["bytes32", "address", "uint256"],
            [keccak256(PERMISSIONS.encode()), world.token.address, amount],
        )
    )
    struct = encode(
        ["bytes32", "bytes32", "address", "uint256", "uint256", "bytes32"],
        [keccak256(types.encode()), permissions, world.contract.address, 0, UNLIMITED, witness],
    )
    return keccak256(b"\x19\x01" + domain + keccak256(struct))


def signature_of(world: World, hashed: bytes) -> bytes:
    """The payer's signature of a digest."""
    signed = EthAccount.unsafe_sign_hash(hashed, world.payer.private_key)
    return bytes(signed.signature)


def test_the_types_of_an_open_are_sorted_as_wallets_sort_them(
    world: World, channel: Channel
) -> None:
    """EIP-712: the referenced types follow the primary one in alphabetical order."""
    call = permit2_open(world, channel, 100)
    witness = witness_hash(call.values)
    sorted_types = f"{TRANSFER}ChannelOpenWitness witness){OPEN_WITNESS}{PERMISSIONS}"
    unsorted_types = f"{TRANSFER}ChannelOpenWitness witness){PERMISSIONS}{OPEN_WITNESS}"

    is_refused(world, call.signed(signature_of(world, digest(world, unsorted_types, witness, 100))))
    by_hand = signature_of(world, digest(world, sorted_types, witness, 100))
    assert by_hand == call.signature
    call.signed(by_hand).send(world)


def test_the_types_of_a_top_up_are_sorted_as_wallets_sort_them(world: World, live: Channel) -> None:
    call = permit2_top_up(world, live, 30)
    witness = keccak256(keccak256(TOP_UP_WITNESS.encode()) + world.id(live))
    sorted_types = f"{TRANSFER}ChannelTopUpWitness witness){TOP_UP_WITNESS}{PERMISSIONS}"
    unsorted_types = f"{TRANSFER}ChannelTopUpWitness witness){PERMISSIONS}{TOP_UP_WITNESS}"

    is_refused(world, call.signed(signature_of(world, digest(world, unsorted_types, witness, 30))))
    by_hand = signature_of(world, digest(world, sorted_types, witness, 30))
    assert by_hand == call.signature
    call.signed(by_hand).send(world)
