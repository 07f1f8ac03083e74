"""Alerts: who is told, how often, and what a webhook that misbehaves can do."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, ClassVar

import pytest

from channelpay.errors import ConfigError
from channelpay.observe import alerts as alerts_module
from channelpay.observe.alerts import (
    REMIND_SECONDS,
    WEBHOOK_WAITING_MAX,
    Alert,
    AlertLog,
    AlertName,
    Alerts,
    Webhook,
)
from channelpay.observe.observer import Observer
from tests.payee.shop import wait_for

CHANNEL = "0x" + "ab" * 32
SECRET = "s3cr3t-token-that-nobody-may-read"
NO_MONEY = Alert(AlertName.NO_GAS_MONEY, "the account is empty")
LATE = Alert(AlertName.DEADLINE_NEAR, "it is late", {"channelId": CHANNEL}, CHANNEL)
LOW = Alert(AlertName.GAS_MONEY_LOW, "the account is nearly empty")


class Ear:
    def __init__(self) -> None:
        self.heard: list[tuple[AlertName, bool]] = []

    def tell(self, alert: Alert, *, over: bool) -> None:
        self.heard.append((alert.name, over))


class Gauge(Observer):
    def __init__(self) -> None:
        self.heard: list[tuple[str, bool, bool]] = []

    def alerted(self, name: str, *, began: bool, active: bool) -> None:
        self.heard.append((name, began, active))


def test_an_alert_is_told_once_until_it_is_over_and_reminded_of_each_hour() -> None:
    ear, now = Ear(), [0.0]
    alerts = Alerts([ear], clock=lambda: now[0])
    alerts.begin(NO_MONEY)
    alerts.begin(NO_MONEY)
    assert ear.heard == [(AlertName.NO_GAS_MONEY, False)]
    now[0] = REMIND_SECONDS
    alerts.begin(NO_MONEY)
    assert len(ear.heard) == 2
    alerts.end(AlertName.NO_GAS_MONEY)
    alerts.end(AlertName.NO_GAS_MONEY)
    assert ear.heard[2:] == [(AlertName.NO_GAS_MONEY, True)]


def test_alerts_about_several_channels_are_several() -> None:
    gauge = Gauge()
    alerts = Alerts((), gauge)
    other = Alert(AlertName.DEADLINE_NEAR, "it is late", about="0xcd")
    alerts.begin(LATE)
    alerts.begin(other)
    alerts.end_others(AlertName.DEADLINE_NEAR, [CHANNEL])
    assert alerts.active == [LATE]
    alerts.end(AlertName.DEADLINE_NEAR, CHANNEL)
    name = AlertName.DEADLINE_NEAR.value
    assert gauge.heard == [
        (name, True, True),
        (name, True, True),
        (name, False, True),
        (name, False, False),
    ]


def test_the_exit_code_is_that_of_the_critical_alert_and_0_without_one() -> None:
    alerts = Alerts(())
    assert alerts.exit_code == 0
    alerts.begin(LOW)
    assert alerts.exit_code == 0
    alerts.begin(NO_MONEY)
    assert (alerts.active[0], alerts.exit_code) == (NO_MONEY, 6)


def test_the_log_says_how_bad_it_is_and_what_it_is_about(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    alerts = Alerts([AlertLog()])
    alerts.begin(LATE)
    alerts.begin(LOW)
    alerts.end(AlertName.DEADLINE_NEAR, CHANNEL)
    assert [one.levelname for one in caplog.records] == ["ERROR", "WARNING", "INFO"]
    assert vars(caplog.records[0])["channelId"] == CHANNEL


class _Hook(BaseHTTPRequestHandler):
    answers: ClassVar[list[int]] = []
    posted: ClassVar[list[tuple[str, dict[str, Any]]]] = []
    held: ClassVar[Event] = Event()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.held.wait(30)
        self.posted.append((self.path, json.loads(body)))
        self.send_response(self.answers.pop(0) if self.answers else 204)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def hook(*answers: int) -> Iterator[str]:
    """A webhook that answers so, and then with 204; yields its URL with a secret."""
    _Hook.answers, _Hook.posted = list(answers), []
    _Hook.held.set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hook)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook/{SECRET}?key={SECRET}"
    finally:
        _Hook.held.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts_module, "_RETRY_SECONDS", (0.01, 0.01))


def test_a_webhook_gets_json_and_what_waits_is_posted_before_the_end() -> None:
    with hook() as url:
        webhook = Webhook(url)
        webhook.tell(LATE, over=False)
        webhook.tell(LATE, over=True)
        webhook.close()
        assert [path for path, _ in _Hook.posted] == [f"/hook/{SECRET}?key={SECRET}"] * 2
        first, second = (members for _, members in _Hook.posted)
    assert (first["state"], second["state"]) == ("active", "over")
    assert first["alert"] == "deadline-near"
    assert first["severity"] == "critical"
    assert first["facts"] == {"channelId": CHANNEL}


@pytest.mark.parametrize(("answers", "posts"), [((500, 503), 3), ((500,) * 9, 3), ((302,) * 3, 3)])
def test_a_webhook_that_fails_is_asked_three_times_and_redirections_are_not_followed(
    answers: tuple[int, ...], posts: int
) -> None:
    with hook(*answers) as url:
        webhook = Webhook(url)
        webhook.tell(LATE, over=False)
        wait_for(lambda: len(_Hook.posted) == posts)
        webhook.close()
        assert len(_Hook.posted) == posts


def test_the_secret_of_a_webhook_is_in_no_log_and_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    with hook(*(500,) * 3) as url:
        webhook = Webhook(url)
        webhook.tell(LATE, over=False)
        webhook.close()
    gone = Webhook(url)  # nobody listens there any more
    gone.tell(LATE, over=False)
    wait_for(lambda: len(caplog.records) >= 2)
    gone.close()
    with pytest.raises(ConfigError) as refused:
        Webhook(f"ftp://example.org/{SECRET}")
    assert "HTTP 500" in caplog.text
    assert SECRET not in caplog.text + str(refused.value) + refused.value.hint


def test_a_webhook_that_hangs_holds_nobody_up_and_keeps_no_more_than_so_many(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with hook() as url:
        _Hook.held.clear()
        webhook = Webhook(url)
        for _ in range(WEBHOOK_WAITING_MAX + 2):
            webhook.tell(LATE, over=False)
        assert "does not keep up" in caplog.text
        _Hook.held.set()
        webhook.close()


@pytest.mark.parametrize(
    "url", ["", "nothing", "https://", "http://host:port/", "http://user:word@host/", "http://a b/"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        Webhook(url)
