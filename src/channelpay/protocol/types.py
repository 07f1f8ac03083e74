"""The nouns of the protocol: addresses, channels, vouchers, channel states. Values only, already
checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import NewType

from channelpay.protocol.keccak import keccak256

Address = NewType("Address", bytes)
"""20 bytes."""
ChannelId = NewType("ChannelId", bytes)
"""32 bytes."""

ZERO_ADDRESS = Address(bytes(20))
NATIVE = ZERO_ADDRESS
"""The ``token`` of a channel that holds the chain's native currency."""

DEPOSIT_MAX = 2**96 - 1
"""What fits the contract's slot, in base units of the token."""
AMOUNT_MAX = 2**128 - 1
"""What fits a voucher (``uint128``)."""
GRACE_SECONDS_MIN = 600
"""No contract with a shorter grace period is accepted (draft-evm-session-00, Forced Close)."""
GRACE_SECONDS_MAX = 30 * 86_400
"""A payer that gives up on a payee waits this long at most."""
GRACE_SECONDS_CANONICAL = 86_400

EPOCH_BYTES = 4


def abi_word(value: bytes) -> bytes:
    """``value`` as one ABI word: left-padded to 32 bytes, as ``abi.encode`` does for an address."""
    return value.rjust(32, b"\0")


@dataclass(frozen=True, slots=True)
class Deployment:
    """One contract on one chain: what a channel id and a voucher are bound to."""

    chain_id: int
    contract: Address


@dataclass(frozen=True)
class Channel:
    """A channel's description: the calldata struct ``Channel`` of the contract.

    ``token`` is :data:`NATIVE` or an ERC-20; ``authorized_signer`` is zero when the payer's own key
    signs vouchers; ``salt`` is 32 bytes whose low 4 bytes are the channel's epoch.
    """

    payer: Address
    payee: Address
    token: Address
    authorized_signer: Address
    salt: bytes

    @property
    def epoch(self) -> int:
        return int.from_bytes(self.salt[-EPOCH_BYTES:], "big")

    @property
    def signer(self) -> Address:
        """The address whose key signs this channel's vouchers."""
        return self.payer if self.authorized_signer == ZERO_ADDRESS else self.authorized_signer

    @cached_property
    def lane(self) -> bytes:
        """Key of the contract's storage slot: the description without its epoch (32 bytes)."""
        lane_salt = abi_word(self.salt[:-EPOCH_BYTES])
        return keccak256(self._words(lane_salt))

    def id(self, deployment: Deployment) -> ChannelId:
        """``channelId`` of draft-evm-session-00, section Channel State."""
        place = abi_word(deployment.contract) + deployment.chain_id.to_bytes(32, "big")
        return ChannelId(keccak256(self._words(self.salt) + place))

    @property
    def authorization_nonce(self) -> bytes:
        """The nonce (32 bytes) of an EIP-3009 authorization that opens this channel and no other
        (draft-evm-session-00, ``openWithAuthorization``).
        """
        return keccak256(self._words(self.salt))

    def with_epoch(self, epoch: int) -> Channel:
        """The same description in another epoch: what a re-open of this lane uses."""
        salt = self.salt[:-EPOCH_BYTES] + epoch.to_bytes(EPOCH_BYTES, "big")
        return Channel(self.payer, self.payee, self.token, self.authorized_signer, salt)

    def _words(self, salt: bytes) -> bytes:
        accounts = (self.payer, self.payee, self.token)
        return b"".join(map(abi_word, accounts)) + salt + abi_word(self.authorized_signer)


class ChannelStatus(StrEnum):
    """Where a channel is in its life; the order of the contract's ``Status`` enum."""

    ABSENT = "absent"
    OPEN = "open"
    CLOSING = "closing"
    FINALIZED = "finalized"


@dataclass(frozen=True, slots=True)
class ChannelState:
    """What the chain says of one channel. Amounts in base units; ``close_requested_at`` in Unix
    seconds, 0 if none.
    """

    status: ChannelStatus
    deposit: int = 0
    settled: int = 0
    close_requested_at: int = 0

    @property
    def is_forgotten(self) -> bool:
        """Whether the next channel is in the slot: the contract has no amounts of this one."""
        return self.status is ChannelStatus.FINALIZED and self.deposit == 0


ABSENT = ChannelState(ChannelStatus.ABSENT)


@dataclass(frozen=True, slots=True)
class Voucher:
    """A signed promise: ``cumulative_amount`` base units of this channel's deposit belong to the
    payee.

    ``signature`` is 65 bytes ``r || s || v`` with ``v`` 27 or 28.
    """

    channel_id: ChannelId
    cumulative_amount: int
    signature: bytes
