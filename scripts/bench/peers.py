"""The same on the same machine in the same run, by other means.

x402 runs in an environment of its own, since it brings other versions of much.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from channelpay.protocol.eip712 import DOMAIN_NAME, DOMAIN_VERSION, VoucherSigner
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Deployment
from scripts.bench.core import AMOUNT, CHANNEL, SECRET, Row
from scripts.bench.database import sqlite_url
from scripts.bench.figures import Cell, Table, Target
from scripts.bench.load import Endpoint, Load, Replay
from scripts.bench.naive_site import run_naive
from scripts.bench.paid import COLUMNS, Lab, Server, against_hello, enter_payers, figures_of, site
from scripts.bench.processes import child

CHANNELS = 50
"""One request of each channel at a time: x402 takes no more."""
REQUESTS = 500
PEER_SECONDS = 0.2
"""How long a peer checks vouchers for one measurement; node is slow to warm up."""
HELLO, OURS, X402, VIEM = "hello", "channelpay", "x402 in Python", "viem under node"
HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
PYTHON = REPOSITORY / ".venv-bench" / "bin" / "python"


@dataclass(frozen=True, slots=True)
class Peer:
    """A program that is asked in lines of JSON; its first line says where it serves."""

    process: subprocess.Popen[str]
    endpoint: Endpoint

    def ask(self, **question: object) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return _line(self.process)

    @property
    def server(self) -> Server:
        return Server(self.endpoint, self.process.pid)


@contextmanager
def x402(directory: Path) -> Iterator[Peer]:
    """x402's server with its storage in ``directory``."""
    script = HERE / "x402_site.py"
    with _running([PYTHON, script, directory, CHANNELS]) as peer:
        yield peer


@contextmanager
def viem(deployment: Deployment) -> Iterator[Peer]:
    """A server of node with viem, for vouchers of this deployment."""
    signer = VoucherSigner(deployment, SECRET)
    voucher = signer.sign(CHANNEL, AMOUNT)
    settings = {
        "domain": {
            "name": DOMAIN_NAME,
            "version": DOMAIN_VERSION,
            "chainId": deployment.chain_id,
            "verifyingContract": to_hex(deployment.contract),
        },
        "voucher": {
            "payer": to_hex(signer.address),
            "channelId": to_hex(CHANNEL),
            "cumulativeAmount": str(AMOUNT),
            "signature": to_hex(voucher.signature),
        },
    }
    with _running(["node", HERE / "viem_site.mjs", json.dumps(settings)]) as peer:
        yield peer


@contextmanager
def _running(command: Sequence[object]) -> Iterator[Peer]:
    """Leaving closes its input, which ends it."""
    words = [str(word) for word in command]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, cwd=REPOSITORY) as process:
        host, port = _line(process)
        yield Peer(process, (host, port))
        assert process.stdin is not None
        process.stdin.close()


def _line(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args!r} ended; see its messages above")
    return json.loads(line)


@contextmanager
def all_peers(deployment: Deployment, directory: Path) -> Iterator[dict[str, Peer]]:
    """By name."""
    with viem(deployment) as in_node, x402(directory) as in_python:
        yield {VIEM: in_node, X402: in_python}


def rows(peers: Mapping[str, Peer]) -> list[Row]:
    """What the check of one voucher takes each of them."""

    def seconds(peer: Peer) -> Callable[[], float]:
        return lambda: float(peer.ask(verify=PEER_SECONDS))

    return [Row(f"{name}: verify a voucher", seconds(peer)) for name, peer in peers.items()]


def measure(lab: Lab, peers: Mapping[str, Peer], directory: Path) -> None:
    """Paid requests on each of them, beside ours."""
    directory.mkdir()
    url = sqlite_url(directory / "ours.sqlite3")
    enter_payers(lab, url)
    naive_books = directory / "naive.sqlite3"
    with (
        site(lab, url, 1, {}) as ours,
        child(run_naive, lab.place.deployment, naive_books) as naive,
    ):
        servers = {
            HELLO: lab.hello,
            OURS: ours,
            "eth-account, SQLite, a commit each": Server(naive.answer(), naive.pid),
            **{name: peer.server for name, peer in peers.items()},
        }
        rounds = [_round(lab, servers, peers) for _ in range(lab.extent.rounds + 1)][1:]
    lab.findings.targets += [
        Target(f"{name}: paid request / hello", against_hello(name, rounds))
        for name in servers
        if name != HELLO
    ]
    cells: list[tuple[Cell, ...]] = [(name, *figures_of(name, rounds)) for name in servers]
    note = (
        f"{CHANNELS} channels with one request of each in flight. Where vouchers are checked but "
        "not kept (viem) or kept without a sync of the disk (x402), it is so in the peer."
    )
    lab.findings.tables.append(Table("Beside others", note, ("site", *COLUMNS), tuple(cells)))


def _round(lab: Lab, servers: Mapping[str, Server], peers: Mapping[str, Peer]) -> dict[str, float]:
    taken: dict[str, float] = {}
    for name, server in servers.items():
        figures = lab.sample(server, _load(name, servers, peers))
        taken |= {f"{name} {figure}": value for figure, value in figures.items()}
    return taken


def _load(name: str, servers: Mapping[str, Server], peers: Mapping[str, Peer]) -> Load | Replay:
    endpoint = servers[name].endpoint
    if name == X402:
        encoded = peers[name].ask(requests=REQUESTS)
        requests = tuple(base64.b64decode(one) for one in encoded)
        return Replay(endpoint, requests, CHANNELS, "Payment-Response")
    channels = 0 if name == HELLO else CHANNELS
    challenger = servers[OURS].endpoint
    return Load(endpoint, REQUESTS, CHANNELS, channels, in_order=True, challenger=challenger)
