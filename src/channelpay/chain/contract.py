"""The PaymentChannels contract and ERC-20 tokens: typed reads, and calls ready to be sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from web3.contract import Contract

from channelpay.chain.artifacts import payment_channels
from channelpay.chain.connection import Connection, checksum, encoding
from channelpay.chain.types import ContractCall
from channelpay.errors import InputError, NotFound, NotGenuine
from channelpay.protocol.eip712 import SIGNATURE_BYTES, domain_separator
from channelpay.protocol.funding import (
    PermitTransfer,
    SignedAuthorization,
    TransferAuthorization,
)
from channelpay.protocol.types import (
    GRACE_SECONDS_MAX,
    GRACE_SECONDS_MIN,
    NATIVE,
    Address,
    Channel,
    ChannelId,
    ChannelState,
    ChannelStatus,
    Deployment,
    Voucher,
)

SYMBOL_CHARACTERS_MAX = 16
PUSH_GAS_RESERVE = 250_000
"""What a push takes at most: 200,000 gas, and keeping the share. Without it a receiver that refuses
only when the transaction is mined could make it run out of gas, again and again.
"""
_STATUSES = tuple(ChannelStatus)
_VS = (27, 28)
_IN_PARTS = "uint8,bytes32,bytes32"
"""A signature in three parts: every token of EIP-3009 takes it."""
_IN_ONE_PIECE = "bytes"
"""What contract wallets sign does not fit into parts; later tokens take it."""
_OPEN_AUTHORIZED = (
    "openWithAuthorization(address,address,uint128,bytes32,address,address,uint256,uint256,bytes32,"
    "{signature})"
)
_TOP_UP_AUTHORIZED = (
    "topUpWithAuthorization((address,address,address,address,bytes32),uint128,address,bytes32,"
    "uint256,uint256,bytes32,{signature})"
)


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
        """Raise :class:`NotFound` if there is no code at the address, :class:`NotGenuine` unless it
        is the one that this package ships, made for this address and chain, with a grace period of
        ten minutes to thirty days.

        A payer asks this before locking money in a contract that somebody else named.
        """
        place = checksum(self.deployment.contract)
        code = self.connection.code(self.deployment.contract)
        if not code:
            raise NotFound(
                f"there is no contract at {place} on chain {self.deployment.chain_id}",
                hint="Check address and chain; 'channelpay contract deploy' puts the contract"
                " there.",
            )
        difference = payment_channels().difference(code)
        if difference:
            raise NotGenuine(
                f"the code at {place} is not the PaymentChannels contract: {difference}"
            )
        self._require_own_immutables(code)

    def _require_own_immutables(self, code: bytes) -> None:
        """Code alone does not prove them: whoever deploys can write any values into it."""
        place = checksum(self.deployment.contract)
        grace_seconds = self.grace_period_seconds()
        if not GRACE_SECONDS_MIN <= grace_seconds <= GRACE_SECONDS_MAX:
            raise NotGenuine(
                f"the contract at {place} has a grace period of {grace_seconds} s; it must be"
                f" {GRACE_SECONDS_MIN} to {GRACE_SECONDS_MAX} s"
            )
        separator, chain_id = domain_separator(self.deployment), self.deployment.chain_id
        own = (grace_seconds.to_bytes(32, "big"), chain_id.to_bytes(32, "big"), separator)
        if sorted(payment_channels().immutables(code)) != sorted(own):
            raise NotGenuine(
                f"the contract at {place} was made for another address or chain: its domain"
                " separator is another"
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

    def open_with_permit(
        self, channel: Channel, deposit: int, deadline: int, signature: bytes
    ) -> ContractCall:
        """Open with the payer's EIP-2612 permit for exactly ``deposit``; the payer sends it."""
        return self._call(
            "openWithPermit",
            checksum(channel.payee),
            checksum(channel.token),
            deposit,
            channel.salt,
            checksum(channel.authorized_signer),
            deadline,
            *_parts(signature),
        )

    def open_signed(self, channel: Channel, signed: SignedAuthorization) -> ContractCall:
        """Open with the payer's EIP-3009 or Permit2 signature. Anyone may send it."""
        authorization = signed.authorization
        described = (
            checksum(channel.payee),
            checksum(channel.token),
            authorization.amount,
            channel.salt,
            checksum(channel.authorized_signer),
            checksum(authorization.payer),
        )
        if isinstance(authorization, PermitTransfer):
            bounds = (authorization.nonce, authorization.ends_at)
            return self._call("openWithPermit2", *described, *bounds, signed.signature)
        return self._authorized(_OPEN_AUTHORIZED, described, authorization, signed.signature)

    def top_up_signed(
        self, channel: Channel, signed: SignedAuthorization, salt: bytes
    ) -> ContractCall:
        """Top up with an EIP-3009 or Permit2 signature of whose money it is; ``salt`` is the one in
        the nonce of EIP-3009. Anyone may send it.
        """
        authorization = signed.authorization
        amount, payer = authorization.amount, checksum(authorization.payer)
        described = (_description(channel), amount, payer)
        if isinstance(authorization, PermitTransfer):
            bounds = (authorization.nonce, authorization.ends_at)
            return self._call("topUpWithPermit2", *described, *bounds, signed.signature)
        arguments = (*described, salt)
        return self._authorized(_TOP_UP_AUTHORIZED, arguments, authorization, signed.signature)

    def top_up(self, channel: Channel, amount: int) -> ContractCall:
        value_wei = _value_wei(channel, amount)
        return self._call("topUp", _description(channel), amount, value_wei=value_wei)

    def settle(self, channel: Channel, cumulative_amount: int, signature: bytes) -> ContractCall:
        arguments = (_description(channel), cumulative_amount, signature)
        return self._call("settle", *arguments, pushes=1)

    def close(
        self, channel: Channel, cumulative_amount: int = 0, signature: bytes = b""
    ) -> ContractCall:
        """Close with the last voucher, or without one to take nothing more."""
        arguments = (_description(channel), cumulative_amount, signature)
        return self._call("close", *arguments, pushes=2)

    def close_with_authorization(
        self,
        channel: Channel,
        cumulative_amount: int,
        voucher_signature: bytes,
        payee_signature: bytes,
    ) -> ContractCall:
        """Close for the payee, who signed this amount; anyone may send it."""
        return self._call(
            "closeWithAuthorization",
            _description(channel),
            cumulative_amount,
            voucher_signature,
            payee_signature,
            pushes=2,
        )

    def settle_batch(
        self, payee: Address, token: Address, vouchers: Iterable[tuple[Channel, Voucher]]
    ) -> ContractCall:
        """Settle channels of one payee and token; what pays nothing is skipped. For anyone.

        Vouchers have passed :meth:`~channelpay.protocol.eip712.VoucherHasher.with_right_v`.
        """
        rows = [_row(channel, voucher) for channel, voucher in vouchers]
        return self._call("settleBatch", checksum(payee), checksum(token), rows, pushes=1)

    def close_batch(
        self, token: Address, vouchers: Iterable[tuple[Channel, Voucher]]
    ) -> ContractCall:
        """Close channels of the sender in one token; what is not live or wrong is skipped.

        Vouchers have passed :meth:`~channelpay.protocol.eip712.VoucherHasher.with_right_v`.
        """
        rows = [_row(channel, voucher) for channel, voucher in vouchers]
        return self._call("closeBatch", checksum(token), rows, pushes=len(rows) + 1)

    def request_close(self, channel: Channel) -> ContractCall:
        return self._call("requestClose", _description(channel))

    def withdraw(self, channel: Channel) -> ContractCall:
        return self._call("withdraw", _description(channel))

    def claim(self, token: Address, receiver: Address) -> ContractCall:
        return self._call("claim", checksum(token), checksum(receiver))

    def _authorized(
        self,
        function: str,
        arguments: tuple[object, ...],
        authorization: TransferAuthorization,
        signature: bytes,
    ) -> ContractCall:
        is_of_key = len(signature) == SIGNATURE_BYTES and signature[64] in _VS
        form = _IN_PARTS if is_of_key else _IN_ONE_PIECE
        signed = _parts(signature) if is_of_key else (signature,)
        times = (authorization.valid_after, authorization.ends_at)
        name = function.format(signature=form)
        return self._call(name, *arguments, *times, authorization.nonce, *signed)

    def _view(self, name: str, *arguments: object, block: int | None = None) -> Any:
        return self.connection.view(self._contract, name, *arguments, block=block)

    def _call(
        self, name: str, *arguments: object, value_wei: int = 0, pushes: int = 0
    ) -> ContractCall:
        call = encoded_call(self._contract, name, arguments, value_wei=value_wei)
        return replace(call, gas_reserve=pushes * PUSH_GAS_RESERVE)


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


