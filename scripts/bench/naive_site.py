"""The same small page behind a check by eth-account, and books in SQLite with a commit for each
voucher: what one writes first.
"""

from __future__ import annotations

import base64
import json
import sqlite3
from contextlib import nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from channelpay.payee.asgi import Receive, Scope, Send
from channelpay.payee.server import listen, serve
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import ChannelId, Deployment, Voucher
from scripts.bench.core import recovered_by_eth_account
from scripts.bench.site import hello


class NaiveSite:
    """An application that keeps, for each channel, the highest amount that it was promised."""

    def __init__(self, deployment: Deployment, path: Path) -> None:
        self._deployment = deployment
        self._books = sqlite3.connect(path, isolation_level=None)
        self._books.execute("PRAGMA journal_mode = WAL")
        self._books.execute("PRAGMA synchronous = FULL")
        self._books.execute("CREATE TABLE channels (channel_id TEXT PRIMARY KEY, accepted TEXT)")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        credential = dict(scope["headers"])[b"authorization"].removeprefix(b"Payment ")
        padded = credential + b"=" * (-len(credential) % 4)
        members = json.loads(base64.urlsafe_b64decode(padded))
        is_paid = self._accept(members["payload"], members["source"].split(":")[-1])

        async def send_receipt(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], (b"payment-receipt", b"none")]
                message = {**message, "headers": headers, "status": 200 if is_paid else 402}
            await send(message)

        await hello(scope, receive, send_receipt)

    def _accept(self, payload: dict[str, str], payer: str) -> bool:
        amount = int(payload["cumulativeAmount"])
        channel_id = bytes.fromhex(payload["channelId"].removeprefix("0x"))
        signature = bytes.fromhex(payload["signature"].removeprefix("0x"))
        voucher = Voucher(ChannelId(channel_id), amount, signature)
        if recovered_by_eth_account(self._deployment, voucher).lower() != payer.lower():
            return False
        query = "SELECT accepted FROM channels WHERE channel_id = ?"
        row = self._books.execute(query, (to_hex(channel_id),)).fetchone()
        if row is not None and int(row[0]) >= amount:
            return False
        replace = "INSERT OR REPLACE INTO channels VALUES (?, ?)"
        self._books.execute(replace, (to_hex(channel_id), str(amount)))
        return True


def run_naive(pipe: Connection[Any, Any], deployment: Deployment, path: Path) -> None:
    """The site; sends where it listens."""
    application = NaiveSite(deployment, path)
    listening = listen("127.0.0.1", 0)
    pipe.send(listening.getsockname()[:2])
    serve(lambda _: nullcontext(application), listening)
