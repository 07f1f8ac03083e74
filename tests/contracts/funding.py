"""Funding by signature: the messages that a payer signs, the calls that carry them, and the chain's
side of it (Permit2, tokens).

Permit2 is the real one: its creation code comes from npm's ``@uniswap/uniswapx-sdk``, and the
deterministic deployer puts it at its address. No other code could get there, since CREATE2 hashes
the code into the address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from typing import Any

from eth_abi.abi import encode
from eth_account import Account as EthAccount
from eth_typing import Address as EvmAddress

from channelpay.chain import artifacts
from channelpay.chain import deploy as chain_deploy
from channelpay.chain.create2 import DEPLOYER
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import Address, Channel
from channelpay.testing.accounts import DevAccount
from channelpay.testing.execution import CHAIN_ID
from scripts import build_contracts
from tests.contracts.abi import Abi, Event
from tests.contracts.world import (
    GAS,
    UNLIMITED,
    Contract,
    Mock,
    Receipt,
    Sender,
    Wallet,
    World,
    as_struct,
    new_world,
)

FOREVER = 2**256 - 1
"""A deadline that never comes."""
MOCKS_FILE = "contracts/mocks/FundingTokens.sol"
MOCKS_SOURCES = [
    f"contracts/mocks/{name}.sol" for name in ("FundingTokens", "HostileTokens", "HostileWallets")
]
PERMIT2 = Address(bytes.fromhex("000000000022d473030f116ddee9f6b43ac78ba3"))
PERMIT2_SALT = bytes.fromhex("0000000000000000000000000000000000000000d3af2663da51c10215000000")
PERMIT2_FILE = (
    "node_modules/@uniswap/uniswapx-sdk/dist/cjs/src/contracts/factories/Permit2__factory.js"
)

TOKEN_PERMISSIONS = "address token,uint256 amount"
TRANSFER = "TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline"
RECEIVE = (
    "address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce"
)
CANCEL = "address authorizer,bytes32 nonce"
PERMIT = "address owner,address spender,uint256 value,uint256 nonce,uint256 deadline"
OPEN_WITNESS = "address payee,bytes32 salt,address authorizedSigner"
TOP_UP_WITNESS = "bytes32 channelId"
CLOSE_AUTHORIZATION = "bytes32 channelId,uint128 cumulativeAmount"


# Messages


@dataclass(frozen=True, slots=True)
class TypedMessage:
    """An EIP-712 message; addresses and hashes are hex strings, integers are integers."""

    domain: dict[str, Any]
    types: dict[str, list[dict[str, str]]]
    primary_type: str
    message: dict[str, Any]

    def sign(self, signer: DevAccount) -> bytes:
        """65 bytes, ``r || s || v``."""
        signed = EthAccount.sign_typed_data(
            signer.private_key, self.domain, self.types, self.message
        )
        return bytes(signed.signature)

    def as_request(self, signer: DevAccount) -> dict[str, Any]:
        """What ``tests/js/sign_typed_data.mjs`` reads."""
        return {
            "privateKey": "0x" + signer.private_key.hex(),
            "domain": self.domain,
            "types": self.types,
            "primaryType": self.primary_type,
            "message": _with_decimals(self.message),
        }


def permit_message(
    token: Address, owner: Address, spender: Address, value: int, *, nonce: int, deadline: int
) -> TypedMessage:
    """An EIP-2612 permit of the test token."""
    message = {
        "owner": _hex(owner),
        "spender": _hex(spender),
        "value": value,
        "nonce": nonce,
        "deadline": deadline,
    }
    types = {"Permit": _fields(PERMIT)}
    return TypedMessage(_token_domain(token, CHAIN_ID), types, "Permit", message)


def receive_message(
    token: Address,
    values: dict[str, Any],
    to: Address,
    value: int,
    *,
    chain_id: int = CHAIN_ID,
) -> TypedMessage:
    """An EIP-3009 ``ReceiveWithAuthorization`` of the test token; ``values`` are the rest of it,
    named as in the contract's functions.
    """
    message = {
        "from": _hex(values["from"]),
        "to": _hex(to),
        "value": value,
        "validAfter": values["validAfter"],
        "validBefore": values["validBefore"],
        "nonce": _hex(values["nonce"]),
    }
    types = {"ReceiveWithAuthorization": _fields(RECEIVE)}
    domain = _token_domain(token, chain_id)
    return TypedMessage(domain, types, "ReceiveWithAuthorization", message)


def cancel_message(token: Address, authorizer: Address, nonce: bytes) -> TypedMessage:
    """An EIP-3009 ``CancelAuthorization`` of the test token."""
    types = {"CancelAuthorization": _fields(CANCEL)}
    message = {"authorizer": _hex(authorizer), "nonce": _hex(nonce)}
    return TypedMessage(_token_domain(token, CHAIN_ID), types, "CancelAuthorization", message)


def permit2_message(
    token: Address,
    amount: int,
    spender: Address,
    nonce: int,
    deadline: int,
    witness: dict[str, Any],
    *,
    chain_id: int = CHAIN_ID,
) -> TypedMessage:
    """A Permit2 transfer whose witness is the one of an open, or of a top-up if it has a
    ``channelId``.
    """
    is_top_up = "channelId" in witness
    name = "ChannelTopUpWitness" if is_top_up else "ChannelOpenWitness"
    types = {
        "PermitWitnessTransferFrom": [*_fields(TRANSFER), {"name": "witness", "type": name}],
        "TokenPermissions": _fields(TOKEN_PERMISSIONS),
        name: _fields(TOP_UP_WITNESS if is_top_up else OPEN_WITNESS),
    }
    message = {
        "permitted": {"token": _hex(token), "amount": amount},
        "spender": _hex(spender),
        "nonce": nonce,
        "deadline": deadline,
        "witness": {key: _hex(value) for key, value in witness.items()},
    }
    domain = {"name": "Permit2", "chainId": chain_id, "verifyingContract": _hex(PERMIT2)}
    return TypedMessage(domain, types, "PermitWitnessTransferFrom", message)


def close_message(world: World, channel: Channel, cumulative: int) -> TypedMessage:
    """A payee's ``CloseAuthorization``."""
    domain = {
        "name": "EVM Payment Channel",
        "version": "1",
        "chainId": CHAIN_ID,
        "verifyingContract": _hex(world.contract.address),
    }
    types = {"CloseAuthorization": _fields(CLOSE_AUTHORIZATION)}
    message = {"channelId": _hex(world.id(channel)), "cumulativeAmount": cumulative}
    return TypedMessage(domain, types, "CloseAuthorization", message)


