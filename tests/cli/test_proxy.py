"""``channelpay proxy`` as it is run: in processes of its own, in front of any server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from eth_account import Account

from channelpay.cli.output import Output
from channelpay.payee import server
from channelpay.payee.server import Place, listen
from channelpay.protocol.rules import ChannelRecord
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import ChannelId
from channelpay.protocol.wire import Credential, Payload, VoucherPayload
from channelpay.store import SqliteStore
from channelpay.testing.furnished import FurnishedChain
from tests.cli.conftest import Run
from tests.payee.shop import PRICE, OpenChannel, Payer, challenges_of, wait_for

REPOSITORY = Path(__file__).parents[2]
PASSWORD = "a password that nobody else may read"
SECRET = "a secret of the proxy and its upstream"
PRICES = """
[[price]]
path = "/free"
price = "0"

[[price]]
path = "/**"
price = "0.01"
"""


class _Handler(BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = json.dumps({"target": self.path, "headers": headers}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as behind:
        threading.Thread(target=behind.serve_forever).start()
        yield f"http://127.0.0.1:{behind.server_port}"
        behind.shutdown()


@dataclass(frozen=True)
class RunningProxy:
    """A proxy's process, what it announced, and its state folder."""

    process: subprocess.Popen[str]
    ready: dict[str, Any]
    state: Path
    metrics: str = ""

    @property
    def url(self) -> str:
        return str(self.ready["url"])

    def get(self, path: str, **headers: str) -> httpx2.Response:
        return httpx2.get(self.url + path, headers=headers)

    def credential(self, path: str, payload: Payload, **more: Any) -> str:
        """For the first token that is taken."""
        return Credential(challenges_of(self.get(path))[0], payload, **more).to_header()

    def opened(self, payer: Payer) -> OpenChannel:
        channel = payer.open()
        header = self.credential("/page", channel.open_payload(0), source=channel.source)
        response = httpx2.head(self.url + "/page", headers={"Authorization": header})
        assert response.status_code == 501  # The upstream of these tests knows no HEAD.
        return channel

    def pay(self, channel: OpenChannel, cumulative: int, path: str = "/page") -> httpx2.Response:
        header = self.credential(path, VoucherPayload(channel.sign(cumulative)))
        return self.get(path, Authorization=header, **{"Idempotency-Key": str(uuid4())})

    def record(self, channel_id: ChannelId) -> ChannelRecord:
        with closing(SqliteStore(self.state / "books.sqlite3")) as store:
            record = store.record(channel_id)
        assert record is not None
        return record

    def workers(self) -> list[int]:
        pid = self.process.pid
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture(scope="module")
def payer(whole_dev_chain: FurnishedChain) -> Payer:
    return Payer(whole_dev_chain)


