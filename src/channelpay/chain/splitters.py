"""Payees that are groups: where the RevenueSplitter of some shares is, or will be, and the calls
that create it, pay its parties and close its channels (contracts/RevenueSplitter.sol).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eth_abi.abi import encode

from channelpay.chain.artifacts import revenue_splitter, revenue_splitter_factory
from channelpay.chain.connection import Connection, checksum
from channelpay.chain.contract import encoded_call
from channelpay.chain.create2 import revenue_splitter_factory_creation
from channelpay.chain.types import ContractCall
from channelpay.errors import ConfigError
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import ZERO_ADDRESS, Address, Channel

PARTIES_MIN, PARTIES_MAX = 2, 100
WHOLE = 10_000
"""All parts together, in basis points."""
_SALT = bytes(32)


@dataclass(frozen=True, slots=True)
class Shares:
    """Who shares, and how: accounts with their parts in basis points, in an order that counts, and
    who may close channels; zero for nobody.

    Raises :class:`~channelpay.errors.ConfigError` for what the contract would refuse.
    """

    parties: tuple[tuple[Address, int], ...]
    operator: Address = ZERO_ADDRESS

    def __post_init__(self) -> None:
        count = len(self.parties)
        if not PARTIES_MIN <= count <= PARTIES_MAX:
            raise ConfigError(
                f"{count} accounts share; they must be {PARTIES_MIN} to {PARTIES_MAX}"
            )
        accounts = [account for account, _ in self.parties]
        if len(set(accounts)) < count or ZERO_ADDRESS in accounts:
            raise ConfigError("those who share are different accounts, and none of them is zero")
        parts = [part for _, part in self.parties]
        if min(parts) <= 0 or sum(parts) != WHOLE:
            raise ConfigError(
                f"the parts add up to {sum(parts)} basis points",
                hint=f"Give each a part above 0, and {WHOLE} to all together.",
            )


def splitter_address(shares: Shares) -> Address:
    """Where the splitter of these shares is on every chain, created or not."""
    described = encode(["(address,uint16)[]", "address"], [list(shares.parties), shares.operator])
    code_hash = keccak256(revenue_splitter().bytecode + described)
    factory = revenue_splitter_factory_creation().address
    return Address(keccak256(b"\xff" + factory + _SALT + code_hash)[12:])


class SplitterContract:
    """The splitter of some shares, read through one node. Amounts in base units."""

    def __init__(self, connection: Connection, shares: Shares) -> None:
        self.connection = connection
        self.shares = shares
        self.address: Address = splitter_address(shares)
        self._factory = revenue_splitter_factory_creation().address
        self._contract = connection.contract(self.address, revenue_splitter().abi)

    def is_there(self) -> bool:
        """Whether somebody created it. Nobody can put other code at its address."""
        return bool(self.connection.code(self.address))

    def has_factory(self) -> bool:
        return bool(self.connection.code(self._factory))

    def create(self) -> ContractCall:
        """Create it; anyone may. Changes nothing where it is there."""
        factory = self.connection.contract(self._factory, revenue_splitter_factory().abi)
        parties = [(checksum(account), part) for account, part in self.shares.parties]
        return encoded_call(factory, "create", (parties, checksum(self.shares.operator)))

    def releasable(self, token: Address) -> Sequence[tuple[Address, int]]:
        """What each party could be paid now."""
        return [(account, self._releasable(token, account)) for account, _ in self.shares.parties]

    def release(self, token: Address, account: Address) -> ContractCall:
        """Pay a party its share; anyone may."""
        return encoded_call(self._contract, "release", (checksum(token), checksum(account)))

    def close(
        self, channels: Address, channel: Channel, cumulative_amount: int, signature: bytes
    ) -> ContractCall:
        """Close a channel to the group, for its operator."""
        described = (
            checksum(channel.payer),
            checksum(channel.payee),
            checksum(channel.token),
            checksum(channel.authorized_signer),
            channel.salt,
        )
        arguments = (checksum(channels), described, cumulative_amount, signature)
        return encoded_call(self._contract, "close", arguments)

    def _releasable(self, token: Address, account: Address) -> int:
        arguments = (checksum(token), checksum(account))
        return int(self.connection.view(self._contract, "releasable", *arguments))