# Calls


class Form(Enum):
    """The two overloads of a call with an EIP-3009 signature, by the end of their inputs."""

    BYTES = "signature"
    PARTS = "s"


@dataclass(frozen=True, slots=True)
class FundingCall:
    """A call of the contract. ``values`` are its inputs by name and in their order, all but the
    signature, which comes last.
    """

    function: str
    values: dict[str, Any]
    message: TypedMessage
    signature: bytes
    form: Form = Form.BYTES

    @property
    def contract_abi(self) -> Abi:
        """The contract's ABI with the one overload that this call means."""
        return _contract_abi(self.form)

    @property
    def arguments(self) -> tuple[Any, ...]:
        """As the function takes them."""
        if self.form is Form.BYTES:
            return (*self.values.values(), self.signature)
        return (*self.values.values(), *parts(self.signature))

    def changed(self, name: str, value: object) -> FundingCall:
        """The same call, and the same signature, with one input changed."""
        assert name in self.values
        return replace(self, values=self.values | {name: value})

    def signed(self, signature: bytes) -> FundingCall:
        """The same call with another signature."""
        return replace(self, signature=signature)

    def send(self, world: World, sender: Sender | None = None, *, gas: int = GAS) -> Receipt:
        """Mine it, sent by a stranger unless told otherwise."""
        contract = Contract(world.contract.address, self.contract_abi)
        sender = sender or world.stranger
        return world.send(sender, contract, self.function, *self.arguments, gas=gas)

    def ask(self, world: World, sender: Sender | None = None) -> Any:
        """What it would return, without mining it."""
        contract = Contract(world.contract.address, self.contract_abi)
        sender = sender or world.stranger
        return world.read_as(sender.address, contract, self.function, *self.arguments)


def permit_open(
    world: World, channel: Channel, deposit: int, *, nonce: int = 0, deadline: int = FOREVER
) -> FundingCall:
    """``openWithPermit``, to be sent by the payer; ``nonce`` is the one at the token."""
    message = permit_message(
        channel.token,
        channel.payer,
        world.contract.address,
        deposit,
        nonce=nonce,
        deadline=deadline,
    )
    values = _description(channel, deposit) | {"deadline": deadline}
    signature = message.sign(account(world, channel.payer))
    return FundingCall("openWithPermit", values, message, signature, Form.PARTS)


