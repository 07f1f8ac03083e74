"""``openWithAuthorization``, ``topUpWithAuthorization`` (EIP-3009): one signs, anyone sends."""

from __future__ import annotations

from dataclasses import replace

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
from channelpay.testing.execution import CHAIN_ID
from tests.contracts.funding import (
    Form,
    FundingCall,
    authorized_open,
    authorized_top_up,
    cancel_message,
    deploy_token,
    open_nonce,
    opened,
    parts,
    revoke_allowance,
    selector,
    top_up_nonce,
    topped_up,
)
from tests.contracts.world import (
    GRACE_SECONDS,
    Contract,
    Reverted,
    World,
    as_struct,
    reverts,
)

OTHER = b"\x0a" * 20
OTHER_WORD = b"\x0a" * 32
WRONG_AMOUNTS = ["TaxedFundingToken", "ShortFundingToken", "LavishFundingToken", "PhantomToken"]


@pytest.fixture(params=Form)
def form(request: pytest.FixtureRequest) -> Form:
    """Each overload."""
    assert isinstance(request.param, Form)
    return request.param


@pytest.fixture
def channel(world: World) -> Channel:
    """Not open yet, in the test token, for which the contract has no allowance."""
    revoke_allowance(world, world.contract.address)
    return world.channel(world.token.address, signer=world.session_key, salt=5)


@pytest.fixture
def live(world: World, channel: Channel) -> Channel:
    """Open, with a deposit of 100."""
    authorized_open(world, channel, 100, Form.BYTES).send(world)
    return channel


def is_refused(world: World, call: FundingCall) -> None:
    """The token was not moved, and nobody lost anything."""
    token = call.values["token"] if "token" in call.values else call.values["channel"][2]
    parties = {world.payer: 0, world.stranger: 0, world.contract: 0}
    with world.pays(world.token.address, parties), reverts("TokenTransferFailed", token):
        call.send(world)


def is_misnamed(world: World, call: FundingCall, expected: bytes) -> None:
    """The nonce is not the one of these words, and nobody lost anything."""
    parties = {world.payer: 0, world.stranger: 0, world.contract: 0}
    with world.pays(world.token.address, parties), reverts("NonceMismatch", expected):
        call.send(world)


def is_spent(world: World, call: FundingCall) -> bool:
    """Whether the token has seen this authorization."""
    values = call.values
    return bool(world.read(world.token, "authorizationState", values["from"], values["nonce"]))


# Open


def test_a_stranger_opens_with_the_payers_authorization(
    world: World, channel: Channel, form: Form
) -> None:
    call = authorized_open(world, channel, 100, form)
    fees = world.fees[world.payer.address]

    with world.pays(channel.token, {world.payer: -100, world.stranger: 0, world.contract: 100}):
        receipt = call.send(world, world.stranger)

    assert receipt.events == (opened(world, channel, 100),)
    assert world.state(channel) == ChannelState(ChannelStatus.OPEN, 100)
    assert world.fees[world.payer.address] == fees


def test_an_authorized_open_returns_the_channels_id(
    world: World, channel: Channel, form: Form
) -> None:
    assert authorized_open(world, channel, 100, form).ask(world) == world.id(channel)


def test_a_channel_opened_by_authorization_pays_out_like_any_other(
    world: World, live: Channel
) -> None:
    with world.pays(live.token, {world.payee: 60, world.payer: 40, world.contract: -100}):
        world.close(live, 60)


DESCRIPTION = [
    ("payee", OTHER),
    ("salt", OTHER_WORD),
    ("authorizedSigner", OTHER),
    ("authorizedSigner", ZERO_ADDRESS),
    ("from", OTHER),
]


@pytest.mark.parametrize("change", DESCRIPTION)
def test_an_authorization_opens_no_other_channel(
    world: World, channel: Channel, form: Form, change: tuple[str, bytes]
) -> None:
    """Neither with the nonce that was signed, nor with the one that fits."""
    call = authorized_open(world, channel, 100, form).changed(*change)
    expected = open_nonce(call.values)

    is_misnamed(world, call, expected)
    is_refused(world, call.changed("nonce", expected))


