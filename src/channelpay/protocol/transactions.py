"""Transactions on their way to the chain: what is noted of each before it is sent, and where.

Pure. The chain's sender writes down through an :class:`Outbox` what it is about to do; the store is
one. Amounts of money and gas are in wei and units of gas, times in Unix milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol, TypeVar

from channelpay.errors import NonceTaken
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Address

T_co = TypeVar("T_co", covariant=True)


class TransactionStatus(StrEnum):
    """What became of a transaction; ``FAILED`` is one that was mined and reverted."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Signed:
    """One signed form of a transaction, ready to be broadcast. ``hash`` is 32 bytes; ``raw`` is
    what a node takes, and holds no secret; the fees are for one unit of gas.
    """

    hash: bytes
    raw: bytes
    max_fee_wei: int
    tip_wei: int
    time: int


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A transaction of the account ``sender``: what it does, and every form it was signed in,
    oldest first. All have one nonce, so one of them at most is mined; nobody knows which before.

    ``number`` is 0 until it is journaled. ``mined`` is the hash of the form in the block; it, the
    block and the fee stay None while the transaction is pending, and where another transaction of
    the account took the nonce.
    """

    number: int
    chain_id: int
    sender: Address
    nonce: int
    purpose: str
    to: Address
    data: bytes
    value_wei: int
    gas: int
    broadcasts: tuple[Signed, ...]
    status: TransactionStatus = TransactionStatus.PENDING
    mined: bytes | None = None
    block_number: int | None = None
    block_hash: bytes | None = None
    fee_wei: int | None = None


class Durable(Protocol[T_co]):
    """What is there after a commit; a :class:`concurrent.futures.Future` is one."""

    def result(self, timeout: float | None = None) -> T_co:
        """Wait for the commit. Raises :class:`~channelpay.errors.StoreUnavailable` where it failed,
        or nobody knows; every verb of an :class:`Outbox` may then be repeated.
        """


class Outbox(Protocol):
    """A durable journal of transactions, which several processes may share."""

    def journal(self, outgoing: Outgoing) -> Durable[Outgoing]:
        """Note a transaction with its first form, before that is broadcast; answers with its
        number. A nonce of an account on a chain is given away once and for ever.

        Raises :class:`~channelpay.errors.NonceTaken` if another transaction has the nonce.
        """

    def add_broadcast(self, number: int, signed: Signed) -> Durable[Outgoing]:
        """Note another form of it, before that is broadcast.

        Raises :class:`~channelpay.errors.NotFound` for an unknown number.
        """

    def finish(
        self,
        number: int,
        status: TransactionStatus,
        mined: bytes | None,
        block_number: int | None,
        block_hash: bytes | None,
        fee_wei: int | None,
    ) -> Durable[Outgoing]:
        """Note how it ended; the last word counts.

        Raises :class:`~channelpay.errors.NotFound` for an unknown number.
        """

    def pending(self, chain_id: int, sender: Address) -> list[Outgoing]:
        """What an account has not finished, by nonce."""

    def transactions(self, limit: int = 100) -> list[Outgoing]:
        """The newest ones, newest first."""


def check_is_first(known: Outgoing, wanted: Outgoing) -> None:
    """``known`` has the nonce that ``wanted`` is to be journaled with: that is fine only where it
    is the same, whose journaling nobody knew the end of.

    Raises :class:`~channelpay.errors.NonceTaken`.
    """
    if known.broadcasts[0].hash != wanted.broadcasts[0].hash:
        raise NonceTaken(
            f"nonce {wanted.nonce} belongs to transaction {known.number}",
            sender=to_hex(wanted.sender),
            nonce=wanted.nonce,
        )


def with_broadcast(outgoing: Outgoing, signed: Signed) -> Outgoing:
    """The transaction with one more form; noting a form twice changes nothing."""
    if any(one.hash == signed.hash for one in outgoing.broadcasts):
        return outgoing
    return replace(outgoing, broadcasts=(*outgoing.broadcasts, signed))
