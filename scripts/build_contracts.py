"""Compile `contracts/` and write the artifacts that the package ships.

Usage: python scripts/build_contracts.py [--check]

Each artifact is compiled from its own import closure, so that other files in `contracts/` (tests'
mocks, say) cannot move a byte of it, and without the metadata trailer, so that a comment cannot
move the bytecode. `--check` writes nothing and exits with 1 if a committed artifact differs from
what the sources give.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import solcx
from solcx.exceptions import SolcError

ROOT = Path(__file__).resolve().parents[1]
SOLC = ROOT / ".solcx" / "solc-v0.8.37"
CONTRACTS_DIRECTORY = ROOT / "contracts"
ARTIFACTS_DIRECTORY = ROOT / "src" / "channelpay" / "chain" / "artifacts"
TARGETS = {
    "PaymentChannels": "contracts/PaymentChannels.sol",
    "Payouts": "contracts/Payouts.sol",
    "RevenueSplitter": "contracts/RevenueSplitter.sol",
    "RevenueSplitterFactory": "contracts/RevenueSplitterFactory.sol",
    "TestToken": "contracts/mocks/TestToken.sol",
}
SETTINGS = {
    "evmVersion": "cancun",
    "metadata": {"appendCBOR": False, "bytecodeHash": "none"},
    "optimizer": {"enabled": True, "runs": 1_000_000},
    "viaIR": True,
}
CODE_OUTPUTS = [
    "abi",
    "evm.bytecode.object",
    "evm.deployedBytecode.object",
    "evm.deployedBytecode.immutableReferences",
]


class BuildError(Exception):
    """The sources do not compile cleanly."""


def compile_sources(sources: dict[str, str], outputs: dict[str, list[str]]) -> dict[str, Any]:
    """Compile `sources` (path to text), of which a warning is an error too; `outputs` names what to
    emit for each path.
    """
    output = run_compiler(sources, outputs)
    if warnings := output.get("errors"):
        raise BuildError("".join(warning["formattedMessage"] for warning in warnings))
    return output


def run_compiler(sources: dict[str, str], outputs: dict[str, list[str]]) -> dict[str, Any]:
    """What solc answers, warnings included."""
    selection = {path: {"*": names} for path, names in outputs.items()}
    standard_input = {
        "language": "Solidity",
        "settings": {**SETTINGS, "outputSelection": selection},
        "sources": {path: {"content": text} for path, text in sources.items()},
    }
    try:
        output: dict[str, Any] = solcx.compile_standard(standard_input, solc_binary=SOLC)
    except SolcError as error:
        raise BuildError(error.message) from error
    return output


def read_sources() -> dict[str, str]:
    """All Solidity files, by the path that solc and Ape know them under."""
    paths = sorted(CONTRACTS_DIRECTORY.rglob("*.sol"))
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def read_metadata(sources: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The compiler's metadata of each target; it names the target's import closure."""
    output = compile_sources(sources, {path: ["metadata"] for path in TARGETS.values()})
    contracts = output["contracts"]
    return {name: json.loads(contracts[path][name]["metadata"]) for name, path in TARGETS.items()}


def build_artifact(name: str, metadata: dict[str, Any], sources: dict[str, str]) -> dict[str, Any]:
    """Compile one target from its import closure."""
    path = TARGETS[name]
    closure = {source: sources[source] for source in metadata["sources"]}
    contract = compile_sources(closure, {path: CODE_OUTPUTS})["contracts"][path][name]
    deployed = contract["evm"]["deployedBytecode"]
    return {
        "abi": contract["abi"],
        "bytecode": "0x" + contract["evm"]["bytecode"]["object"],
        "compiler": {"settings": SETTINGS, "version": metadata["compiler"]["version"]},
        "contractName": name,
        "deployedBytecode": "0x" + deployed["object"],
        "immutableReferences": deployed["immutableReferences"],
        "sourceName": path,
        "sources": {source: text["keccak256"] for source, text in metadata["sources"].items()},
    }


def build() -> dict[Path, bytes]:
    """Every artifact file and its exact content."""
    sources = read_sources()
    return {
        ARTIFACTS_DIRECTORY / f"{name}.json": render(build_artifact(name, metadata, sources))
        for name, metadata in read_metadata(sources).items()
    }


def render(artifact: dict[str, Any]) -> bytes:
    """One stable text for one artifact."""
    return (json.dumps(artifact, indent=2, sort_keys=True) + "\n").encode()


def differing(files: dict[Path, bytes]) -> list[Path]:
    """The files whose content on disk is another one, or missing."""
    return [path for path, content in files.items() if not holds(path, content)]


def holds(path: Path, content: bytes) -> bool:
    """Whether the file has exactly this content."""
    return path.is_file() and path.read_bytes() == content


def write(files: dict[Path, bytes]) -> None:
    """Write the artifacts and say how large the deployed code is."""
    ARTIFACTS_DIRECTORY.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        path.write_bytes(content)
        code_bytes = len(json.loads(content)["deployedBytecode"]) // 2 - 1
        print(f"{path.relative_to(ROOT)}: {code_bytes} bytes of code")


def check(files: dict[Path, bytes]) -> int:
    """Report artifacts that the sources do not give; the process's exit code."""
    stale = differing(files)
    for path in stale:
        print(f"{path.relative_to(ROOT)} is not what contracts/ compiles to; run `make contracts`")
    return 1 if stale else 0


def main() -> int:
    """Build, then write or compare."""
    parser = argparse.ArgumentParser(description="Compile contracts/ into the package's artifacts.")
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    arguments = parser.parse_args()
    try:
        files = build()
    except BuildError as error:
        sys.exit(f"{error}")
    if arguments.check:
        return check(files)
    write(files)
    return 0


if __name__ == "__main__":
    sys.exit(main())
