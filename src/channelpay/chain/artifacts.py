"""The compiled contracts that the package ships; users never compile."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True, slots=True)
class Artifact:
    """One compiled contract.

    ``bytecode`` creates it; ``deployed_bytecode`` is what is then at its address, with zeros where
    the constructor writes immutables: ``immutable_ranges`` are, for each of them, the (start,
    length) in bytes of its copies.
    """

    name: str
    abi: tuple[dict[str, Any], ...]
    bytecode: bytes
    deployed_bytecode: bytes
    immutable_ranges: tuple[tuple[tuple[int, int], ...], ...]

    def difference(self, code: bytes) -> str:
        """How ``code`` differs from this contract, whatever values its immutables have, in words;
        empty if it does not. All copies of an immutable must agree: else a getter could say one
        thing while other code does another.
        """
        if len(code) != len(self.deployed_bytecode):
            return f"it has {len(code)} bytes instead of {len(self.deployed_bytecode)}"
        masked = self._without_immutables(code)
        for place, (found, shipped) in enumerate(zip(masked, self.deployed_bytecode, strict=True)):
            if found != shipped:
                return f"byte {place} differs"
        if any(len(copies) > 1 for copies in self._immutables(code)):
            return "an immutable has two values"
        return ""

    def immutables(self, code: bytes) -> tuple[bytes, ...]:
        """The values of the immutables in ``code``, which must be this contract's."""
        return tuple(value for copies in self._immutables(code) for value in copies)

    def _immutables(self, code: bytes) -> list[set[bytes]]:
        return [
            {code[start : start + length] for start, length in copies}
            for copies in self.immutable_ranges
        ]

    def _without_immutables(self, code: bytes) -> bytes:
        masked = bytearray(code)
        for copies in self.immutable_ranges:
            for start, length in copies:
                masked[start : start + length] = bytes(length)
        return bytes(masked)


def payment_channels() -> Artifact:
    return _load("PaymentChannels")


def revenue_splitter() -> Artifact:
    """A payee that is a group."""
    return _load("RevenueSplitter")


def revenue_splitter_factory() -> Artifact:
    """Creates splitters at addresses that are known before."""
    return _load("RevenueSplitterFactory")


def payouts() -> Artifact:
    """Pays many receivers in one transaction."""
    return _load("Payouts")


def test_token() -> Artifact:
    """The ERC-20 of local chains; anyone may mint it."""
    return _load("TestToken")


@cache
def _load(name: str) -> Artifact:
    text = resources.files("channelpay.chain").joinpath("artifacts", f"{name}.json").read_text()
    fields = json.loads(text)
    ranges = [
        tuple((reference["start"], reference["length"]) for reference in references)
        for references in fields["immutableReferences"].values()
    ]
    return Artifact(
        name=fields["contractName"],
        abi=tuple(fields["abi"]),
        bytecode=bytes.fromhex(fields["bytecode"].removeprefix("0x")),
        deployed_bytecode=bytes.fromhex(fields["deployedBytecode"].removeprefix("0x")),
        immutable_ranges=tuple(ranges),
    )
