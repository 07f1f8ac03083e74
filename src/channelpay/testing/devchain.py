"""A local chain to build and test against, embedded or anvil, behind one handle.

Both have chain id 31337, the same ten funded accounts and the rules of the Prague fork, mine each
transaction at once, and let a test move time and go back to a snapshot.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import IO, cast

from channelpay.errors import ConfigError, NetworkError
from channelpay.testing.accounts import DevAccount, dev_accounts
from channelpay.testing.execution import CHAIN_ID
from channelpay.testing.rpc_client import rpc_call

READY_SECONDS = 60.0
"""A chain that does not answer by then is given up. It takes 1 s; a loaded machine takes more."""
_STOP_SECONDS = 10.0
_DEV_CLIENTS = ("channelpay-", "anvil/")
_ANVIL_IN_NODE_MODULES = Path("node_modules", "@foundry-rs", "anvil-linux-amd64", "bin", "anvil")


@dataclass(frozen=True, slots=True)
class DevChain:
    """A running development chain. ``accounts`` are funded with 10 000 ETH each."""

    rpc_url: str
    chain_id: int
    accounts: tuple[DevAccount, ...]

    def mine(self, blocks: int = 1) -> None:
        rpc_call(self.rpc_url, "anvil_mine", hex(blocks))

    def increase_time(self, seconds: int) -> None:
        """Move the chain's clock on and mine a block, so that calls see the new time too."""
        rpc_call(self.rpc_url, "evm_increaseTime", hex(seconds))
        self.mine()

    def latest_block(self) -> tuple[int, int]:
        """Number and timestamp (Unix seconds) of the latest block."""
        block = cast(
            "dict[str, str]", rpc_call(self.rpc_url, "eth_getBlockByNumber", "latest", False)
        )
        return int(block["number"], 16), int(block["timestamp"], 16)

    def snapshot(self) -> str:
        """Remember this state; the answer names it for :meth:`revert`."""
        return str(rpc_call(self.rpc_url, "evm_snapshot"))

    def revert(self, snapshot: str) -> None:
        """Go back to a snapshot, which is used up by it."""
        if rpc_call(self.rpc_url, "evm_revert", snapshot) is not True:
            raise ConfigError(f"the chain knows no snapshot {snapshot}")


@contextmanager
def embedded_chain(port: int = 0, page: Callable[[], str] | None = None) -> Iterator[DevChain]:
    """The embedded chain in this process, on a loopback port (0: a free one). ``page`` makes what a
    browser is shown there.
    """
    try:
        from channelpay.testing.embedded import embedded_rpc
        from channelpay.testing.http_server import serving
    except ModuleNotFoundError as error:
        raise _embedded_missing(error) from error
    with serving(embedded_rpc(), port, page) as rpc_url:
        yield _handle(rpc_url)


@contextmanager
def embedded_chain_process(port: int = 0) -> Iterator[DevChain]:
    """The embedded chain in a process of its own, which ends with this one."""
    try:
        import eth  # noqa: F401
    except ModuleNotFoundError as error:
        raise _embedded_missing(error) from error
    with _child("embedded", str(port)) as rpc_url:
        yield _handle(rpc_url)


@contextmanager
def anvil_chain(port: int = 0) -> Iterator[DevChain]:
    """anvil in a process of its own, which ends with this one."""
    with _child("anvil", anvil_binary(), str(port)) as rpc_url:
        yield _handle(rpc_url)


def dev_chain_at(rpc_url: str) -> DevChain:
    """A development chain that runs already. Raises :class:`ConfigError` for any other node: what
    one does to a test chain must not be tried on one that holds money.
    """
    client = str(rpc_call(rpc_url, "web3_clientVersion"))
    chain = _handle(rpc_url)
    if chain.chain_id != CHAIN_ID or not client.startswith(_DEV_CLIENTS):
        raise ConfigError(
            f"the node at {rpc_url} is no development chain: it is {client}, chain"
            f" {chain.chain_id}",
            hint="Start one with: channelpay dev",
        )
    return chain


def anvil_binary() -> str:
    """Path of anvil: in ``node_modules`` of this or a parent directory, else on ``PATH``."""
    here = Path.cwd()
    for directory in (here, *here.parents):
        binary = directory / _ANVIL_IN_NODE_MODULES
        if binary.is_file():
            return str(binary)
    on_path = shutil.which("anvil")
    if on_path is None:
        raise ConfigError(
            "anvil is neither in node_modules nor on PATH",
            hint="Run 'npm ci' in the repository, or install Foundry.",
        )
    return on_path


def _handle(rpc_url: str) -> DevChain:
    chain_id = int(str(rpc_call(rpc_url, "eth_chainId")), 16)
    return DevChain(rpc_url, chain_id, dev_accounts())


@contextmanager
def _child(*arguments: str) -> Iterator[str]:
    """Run the child module; yields its chain's URL. Leaving closes its input, which ends it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "channelpay.testing.child", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield _reported_url(process.stdout)
    finally:
        process.stdin.close()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _reported_url(output: IO[str]) -> str:
    lines: Queue[str] = Queue()
    Thread(target=lambda: lines.put(output.readline()), daemon=True).start()
    try:
        line = lines.get(timeout=READY_SECONDS)
    except Empty:
        raise NetworkError(f"the chain did not start within {READY_SECONDS:.0f} s") from None
    if not line:
        raise NetworkError("the chain's process ended before it was ready; see its messages above")
    return str(json.loads(line)["rpcUrl"])


def _embedded_missing(error: ModuleNotFoundError) -> ConfigError:
    return ConfigError(
        f"the embedded chain needs the module {error.name}",
        hint="Install channelpay[dev], or use anvil.",
    )
