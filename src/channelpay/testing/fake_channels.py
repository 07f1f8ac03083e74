"""The PaymentChannels contract, played in Python by the rules of :mod:`channelpay.protocol`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from channelpay.chain.artifacts import Artifact, payment_channels
from channelpay.errors import ChainReverted, PaymentRefused
from channelpay.protocol import lifecycle
from channelpay.protocol.eip712 import (
    VoucherHasher,
    close_authorization_digest,
    domain_separator,
)
from channelpay.protocol.lifecycle import LaneState, Payout
from channelpay.protocol.types import (
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelId,
    ChannelStatus,
    Deployment,
    Voucher,
)
from channelpay.testing.execution import ExecutionReverted
from channelpay.testing.fake_abi import Abi
from channelpay.testing.fake_token import PlayedToken
from channelpay.testing.fake_world import Context, PlayedContract, signer_of

_STATUSES = tuple(ChannelStatus)
_CHANNEL = "(address,address,address,address,bytes32)"
_OPEN = "address,address,uint128,bytes32,address"
_AUTHORIZATION = "address,uint256,uint256,bytes32,uint8,bytes32,bytes32"
_ROWS = "(bytes32,address,address,uint128,bytes32,bytes32)[]"
_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
_V_OFFSET = 27

Description = tuple[Address, Address, Address, Address, bytes]


class PlayedChannels(PlayedContract):
    """All channels of one deployment."""

    artifact: Artifact = payment_channels()
    abi: Abi = Abi(artifact)

    def __init__(self, chain_id: int, address: Address, grace_seconds: int) -> None:
        super().__init__(address)
        self.deployment: Deployment = Deployment(chain_id, address)
        self.grace_seconds = grace_seconds
        self.code: bytes = _code(self.deployment, grace_seconds)
        self.lanes: dict[bytes, LaneState] = {}
        self.kept: dict[tuple[Address, Address], int] = {}
        self._hasher = VoucherHasher(self.deployment)

    def copy(self) -> PlayedChannels:
        twin = PlayedChannels(self.deployment.chain_id, self.address, self.grace_seconds)
        twin.lanes, twin.kept = dict(self.lanes), dict(self.kept)
        return twin

    def handlers(self) -> Mapping[str, Callable[..., Any]]:
        return self._views() | {
            f"open({_OPEN})": self.open,
            f"openWithPermit({_OPEN},uint256,uint8,bytes32,bytes32)": self.open_with_permit,
            f"openWithAuthorization({_OPEN},{_AUTHORIZATION})": self.open_with_authorization,
            f"topUp({_CHANNEL},uint128)": self.top_up,
            f"settle({_CHANNEL},uint128,bytes)": self.settle,
            f"close({_CHANNEL},uint128,bytes)": self.close,
            f"closeWithAuthorization({_CHANNEL},uint128,bytes,bytes)": self.close_authorized,
            f"settleBatch(address,address,{_ROWS})": self.settle_batch,
            f"closeBatch(address,{_ROWS})": self.close_batch,
            f"requestClose({_CHANNEL})": self.request_close,
            f"withdraw({_CHANNEL})": self.withdraw,
            "claim(address,address)": self.claim,
        }

    def _views(self) -> dict[str, Callable[..., Any]]:
        where = self.deployment
        return {
            "gracePeriod()": lambda _: self.grace_seconds,
            "domainSeparator()": lambda _: domain_separator(where),
            "keptShare(address,address)": lambda _, *pair: self.kept.get(pair, 0),
            f"channelId({_CHANNEL})": lambda _, channel: Channel(*channel).id(where),
            "voucherDigest(bytes32,uint128)": lambda _, *what: self._hasher.digest(*what),
            "closeAuthorizationDigest(bytes32,uint128)": lambda _, *what: (
                close_authorization_digest(where, *what)
            ),
            f"channelState({_CHANNEL})": lambda _, channel: self._state(channel),
            f"channelStates({_CHANNEL}[])": lambda _, many: [*map(self._state, many)],
        }

    # --- opens and top-ups -------------------------------------------------------------------

    def open(self, context: Context, *facts: Any) -> ChannelId:
        payee, token, deposit, salt, signer = facts
        channel = Channel(context.sender, payee, token, signer, salt)
        channel_id = self._create(context, channel, deposit)
        self._pull_from_sender(context, token, deposit)
        return channel_id

    def open_with_permit(self, context: Context, *facts: Any) -> ChannelId:
        payee, token, deposit, salt, signer, *permit = facts
        channel = Channel(context.sender, payee, token, signer, salt)
        channel_id = self._create(context, channel, deposit)
        with self._pulling(context, token) as played:
            # Whoever saw the permit may have used it: the allowance decides.
            with suppress(ExecutionReverted):
                played.permit(context, context.sender, self.address, deposit, *permit)
            played.pull(context.events, self.address, context.sender, deposit)
        return channel_id

    def open_with_authorization(self, context: Context, *facts: Any) -> ChannelId:
        payee, token, deposit, salt, signer, payer, after, before, nonce, *parts = facts
        channel = Channel(payer, payee, token, signer, salt)
        channel_id = self._create(context, channel, deposit)
        if nonce != channel.authorization_nonce:
            raise self.abi.error("NonceMismatch", channel.authorization_nonce)
        v, r, s = parts
        signature = r + s + bytes([v])
        with self._pulling(context, token) as played:
            played.receive_authorized(
                context, payer, self.address, deposit, after, before, nonce, signature
            )
        return channel_id

    def top_up(self, context: Context, facts: Description, amount: int) -> None:
        channel = Channel(*facts)
        by_payer = context.sender == channel.payer
        with self._refusing(channel, amount):
            old = self.lanes.get(channel.lane)
            new = lifecycle.top_up(old, channel.epoch, amount, by_payer=by_payer)
        if old is not None and old.close_requested_at and not new.close_requested_at:
            self._emit_of(context, "CloseCancelled", channel)
        self.lanes[channel.lane] = new
        self._emit_of(context, "ToppedUp", channel, amount, new.deposit)
        self._pull_from_sender(context, channel.token, amount)

    # --- settling and closing ----------------------------------------------------------------

    def settle(self, context: Context, facts: Description, amount: int, signature: bytes) -> None:
        channel = Channel(*facts)
        with self._refusing(channel, amount):
            new, payout = lifecycle.settle(self.lanes.get(channel.lane), channel.epoch, amount)
        self._check_voucher(channel, amount, signature)
        self.lanes[channel.lane] = new
        self._emit_of(context, "Settled", channel, amount)
        self._push(context, channel.token, channel.payee, payout.to_payee)

    def close(self, context: Context, facts: Description, amount: int, signature: bytes) -> None:
        channel = Channel(*facts)
        with self._refusing(channel, amount):
            by_payee = context.sender == channel.payee
            old = self.lanes.get(channel.lane)
            new, payout = lifecycle.close(old, channel.epoch, amount, by_payee=by_payee)
        self._close(context, channel, amount, signature, new, payout)

    def close_authorized(
        self,
        context: Context,
        facts: Description,
        amount: int,
        signature: bytes,
        payee_signature: bytes,
    ) -> None:
        channel = Channel(*facts)
        digest = close_authorization_digest(self.deployment, channel.id(self.deployment), amount)
        authorized = _has_low_s(payee_signature) and (
            signer_of(digest, payee_signature) == channel.payee
        )
        with self._refusing(channel, amount):
            old = self.lanes.get(channel.lane)
            new, payout = lifecycle.close_with_authorization(
                old, channel.epoch, amount, authorized=authorized
            )
        self._close(context, channel, amount, signature, new, payout)

    def settle_batch(
        self, context: Context, payee: Address, token: Address, rows: Sequence[Any]
    ) -> int:
        paid = 0
        for row in rows:
            channel, amount, signature = _of_row(row, payee, token)
            lane = self.lanes.get(channel.lane)
            if not self._pays(lane, channel, amount, signature):
                self.emit(context, "RowSkipped", channel.id(self.deployment))
                continue
            new, payout = lifecycle.settle(lane, channel.epoch, amount)
            self.lanes[channel.lane] = new
            self._emit_of(context, "Settled", channel, amount)
            paid += payout.to_payee
        self._push(context, token, payee, paid)
        return paid

    def close_batch(self, context: Context, token: Address, rows: Sequence[Any]) -> int:
        paid = 0
        for row in rows:
            channel, amount, signature = _of_row(row, context.sender, token)
            lane = self.lanes.get(channel.lane)
            settles = self._pays(lane, channel, amount, signature)
            if lane is None or not (settles or _closes_as_it_is(lane, channel, amount)):
                self.emit(context, "RowSkipped", channel.id(self.deployment))
                continue
            new, payout = lifecycle.close(lane, channel.epoch, amount, by_payee=True)
            self._finalize(context, channel, new, payout)
            self._push(context, token, channel.payer, payout.to_payer)
            paid += payout.to_payee
        self._push(context, token, context.sender, paid)
        return paid

    # --- the payer's way out -----------------------------------------------------------------

    def request_close(self, context: Context, facts: Description) -> None:
        channel = Channel(*facts)
        by_payer = context.sender == channel.payer
        with self._refusing(channel):
            old = self.lanes.get(channel.lane)
            new = lifecycle.request_close(old, channel.epoch, context.timestamp, by_payer=by_payer)
        if new != old:
            self.lanes[channel.lane] = new
            withdrawable_at = context.timestamp + self.grace_seconds
            self._emit_of(context, "CloseRequested", channel, withdrawable_at)

    def withdraw(self, context: Context, facts: Description) -> None:
        channel = Channel(*facts)
        by_payer = context.sender == channel.payer
        with self._refusing(channel):
            old = self.lanes.get(channel.lane)
            new, payout = lifecycle.withdraw(
                old, channel.epoch, context.timestamp, self.grace_seconds, by_payer=by_payer
            )
        self._finalize(context, channel, new, payout)
        self._push(context, channel.token, channel.payer, payout.to_payer)

    def claim(self, context: Context, token: Address, receiver: Address) -> None:
        amount = self.kept.pop((token, context.sender), 0)
        if amount == 0:
            raise self.abi.error("NothingToClaim")
        self.emit(context, "ShareClaimed", token, context.sender, receiver, amount)
        if not self._try_push(context, token, receiver, amount):
            raise self.abi.error("TokenTransferFailed", token)

    # --- steps -------------------------------------------------------------------------------

    def _state(self, facts: Description) -> tuple[int, int, int, int]:
        channel = Channel(*facts)
        lane = self.lanes.get(channel.lane)
        if lane is None:
            return 0, 0, 0, 0
        state = lane.view(channel.epoch)
        status = _STATUSES.index(state.status)
        return status, state.deposit, state.settled, state.close_requested_at

    def _create(self, context: Context, channel: Channel, deposit: int) -> ChannelId:
        if channel.payee == ZERO_ADDRESS:
            raise self.abi.error("InvalidPayee")
        with self._refusing(channel, deposit):
            lane = lifecycle.open_channel(self.lanes.get(channel.lane), channel.epoch, deposit)
        self.lanes[channel.lane] = lane
        facts = (channel.token, channel.authorized_signer, channel.salt, deposit)
        self._emit_of(context, "ChannelOpened", channel, *facts)
        return channel.id(self.deployment)

    def _close(
        self,
        context: Context,
        channel: Channel,
        amount: int,
        signature: bytes,
        new: LaneState,
        payout: Payout,
    ) -> None:
        if payout.to_payee:
            self._check_voucher(channel, amount, signature)
        self._finalize(context, channel, new, payout)
        self._push(context, channel.token, channel.payee, payout.to_payee)
        self._push(context, channel.token, channel.payer, payout.to_payer)

    def _finalize(self, context: Context, channel: Channel, new: LaneState, payout: Payout) -> None:
        self.lanes[channel.lane] = new
        self._emit_of(context, "ChannelClosed", channel, new.settled, payout.to_payer)

    def _pays(
        self, lane: LaneState | None, channel: Channel, amount: int, signature: bytes
    ) -> bool:
        if lane is None or not _is_live(lane, channel):
            return False
        fits = lane.settled < amount <= lane.deposit
        return fits and self._is_signed(channel, amount, signature)

    def _check_voucher(self, channel: Channel, amount: int, signature: bytes) -> None:
        if not self._is_signed(channel, amount, signature):
            raise self.abi.error("InvalidSignature")

    def _is_signed(self, channel: Channel, amount: int, signature: bytes) -> bool:
        voucher = Voucher(channel.id(self.deployment), amount, signature)
        try:
            self._hasher.check(voucher, channel.signer)
        except PaymentRefused:
            return False
        return True

    def _emit_of(self, context: Context, name: str, channel: Channel, *values: object) -> None:
        channel_id = channel.id(self.deployment)
        self.emit(context, name, channel_id, channel.payer, channel.payee, *values)

    def _pull_from_sender(self, context: Context, token: Address, amount: int) -> None:
        expected = amount if token == NATIVE else 0
        if context.value != expected:
            raise self.abi.error("WrongValue", expected, context.value)
        if token != NATIVE:
            with self._pulling(context, token) as played:
                played.pull(context.events, self.address, context.sender, amount)

    @contextmanager
    def _pulling(self, context: Context, token: Address) -> Iterator[PlayedToken]:
        """The token; what it refuses is named as the contract names it."""
        played = context.world.contracts.get(token)
        if played is None:
            raise self.abi.error("InvalidToken", token)
        if not isinstance(played, PlayedToken):
            raise self.abi.error("TokenTransferFailed", token)
        try:
            yield played
        except ExecutionReverted as error:
            raise self.abi.error("TokenTransferFailed", token) from error

    def _push(self, context: Context, token: Address, to: Address, amount: int) -> None:
        if amount and not self._try_push(context, token, to, amount):
            self.kept[token, to] = self.kept.get((token, to), 0) + amount
            self.emit(context, "ShareKept", token, to, amount)

    def _try_push(self, context: Context, token: Address, to: Address, amount: int) -> bool:
        played = context.world.contracts.get(token)
        if isinstance(played, PlayedToken):
            played.move(context.events, self.address, to, amount)
            return True
        if to in context.world.contracts:
            return False
        context.world.move(self.address, to, amount)
        return True

    @contextmanager
    def _refusing(self, channel: Channel, amount: int = 0) -> Iterator[None]:
        """What the rules refuse, as the contract's own revert data."""
        try:
            yield
        except ChainReverted as refusal:
            name = refusal.error
            raise self.abi.error(name, *self._values(name, channel, amount)) from refusal

    def _values(self, name: str, channel: Channel, amount: int) -> list[object]:
        lane = self.lanes.get(channel.lane) or LaneState(0, 0)
        requested_at = lane.close_requested_at
        channel_id = channel.id(self.deployment)
        values: dict[str, list[object]] = {
            "ChannelAlreadyExists": [channel_id],
            "ChannelNotFound": [channel_id],
            "ChannelFinalized": [channel_id],
            "NotPayer": [channel.payer],
            "NotPayee": [channel.payee],
            "AmountNotIncreasing": [amount, lane.settled],
            "AmountExceedsDeposit": [amount, lane.deposit],
            "DepositOverflow": [lane.deposit + amount if _is_live(lane, channel) else amount],
            "CloseNotReady": [requested_at + self.grace_seconds if requested_at else 0],
        }
        return values.get(name, [])