def test_an_authorization_moves_no_other_token(world: World, channel: Channel, form: Form) -> None:
    other = world.deploy_token("TestToken")
    call = authorized_open(world, channel, 100, form).changed("token", other.address)
    expected = open_nonce(call.values)

    is_misnamed(world, call, expected)
    is_refused(world, call.changed("nonce", expected))


@pytest.mark.parametrize(
    "change",
    [("deposit", 99), ("deposit", 101), ("validAfter", 1), ("validBefore", 2**255)],
)
def test_an_authorized_open_is_for_what_was_signed(
    world: World, channel: Channel, form: Form, change: tuple[str, int]
) -> None:
    is_refused(world, authorized_open(world, channel, 100, form).changed(*change))


def test_the_nonce_of_an_open_is_made_from_its_description(
    world: World, channel: Channel, form: Form
) -> None:
    call = authorized_open(world, channel, 100, form)

    is_misnamed(world, call.changed("nonce", OTHER_WORD), call.values["nonce"])


def test_an_authorization_is_its_signers(world: World, channel: Channel, form: Form) -> None:
    call = authorized_open(world, channel, 100, form)

    is_refused(world, call.signed(call.message.sign(world.stranger)))
    is_refused(world, call.signed(bytes(65)))


@pytest.mark.parametrize("signature", [b"", b"\x01" * 64, b"\x01" * 66, b"\x01" * 5000])
def test_a_signature_of_another_length_opens_nothing(
    world: World, channel: Channel, signature: bytes
) -> None:
    is_refused(world, authorized_open(world, channel, 100, Form.BYTES).signed(signature))


def test_an_authorization_is_for_one_contract(world: World, channel: Channel, form: Form) -> None:
    call = authorized_open(world, channel, 100, form)
    other = world.deploy_channels(GRACE_SECONDS)

    with reverts("TokenTransferFailed", channel.token):
        contract = Contract(other.address, call.contract_abi)
        world.send(world.stranger, contract, call.function, *call.arguments)


def test_an_authorization_is_for_one_chain(world: World, channel: Channel, form: Form) -> None:
    is_refused(world, authorized_open(world, channel, 100, form, chain_id=CHAIN_ID + 1))


def test_an_authorization_opens_once(world: World, channel: Channel, form: Form) -> None:
    call = authorized_open(world, channel, 100, form)
    call.send(world)

    with reverts("ChannelAlreadyExists", world.id(channel)):
        call.send(world)
    world.close(channel, 0)
    with reverts("ChannelAlreadyExists", world.id(channel)):
        call.send(world)


def test_a_lane_is_opened_again_with_a_new_authorization_only(
    world: World, channel: Channel, form: Form
) -> None:
    first = authorized_open(world, channel, 100, form)
    first.send(world)
    world.close(channel, 0)
    later = replace(channel, salt=(6).to_bytes(32, "big"))
    second = authorized_open(world, later, 100, form)

    old_one = first.changed("salt", later.salt)
    is_misnamed(world, old_one, second.values["nonce"])
    is_refused(world, old_one.changed("nonce", second.values["nonce"]))
    receipt = second.send(world)

    assert receipt.events == (opened(world, later, 100),)
    assert world.state(later) == ChannelState(ChannelStatus.OPEN, 100)


