"""The test token, played in Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from eth_abi.abi import encode

from channelpay.chain.artifacts import Artifact, test_token
from channelpay.protocol.eip712 import DOMAIN_TYPEHASH
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import ZERO_ADDRESS, Address
from channelpay.testing.fake_abi import Abi, Event
from channelpay.testing.fake_world import Context, PlayedContract, signer_of

NAME, SYMBOL, VERSION, DECIMALS = "Test Dollar", "TUSD", "1", 6
_UNLIMITED = 2**256 - 1
_PERMIT = keccak256(
    b"Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
)
_RECEIVE = keccak256(
    b"ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,"
    b"uint256 validBefore,bytes32 nonce)"
)


class PlayedToken(PlayedContract):
    """Balances and allowances in base units; anyone may mint."""

    artifact: Artifact = test_token()
    abi: Abi = Abi(artifact)
    code: bytes = artifact.deployed_bytecode

    def __init__(self, chain_id: int, address: Address) -> None:
        super().__init__(address)
        self.chain_id = chain_id
        self.supply: int = 0
        self.balances: dict[Address, int] = {}
        self.allowances: dict[tuple[Address, Address], int] = {}
        self.nonces: dict[Address, int] = {}
        self.used: set[tuple[Address, bytes]] = set()

    def copy(self) -> PlayedToken:
        twin = PlayedToken(self.chain_id, self.address)
        twin.supply, twin.used = self.supply, set(self.used)
        twin.balances, twin.allowances = dict(self.balances), dict(self.allowances)
        twin.nonces = dict(self.nonces)
        return twin

    def handlers(self) -> Mapping[str, Callable[..., Any]]:
        return {
            "name()": lambda _: NAME,
            "symbol()": lambda _: SYMBOL,
            "version()": lambda _: VERSION,
            "decimals()": lambda _: DECIMALS,
            "totalSupply()": lambda _: self.supply,
            "balanceOf(address)": lambda _, owner: self.balances.get(owner, 0),
            "allowance(address,address)": lambda _, *pair: self.allowances.get(pair, 0),
            "nonces(address)": lambda _, owner: self.nonces.get(owner, 0),
            "DOMAIN_SEPARATOR()": lambda _: self._domain(),
            "authorizationState(address,bytes32)": lambda _, *pair: pair in self.used,
            "mint(address,uint256)": self.mint,
            "approve(address,uint256)": self.approve,
            "transfer(address,uint256)": self.transfer,
            "transferFrom(address,address,uint256)": self._transfer_from,
            "permit(address,address,uint256,uint256,uint8,bytes32,bytes32)": self.permit,
        }

    def mint(self, context: Context, to: Address, value: int) -> None:
        self.supply += value
        self.balances[to] = self.balances.get(to, 0) + value
        self.emit(context, "Transfer", ZERO_ADDRESS, to, value)

    def approve(self, context: Context, spender: Address, value: int) -> bool:
        self._approve(context, context.sender, spender, value)
        return True

    def transfer(self, context: Context, to: Address, value: int) -> bool:
        self.move(context.events, context.sender, to, value)
        return True

    def pull(self, events: list[Event], spender: Address, owner: Address, value: int) -> None:
        """``transferFrom`` by ``spender`` to itself."""
        self._spend(spender, owner, value)
        self.move(events, owner, spender, value)

    def move(self, events: list[Event], owner: Address, to: Address, value: int) -> None:
        held = self.balances.get(owner, 0)
        if held < value:
            raise self.abi.error("InsufficientBalance")
        self.balances[owner] = held - value
        self.balances[to] = self.balances.get(to, 0) + value
        events.append(self.abi.event(self.address, "Transfer", owner, to, value))

    def permit(  # noqa: PLR0913, PLR0917  as the standard has it
        self,
        context: Context,
        owner: Address,
        spender: Address,
        value: int,
        deadline: int,
        v: int,
        r: bytes,
        s: bytes,
    ) -> None:
        if context.timestamp > deadline:
            raise self.abi.error("Expired")
        nonce = self.nonces.get(owner, 0)
        types = ["bytes32", "address", "address", "uint256", "uint256", "uint256"]
        struct = encode(types, [_PERMIT, owner, spender, value, nonce, deadline])
        self._check_signer(owner, struct, r + s + bytes([v]))
        self.nonces[owner] = nonce + 1
        self._approve(context, owner, spender, value)

    def receive_authorized(  # noqa: PLR0913, PLR0917  as the standard has it
        self,
        context: Context,
        owner: Address,
        to: Address,
        value: int,
        valid_after: int,
        valid_before: int,
        nonce: bytes,
        signature: bytes,
    ) -> None:
        """``receiveWithAuthorization``, called by ``to``."""
        if not valid_after < context.timestamp < valid_before:
            raise self.abi.error("Expired")
        if (owner, nonce) in self.used:
            raise self.abi.error("AuthorizationAlreadyUsed")
        types = ["bytes32", "address", "address", "uint256", "uint256", "uint256", "bytes32"]
        values = [_RECEIVE, owner, to, value, valid_after, valid_before, nonce]
        self._check_signer(owner, encode(types, values), signature)
        self.used.add((owner, nonce))
        self.emit(context, "AuthorizationUsed", owner, nonce)
        self.move(context.events, owner, to, value)

    def _transfer_from(self, context: Context, owner: Address, to: Address, value: int) -> bool:
        self._spend(context.sender, owner, value)
        self.move(context.events, owner, to, value)
        return True

    def _approve(self, context: Context, owner: Address, spender: Address, value: int) -> None:
        self.allowances[owner, spender] = value
        self.emit(context, "Approval", owner, spender, value)

    def _spend(self, spender: Address, owner: Address, value: int) -> None:
        allowed = self.allowances.get((owner, spender), 0)
        if allowed < value:
            raise self.abi.error("InsufficientAllowance")
        if allowed != _UNLIMITED:
            self.allowances[owner, spender] = allowed - value

    def _domain(self) -> bytes:
        types = ["bytes32", "bytes32", "bytes32", "uint256", "address"]
        names = [keccak256(text.encode()) for text in (NAME, VERSION)]
        return keccak256(encode(types, [DOMAIN_TYPEHASH, *names, self.chain_id, self.address]))

    def _check_signer(self, owner: Address, struct: bytes, signature: bytes) -> None:
        digest = keccak256(b"\x19\x01" + self._domain() + keccak256(struct))
        if signer_of(digest, signature) != owner:
            raise self.abi.error("InvalidSignature")
