"""No books and no log of a payee know where a reader is."""

from __future__ import annotations

import logging
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest

from channelpay.observe.logs import AccessLog
from channelpay.protocol.wire import VoucherPayload
from channelpay.testing.furnished import FurnishedChain
from tests.payee.shop import ORIGIN, PRICE, OpenChannel, Payer, Shop, opened_shop

pytestmark = pytest.mark.anyio
READER = "203.0.113.77"
"""Of a block that nobody has (RFC 5737)."""
AGENT = "ReaderOfMyOwn/7"


async def ask(shop: Shop, path: str, authorization: str) -> int:
    transport = httpx2.ASGITransport(
        shop.middleware, raise_app_exceptions=False, client=(READER, 47_111)
    )
    headers = {
        "Authorization": authorization,
        "Idempotency-Key": str(uuid4()),
        "X-Forwarded-For": READER,
        "Forwarded": f"for={READER}",
        "X-Real-IP": READER,
        "User-Agent": AGENT,
        "Referer": f"https://{READER}/",
    }
    async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN) as client:
        return (await client.get(path, headers=headers)).status_code


def all_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def live(shop: Shop, channel: OpenChannel) -> list[int]:
    """What a reader does in a day, and some of what goes wrong."""

    def voucher(cumulative: int) -> str:
        return shop.header(VoucherPayload(channel.sign(cumulative)))

    opening = shop.header(channel.open_payload(PRICE), source=channel.source)
    asked = [
        ("/page", opening),
        ("/other", voucher(2 * PRICE)),
        ("/page", voucher(PRICE)),
        ("/raise", voucher(3 * PRICE)),
        ("/page", "Payment nonsense"),
    ]
    return [await ask(shop, path, authorization) for path, authorization in asked]


async def test_no_books_and_no_log_of_a_payee_have_the_address_of_a_reader(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where each paid request is logged, which it is not by default."""
    caplog.set_level(logging.DEBUG)
    channel = payer.open()

    with opened_shop(furnished, tmp_path, payer, observer=AccessLog()) as shop:
        assert await live(shop, channel) == [200, 200, 402, 500, 400]

    ours = [one for one in caplog.records if one.name.startswith("channelpay")]
    kept = all_of(tmp_path)
    said = "\n".join(str(vars(record)) for record in ours)
    assert kept.find(channel.id) >= 0
    assert "/raise" in said
    for trace in (READER, AGENT):
        assert trace.encode() not in kept
        assert trace not in said