def test_an_authorization_holds_between_its_times(
    world: World, channel: Channel, form: Form
) -> None:
    """The token's rule: after the one and before the other, both left out."""
    start = world.timestamp + 100
    call = authorized_open(world, channel, 100, form, valid_after=start, valid_before=start + 10)

    for early_or_late in (start, start + 10):
        with world.rolled_back():
            world.next_block_at(early_or_late)
            is_refused(world, call)
    for in_time in (start + 1, start + 9):
        with world.rolled_back():
            world.next_block_at(in_time)
            call.send(world)


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("receiveWithAuthorization", selector("CallerIsNotReceiver()")),
        ("transferWithAuthorization", "InvalidSignature"),
    ],
)
def test_nobody_uses_an_authorization_at_the_token_itself(
    world: World, channel: Channel, form: Form, function: str, error: str
) -> None:
    """Else the money came in without a channel."""
    call = authorized_open(world, channel, 100, form)
    values = call.values
    transfer = (values["from"], world.contract.address, values["deposit"])
    rest = (values["validAfter"], values["validBefore"], values["nonce"], *parts(call.signature))

    with world.pays(channel.token, {world.payer: 0, world.contract: 0}), reverts(error):
        world.send(world.stranger, world.token, function, *transfer, *rest)

    assert not is_spent(world, call)
    call.send(world)
    assert is_spent(world, call)


def test_a_cancelled_authorization_opens_nothing(
    world: World, channel: Channel, form: Form
) -> None:
    call = authorized_open(world, channel, 100, form)
    nonce = call.values["nonce"]
    cancellation = cancel_message(channel.token, channel.payer, nonce).sign(world.payer)
    world.send(
        world.stranger,
        world.token,
        "cancelAuthorization",
        channel.payer,
        nonce,
        *parts(cancellation),
    )

    is_refused(world, call)


@pytest.mark.parametrize(
    ("kind", "taken", "refused"),
    [
        ("BytesOnlyToken", Form.BYTES, Form.PARTS),
        ("PartsOnlyToken", Form.PARTS, Form.BYTES),
    ],
)
def test_each_overload_asks_the_token_in_its_own_form(
    world: World, kind: str, taken: Form, refused: Form
) -> None:
    token = deploy_token(world, kind)
    channel = world.channel(token.address)

    with reverts("TokenTransferFailed", token.address):
        authorized_open(world, channel, 100, refused).send(world)
    with world.pays(token.address, {world.payer: -100, world.contract: 100}):
        authorized_open(world, channel, 100, taken).send(world)
    with reverts("TokenTransferFailed", token.address):
        authorized_top_up(world, channel, 30, refused).send(world)
    with world.pays(token.address, {world.payer: -30, world.contract: 30}):
        authorized_top_up(world, channel, 30, taken).send(world)


@pytest.mark.parametrize("kind", WRONG_AMOUNTS)
def test_a_token_that_moves_another_amount_by_authorization_is_refused(
    world: World, form: Form, kind: str
) -> None:
    """Also one that takes the call and does nothing, as wrapped native currency does."""
    token = deploy_token(world, kind)

    is_refused(world, authorized_open(world, world.channel(token.address), 100, form))


def test_a_token_without_authorizations_is_refused(world: World, form: Form) -> None:
    token = world.deploy_token("FeeToken")

    is_refused(world, authorized_open(world, world.channel(token.address), 100, form))


@pytest.mark.parametrize("token", [NATIVE, Address(b"\x77" * 20)])
def test_a_token_without_code_takes_no_authorization(
    world: World, form: Form, token: Address
) -> None:
    with reverts("InvalidToken", token):
        authorized_open(world, world.channel(token), 100, form).send(world)


def test_an_authorized_call_takes_no_native_currency(
    world: World, live: Channel, form: Form
) -> None:
    other = replace(live, salt=OTHER_WORD)
    for call in (
        authorized_open(world, other, 100, form),
        authorized_top_up(world, live, 30, form),
    ):
        contract = Contract(world.contract.address, call.contract_abi)
        with world.pays(NATIVE, {world.stranger: 0, world.contract: 0}), reverts(""):
            world.send(world.stranger, contract, call.function, *call.arguments, value=30)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("payee", ZERO_ADDRESS), ("InvalidPayee",)),
        (("deposit", 0), ("ZeroDeposit",)),
        (("deposit", DEPOSIT_MAX + 1), ("DepositOverflow", DEPOSIT_MAX + 1)),
    ],
)
def test_the_rules_of_an_open_hold_with_an_authorization(
    world: World,
    channel: Channel,
    form: Form,
    change: tuple[str, object],
    error: tuple[str, *tuple[int, ...]],
) -> None:
    with reverts(*error):
        authorized_open(world, channel, 100, form).changed(*change).send(world)


