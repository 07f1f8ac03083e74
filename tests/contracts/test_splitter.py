"""A payee that is a group: every party gets its exact share, whatever the others do, and a group
can be paid before it is created.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from eth_abi.abi import encode
from hypothesis import given
from hypothesis import strategies as st

from channelpay.chain import artifacts
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import NATIVE, ZERO_ADDRESS, Address, Channel
from scripts import build_contracts
from tests.contracts.abi import Abi, Event
from tests.contracts.world import (
    Contract,
    Mock,
    Receipt,
    Reverted,
    Sender,
    Wallet,
    World,
    as_struct,
    contract_address,
    mocks,
    reverts,
)

SPLITTER = Abi(artifacts.revenue_splitter().abi)
FACTORY = Abi(artifacts.revenue_splitter_factory().abi)
MOCKS_PATH = "contracts/mocks/SplitterMocks.sol"
MOCKS_CLOSURE = [
    MOCKS_PATH,
    "contracts/interfaces/IPaymentChannels.sol",
    "contracts/mocks/HostileTokens.sol",
    "contracts/mocks/HostileWallets.sol",
]
CREATION_GAS = 8_000_000
RELEASE_GAS = 600_000
WHOLE = 10_000
"""All parts together, in basis points."""
STIPEND = 2_300
"""Gas that comes with native currency even from contracts that give none."""
REFUSING = ["RevertingWallet", "GasBurningWallet", "RevertBombWallet"]
TURNED_AWAY = ["BlacklistToken", "FalseToken", "BombToken"]

Party = tuple[bytes, int]


# A group on the chain


def account(number: int) -> Address:
    """An account that nobody has used."""
    return Address(b"\xaa" * 18 + number.to_bytes(2, "big"))


AUTHOR, PUBLISHER, REFERRER = account(1), account(2), account(3)
TRIO: list[Party] = [(AUTHOR, 7_000), (PUBLISHER, 2_500), (REFERRER, 500)]


def group_of(count: int) -> list[Party]:
    """Parties with different parts, but for the last, which has what is left."""
    parts = [1 + number % 190 for number in range(count - 1)]
    return [(account(i), part) for i, part in enumerate([*parts, WHOLE - sum(parts)])]


def init_code(parties: Iterable[Party], operator: bytes = ZERO_ADDRESS) -> bytes:
    """What creates a splitter."""
    arguments = encode(["(address,uint16)[]", "address"], [list(parties), operator])
    return artifacts.revenue_splitter().bytecode + arguments


def create(world: World, code: bytes) -> Address:
    """Run creation code of any size; returns the new contract's address."""
    creator = world.accounts[9]
    address = contract_address(creator.address, world._nonce(creator))
    world.send_data(creator, Address(b""), code, gas=CREATION_GAS)
    return address


def new_splitter(
    world: World, parties: Iterable[Party], operator: bytes = ZERO_ADDRESS
) -> Contract:
    """A splitter without a factory."""
    return Contract(create(world, init_code(parties, operator)), SPLITTER)


def new_factory(world: World) -> Contract:
    return Contract(create(world, artifacts.revenue_splitter_factory().bytecode), FACTORY)


def of_factory(
    world: World, factory: Contract, parties: Sequence[Party], operator: bytes = ZERO_ADDRESS
) -> Contract:
    """A splitter that a factory creates now."""
    address = world.read(factory, "addressOf", parties, operator)
    world.send(world.stranger, factory, "create", parties, operator, gas=CREATION_GAS)
    return Contract(address, SPLITTER)


@cache
def splitter_mocks() -> dict[str, Mock]:
    """The mocks of this file's tests by name."""
    sources = build_contracts.read_sources()
    output = build_contracts.compile_sources(
        {path: sources[path] for path in MOCKS_CLOSURE}, {MOCKS_PATH: build_contracts.CODE_OUTPUTS}
    )
    return {
        name: Mock(Abi(contract["abi"]), bytes.fromhex(contract["evm"]["bytecode"]["object"]))
        for name, contract in output["contracts"][MOCKS_PATH].items()
    }


def new_mock(world: World, name: str) -> Contract:
    """A token, or a mock of this file's tests; nobody holds anything of it."""
    mock = splitter_mocks().get(name) or mocks()[name]
    return Contract(world.deploy(mock.bytecode), mock.abi)


@contextmanager
def refuses(name: str, *values: object) -> Iterator[None]:
    """Expect exactly this error of a splitter."""
    with pytest.raises(Reverted) as caught:
        yield
    assert as_splitter_error(caught.value) == (name, values)


