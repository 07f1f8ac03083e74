"""What the payer's books hold: channels, reservations, top-ups, tokens. Values only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from channelpay.errors import AmountExceedsDeposit, ConfigError, InputError
from channelpay.payer.signed_fundings import SignedFunding
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import (
    AMOUNT_MAX,
    NATIVE,
    Address,
    Channel,
    ChannelId,
    ChannelStatus,
    Deployment,
    Voucher,
)


@dataclass(frozen=True, slots=True)
class PayerChannel:
    """One channel in the payer's books. Amounts are cumulative base units of its token.

    ``status`` is ``absent`` between the journal entry and the block that opens it. ``unsure`` says
    that more may be spent: a response ended without telling its cost. ``in_doubt`` says that more
    may have been signed: the books were restored or rebuilt. ``credible`` is the most that is
    believed of ``spent``. ``presented`` says that the payee answered on it once; ``unanswered``
    counts the requests that it has not answered since ``unanswered_since`` (Unix seconds).
    ``open_transaction`` is the hash (32 bytes), once it is known; the open is in no block before
    ``first_block``. ``grace_seconds`` is that of the contract, 0 while it is not known.
    ``authorized`` opens an absent channel once its payee is shown it.
    """

    channel_id: ChannelId
    deployment: Deployment
    channel: Channel
    deposit: int
    url: str | None = None
    status: ChannelStatus = ChannelStatus.ABSENT
    settled: int = 0
    close_requested_at: int = 0
    signed: int = 0
    signature: bytes = b""
    spent: int = 0
    credible: int = 0
    unsure: bool = False
    in_flight: int = 0
    presented: bool = False
    refused: str | None = None
    open_transaction: bytes | None = None
    first_block: int = 0
    in_doubt: bool = False
    unanswered: int = 0
    unanswered_since: int = 0
    grace_seconds: int = 0
    authorized: SignedFunding | None = None

    @classmethod
    def planned(
        cls, deployment: Deployment, channel: Channel, deposit: int, url: str | None, block: int
    ) -> Self:
        """The journal entry of an open that is about to be sent, after ``block``."""
        channel_id = channel.id(deployment)
        return cls(channel_id, deployment, channel, deposit, url, first_block=block + 1)

    @property
    def is_usable(self) -> bool:
        """Whether vouchers of this channel can pay its payee."""
        is_there = self.status is ChannelStatus.OPEN or self.authorized is not None
        return is_there and self.refused is None

    @property
    def room(self) -> int:
        """What of the deposit is neither spent nor set aside."""
        return self.deposit - self.spent - self.in_flight

    @property
    def withdrawable_at(self) -> int | None:
        """Unix seconds of the earliest withdrawal; None if no close is requested."""
        if self.status is not ChannelStatus.CLOSING:
            return None
        return self.close_requested_at + self.grace_seconds

    def next_cumulative(self, price: int, delta: int = 0) -> int:
        """The amount of the voucher that pays ``price`` more, for a payee that wants it to exceed
        the one before by ``delta``. In doubt, nothing more is signed.
        """
        if self.in_doubt:
            return self.signed
        wanted = self.spent + self.in_flight + price
        return self.signed if wanted <= self.signed else max(wanted, self.signed + delta)

    def covers(self, price: int, delta: int = 0) -> bool:
        return self.next_cumulative(price, delta) <= self.deposit

    def require_deposit(self, cumulative: int) -> None:
        """Raises :class:`AmountExceedsDeposit` if a voucher for so much is not covered."""
        if cumulative > min(self.deposit, AMOUNT_MAX):
            raise AmountExceedsDeposit(
                f"the next voucher needs {cumulative}, the channel holds {self.deposit}",
                channelId=to_hex(self.channel_id),
                deposit=str(self.deposit),
            )

    def require_signable(self, cumulative: int) -> None:
        """Raises what :meth:`PayerState.sign_by_hand` raises."""
        if self.status not in {ChannelStatus.OPEN, ChannelStatus.CLOSING}:
            raise InputError(f"the channel is {self.status}: it takes no vouchers")
        if self.in_doubt:
            raise ConfigError(
                "more may have been signed on this channel than the books know",
                hint="Pay its payee once: it shows what it holds. See: channelpay channel list",
            )
        if cumulative < self.signed:
            raise InputError(
                f"{self.signed} base units are signed already: a voucher for less changes nothing",
                hint="An amount is all that the payee may take so far, never what is added.",
            )
        self.require_deposit(cumulative)


Sign = Callable[[PayerChannel, int], Voucher]
"""Signs a voucher for a cumulative amount on a channel."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """One request's share of a channel: its price, the voucher that covers it, and ``ceiling``, the
    most that the request may cost, without what was ``used`` of its limit before it lapsed.
    """

    id: int
    channel_id: ChannelId
    price: int
    voucher: Voucher
    ceiling: int
    used: int = 0


@dataclass(frozen=True, slots=True)
class Funding:
    """The transaction of an open or a top-up of ``amount`` base units whose end is not known yet.
    ``transaction_hash`` has 32 bytes.
    """

    channel_id: ChannelId
    transaction_hash: bytes
    nonce: int
    amount: int


@dataclass(frozen=True, slots=True)
class TopUp:
    """A confirmed top-up of ``amount`` base units. ``transaction_hash`` has 32 bytes."""

    channel_id: ChannelId
    transaction_hash: bytes
    amount: int


@dataclass(frozen=True, slots=True)
class Token:
    """How amounts of a token are written for people."""

    address: Address
    symbol: str
    decimals: int


ETHER = Token(NATIVE, "ETH", 18)