# Top up


@pytest.mark.parametrize("who", ["payer", "stranger"])
def test_an_authorization_tops_up_whoever_signed_it(
    world: World, live: Channel, form: Form, who: str
) -> None:
    funder, sender = getattr(world, who), world.accounts[7]
    call = authorized_top_up(world, live, 30, form, funder=funder)

    with world.pays(live.token, {funder: -30, sender: 0, world.contract: 30}):
        receipt = call.send(world, sender)

    assert receipt.events == (topped_up(world, live, 30, 130),)
    assert world.state(live) == ChannelState(ChannelStatus.OPEN, 130)


def test_what_a_stranger_added_is_refunded_to_the_payer(
    world: World, live: Channel, form: Form
) -> None:
    authorized_top_up(world, live, 30, form, funder=world.stranger).send(world)

    with world.pays(live.token, {world.payee: 60, world.payer: 70, world.stranger: 0}):
        world.close(live, 60)


@pytest.mark.parametrize("sender", ["payer", "stranger"])
@pytest.mark.parametrize("funder", ["payer", "stranger"])
def test_a_top_up_with_an_authorization_cancels_nothing(
    world: World, live: Channel, form: Form, funder: str, sender: str
) -> None:
    """Not even the payer's own, sent by the payer: the signature may be older than the request."""
    requested_at = world.request_close(live).timestamp

    call = authorized_top_up(world, live, 30, form, funder=getattr(world, funder))
    receipt = call.send(world, getattr(world, sender))

    assert receipt.events == (topped_up(world, live, 30, 130),)
    assert world.state(live) == ChannelState(ChannelStatus.CLOSING, 130, 0, requested_at)


def test_a_top_up_leaves_what_is_settled(world: World, live: Channel, form: Form) -> None:
    world.settle(live, 100)

    authorized_top_up(world, live, 30, form).send(world)
    world.settle(live, 130)

    assert world.state(live) == ChannelState(ChannelStatus.OPEN, 130, 130)


@pytest.mark.parametrize(
    "change",
    [("amount", 29), ("amount", 31), ("from", OTHER), ("topUpSalt", OTHER_WORD)],
)
def test_an_authorized_top_up_is_for_the_words_of_its_nonce(
    world: World, live: Channel, form: Form, change: tuple[str, object]
) -> None:
    """Neither with the nonce that was signed, nor with the one that fits."""
    call = authorized_top_up(world, live, 30, form).changed(*change)
    expected = top_up_nonce(world, call.values)

    is_misnamed(world, call, expected)
    is_refused(world, call.changed("nonce", expected))


def test_an_authorized_top_up_is_for_one_channel(world: World, live: Channel, form: Form) -> None:
    other = replace(live, salt=OTHER_WORD)
    authorized_open(world, other, 100, form).send(world)
    call = authorized_top_up(world, live, 30, form).changed("channel", as_struct(other))
    expected = top_up_nonce(world, call.values)

    is_misnamed(world, call, expected)
    is_refused(world, call.changed("nonce", expected))


@pytest.mark.parametrize("change", [("validAfter", 1), ("validBefore", 2**255)])
def test_an_authorized_top_up_is_for_the_times_that_were_signed(
    world: World, live: Channel, form: Form, change: tuple[str, int]
) -> None:
    is_refused(world, authorized_top_up(world, live, 30, form).changed(*change))


def test_the_nonce_of_a_top_up_is_made_from_its_words(
    world: World, live: Channel, form: Form
) -> None:
    call = authorized_top_up(world, live, 30, form)

    is_misnamed(world, call.changed("nonce", OTHER_WORD), call.values["nonce"])


