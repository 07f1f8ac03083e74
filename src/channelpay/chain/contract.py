"""The PaymentChannels contract and ERC-20 tokens: typed reads, and calls ready to be sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from web3.contract import Contract

from channelpay.chain.artifacts import payment_channels
from channelpay.chain.connection import Connection, checksum, encoding
from channelpay.chain.types import ContractCall
from channelpay.errors import NotFound
from channelpay.protocol.types import (
    NATIVE,
    Address,
    Channel,
    ChannelId,
    ChannelState,
    ChannelStatus,
    Deployment,
)

SYMBOL_CHARACTERS_MAX = 16
_STATUSES = tuple(ChannelStatus)


class PaymentChannelsContract:
    """One deployment, read through one node. Amounts in base units of the channel's token.

    Raises :class:`WrongChain` if the node serves another chain.
    """

    def __init__(self, connection: Connection, deployment: Deployment) -> None:
        connection.require_chain(deployment.chain_id)
        self.connection = connection
        self.deployment = deployment
        self._contract = connection.contract(deployment.contract, payment_channels().abi)

    def require_genuine(self) -> None:
        """Raise :class:`NotFound` unless the code at the address is the one that this package
        ships.

        A payer asks this before locking money in a contract that somebody else named.
        """
        address = self.deployment.contract
        if not payment_channels().is_code(self.connection.code(address)):
            raise NotFound(
                f"the code at {checksum(address)} is not the PaymentChannels contract",
                hint="Use the address that 'channelpay dev' or scripts/deploy.py printed.",
            )

    def channel_id(self, channel: Channel) -> ChannelId:
        return ChannelId(self._view("channelId", _description(channel)))

    def voucher_digest(self, channel_id: ChannelId, cumulative_amount: int) -> bytes:
        """What a voucher for this amount signs (32 bytes)."""
        return bytes(self._view("voucherDigest", channel_id, cumulative_amount))

    def domain_separator(self) -> bytes:
        return bytes(self._view("domainSeparator"))

    def grace_period_seconds(self) -> int:
        return int(self._view("gracePeriod"))

    def kept_share(self, token: Address, account: Address) -> int:
        """What waits for ``account`` to be claimed because it could not be paid out."""
        return int(self._view("keptShare", checksum(token), checksum(account)))

    def state(self, channel: Channel) -> ChannelState:
        return _state(self._view("channelState", _description(channel)))

    def states(
        self, channels: Iterable[Channel], *, block: int | None = None
    ) -> list[ChannelState]:
        """The states of many channels at ``block`` (or the latest), in their order, in one call."""
        descriptions = [*map(_description, channels)]
        return [*map(_state, self._view("channelStates", descriptions, block=block))]

    def open(self, channel: Channel, deposit: int) -> ContractCall:
        """Open ``channel``; its payer must be the one who sends this call."""
        return self._call(
            "open",
            checksum(channel.payee),
            checksum(channel.token),
            deposit,
            channel.salt,
            checksum(channel.authorized_signer),
            value_wei=_value_wei(channel, deposit),
        )

    def top_up(self, channel: Channel, amount: int) -> ContractCall:
        value_wei = _value_wei(channel, amount)
        return self._call("topUp", _description(channel), amount, value_wei=value_wei)

    def settle(self, channel: Channel, cumulative_amount: int, signature: bytes) -> ContractCall:
        return self._call("settle", _description(channel), cumulative_amount, signature)

    def close(
        self, channel: Channel, cumulative_amount: int = 0, signature: bytes = b""
    ) -> ContractCall:
        """Close with the last voucher, or without one to take nothing more."""
        return self._call("close", _description(channel), cumulative_amount, signature)

    def request_close(self, channel: Channel) -> ContractCall:
        return self._call("requestClose", _description(channel))

    def withdraw(self, channel: Channel) -> ContractCall:
        return self._call("withdraw", _description(channel))

    def claim(self, token: Address, receiver: Address) -> ContractCall:
        return self._call("claim", checksum(token), checksum(receiver))

    def _view(self, name: str, *arguments: object, block: int | None = None) -> Any:
        return self.connection.view(self._contract, name, *arguments, block=block)

    def _call(self, name: str, *arguments: object, value_wei: int = 0) -> ContractCall:
        return encoded_call(self._contract, name, arguments, value_wei=value_wei)


class Erc20:
    """An ERC-20 token. Amounts in its base units."""

    def __init__(self, connection: Connection, address: Address) -> None:
        self.address = address
        self._connection = connection
        self._contract = connection.contract(address, _ERC20_ABI)

    def balance(self, account: Address) -> int:
        return int(self._view("balanceOf", checksum(account)))

    def allowance(self, owner: Address, spender: Address) -> int:
        return int(self._view("allowance", checksum(owner), checksum(spender)))

    def decimals(self) -> int:
        return int(self._view("decimals"))

    def symbol(self) -> str:
        """At most 16 printable characters: anyone can name a token, and this goes to terminals."""
        text = str(self._view("symbol"))[:SYMBOL_CHARACTERS_MAX]
        return "".join(letter for letter in text if letter.isprintable())

    def name(self) -> str:
        return str(self._view("name"))

    def approve(self, spender: Address, amount: int) -> ContractCall:
        return encoded_call(self._contract, "approve", (checksum(spender), amount))

    def _view(self, name: str, *arguments: object) -> Any:
        return self._connection.view(self._contract, name, *arguments)


def encoded_call(
    contract: Contract, name: str, arguments: Sequence[object], *, value_wei: int = 0
) -> ContractCall:
    """A call of one function, ABI-encoded; :class:`InputError` for values that do not fit."""
    with encoding(name):
        data = contract.encode_abi(name, args=list(arguments))
    return ContractCall(
        Address(bytes.fromhex(contract.address[2:])), bytes.fromhex(data[2:]), value_wei
    )


def _description(channel: Channel) -> tuple[str, str, str, str, bytes]:
    return (
        checksum(channel.payer),
        checksum(channel.payee),
        checksum(channel.token),
        checksum(channel.authorized_signer),
        channel.salt,
    )


def _state(fields: tuple[int, int, int, int]) -> ChannelState:
    status, deposit, settled, close_requested_at = fields
    return ChannelState(_STATUSES[status], deposit, settled, close_requested_at)


def _value_wei(channel: Channel, amount: int) -> int:
    return amount if channel.token == NATIVE else 0


def _function(
    name: str, inputs: list[str], output: str, mutability: str = "view"
) -> dict[str, Any]:
    return {
        "type": "function",
        "name": name,
        "inputs": [{"name": f"argument{index}", "type": kind} for index, kind in enumerate(inputs)],
        "outputs": [{"name": "", "type": output}],
        "stateMutability": mutability,
    }


_ERC20_ABI = (
    _function("balanceOf", ["address"], "uint256"),
    _function("allowance", ["address", "address"], "uint256"),
    _function("decimals", [], "uint8"),
    _function("symbol", [], "string"),
    _function("name", [], "string"),
    _function("approve", ["address", "uint256"], "bool", "nonpayable"),
)