def authorized_open(
    world: World,
    channel: Channel,
    deposit: int,
    form: Form,
    *,
    valid_after: int = 0,
    valid_before: int = FOREVER,
    chain_id: int = CHAIN_ID,
) -> FundingCall:
    """``openWithAuthorization``, signed by the payer."""
    values = _description(channel, deposit) | {
        "from": channel.payer,
        "validAfter": valid_after,
        "validBefore": valid_before,
    }
    values["nonce"] = open_nonce(values)
    message = receive_message(
        channel.token, values, world.contract.address, deposit, chain_id=chain_id
    )
    signature = message.sign(account(world, channel.payer))
    return FundingCall("openWithAuthorization", values, message, signature, form)


def authorized_top_up(
    world: World,
    channel: Channel,
    amount: int,
    form: Form,
    *,
    funder: DevAccount | None = None,
    valid_after: int = 0,
    valid_before: int = FOREVER,
    chain_id: int = CHAIN_ID,
) -> FundingCall:
    """``topUpWithAuthorization``, signed by the payer unless told otherwise."""
    funder = funder or account(world, channel.payer)
    values = {
        "channel": as_struct(channel),
        "amount": amount,
        "from": funder.address,
        "topUpSalt": b"s" * 32,
        "validAfter": valid_after,
        "validBefore": valid_before,
    }
    values["nonce"] = top_up_nonce(world, values)
    message = receive_message(
        channel.token, values, world.contract.address, amount, chain_id=chain_id
    )
    return FundingCall("topUpWithAuthorization", values, message, message.sign(funder), form)


def permit2_open(
    world: World,
    channel: Channel,
    deposit: int,
    *,
    nonce: int = 0,
    deadline: int = FOREVER,
    chain_id: int = CHAIN_ID,
) -> FundingCall:
    """``openWithPermit2``, signed by the payer (by the stranger's key for a contract wallet)."""
    witness = {
        "payee": channel.payee,
        "salt": channel.salt,
        "authorizedSigner": channel.authorized_signer,
    }
    message = permit2_message(
        channel.token,
        deposit,
        world.contract.address,
        nonce,
        deadline,
        witness,
        chain_id=chain_id,
    )
    values = _description(channel, deposit) | {
        "from": channel.payer,
        "nonce": nonce,
        "deadline": deadline,
    }
    signature = message.sign(account(world, channel.payer))
    return FundingCall("openWithPermit2", values, message, signature)


def permit2_top_up(
    world: World,
    channel: Channel,
    amount: int,
    *,
    funder: DevAccount | None = None,
    nonce: int = 0,
    deadline: int = FOREVER,
    chain_id: int = CHAIN_ID,
) -> FundingCall:
    """``topUpWithPermit2``, signed by the payer unless told otherwise."""
    funder = funder or account(world, channel.payer)
    message = permit2_message(
        channel.token,
        amount,
        world.contract.address,
        nonce,
        deadline,
        {"channelId": world.id(channel)},
        chain_id=chain_id,
    )
    values = {
        "channel": as_struct(channel),
        "amount": amount,
        "from": funder.address,
        "nonce": nonce,
        "deadline": deadline,
    }
    return FundingCall("topUpWithPermit2", values, message, message.sign(funder))


def open_nonce(values: dict[str, Any]) -> bytes:
    """The EIP-3009 nonce that draft-evm-session-00 has for this open."""
    words = (values[name] for name in ("from", "payee", "token", "salt", "authorizedSigner"))
    return keccak256(encode(["address", "address", "address", "bytes32", "address"], tuple(words)))


def top_up_nonce(world: World, values: dict[str, Any]) -> bytes:
    """The EIP-3009 nonce that draft-evm-session-00 has for this top-up."""
    payer, payee, token, signer, salt = values["channel"]
    channel_id = world.id(Channel(payer, payee, token, signer, salt))
    words = (channel_id, values["amount"], values["from"], values["topUpSalt"])
    return keccak256(encode(["bytes32", "uint128", "address", "bytes32"], words))


def parts(signature: bytes) -> tuple[int, bytes, bytes]:
    """``v, r, s`` of a signature."""
    return signature[64], signature[:32], signature[32:64]


def selector(signature: str) -> str:
    """How :class:`Reverted` names an error without values that the contract does not have."""
    return keccak256(signature.encode())[:4].hex()


# Events


def opened(world: World, channel: Channel, deposit: int) -> Event:
    """The event of an open: the whole description."""
    return Event(
        "ChannelOpened",
        {
            "channelId": world.id(channel),
            "payer": channel.payer,
            "payee": channel.payee,
            "token": channel.token,
            "authorizedSigner": channel.authorized_signer,
            "salt": channel.salt,
            "deposit": deposit,
        },
    )


