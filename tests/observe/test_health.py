"""A site says whether it lives and whether it can take payments, free of charge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import httpx2
import pytest

from channelpay.errors import StoreUnavailable
from channelpay.observe import health
from channelpay.observe.health import (
    Check,
    Health,
    Readiness,
    Receive,
    Scope,
    Send,
    durable,
    free_space,
    within,
)
from channelpay.protocol.text import to_hex

pytestmark = pytest.mark.anyio


async def pay_wall(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 402, "headers": []})
    await send({"type": "http.response.body", "body": b"pay"})


async def ask(
    checks: Mapping[str, Check] | Health, path: str = "/readyz", method: str = "GET"
) -> httpx2.Response:
    app = checks if isinstance(checks, Health) else Health(pay_wall, checks)
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://shop.example") as client:
        return await client.request(method, path)


def fine() -> str | None:
    return None


def forbidden() -> str | None:
    raise AssertionError("asked")


async def test_a_process_that_answers_is_alive_and_nothing_is_looked_at() -> None:
    response = await ask({"books": forbidden}, "/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert response.headers["cache-control"] == "no-store"


async def test_a_site_is_ready_when_every_check_is_fine() -> None:
    response = await ask({"books": fine, "chain": fine})
    assert response.status_code == 200
    assert response.json() == {
        "status": "ok",
        "checks": {"books": {"ok": True, "detail": None}, "chain": {"ok": True, "detail": None}},
    }


async def test_one_thing_that_is_wrong_makes_it_unavailable_and_is_named() -> None:
    response = await ask({"books": fine, "chain": lambda: "last seen 60 s ago"})
    assert response.status_code == 503
    assert response.json() == {
        "status": "unavailable",
        "checks": {
            "books": {"ok": True, "detail": None},
            "chain": {"ok": False, "detail": "last seen 60 s ago"},
        },
    }


async def test_everything_else_goes_to_the_application() -> None:
    assert (await ask({}, "/page")).status_code == 402
    assert (await ask({}, "/healthz/")).status_code == 402


async def test_what_is_no_request_goes_to_the_application() -> None:
    seen: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def unused(*_: Any) -> Any:
        raise AssertionError

    for kind in ("lifespan", "websocket"):
        await Health(application, {})({"type": kind, "path": "/readyz"}, unused, unused)
    assert seen == ["lifespan", "websocket"]


async def test_head_has_the_status_and_the_headers_alone() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def unused() -> Any:
        raise AssertionError

    app = Health(pay_wall, {"books": lambda: "full"})
    await app({"type": "http", "method": "HEAD", "path": "/readyz"}, unused, send)
    start, body = sent
    assert start["status"] == 503
    assert int(dict(start["headers"])[b"content-length"]) > 0
    assert body["body"] == b""


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_nothing_can_be_posted(path: str) -> None:
    response = await ask({"books": forbidden}, path, "POST")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")


# --- what is told ------------------------------------------------------------------------------


async def test_a_check_that_fails_says_so_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> str | None:
        raise RuntimeError("postgresql://shop:hunter2@db/books")

    def unavailable() -> str | None:
        raise StoreUnavailable("postgresql://shop:hunter2@db/books is down")

    response = await ask({"broken": broken, "books": unavailable})
    assert response.status_code == 503
    assert {name: one["detail"] for name, one in response.json()["checks"].items()} == {
        "broken": "the check failed",
        "books": "Books Unavailable",
    }
    assert {"the check broken failed", "the check books failed"} <= {
        record.getMessage().partition(":")[0] for record in caplog.records
    }


async def test_what_a_check_says_is_short_and_without_secrets() -> None:
    secret = to_hex(bytes(range(65)))
    detail = (await ask({"a": lambda: f"{secret} {'x ' * 500}"})).json()["checks"]["a"]["detail"]
    assert secret[:20] not in detail
    assert len(detail) <= health.DETAIL_CHARS_MAX


async def test_an_empty_text_is_wrong_too() -> None:
    response = await ask({"books": lambda: ""})
    assert response.status_code == 503
    assert response.json()["checks"]["books"]["ok"] is False


# --- how often it is looked at -----------------------------------------------------------------


def counting() -> tuple[Check, list[None]]:
    asked: list[None] = []
    return (lambda: asked.append(None)), asked


def test_one_answer_serves_everybody_for_a_second() -> None:
    now = [100.0]
    check, asked = counting()
    readiness = Readiness({"books": check}, lambda: now[0])
    for moment in (100.0, 100.5, 100.999):
        now[0] = moment
        readiness.report()
    assert len(asked) == 1
    now[0] = 101.001
    readiness.report()
    assert len(asked) == 2


async def test_those_who_ask_at_once_wait_for_one_look() -> None:
    check, asked = counting()
    app = Health(pay_wall, {"books": check})
    responses = await asyncio.gather(*(ask(app) for _ in range(50)))
    assert {response.status_code for response in responses} == {200}
    assert len(asked) == 1


async def test_a_check_that_hangs_is_wrong_and_is_not_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(health, "KEPT_SECONDS", 0.0)
    go_on = Event()
    asked: list[None] = []

    def hanging() -> str | None:
        asked.append(None)
        go_on.wait(20)
        return None

    app = Health(pay_wall, {"disk": hanging, "books": fine})
    for _ in range(3):
        response = await ask(app)
        assert response.status_code == 503
        assert response.json()["checks"] == {
            "disk": {"ok": False, "detail": "did not answer in time"},
            "books": {"ok": True, "detail": None},
        }
    assert len(asked) == 1
    go_on.set()
    deadline = time.monotonic() + 20
    while (await ask(app)).status_code != 200:
        assert time.monotonic() < deadline


async def test_a_hanging_check_holds_up_nobody_else() -> None:
    begun, go_on = Event(), Event()

    def hanging() -> str | None:
        begun.set()
        return None if go_on.wait(20) else "late"

    app = Health(pay_wall, {"disk": hanging})
    asking = [asyncio.create_task(ask(app)) for _ in range(100)]
    deadline = time.monotonic() + 20
    while not begun.is_set():
        assert time.monotonic() < deadline
        await asyncio.sleep(0)
    assert (await ask(app, "/healthz")).status_code == 200
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "a thread is free"), 2)
    go_on.set()
    assert {response.status_code for response in await asyncio.gather(*asking)} == {200}


def test_threads_that_ask_at_once_wait_for_one_look() -> None:
    asked: list[None] = []

    def slow() -> str | None:
        asked.append(None)
        Event().wait(0.2)
        return None

    readiness = Readiness({"books": slow})
    with ThreadPoolExecutor(10) as threads:
        reports = list(threads.map(lambda _: readiness.report(), range(10)))
    assert {report.status for report in reports} == {200}
    assert len(asked) == 1


# --- the usual checks --------------------------------------------------------------------------


def outcome(check: Callable[[], str | None]) -> str | None:
    return Readiness({"it": check}).report().found["it"]


def test_books_are_ready_when_a_write_is_durable() -> None:
    done: Future[None] = Future()
    done.set_result(None)
    assert outcome(durable(lambda: done)) is None


def test_books_that_cannot_be_written_are_not_ready() -> None:
    failed: Future[None] = Future()
    failed.set_exception(StoreUnavailable("disk full"))
    assert outcome(durable(lambda: failed)) == "Books Unavailable"


@pytest.mark.parametrize(("seen", "ready"), [(100.0, True), (70.0, True), (69.0, False)])
def test_the_chain_must_have_been_seen_of_late(seen: float, ready: bool) -> None:
    wrong = outcome(within(30.0, lambda: seen, lambda: 100.0))
    assert wrong == (None if ready else "last seen 31 s ago")


def test_a_disk_must_have_room(tmp_path: Path) -> None:
    assert outcome(free_space(tmp_path, 1)) is None
    assert "MiB are free" in str(outcome(free_space(tmp_path, 2**80)))