def as_splitter_error(error: Reverted) -> tuple[str, tuple[Any, ...]]:
    """Errors that PaymentChannels does not have arrive as hex."""
    try:
        return SPLITTER.decode_error(bytes.fromhex(error.name))
    except ValueError:
        return error.name, error.values


def events(world: World, contract: Contract) -> list[Event]:
    """What a contract logged in the newest block."""
    return [
        contract.abi.decode_event((topic.to_bytes(32, "big") for topic in log.topics), log.data)
        for log in world.chain.head.receipts[0].logs
        if bytes(log.address) == contract.address
    ]


def pay(world: World, token: Address, receiver: Address, amount: int) -> None:
    """Money from the stranger, as anyone may send it."""
    if token == NATIVE:
        world.send_data(world.stranger, receiver, b"", amount)
    else:
        contract = Contract(token, world.token.abi)
        world.send(world.stranger, contract, "mint", receiver, amount)


def release(
    world: World, splitter: Contract, token: Address, party: Address, gas: int = RELEASE_GAS
) -> Receipt:
    """``release``, sent by a stranger."""
    return world.send(world.stranger, splitter, "release", token, party, gas=gas)


def releasable(world: World, splitter: Contract, token: Address, party: bytes) -> int:
    return int(world.read(splitter, "releasable", token, party))


def all_releasable(
    world: World, splitter: Contract, token: Address, parties: Iterable[Party]
) -> list[int]:
    return [releasable(world, splitter, token, party) for party, _ in parties]