def test_an_authorized_top_up_is_its_signers(world: World, live: Channel, form: Form) -> None:
    call = authorized_top_up(world, live, 30, form)

    is_refused(world, call.signed(call.message.sign(world.stranger)))


def test_an_authorized_top_up_is_for_one_chain(world: World, live: Channel, form: Form) -> None:
    is_refused(world, authorized_top_up(world, live, 30, form, chain_id=CHAIN_ID + 1))


def test_an_authorized_top_up_is_for_one_contract(world: World, live: Channel, form: Form) -> None:
    """Where the same description is open as well, under another id."""
    other = world.deploy_channels(GRACE_SECONDS)
    world.send(world.payer, world.token, "approve", other.address, 100)
    parameters = (live.payee, live.token, 100, live.salt, live.authorized_signer)
    world.send(world.payer, other, "open", *parameters)
    call = authorized_top_up(world, live, 30, form)
    contract = Contract(other.address, call.contract_abi)

    with pytest.raises(Reverted, match="NonceMismatch"):
        world.send(world.stranger, contract, call.function, *call.arguments)


def test_an_authorized_top_up_pays_once(world: World, live: Channel, form: Form) -> None:
    call = authorized_top_up(world, live, 30, form)
    call.send(world)

    is_refused(world, call)


def test_an_authorized_top_up_holds_between_its_times(
    world: World, live: Channel, form: Form
) -> None:
    start = world.timestamp + 100
    call = authorized_top_up(world, live, 30, form, valid_after=start, valid_before=start + 10)

    for early_or_late in (start, start + 10):
        with world.rolled_back():
            world.next_block_at(early_or_late)
            is_refused(world, call)
    world.next_block_at(start + 1)
    call.send(world)


def test_an_authorized_top_up_of_a_closed_channel_is_refused_and_stays_unspent(
    world: World, live: Channel, form: Form
) -> None:
    call = authorized_top_up(world, live, 30, form)
    world.close(live, 0)

    with (
        world.pays(live.token, {world.payer: 0}),
        reverts("ChannelFinalized", world.id(live)),
    ):
        call.send(world)
    assert not is_spent(world, call)


def test_an_authorized_top_up_of_an_older_epoch_adds_nothing_to_the_new_one(
    world: World, live: Channel, form: Form
) -> None:
    call = authorized_top_up(world, live, 30, form)
    world.close(live, 0)
    later = replace(live, salt=(6).to_bytes(32, "big"))
    authorized_open(world, later, 70, form).send(world)
    moved = call.changed("channel", as_struct(later))

    is_misnamed(world, moved, top_up_nonce(world, moved.values))


def test_an_authorization_to_open_is_none_to_top_up_and_the_other_way_round(
    world: World, live: Channel, form: Form
) -> None:
    other = replace(live, salt=OTHER_WORD)
    open_call = authorized_open(world, other, 30, form)
    top_up_call = authorized_top_up(world, live, 30, form)

    for call, foreign in ((open_call, top_up_call), (top_up_call, open_call)):
        with_its_nonce = call.signed(foreign.signature).changed("nonce", foreign.values["nonce"])
        is_misnamed(world, with_its_nonce, call.values["nonce"])
        is_refused(world, call.signed(foreign.signature))


def test_an_authorized_top_up_needs_a_channel_and_an_amount(
    world: World, channel: Channel, form: Form
) -> None:
    with reverts("ChannelNotFound", world.id(channel)):
        authorized_top_up(world, channel, 30, form).send(world)
    authorized_open(world, channel, 100, form).send(world)
    with reverts("ZeroDeposit"):
        authorized_top_up(world, channel, 0, form).send(world)
    with reverts("DepositOverflow", DEPOSIT_MAX + 1):
        authorized_top_up(world, channel, DEPOSIT_MAX - 99, form).send(world)


def test_native_currency_is_not_topped_up_by_authorization(world: World, form: Form) -> None:
    channel = world.channel(NATIVE)
    world.open(channel, 100)

    with reverts("InvalidToken", NATIVE):
        authorized_top_up(world, channel, 30, form).send(world)