def _is_live(lane: LaneState, channel: Channel) -> bool:
    return lane.deposit > 0 and lane.epoch == channel.epoch and not lane.finalized


def _closes_as_it_is(lane: LaneState, channel: Channel, amount: int) -> bool:
    """Whether a row that settles nothing more still closes its channel."""
    return _is_live(lane, channel) and amount <= lane.settled


def _of_row(row: Sequence[Any], payee: Address, token: Address) -> tuple[Channel, int, bytes]:
    """A row's channel, amount and signature in its long form."""
    salt, payer, signer, amount, r, vs = row
    number = int.from_bytes(vs, "big")
    v, s = _V_OFFSET + (number >> 255), number & (2**255 - 1)
    signature = r + s.to_bytes(32, "big") + bytes([v])
    return Channel(payer, payee, token, signer, salt), amount, signature


def _has_low_s(signature: bytes) -> bool:
    return int.from_bytes(signature[32:64], "big") <= _HALF_ORDER


def _code(deployment: Deployment, grace_seconds: int) -> bytes:
    """The shipped code with the immutables that the constructor would have written."""
    artifact = payment_channels()
    values = (
        grace_seconds.to_bytes(32, "big"),
        deployment.chain_id.to_bytes(32, "big"),
        domain_separator(deployment),
    )
    code = bytearray(artifact.deployed_bytecode)
    for copies, value in zip(artifact.immutable_ranges, values, strict=True):
        for start, length in copies:
            code[start : start + length] = value
    return bytes(code)