def shares(amount: int, parties: Iterable[Party]) -> list[int]:
    """What each party gets of this amount, in base units."""
    return [amount * part // WHOLE for _, part in parties]


# Who can be a group

GROUPS_REFUSED: list[tuple[list[Party], str, tuple[object, ...]]] = [
    ([], "PartyCountOutOfRange", (0,)),
    ([(AUTHOR, WHOLE)], "PartyCountOutOfRange", (1,)),
    ([(account(i), 99) for i in range(101)], "PartyCountOutOfRange", (101,)),
    ([(ZERO_ADDRESS, 5_000), (AUTHOR, 5_000)], "InvalidParty", (ZERO_ADDRESS, 5_000)),
    ([(AUTHOR, 5_000), (ZERO_ADDRESS, 5_000)], "InvalidParty", (ZERO_ADDRESS, 5_000)),
    ([(AUTHOR, WHOLE), (PUBLISHER, 0)], "InvalidParty", (PUBLISHER, 0)),
    ([(AUTHOR, 6_000), (AUTHOR, 4_000)], "InvalidParty", (AUTHOR, 4_000)),
    ([(AUTHOR, 5_000), (PUBLISHER, 3_000), (AUTHOR, 2_000)], "InvalidParty", (AUTHOR, 2_000)),
    ([(AUTHOR, 5_000), (PUBLISHER, 4_999)], "PartsDoNotAddUp", (9_999,)),
    ([(AUTHOR, 5_000), (PUBLISHER, 5_001)], "PartsDoNotAddUp", (10_001,)),
    # In 16 bits these would add up.
    ([(AUTHOR, 65_535), (PUBLISHER, 10_001)], "PartsDoNotAddUp", (75_536,)),
]


@pytest.mark.parametrize(("parties", "error", "values"), GROUPS_REFUSED)
def test_a_group_that_cannot_share_is_refused(
    world: World, parties: list[Party], error: str, values: tuple[object, ...]
) -> None:
    with refuses(error, *values):
        new_splitter(world, parties)


@pytest.mark.parametrize(("parties", "error", "values"), GROUPS_REFUSED)
def test_a_group_that_cannot_share_has_no_address(
    world: World, parties: list[Party], error: str, values: tuple[object, ...]
) -> None:
    """Money sent there would be lost."""
    factory = new_factory(world)

    with refuses(error, *values):
        world.read(factory, "addressOf", parties, ZERO_ADDRESS)
    with refuses(error, *values):
        world.send(world.stranger, factory, "create", parties, ZERO_ADDRESS, gas=CREATION_GAS)


def test_a_group_says_who_it_is(world: World) -> None:
    splitter = new_splitter(world, TRIO, world.payee.address)

    assert [world.read(splitter, "basisPoints", party) for party, _ in TRIO] == [7_000, 2_500, 500]
    assert world.read(splitter, "basisPoints", world.stranger.address) == 0
    assert world.read(splitter, "operator") == world.payee.address


# Exact shares


@pytest.mark.parametrize("count", [2, 3, 100])
def test_every_party_gets_its_exact_share(world: World, asset: Address, count: int) -> None:
    parties = group_of(count)
    splitter = new_splitter(world, parties)
    pay(world, asset, splitter.address, 1_000_003)
    expected = shares(1_000_003, parties)
    assert all_releasable(world, splitter, asset, parties) == expected

    for party, _ in reversed(parties):
        release(world, splitter, asset, Address(party))

    assert [world.balance(asset, Address(party)) for party, _ in parties] == expected
    assert all_releasable(world, splitter, asset, parties) == [0] * count
    dust = world.balance(asset, splitter.address)
    assert dust == 1_000_003 - sum(expected)
    assert 0 < dust < count


def test_a_release_says_what_it_paid(world: World, asset: Address) -> None:
    splitter = new_splitter(world, TRIO)
    pay(world, asset, splitter.address, 999)

    release(world, splitter, asset, PUBLISHER)

    paid = {"token": asset, "account": PUBLISHER, "receiver": PUBLISHER, "amount": 249}
    assert events(world, splitter) == [Event("Released", paid)]
    assert world.read(splitter, "released", asset, PUBLISHER) == 249
    assert world.read(splitter, "released", asset, AUTHOR) == 0
    assert world.read(splitter, "totalReleased", asset) == 249


def test_what_rounding_left_is_shared_as_more_arrives(world: World, asset: Address) -> None:
    parties = [(AUTHOR, 5_000), (PUBLISHER, 5_000)]
    splitter = new_splitter(world, parties)
    pay(world, asset, splitter.address, 1)
    for party in (AUTHOR, PUBLISHER):
        with refuses("NothingToRelease", asset, party):
            release(world, splitter, asset, party)

    pay(world, asset, splitter.address, 1)
    release(world, splitter, asset, AUTHOR)
    release(world, splitter, asset, PUBLISHER)

    assert world.balance(asset, AUTHOR) == world.balance(asset, PUBLISHER) == 1
    assert world.balance(asset, splitter.address) == 0


def test_shares_of_many_payments_add_up(world: World, asset: Address) -> None:
    splitter = new_splitter(world, TRIO)

    for amount in (1_000, 333, 7, 2_000):
        pay(world, asset, splitter.address, amount)
        release(world, splitter, asset, AUTHOR)
        release(world, splitter, asset, PUBLISHER)

    assert world.read(splitter, "totalReleased", asset) == 3_173
    balances = [world.balance(asset, Address(party)) for party in (AUTHOR, PUBLISHER)]
    assert balances == shares(3_340, TRIO[:2])
    assert releasable(world, splitter, asset, REFERRER) == 167


def test_a_share_is_paid_once(world: World, asset: Address) -> None:
    splitter = new_splitter(world, TRIO)
    pay(world, asset, splitter.address, 1_000)
    release(world, splitter, asset, AUTHOR)

    with refuses("NothingToRelease", asset, AUTHOR):
        release(world, splitter, asset, AUTHOR)


def test_all_parties_can_be_paid_in_one_transaction(world: World, asset: Address) -> None:
    splitter, batcher = new_splitter(world, TRIO), new_mock(world, "Batcher")
    pay(world, asset, splitter.address, 1_000)
    calls = [SPLITTER.encode("release", asset, party) for party, _ in TRIO]

    world.send(world.stranger, batcher, "run", splitter.address, calls)

    assert [world.balance(asset, Address(party)) for party, _ in TRIO] == [700, 250, 50]


def test_who_is_no_party_gets_nothing(world: World, asset: Address) -> None:
    splitter = new_splitter(world, TRIO)
    pay(world, asset, splitter.address, 1_000)

    with refuses("NothingToRelease", asset, world.stranger.address):
        release(world, splitter, asset, world.stranger.address)


def test_tokens_are_shared_apart_from_each_other(world: World) -> None:
    other = new_mock(world, "SilentToken")
    splitter = new_splitter(world, TRIO)
    pay(world, NATIVE, splitter.address, 100)
    pay(world, world.token.address, splitter.address, 1_000)
    pay(world, other.address, splitter.address, 10_000)

    release(world, splitter, world.token.address, AUTHOR)

    assert world.balance(world.token.address, AUTHOR) == 700
    assert releasable(world, splitter, NATIVE, AUTHOR) == 70
    assert releasable(world, splitter, other.address, AUTHOR) == 7_000


parties_of_any_size = st.lists(st.integers(1, WHOLE - 1), min_size=1, max_size=99, unique=True).map(
    lambda cuts: [b - a for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), WHOLE], strict=True)]
)


