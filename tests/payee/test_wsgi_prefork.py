"""A WSGI site whose server forks its workers after it has loaded the application."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2

from channelpay.protocol.text import to_hex
from channelpay.protocol.wire import Credential, Payload, VoucherPayload
from channelpay.store import SqliteStore
from channelpay.testing.furnished import FurnishedChain
from tests.payee.shop import PRICE, OpenChannel, Payer, challenges_of, wait_for

PROGRAM = Path(__file__).with_name("prefork_site.py")


@contextmanager
def _running(furnished: FurnishedChain, folder: Path, **more: Any) -> Iterator[str]:
    settings = {
        "rpc": furnished.chain.rpc_url,
        "token": to_hex(furnished.token),
        "contract": to_hex(furnished.deployment.contract),
        "payee": to_hex(furnished.chain.accounts[2].address),
        "store": "sqlite:///books.sqlite3",
    }
    with (folder / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, PROGRAM],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(settings | more))
        process.stdin.close()
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/page"
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stdout.close()


def _present(url: str, payload: Payload, channel: OpenChannel, method: str) -> httpx2.Response:
    """On a connection of its own, which any worker may take."""
    (challenge,) = challenges_of(httpx2.get(url))
    header = Credential(challenge, payload, source=channel.source).to_header()
    headers = {"Authorization": header, "Idempotency-Key": str(uuid4())}
    return httpx2.request(method, url, headers=headers)


def test_every_worker_takes_payments(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    channel = payer.open()
    served: list[str] = []
    with _running(furnished, tmp_path) as url:
        assert _present(url, channel.open_payload(0), channel, "HEAD").status_code == 200

        def both_served() -> bool:
            voucher = channel.sign((len(served) + 1) * PRICE)
            served.append(_present(url, VoucherPayload(voucher), channel, "GET").text)
            return len(set(served)) == 2 and len(served) >= 10

        wait_for(both_served)

    assert all(process_id.isdigit() for process_id in served)
    with closing(SqliteStore(tmp_path / "books.sqlite3")) as books:
        record = books.record(channel.id)
    assert record is not None
    assert record.spent == len(served) * PRICE


def test_nothing_is_sold_from_books_that_were_opened_before_the_fork(
    furnished: FurnishedChain, tmp_path: Path
) -> None:
    with _running(furnished, tmp_path, asks=True) as url:
        answer = httpx2.get(url)

    assert answer.status_code == 500
    assert "opened before this process was forked" in (tmp_path / "errors").read_text()