def _parts(signature: bytes) -> tuple[int, bytes, bytes]:
    if len(signature) != SIGNATURE_BYTES or signature[64] not in _VS:
        raise InputError("a signature has 65 bytes, the last of them 27 or 28")
    return signature[64], signature[:32], signature[32:64]


def _row(channel: Channel, voucher: Voucher) -> tuple[bytes, str, str, int, bytes, bytes]:
    """A row of a batch; its signature is in the short form of EIP-2098."""
    v, r, s = _parts(voucher.signature)
    parity_bit = (v - 27) << 7
    return (
        channel.salt,
        checksum(channel.payer),
        checksum(channel.authorized_signer),
        voucher.cumulative_amount,
        r,
        bytes([s[0] | parity_bit]) + s[1:],
    )


def _state(fields: tuple[int, int, int, int]) -> ChannelState:
    status, deposit, settled, close_requested_at = fields
    return ChannelState(_STATUSES[status], deposit, settled, close_requested_at)


def _value_wei(channel: Channel, amount: int) -> int:
    return amount if channel.token == NATIVE else 0


def function_entry(
    name: str, inputs: list[str], output: str, mutability: str = "view"
) -> dict[str, Any]:
    """One function of an ABI, by its types."""
    return {
        "type": "function",
        "name": name,
        "inputs": [{"name": f"argument{index}", "type": kind} for index, kind in enumerate(inputs)],
        "outputs": [{"name": "", "type": output}],
        "stateMutability": mutability,
    }


_ERC20_ABI = (
    function_entry("balanceOf", ["address"], "uint256"),
    function_entry("allowance", ["address", "address"], "uint256"),
    function_entry("decimals", [], "uint8"),
    function_entry("symbol", [], "string"),
    function_entry("name", [], "string"),
    function_entry("approve", ["address", "uint256"], "bool", "nonpayable"),
)