def topped_up(world: World, channel: Channel, amount: int, deposit: int) -> Event:
    """The event of a top-up to ``deposit``."""
    return Event(
        "ToppedUp",
        {
            "channelId": world.id(channel),
            "payer": channel.payer,
            "payee": channel.payee,
            "amount": amount,
            "deposit": deposit,
        },
    )


# The chain's side


@cache
def funding_mocks() -> dict[str, Mock]:
    """The contracts of ``contracts/mocks/FundingTokens.sol`` by name, compiled once per run."""
    sources = build_contracts.read_sources()
    output = build_contracts.compile_sources(
        {path: sources[path] for path in MOCKS_SOURCES},
        {MOCKS_FILE: build_contracts.CODE_OUTPUTS},
    )
    return {
        name: Mock(Abi(contract["abi"]), bytes.fromhex(contract["evm"]["bytecode"]["object"]))
        for name, contract in output["contracts"][MOCKS_FILE].items()
    }


def deploy_token(world: World, name: str) -> Contract:
    """A token of ``FundingTokens.sol``; payer and stranger hold much of it and approved nothing."""
    mock = funding_mocks()[name]
    token = Contract(world.deploy(mock.bytecode), mock.abi)
    for holder in (world.payer, world.stranger):
        world.send(world.stranger, token, "mint", holder.address, 2**100)
    return token


def deploy_signing_wallet(world: World) -> Wallet:
    """A contract wallet of ``FundingTokens.sol``, driven by the stranger."""
    wallet = Wallet(world.deploy(funding_mocks()["SigningWallet"].bytecode), world.stranger)
    world.senders[wallet.address] = wallet
    return wallet


def new_permit2_world() -> World:
    """A fresh chain with Permit2. For the test token Permit2 has an allowance of payer and
    stranger, and the contract has none.
    """
    world = new_world()
    revoke_allowance(world, world.contract.address)
    place_permit2(world)
    for holder in (world.payer, world.stranger):
        world.send(holder, world.token, "approve", PERMIT2, UNLIMITED)
    return world


def place_permit2(world: World) -> None:
    """Deploy Permit2 at its address."""
    sender, cost_wei = chain_deploy._DEPLOYER_SENDER, chain_deploy._DEPLOYER_COST_WEI
    world.send_data(world.stranger, sender, b"", cost_wei)
    world.chain.submit(chain_deploy._DEPLOYER_TRANSACTION)
    world.send_data(world.stranger, DEPLOYER, PERMIT2_SALT + permit2_creation_code())
    assert world.chain.state_at(world.chain.head.header).get_code(EvmAddress(PERMIT2))


def permit2_creation_code() -> bytes:
    """From the npm package."""
    text = (build_contracts.ROOT / PERMIT2_FILE).read_text(encoding="utf-8")
    found = re.search(r'_bytecode = "0x([0-9a-f]+)"', text)
    assert found
    return bytes.fromhex(found[1])


def revoke_allowance(world: World, spender: Address) -> None:
    """Payer and stranger take their allowance for the test token back."""
    for holder in (world.payer, world.stranger):
        world.send(holder, world.token, "approve", spender, 0)


def account(world: World, address: Address) -> DevAccount:
    """Who signs for an address: the account itself, or the driver of a wallet."""
    sender = world.senders[address]
    return sender.driver if isinstance(sender, Wallet) else sender


# Details


@cache
def _contract_abi(form: Form) -> Abi:
    return Abi(
        entry
        for entry in artifacts.payment_channels().abi
        if not entry.get("name", "").endswith("WithAuthorization")
        or entry["inputs"][-1]["name"] in (form.value, "payeeSignature")
    )


def _description(channel: Channel, deposit: int) -> dict[str, Any]:
    return {
        "payee": channel.payee,
        "token": channel.token,
        "deposit": deposit,
        "salt": channel.salt,
        "authorizedSigner": channel.authorized_signer,
    }


def _token_domain(token: Address, chain_id: int) -> dict[str, Any]:
    return {
        "name": "Test Dollar",
        "version": "1",
        "chainId": chain_id,
        "verifyingContract": _hex(token),
    }


def _fields(text: str) -> list[dict[str, str]]:
    pairs = (field.split() for field in text.split(","))
    return [{"name": name, "type": type_name} for type_name, name in pairs]


def _hex(value: bytes) -> str:
    return "0x" + value.hex()


def _with_decimals(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_decimals(part) for key, part in value.items()}
    return str(value) if isinstance(value, int) else value
