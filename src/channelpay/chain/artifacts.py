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
    the constructor writes immutables: ``immutable_ranges`` are their (start, length) in bytes.
    """

    name: str
    abi: tuple[dict[str, Any], ...]
    bytecode: bytes
    deployed_bytecode: bytes
    immutable_ranges: tuple[tuple[int, int], ...]

    def is_code(self, code: bytes) -> bool:
        """Whether ``code`` is this contract, whatever values its immutables have."""
        return self._without_immutables(code) == self.deployed_bytecode

    def _without_immutables(self, code: bytes) -> bytes:
        masked = bytearray(code)
        for start, length in self.immutable_ranges:
            masked[start : start + length] = bytes(len(masked[start : start + length]))
        return bytes(masked)


def payment_channels() -> Artifact:
    return _load("PaymentChannels")


def test_token() -> Artifact:
    """The ERC-20 of local chains; anyone may mint it."""
    return _load("TestToken")


@cache
def _load(name: str) -> Artifact:
    text = resources.files("channelpay.chain").joinpath("artifacts", f"{name}.json").read_text()
    fields = json.loads(text)
    ranges = [
        (reference["start"], reference["length"])
        for references in fields["immutableReferences"].values()
        for reference in references
    ]
    return Artifact(
        name=fields["contractName"],
        abi=tuple(fields["abi"]),
        bytecode=bytes.fromhex(fields["bytecode"].removeprefix("0x")),
        deployed_bytecode=bytes.fromhex(fields["deployedBytecode"].removeprefix("0x")),
        immutable_ranges=tuple(ranges),
    )