@pytest.fixture(scope="module")
def account(
    whole_dev_chain: FurnishedChain, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The environment of somebody who has the account that is paid; the password is in a file."""
    home = tmp_path_factory.mktemp("home")
    home.chmod(0o700)
    key = whole_dev_chain.chain.accounts[2].private_key
    (home / "keystore").mkdir(mode=0o700)
    (home / "keystore" / "shop.json").touch(mode=0o600)
    # Quick to open: every process does.
    kept_key = json.dumps(Account.encrypt(key, PASSWORD, iterations=2))
    (home / "keystore" / "shop.json").write_text(kept_key)
    (home / "password").touch(mode=0o600)
    (home / "password").write_text(PASSWORD)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CHANNELPAY")}
    return {**kept, "CHANNELPAY_HOME": str(home)}


@contextmanager
def running(
    chain: FurnishedChain,
    upstream: str,
    folder: Path,
    account: dict[str, str],
    *options: str,
    prices: str = PRICES,
) -> Iterator[RunningProxy]:
    (folder / "prices.toml").write_text(prices)
    command = [
        *(sys.executable, "-c", "from channelpay.cli import main; main()", "proxy"),
        *("--upstream", upstream),
        *("--prices", str(folder / "prices.toml")),
        *(() if "--token" in options else ("--token", to_hex(chain.token))),
        *("--rpc", chain.chain.rpc_url),
        *("--contract", to_hex(chain.deployment.contract)),
        *("--account", "shop"),
        *("--password-file", str(Path(account["CHANNELPAY_HOME"]) / "password")),
        *("--state", str(folder / "state")),
        *("--port", "0"),
        *options,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=account)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, "the proxy did not start"
        yield RunningProxy(process, json.loads(line), folder / "state")
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


@pytest.fixture(scope="module")
def proxy(
    whole_dev_chain: FurnishedChain,
    upstream: str,
    account: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunningProxy]:
    folder = tmp_path_factory.mktemp("proxy")
    (folder / "secret").touch(mode=0o600)
    (folder / "secret").write_text(SECRET + "\n")
    secret = ("--upstream-secret-file", str(folder / "secret"))
    with listen("127.0.0.1", 0) as free:
        metrics = f"127.0.0.1:{free.getsockname()[1]}"
    options = ("--workers", "2", "--health-path", "/status", "--metrics", metrics, *secret)
    with running(whole_dev_chain, upstream, folder, account, *options) as started:
        yield replace(started, metrics=metrics)


def test_it_says_where_it_is_and_what_it_takes(
    proxy: RunningProxy, whole_dev_chain: FurnishedChain, upstream: str
) -> None:
    assert proxy.ready["upstream"] == upstream
    assert proxy.ready["payee"] == to_hex(whole_dev_chain.chain.accounts[2].address)
    (price,) = proxy.ready["prices"][-1]["amounts"].values()
    assert (proxy.ready["prices"][-1]["path"], price) == ("/**", str(PRICE))


def test_a_payment_reaches_the_upstream_signed(proxy: RunningProxy, payer: Payer) -> None:
    channel = proxy.opened(payer)

    asked = proxy.pay(channel, PRICE, "/page?a=b").json()

    assert asked["target"] == "/page?a=b"
    assert asked["headers"]["channelpay-payer"] == to_hex(channel.channel.payer)
    assert re.fullmatch(r"\d+\.[0-9a-f]{64}", asked["headers"]["channelpay-signature"])
    assert "authorization" not in asked["headers"]


@pytest.mark.parametrize("path", ["/free", "/status"])
def test_what_is_free_needs_no_payment(proxy: RunningProxy, path: str) -> None:
    assert proxy.get(path).json()["target"] == path


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_its_own_health_is_free(proxy: RunningProxy, path: str) -> None:
    assert proxy.get(path).json()["status"] == "ok"


def test_payments_at_two_workers_are_in_one_book(proxy: RunningProxy, payer: Payer) -> None:
    channel = proxy.opened(payer)

    answers = [proxy.pay(channel, number * PRICE) for number in range(1, 13)]

    assert [answer.status_code for answer in answers] == [200] * 12
    assert proxy.record(channel.id).spent == 12 * PRICE


def test_one_scrape_shows_what_all_workers_count(proxy: RunningProxy, payer: Payer) -> None:
    def accepted() -> float:
        text = httpx2.get(f"http://{proxy.metrics}/metrics").text
        counts = re.findall(
            r"^channelpay_payments_accepted_total{.*} ([0-9.]+)$", text, re.MULTILINE
        )
        return sum(map(float, counts))

    channel = proxy.opened(payer)
    before = accepted()
    for number in range(1, 9):
        proxy.pay(channel, number * PRICE)

    wait_for(lambda: accepted() - before == 8)


def test_a_worker_that_is_killed_costs_nobody_anything(proxy: RunningProxy, payer: Payer) -> None:
    channel = proxy.opened(payer)
    assert proxy.pay(channel, PRICE).status_code == 200
    before = proxy.workers()
    os.kill(before[0], signal.SIGKILL)

    answers = [proxy.pay(channel, number * PRICE) for number in range(2, 8)]

    assert [answer.status_code for answer in answers] == [200] * 6
    assert proxy.record(channel.id).spent == 7 * PRICE
    wait_for(lambda: len(proxy.workers()) == 2 and before[0] not in proxy.workers())


def test_no_process_shows_the_password_or_the_secret(proxy: RunningProxy) -> None:
    processes = [proxy.process.pid, *proxy.workers()]
    assert len(processes) == 3
    for pid in processes:
        for file in ("cmdline", "environ"):
            shown = Path(f"/proc/{pid}/{file}").read_bytes()
            assert PASSWORD.encode() not in shown
            assert SECRET.encode() not in shown


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_proxy_ends_cleanly_and_knows_its_channels_afterwards(
    whole_dev_chain: FurnishedChain,
    upstream: str,
    account: dict[str, str],
    payer: Payer,
    tmp_path: Path,
    workers: str,
) -> None:
    options = ("--workers", workers)
    with running(whole_dev_chain, upstream, tmp_path, account, *options) as first:
        channel = first.opened(payer)
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(30) == 0
    with running(whole_dev_chain, upstream, tmp_path, account, *options) as second:
        assert second.pay(channel, PRICE).status_code == 200


@pytest.fixture
def options(home: Path, dev_chain: FurnishedChain, tmp_path: Path) -> list[str]:
    (tmp_path / "prices.toml").write_text(PRICES)
    return [
        *("--prices", str(tmp_path / "prices.toml")),
        *("--token", to_hex(dev_chain.token)),
        *("--rpc", dev_chain.chain.rpc_url),
        *("--contract", to_hex(dev_chain.deployment.contract)),
        *("--payee", to_hex(dev_chain.chain.accounts[2].address)),
        *("--port", "0"),
    ]


@pytest.mark.parametrize(
    "changed",
    [
        ("--upstream", "http://127.0.0.1:3000/app"),
        ("--upstream", "127.0.0.1:3000"),
        ("--upstream-secret-file", "{folder}/open"),
        ("--upstream-secret-file", "{folder}/short"),
        ("--health-path", "/../x"),
        ("--prices", "{folder}/metered.toml"),
        ("--workers", "0"),
        ("--upstream-timeout", "0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(
    run: Run, options: list[str], changed: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "open").write_text(SECRET)
    (tmp_path / "open").chmod(0o644)
    (tmp_path / "short").touch(mode=0o600)
    (tmp_path / "short").write_text("short")
    metered = PRICES + 'unit = "kilobyte"\n'
    (tmp_path / "metered.toml").write_text(metered)
    name, value = changed
    given = [*options, "--upstream", "http://127.0.0.1:3000", name, value.format(folder=tmp_path)]

    result = run("proxy", *given)

    assert (result.exit_code, result.stdout) == (2, "")
    problem = json.loads(result.stderr.splitlines()[-1])
    assert problem["code"] in ("config", "invalid-input")
    assert SECRET not in result.stderr


def test_a_person_gets_a_table(
    run: Run, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def announce_only(service: Any, *_: Any, **__: Any) -> None:
        with service(Place(0, announces=True)):
            pass

    monkeypatch.setattr(server, "serve", announce_only)
    monkeypatch.setattr(Output, "of_process", classmethod(lambda cls: cls(as_json=False)))

    shown = run(
        "proxy", *options, "--upstream", "http://127.0.0.1:3000", env={"COLUMNS": "120"}
    ).stdout

    assert "Paid proxy" in shown
    for row in ("Upstream │ http://127.0.0.1:3000", "any /** │ 0.01 TUSD", "any /free │ free"):
        assert row in re.sub(" +", " ", shown)
