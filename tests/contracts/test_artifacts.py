"""The shipped artifacts are what the sources compile to, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts import build_contracts


@pytest.fixture(scope="module")
def built() -> dict[Path, bytes]:
    """Every artifact, compiled anew."""
    return build_contracts.build()


def test_shipped_artifacts_are_what_the_sources_compile_to(built: dict[Path, bytes]) -> None:
    assert build_contracts.differing(built) == []


def test_no_artifact_ships_without_a_source(built: dict[Path, bytes]) -> None:
    assert sorted(build_contracts.ARTIFACTS_DIRECTORY.glob("*.json")) == sorted(built)


def test_a_changed_byte_is_reported(built: dict[Path, bytes], tmp_path: Path) -> None:
    content = next(iter(built.values()))
    stale = tmp_path / "stale.json"
    stale.write_bytes(content.replace(b"0x60", b"0x61", 1))

    assert build_contracts.differing({stale: content}) == [stale]


def test_code_fits_the_size_limit_of_a_contract(built: dict[Path, bytes]) -> None:
    code = json.loads(built[build_contracts.ARTIFACTS_DIRECTORY / "PaymentChannels.json"])

    assert len(bytes.fromhex(code["deployedBytecode"][2:])) <= 24_576  # EIP-170


def test_a_comment_does_not_move_the_bytecode() -> None:
    path = build_contracts.TARGETS["TestToken"]
    source = build_contracts.read_sources()[path]
    outputs = {path: ["evm.bytecode.object"]}

    plain = build_contracts.compile_sources({path: source}, outputs)
    commented = build_contracts.compile_sources({path: source + "// one more\n"}, outputs)

    assert plain["contracts"] == commented["contracts"]


def test_a_compiler_warning_fails_the_build() -> None:
    unlicensed = {"contracts/Bare.sol": "pragma solidity 0.8.37; contract Bare {}"}

    with pytest.raises(build_contracts.BuildError, match="SPDX"):
        build_contracts.compile_sources(unlicensed, {"contracts/Bare.sol": ["abi"]})
