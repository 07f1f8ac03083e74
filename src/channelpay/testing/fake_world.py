"""The state of the fake chain, and what a call makes of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from coincurve import PublicKey

from channelpay.chain.artifacts import Artifact, payment_channels, test_token
from channelpay.chain.create2 import DEPLOYER, SALT, Creation
from channelpay.protocol.eip712 import SIGNATURE_BYTES, address_of
from channelpay.protocol.types import Address
from channelpay.testing.execution import CallMessage, ExecutionFailed, ExecutionReverted
from channelpay.testing.fake_abi import Abi, Event, Function

_DEPLOYER_CODE = bytes.fromhex(
    "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe03601600081602082378035828234"
    "f58015156039578182fd5b8082525050506014600cf3"
)
_V_OFFSET = 27
_WORD = 32


@dataclass(frozen=True, slots=True)
class Context:
    """One call: who sends it (20 bytes), with how much wei, at what Unix second."""

    world: World
    sender: Address
    value: int
    timestamp: int
    events: list[Event]


class PlayedContract(ABC):
    """A contract that is played in Python.

    ``handlers`` are its functions by signature; each gets the context and the decoded arguments. An
    instance keeps its storage in attributes.
    """

    artifact: Artifact
    abi: Abi
    code: bytes

    def __init__(self, address: Address) -> None:
        self.address = address

    @abstractmethod
    def handlers(self) -> Mapping[str, Callable[..., Any]]:
        """What plays each function."""

    @abstractmethod
    def copy(self) -> PlayedContract:
        """A twin with storage of its own."""

    def call(self, context: Context, data: bytes) -> bytes:
        """Run one function. Raises :class:`ExecutionReverted`."""
        function = self.abi.function(data)
        if context.value and not function.is_payable:
            raise ExecutionReverted(b"")
        handler = self._handler(function)
        arguments = self.abi.arguments(function, data)
        return function.result(handler(context, *arguments))

    def emit(self, context: Context, name: str, *values: object) -> None:
        context.events.append(self.abi.event(self.address, name, *values))

    def _handler(self, function: Function) -> Callable[..., Any]:
        handler = self.handlers().get(function.signature)
        if handler is None:
            raise ExecutionFailed(f"the fake chain does not play {function.signature}")
        return handler


@dataclass(slots=True)
class World:
    """Balances in wei, nonces, and the contracts that are there."""

    chain_id: int
    balances: dict[Address, int] = field(default_factory=dict)
    nonces: dict[Address, int] = field(default_factory=dict)
    contracts: dict[Address, PlayedContract] = field(default_factory=dict)

    def copy(self) -> World:
        contracts = {address: one.copy() for address, one in self.contracts.items()}
        return World(self.chain_id, dict(self.balances), dict(self.nonces), contracts)

    def balance(self, account: Address) -> int:
        return self.balances.get(account, 0)

    def code(self, account: Address) -> bytes:
        if account == DEPLOYER:
            return _DEPLOYER_CODE
        contract = self.contracts.get(account)
        return b"" if contract is None else contract.code

    def move(self, sender: Address, to: Address, value: int) -> None:
        """Raises :class:`ExecutionFailed` if the sender has too little."""
        if self.balance(sender) < value:
            raise ExecutionFailed("insufficient funds for transfer")
        self.balances[sender] = self.balance(sender) - value
        self.balances[to] = self.balance(to) + value

    def execute(self, message: CallMessage, timestamp: int) -> tuple[bytes, list[Event]]:
        """Run a call on this world, which is spoilt if it raises: give it a copy.

        Raises :class:`ExecutionReverted` and :class:`ExecutionFailed`.
        """
        sender, to = Address(message.sender), Address(message.to)
        self.move(sender, to, message.value)
        if not to:
            raise _other_code()
        if to == DEPLOYER:
            return self._create(message.data), []
        contract = self.contracts.get(to)
        if contract is None:
            return b"", []
        context = Context(self, sender, message.value, timestamp, [])
        return contract.call(context, message.data), context.events

    def _create(self, data: bytes) -> bytes:
        """What the deterministic deployer does with a salt and a contract's creation code."""
        salt, init_code = data[: len(SALT)], data[len(SALT) :]
        if salt != SALT:
            raise _other_code()
        for artifact in (payment_channels(), test_token()):
            if init_code.startswith(artifact.bytecode):
                address = Creation(artifact, init_code).address
                if address in self.contracts:
                    raise ExecutionReverted(b"")
                argument = init_code[len(artifact.bytecode) :]
                self.contracts[address] = _played(self.chain_id, artifact, address, argument)
                return address
        raise _other_code()


def signer_of(digest: bytes, signature: bytes) -> Address | None:
    """Whose key made ``signature`` (65 bytes, v 27 or 28), as ``ecrecover`` tells it."""
    if len(signature) != SIGNATURE_BYTES or signature[64] not in (_V_OFFSET, _V_OFFSET + 1):
        return None
    compact = signature[:64] + bytes([signature[64] - _V_OFFSET])
    try:
        key = PublicKey.from_signature_and_message(compact, digest, hasher=None)
    except Exception:  # noqa: BLE001  coincurve raises bare Exception and ValueError alike
        return None
    return address_of(key.format(compressed=False)[1:])


def _played(chain_id: int, artifact: Artifact, address: Address, argument: bytes) -> PlayedContract:
    # Both build on this module.
    from channelpay.testing.fake_channels import PlayedChannels
    from channelpay.testing.fake_token import PlayedToken

    if artifact.name == PlayedToken.artifact.name:
        return PlayedToken(chain_id, address)
    return PlayedChannels(chain_id, address, int.from_bytes(argument[:_WORD], "big"))


def _other_code() -> ExecutionFailed:
    return ExecutionFailed(
        "the fake chain plays PaymentChannels and TestToken and runs no other code"
    )