@pytest.mark.hypothesis
@given(parts=parties_of_any_size, received=st.integers(0, 2**112))
def test_what_remains_is_less_than_a_unit_per_party(parts: list[int], received: int) -> None:
    """The arithmetic of the property that the machine of this contract holds on the chain."""
    dust = received - sum(received * part // WHOLE for part in parts)

    assert 0 <= dust < len(parts)


# Parties that cannot receive


@pytest.mark.parametrize("kind", REFUSING)
def test_a_party_that_refuses_does_not_block_another(world: World, kind: str) -> None:
    wallet = world.deploy_wallet(kind)
    parties: list[Party] = [(wallet.address, 6_000), (AUTHOR, 4_000)]
    splitter = new_splitter(world, parties)
    pay(world, NATIVE, splitter.address, 100)

    with refuses("ReleaseFailed", NATIVE, wallet.address, 60):
        release(world, splitter, NATIVE, wallet.address)
    release(world, splitter, NATIVE, AUTHOR)

    assert world.balance(NATIVE, AUTHOR) == 40
    assert releasable(world, splitter, NATIVE, wallet.address) == 60


@pytest.mark.parametrize("kind", TURNED_AWAY)
def test_a_party_that_the_token_turns_away_does_not_block_another(world: World, kind: str) -> None:
    token = new_mock(world, kind)
    splitter = new_splitter(world, TRIO)
    pay(world, token.address, splitter.address, 1_000)
    world.configure(token, kind, "list", AUTHOR, True)

    with refuses("ReleaseFailed", token.address, AUTHOR, 700):
        release(world, splitter, token.address, AUTHOR)
    release(world, splitter, token.address, PUBLISHER)

    assert world.balance(token.address, PUBLISHER) == 250
    world.configure(token, kind, "list", AUTHOR, False)
    release(world, splitter, token.address, AUTHOR)
    assert world.balance(token.address, AUTHOR) == 700


@pytest.mark.parametrize("kind", ["FriendlyWallet", "HungryWallet", "ReturnBombWallet"])
def test_a_wallet_that_takes_money_is_paid(world: World, kind: str) -> None:
    wallet = world.deploy_wallet(kind)
    if kind == "HungryWallet":
        world.configure(wallet, kind, "setAppetite", 300_000)
    splitter = new_splitter(world, [(wallet.address, 6_000), (AUTHOR, 4_000)])
    pay(world, NATIVE, splitter.address, 100)

    with world.pays(NATIVE, {wallet: 60, splitter: -60}):
        release(world, splitter, NATIVE, wallet.address)


@pytest.mark.parametrize("kind", REFUSING)
def test_a_party_that_cannot_receive_names_another_receiver(world: World, kind: str) -> None:
    wallet = world.deploy_wallet(kind)
    splitter = new_splitter(world, [(wallet.address, 6_000), (AUTHOR, 4_000)])
    pay(world, NATIVE, splitter.address, 100)

    world.send(wallet, splitter, "releaseTo", NATIVE, account(9))

    paid = {"token": NATIVE, "account": wallet.address, "receiver": account(9), "amount": 60}
    assert events(world, splitter) == [Event("Released", paid)]
    assert world.balance(NATIVE, account(9)) == 60
    assert releasable(world, splitter, NATIVE, wallet.address) == 0
    assert releasable(world, splitter, NATIVE, AUTHOR) == 40


@pytest.mark.parametrize("kind", TURNED_AWAY)
def test_a_party_that_the_token_turns_away_names_another_receiver(world: World, kind: str) -> None:
    token = new_mock(world, kind)
    party = world.payee
    splitter = new_splitter(world, [(party.address, 6_000), (AUTHOR, 4_000)])
    pay(world, token.address, splitter.address, 100)
    world.configure(token, kind, "list", party.address, True)

    world.send(party, splitter, "releaseTo", token.address, account(9))

    assert world.balance(token.address, account(9)) == 60


def test_nobody_names_a_receiver_for_anothers_share(world: World, asset: Address) -> None:
    splitter = new_splitter(world, TRIO)
    pay(world, asset, splitter.address, 1_000)

    with refuses("NothingToRelease", asset, world.stranger.address):
        world.send(world.stranger, splitter, "releaseTo", asset, world.stranger.address)


def test_a_share_is_never_paid_to_the_zero_address(world: World, asset: Address) -> None:
    splitter = new_splitter(world, [(world.payee.address, 6_000), (AUTHOR, 4_000)])
    pay(world, asset, splitter.address, 100)

    with refuses("InvalidReceiver", ZERO_ADDRESS):
        world.send(world.payee, splitter, "releaseTo", asset, ZERO_ADDRESS)


def test_a_share_given_to_the_group_is_shared_again(world: World, asset: Address) -> None:
    splitter = new_splitter(world, [(world.payee.address, 6_000), (AUTHOR, 4_000)])
    pay(world, asset, splitter.address, 1_000)

    world.send(world.payee, splitter, "releaseTo", asset, splitter.address)

    assert releasable(world, splitter, asset, world.payee.address) == 360
    assert releasable(world, splitter, asset, AUTHOR) == 640


def test_a_party_can_be_a_group_itself(world: World, asset: Address) -> None:
    inner = new_splitter(world, TRIO)
    outer = new_splitter(world, [(inner.address, 5_000), (account(9), 5_000)])
    pay(world, asset, outer.address, 2_000)

    release(world, outer, asset, inner.address)
    release(world, inner, asset, AUTHOR)

    assert world.balance(asset, AUTHOR) == 700


# Awkward tokens


@pytest.mark.parametrize("kind", ["SilentToken", "HookToken", "HungryToken"])
def test_an_odd_token_that_moves_what_it_should_is_shared(world: World, kind: str) -> None:
    token = new_mock(world, kind)
    if kind == "HungryToken":
        world.configure(token, kind, "setAppetite", 300_000)
    splitter = new_splitter(world, TRIO)
    pay(world, token.address, splitter.address, 1_000)

    for party, _ in TRIO:
        release(world, splitter, token.address, Address(party))

    assert [world.balance(token.address, Address(party)) for party, _ in TRIO] == [700, 250, 50]
    assert world.balance(token.address, splitter.address) == 0


@pytest.mark.parametrize(("kind", "error_in_units"), [("FeeToken", -1), ("GenerousToken", 1)])
def test_a_token_that_moves_another_amount_wrongs_only_who_is_paid(
    world: World, kind: str, error_in_units: int
) -> None:
    token = new_mock(world, kind)
    splitter = new_splitter(world, TRIO)
    pay(world, token.address, splitter.address, 1_000)

    for party, _ in TRIO:
        release(world, splitter, token.address, Address(party))

    assert [world.balance(token.address, Address(party)) for party, _ in TRIO] == [
        share + error_in_units for share in (700, 250, 50)
    ]


def test_a_token_that_does_not_move_is_not_counted_as_paid(world: World) -> None:
    token = new_mock(world, "LyingToken")
    splitter = new_splitter(world, TRIO)
    pay(world, token.address, splitter.address, 1_000)

    with refuses("ReleaseFailed", token.address, AUTHOR, 700):
        release(world, splitter, token.address, AUTHOR)

    assert world.read(splitter, "totalReleased", token.address) == 0


def test_a_token_that_takes_balances_away_harms_itself_alone(world: World) -> None:
    token = new_mock(world, "ShrinkingToken")
    splitter = new_splitter(world, [(AUTHOR, 5_000), (PUBLISHER, 5_000)])
    pay(world, token.address, splitter.address, 1_000)
    pay(world, NATIVE, splitter.address, 1_000)
    release(world, splitter, token.address, AUTHOR)
    world.send(world.stranger, token, "shrink", splitter.address, 400)

    with refuses("NothingToRelease", token.address, AUTHOR):
        release(world, splitter, token.address, AUTHOR)
    assert releasable(world, splitter, token.address, PUBLISHER) == 300
    assert all_releasable(world, splitter, NATIVE, TRIO[:2]) == [500, 500]


def test_a_token_that_does_not_answer_never_pays_too_much(world: World) -> None:
    token = new_mock(world, "MuteToken")
    splitter = new_splitter(world, [(AUTHOR, 5_000), (PUBLISHER, 5_000)])
    pay(world, token.address, splitter.address, 1_000)
    release(world, splitter, token.address, AUTHOR)
    world.send(world.stranger, token, "mute", True)

    release(world, splitter, token.address, PUBLISHER)

    assert world.read(splitter, "released", token.address, PUBLISHER) == 250
    world.send(world.stranger, token, "mute", False)
    assert all_releasable(world, splitter, token.address, TRIO[:2]) == [0, 250]


@pytest.mark.parametrize("what", ["contract", "account", "splitter"])
def test_there_is_nothing_of_what_is_no_token(world: World, what: str) -> None:
    splitter = new_splitter(world, TRIO)
    token = {
        "contract": world.contract.address,
        "account": account(9),
        "splitter": splitter.address,
    }[what]

    with refuses("NothingToRelease", token, AUTHOR):
        release(world, splitter, token, AUTHOR)


def test_a_token_with_absurd_balances_harms_itself_alone(world: World) -> None:
    token = new_mock(world, "SilentToken")
    splitter = new_splitter(world, TRIO)
    pay(world, token.address, splitter.address, 2**256 - 1)
    pay(world, NATIVE, splitter.address, 1_000)

    with pytest.raises(Reverted):
        release(world, splitter, token.address, AUTHOR)
    release(world, splitter, NATIVE, AUTHOR)

    assert world.balance(NATIVE, AUTHOR) == 700


# Coming back


def group_with_a_returning_party(world: World) -> tuple[Contract, Wallet]:
    """A group of the author and a wallet that comes back when it is paid."""
    wallet = world.deploy_wallet("ReentrantWallet")
    return new_splitter(world, [(wallet.address, 6_000), (AUTHOR, 4_000)]), wallet


def plan(world: World, wallet: Wallet, contract: Contract, data: bytes) -> None:
    """What the wallet will call as soon as it is paid."""
    world.configure(wallet, "ReentrantWallet", "plan", contract.address, data)


def tried(world: World, wallet: Wallet) -> tuple[int, int]:
    """How often the wallet came back, and how often with success."""
    contract = Contract(wallet.address, mocks()["ReentrantWallet"].abi)
    return world.read(contract, "calls"), world.read(contract, "successes")


@pytest.mark.parametrize("kind", ["ETH", "HookToken", "EarlyHookToken"])
@pytest.mark.parametrize("again", ["own", "own to", "other", "view"])
def test_a_party_that_comes_back_gains_nothing(world: World, kind: str, again: str) -> None:
    splitter, wallet = group_with_a_returning_party(world)
    token = NATIVE if kind == "ETH" else new_mock(world, kind).address
    pay(world, token, splitter.address, 1_000)
    data = {
        "own": SPLITTER.encode("release", token, wallet.address),
        "own to": SPLITTER.encode("releaseTo", token, account(9)),
        "other": SPLITTER.encode("release", token, AUTHOR),
        "view": SPLITTER.encode("releasable", token, AUTHOR),
    }[again]
    plan(world, wallet, splitter, data)

    release(world, splitter, token, wallet.address)

    assert tried(world, wallet) == (1, 0)
    assert world.balance(token, wallet.address) == 600
    assert all_releasable(world, splitter, token, [(wallet.address, 0), (AUTHOR, 0)]) == [0, 400]


def test_money_that_arrives_during_a_payment_is_shared(world: World) -> None:
    splitter, wallet = group_with_a_returning_party(world)
    pay(world, NATIVE, splitter.address, 1_000)
    channel = channel_to(world, splitter)
    world.open(channel, 500)
    voucher = (as_struct(channel), 500, world.sign(channel, 500))
    plan(world, wallet, world.contract, world.contract.abi.encode("settle", *voucher))

    release(world, splitter, NATIVE, wallet.address)

    assert tried(world, wallet) == (1, 1)
    assert world.balance(NATIVE, wallet.address) == 600
    assert all_releasable(world, splitter, NATIVE, [(wallet.address, 0), (AUTHOR, 0)]) == [300, 600]


# A payee of channels


def channel_to(world: World, splitter: Contract, token: Address = NATIVE) -> Channel:
    """The payer's channel to a group; it is not open yet."""
    return replace(world.channel(token), payee=splitter.address)


def close(
    world: World,
    splitter: Contract,
    channel: Channel,
    cumulative: int,
    *,
    sender: Sender,
    channels: Contract | None = None,
) -> Receipt:
    """``close`` of the group."""
    return world.send(
        sender,
        splitter,
        "close",
        (channels or world.contract).address,
        as_struct(channel),
        cumulative,
        world.sign(channel, cumulative),
    )


def test_one_channel_pays_an_author_a_publisher_and_a_referrer(
    world: World, asset: Address
) -> None:
    operator = world.payee
    splitter = of_factory(world, new_factory(world), TRIO, operator.address)
    channel = channel_to(world, splitter, asset)
    world.open(channel, 10_000)

    with world.pays(asset, {splitter: 1_000, world.contract: -1_000}):
        world.settle(channel, 1_000, sender=world.stranger)
    release(world, splitter, asset, AUTHOR)
    with world.pays(asset, {splitter: 5_000, world.payer: 4_000, operator: 0}):
        close(world, splitter, channel, 6_000, sender=operator)
    for party, _ in TRIO:
        release(world, splitter, asset, Address(party))

    balances = [world.balance(asset, Address(party)) for party, _ in TRIO]
    assert balances == [4_200, 1_500, 300]
    assert world.balance(asset, splitter.address) == 0
    assert world.kept(asset, splitter.address) == 0


def test_only_the_operator_closes(world: World) -> None:
    splitter = new_splitter(world, [(world.stranger.address, 5_000), *TRIO[1:2], (AUTHOR, 2_500)])
    operated = new_splitter(world, TRIO, world.payee.address)

    for group, operator in ((splitter, ZERO_ADDRESS), (operated, world.payee.address)):
        channel = channel_to(world, group)
        world.open(channel, 100)
        with refuses("NotOperator", operator):
            close(world, group, channel, 60, sender=world.stranger)
        with reverts("NotPayee", group.address):
            world.close(channel, 60, sender=world.payee)


def test_a_refused_close_says_why(world: World) -> None:
    splitter = new_splitter(world, TRIO, world.payee.address)
    channel = channel_to(world, splitter)

    with reverts("ChannelNotFound", world.id(channel)):
        close(world, splitter, channel, 60, sender=world.payee)


def test_a_kept_share_is_fetched_by_anyone_for_the_group(world: World) -> None:
    token = world.deploy_token("BlacklistToken")
    splitter = new_splitter(world, TRIO)
    channel = channel_to(world, splitter, token.address)
    world.open(channel, 1_000)
    world.configure(token, "BlacklistToken", "list", splitter.address, True)
    world.settle(channel, 1_000)
    assert world.kept(token.address, splitter.address) == 1_000
    world.configure(token, "BlacklistToken", "list", splitter.address, False)

    world.send(world.stranger, splitter, "claim", world.contract.address, token.address)
    release(world, splitter, token.address, AUTHOR)

    assert world.balance(token.address, AUTHOR) == 700
    assert world.kept(token.address, splitter.address) == 0


def test_a_share_that_is_not_kept_is_not_fetched(world: World) -> None:
    splitter = new_splitter(world, TRIO)

    with reverts("NothingToClaim"):
        world.send(world.stranger, splitter, "claim", world.contract.address, NATIVE)


@pytest.mark.parametrize("action", ["claim", "close"])
def test_a_contract_that_poses_as_channels_gets_nothing(world: World, action: str) -> None:
    thief = new_mock(world, "ThievingChannels")
    token = new_mock(world, "BlacklistToken")
    splitter = new_splitter(world, TRIO, world.payee.address)
    pay(world, token.address, splitter.address, 1_000)
    pay(world, NATIVE, splitter.address, 1_000)

    channel = channel_to(world, splitter, token.address)
    if action == "claim":
        world.send(world.stranger, splitter, "claim", thief.address, token.address)
    else:
        close(world, splitter, channel, 60, sender=world.payee, channels=thief)

    assert world.read(thief, "caller") == splitter.address
    assert world.read(thief, "value") == 0
    assert not world.read(thief, "stole")
    assert all_releasable(world, splitter, token.address, TRIO) == [700, 250, 50]


def test_what_is_passed_on_is_no_call_of_a_token() -> None:
    """Whatever contract is named as channels, the group never tells a token to move or approve."""
    passed_on = {
        keccak256(signature)[:4]
        for signature in (
            b"claim(address,address)",
            b"close((address,address,address,address,bytes32),uint128,bytes)",
        )
    }
    of_tokens = {
        keccak256(signature)[:4]
        for signature in (
            b"transfer(address,uint256)",
            b"transferFrom(address,address,uint256)",
            b"approve(address,uint256)",
            b"increaseAllowance(address,uint256)",
            b"burn(uint256)",
            b"send(address,uint256,bytes)",
            b"authorizeOperator(address)",
            b"transferAndCall(address,uint256,bytes)",
            b"approveAndCall(address,uint256,bytes)",
            b"setApprovalForAll(address,bool)",
        )
    }
    code = artifacts.revenue_splitter().deployed_bytecode

    assert all(selector in code for selector in passed_on)
    assert not passed_on & of_tokens


def test_the_least_gas_is_enough_to_receive(world: World) -> None:
    splitter = new_splitter(world, TRIO)

    world.send_data(world.stranger, splitter.address, b"", 100, gas=21_000 + STIPEND)

    assert world.balance(NATIVE, splitter.address) == 100


def test_money_that_comes_with_a_call_is_refused(world: World) -> None:
    splitter = new_splitter(world, TRIO)

    with pytest.raises(Reverted):
        world.send_data(world.stranger, splitter.address, b"\x01\x02\x03\x04", 100)


# The factory


def predicted(factory: Contract, parties: Iterable[Party], operator: bytes) -> bytes:
    """The address as EIP-1014 says."""
    code_hash = keccak256(init_code(parties, operator))
    return keccak256(b"\xff" + factory.address + bytes(32) + code_hash)[12:]


@pytest.mark.parametrize("count", [2, 3, 100])
def test_the_address_is_known_before(world: World, count: int) -> None:
    factory, parties, operator = new_factory(world), group_of(count), world.payee.address
    foretold = world.read(factory, "addressOf", parties, operator)
    assert foretold == predicted(factory, parties, operator)

    created = world.read(factory, "create", parties, operator)
    splitter = of_factory(world, factory, parties, operator)

    assert created == splitter.address == foretold
    assert [world.read(splitter, "basisPoints", one) for one, _ in parties] == [
        part for _, part in parties
    ]
    assert world.read(splitter, "operator") == operator


def test_a_creation_is_logged_whole(world: World) -> None:
    factory = new_factory(world)

    splitter = of_factory(world, factory, TRIO, world.payee.address)

    described = {
        "splitter": splitter.address,
        "operator": world.payee.address,
        "parties": tuple(TRIO),
    }
    assert events(world, factory) == [Event("SplitterCreated", described)]


def test_creating_again_returns_the_one_that_is_there(world: World, asset: Address) -> None:
    factory = new_factory(world)
    splitter = of_factory(world, factory, TRIO)
    pay(world, asset, splitter.address, 1_000)
    release(world, splitter, asset, AUTHOR)

    assert world.read(factory, "create", TRIO, ZERO_ADDRESS) == splitter.address
    world.send(world.payee, factory, "create", TRIO, ZERO_ADDRESS)

    assert events(world, factory) == []
    assert all_releasable(world, splitter, asset, TRIO) == [0, 250, 50]


def test_every_other_description_has_another_address(world: World) -> None:
    factory, other_factory = new_factory(world), new_factory(world)
    operator, other_operator = world.payee.address, world.stranger.address
    other_parts = [(AUTHOR, 7_001), (PUBLISHER, 2_499), (REFERRER, 500)]
    other_party = [(account(9), 7_000), *TRIO[1:]]

    addresses = {
        of_factory(world, where, parties, who).address
        for where, parties, who in (
            (factory, TRIO, operator),
            (other_factory, TRIO, operator),
            (factory, TRIO, other_operator),
            (factory, TRIO, ZERO_ADDRESS),
            (factory, other_parts, operator),
            (factory, other_party, operator),
            (factory, TRIO[::-1], operator),
        )
    }

    assert len(addresses) == 7


def test_who_creates_makes_no_difference(world: World) -> None:
    """Nobody can put another contract where a group will be, or lock the group out."""
    factory, operator = new_factory(world), world.payee.address
    address = world.read(factory, "addressOf", TRIO, operator)

    for creator in (world.payer, world.stranger, world.accounts[7]):
        with world.rolled_back():
            world.send(creator, factory, "create", TRIO, operator)
            splitter = Contract(address, SPLITTER)
            assert world.read(splitter, "operator") == operator
            assert [world.read(splitter, "basisPoints", one) for one, _ in TRIO] == [
                7_000,
                2_500,
                500,
            ]


def test_money_that_came_before_the_group_is_not_lost(world: World, asset: Address) -> None:
    factory = new_factory(world)
    future = Contract(world.read(factory, "addressOf", TRIO, ZERO_ADDRESS), SPLITTER)
    channel = channel_to(world, future, asset)
    world.open(channel, 1_000)
    world.settle(channel, 600)
    pay(world, asset, future.address, 400)
    assert world.kept(asset, future.address) == 0

    splitter = of_factory(world, factory, TRIO)
    for party, _ in TRIO:
        release(world, splitter, asset, Address(party))

    assert [world.balance(asset, Address(party)) for party, _ in TRIO] == [700, 250, 50]


# What it costs


@pytest.mark.parametrize(("kind", "gas_max"), [("eth", 47_600), ("erc20", 54_800)])
def test_a_release_stays_cheap(world: World, kind: str, gas_max: int) -> None:
    """To a party that was paid before."""
    token = NATIVE if kind == "eth" else world.token.address
    splitter = new_splitter(world, TRIO)
    pay(world, token, splitter.address, 10**6)
    release(world, splitter, token, AUTHOR)
    pay(world, token, splitter.address, 10**6)

    assert release(world, splitter, token, AUTHOR).gas_used <= gas_max


@pytest.mark.parametrize(("count", "gas_max"), [(2, 700_000), (3, 725_000), (100, 3_540_000)])
def test_a_creation_stays_cheap(world: World, count: int, gas_max: int) -> None:
    factory, parties = new_factory(world), group_of(count)

    receipt = world.send(world.stranger, factory, "create", parties, ZERO_ADDRESS, gas=CREATION_GAS)

    assert receipt.gas_used <= gas_max
