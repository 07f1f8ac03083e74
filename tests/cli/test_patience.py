"""What is to run for long waits for a node when it begins."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from channelpay.cli import patience
from channelpay.errors import NetworkError, WrongChain
from channelpay.protocol.text import to_hex
from channelpay.testing.furnished import FurnishedChain
from tests.support.rpc_faults import Down, faulty_node

PROGRAM = [sys.executable, "-c", "from channelpay.cli import main; main()"]
PAYEE = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody waits."""
    made: list[float] = []
    monkeypatch.setattr("channelpay.cli.patience.time.sleep", made.append)
    return made


def test_the_pauses_grow_up_to_half_a_minute(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    def fail_at_first(rpc: str | None) -> None:
        if len(pauses) < 7:
            raise NetworkError("node 1 (rpc.example) is down")

    monkeypatch.setattr(patience, "connected", fail_at_first)
    with caplog.at_level(logging.WARNING):
        patience.wait_for_node("http://rpc.example")

    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    assert caplog.messages[0] == "node 1 (rpc.example) is down; asking again in 1 s"


def test_a_node_of_another_chain_is_a_mistake_and_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    def refuse(rpc: str | None) -> None:
        raise WrongChain("it serves chain 5")

    monkeypatch.setattr(patience, "connected", refuse)

    with pytest.raises(WrongChain):
        patience.wait_for_node("http://rpc.example")
    assert pauses == []


def test_a_site_that_began_before_its_node_serves_when_that_is_there(
    tmp_path: Path, dev_chain: FurnishedChain
) -> None:
    options = ("--token", "eth", "--price", "1", "--payee", PAYEE, "--port", "0")
    place = ("--contract", to_hex(dev_chain.contract))
    with (
        faulty_node(dev_chain.chain.rpc_url) as node,
        node.behaving(Down()),
        subprocess.Popen(
            [*PROGRAM, "site", str(tmp_path), *options, *place, "--rpc", node.url],
            env=os.environ | {"CHANNELPAY_HOME": str(tmp_path / "home")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as site,
    ):
        assert site.stdout is not None
        assert site.stderr is not None
        try:
            logged = [site.stderr.readline() for _ in range(2)]
            assert "asking again in 1 s" in logged[1], logged
            node.behave()
            assert json.loads(site.stdout.readline())["payee"] == PAYEE.lower()
        finally:
            site.terminate()
