"""``channelpay forget``."""

from __future__ import annotations

import json
from pathlib import Path

from channelpay.payer.records import PayerChannel
from channelpay.payer.state import PayerState
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import (
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelState,
    ChannelStatus,
    Deployment,
)
from tests.cli.conftest import Run


def finalized(home: Path) -> PayerChannel:
    deployment = Deployment(31337, Address(b"\x11" * 20))
    channel = Channel(Address(b"\x22" * 20), Address(b"\x33" * 20), NATIVE, ZERO_ADDRESS, bytes(32))
    entry = PayerChannel.planned(deployment, channel, 100, "https://site.example/page", 1)
    home.mkdir(mode=0o700)
    state = PayerState(home / "payer.sqlite3")
    state.begin_open(entry)
    state.record_chain_state(entry.channel_id, ChannelState(ChannelStatus.FINALIZED, 100))
    state.close()
    return entry


def test_finished_channels_are_forgotten_once(run: Run, home: Path) -> None:
    entry = finalized(home)
    said = {"channels": [to_hex(entry.channel_id)]}

    tried = run("forget", "--dry-run")
    assert (tried.exit_code, json.loads(tried.stdout)) == (10, {"dryRun": True, **said})
    assert json.loads(run("forget", "--older-than", "1d", "--yes").stdout) == {"channels": []}
    assert json.loads(run("forget", "--yes").stdout) == said
    assert json.loads(run("forget", "--yes").stdout) == {"channels": []}
    assert b"site.example" not in (home / "payer.sqlite3").read_bytes()


def test_without_books_there_is_nothing_to_forget(run: Run, home: Path) -> None:
    assert json.loads(run("forget", "--yes").stdout) == {"channels": []}
    assert not (home / "payer.sqlite3").exists()
