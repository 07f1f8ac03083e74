"""The site as it is run: a process of its own, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from click.testing import CliRunner

from channelpay.chain import keystore
from channelpay.cli.root import cli
from channelpay.errors import ConfigError
from channelpay.payee.folder import Folder
from channelpay.payee.secret import kept_secret
from channelpay.payee.server import listen
from channelpay.payee.site import PaidSite
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import NATIVE
from channelpay.protocol.wire import Credential, Payload, SessionRequest, VoucherPayload
from channelpay.store import SqliteStore
from channelpay.testing.furnished import FurnishedChain
from tests.payee.shop import (
    PRICE,
    OpenChannel,
    Payer,
    Shop,
    challenges_of,
    receipt_of,
    wait_for,
)

REPOSITORY = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from channelpay.cli import main; main()", "site"]
PASSWORD = "a password for tests"
ETHER = to_hex(NATIVE)


@dataclass(frozen=True)
class RunningSite:
    """A site's process, what it announced, and its state folder."""

    process: subprocess.Popen[str]
    ready: dict[str, Any]
    state: Path

    @property
    def url(self) -> str:
        return str(self.ready["url"])

    def get(self, path: str, **headers: str) -> httpx2.Response:
        return httpx2.get(self.url + path, headers=headers)

    def header(self, payload: Payload, path: str = "/page.md", **more: Any) -> str:
        (challenge,) = challenges_of(self.get(path))
        return Credential(challenge, payload, **more).to_header()

    def dump(self) -> object:
        with closing(SqliteStore(self.state / "books.sqlite3")) as store:
            records = store.records()
            return records, [store.payments(record.channel_id) for record in records]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("files")
    (root / "docs").mkdir()
    (root / "page.md").write_text("# A page\n\nSee [the other](docs/other.md).\n")
    (root / "docs" / "other.md").write_text("# The other\n")
    (root / "data.bin").write_bytes(bytes(range(256)) * 1000)
    (root / "free.md").write_text("# Free\n")
    (root / ".env").write_text("SECRET=1")
    return root


@contextmanager
def running(
    furnished: FurnishedChain, files: Path, state: Path, *options: str, **environment: str
) -> Iterator[RunningSite]:
    command = [
        *COMMAND,
        str(files),
        *("--token", to_hex(furnished.token)),
        *("--rpc", furnished.chain.rpc_url),
        *("--contract", to_hex(furnished.deployment.contract)),
        *("--state", str(state)),
        *("--port", "0"),
        *options,
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    assert process.stdout is not None
    try:
        yield RunningSite(process, json.loads(process.stdout.readline()), state)
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


@pytest.fixture(scope="module")
def site(
    furnished: FurnishedChain, files: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningSite]:
    home = tmp_path_factory.mktemp("home")
    key = to_hex(furnished.chain.accounts[2].private_key)
    keystore.import_key(home, "shop", key, PASSWORD)
    with running(
        furnished,
        files,
        home / "state",
        *("--price", "0.01", "--free", "/free.md", "--account", "shop"),
        CHANNELPAY_HOME=str(home),
        CHANNELPAY_PASSWORD=PASSWORD,
    ) as started:
        yield started


def opened(site: RunningSite, payer: Payer) -> OpenChannel:
    channel = payer.open()
    header = site.header(channel.open_payload(0), source=channel.source)
    response = httpx2.head(site.url + "/page.md", headers={"Authorization": header})
    assert response.status_code == 200
    return channel


def test_the_site_says_where_it_is_and_what_it_takes(
    site: RunningSite, furnished: FurnishedChain
) -> None:
    assert site.ready["payee"] == to_hex(furnished.chain.accounts[2].address)
    token = to_hex(furnished.token)
    assert site.ready["tokens"] == [{"address": token, "symbol": "TUSD", "decimals": 6}]
    assert site.ready["prices"] == [
        {"method": "any", "path": "/free.md", "unit": "request", "amounts": {}},
        {"method": "any", "path": "/**", "unit": "request", "amounts": {token: str(PRICE)}},
    ]


def test_a_page_is_paid_for_over_http(site: RunningSite, payer: Payer) -> None:
    channel = opened(site, payer)
    header = site.header(VoucherPayload(channel.sign(PRICE)))

    response = site.get("/page.md", Authorization=header, **{"Idempotency-Key": str(uuid4())})

    assert response.status_code == 200
    assert '<a href="docs/other.md">the other</a>' in response.text
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert receipt_of(response).spent == PRICE


def test_another_file_is_served_to_the_byte(site: RunningSite, payer: Payer) -> None:
    channel = opened(site, payer)
    header = site.header(VoucherPayload(channel.sign(PRICE)), "/data.bin")

    response = site.get("/data.bin", Authorization=header)

    assert response.content == bytes(range(256)) * 1000


@pytest.mark.parametrize("path", ["/", "/docs/", "/free.md", "/healthz"])
def test_indexes_the_health_check_and_free_pages_need_no_payment(
    site: RunningSite, path: str
) -> None:
    assert site.get(path).status_code == 200


def test_the_index_lists_the_pages_with_their_prices(site: RunningSite) -> None:
    page = site.get("/").text

    for piece in (
        '<a href="/page.md">A page</a></span><span class="cost">0.01 TUSD',
        '<a href="/docs/other.md">The other</a>',
        '<a href="/free.md">Free</a></span><span class="cost">free',
        '<a href="/data.bin">data.bin</a>',
    ):
        assert piece in page
    assert ".env" not in page


@pytest.mark.anyio
async def test_many_who_ask_for_indexes_do_not_hold_up_pages(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "free").mkdir()
    (tmp_path / "free" / "page.md").write_text("# A page")
    go_on, listing = threading.Event(), Folder.list

    def wait_and_list(folder: Folder, path: str) -> Iterator[str]:
        go_on.wait(60)
        return listing(folder, path)

    monkeypatch.setattr(Folder, "list", wait_and_list)
    transport = httpx2.ASGITransport(PaidSite(Folder(tmp_path), shop.payee))
    async with httpx2.AsyncClient(transport=transport, base_url="http://site") as client:
        indexes = [asyncio.ensure_future(client.get("/")) for _ in range(60)]
        try:
            page = await asyncio.wait_for(client.get("/free/page.md"), 20)
            assert not any(index.done() for index in indexes)
        finally:
            go_on.set()
            statuses = {(await index).status_code for index in indexes}

    assert (page.status_code, statuses) == (200, {200})


@pytest.mark.parametrize("path", ["/nowhere.md", "/.env", "/docs", "/nowhere/"])
def test_what_is_not_there_is_not_sold(site: RunningSite, path: str) -> None:
    assert site.get(path).status_code == 404


def test_only_reading_is_served(site: RunningSite) -> None:
    assert httpx2.post(site.url + "/page.md").status_code == 405


@pytest.mark.parametrize(
    "target", ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/docs/../.env"]
)
def test_a_raw_request_does_not_leave_the_folder(site: RunningSite, target: str) -> None:
    answer = raw_request(site, f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    assert answer.startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize("size", [10_000, 100_000])
def test_a_huge_credential_is_refused_with_a_problem_and_nothing_is_written(
    site: RunningSite, payer: Payer, size: int
) -> None:
    opened(site, payer)
    before = site.dump()

    response = site.get("/page.md", Authorization="Payment " + "e" * size)

    assert (response.status_code, response.json()["code"]) == (431, "credential-too-large")
    assert response.headers["content-type"] == "application/problem+json"
    assert site.dump() == before
    assert site.get("/healthz").status_code == 200


def test_a_huge_idempotency_key_is_refused_with_a_problem_and_nothing_is_written(
    site: RunningSite, payer: Payer
) -> None:
    channel = opened(site, payer)
    header = site.header(VoucherPayload(channel.sign(PRICE)))
    before = site.dump()

    response = site.get("/page.md", Authorization=header, **{"Idempotency-Key": "k" * 100_000})

    assert (response.status_code, response.json()["code"]) == (400, "invalid-input")
    assert site.dump() == before


def test_a_head_beyond_every_limit_is_cut_off(site: RunningSite) -> None:
    endless = b"GET / HTTP/1.1\r\nX: " + b"x" * (200 * 1024)

    assert raw_request(site, endless) in (b"", b"HTTP/1.1 400")
    assert site.get("/healthz").status_code == 200


def test_a_browser_sees_what_a_page_costs(site: RunningSite) -> None:
    response = site.get("/page.md", Accept="text/html")

    assert response.status_code == 402
    assert f"channelpay pay {site.url}/page.md" in response.text


def test_books_and_secret_are_for_their_owner_only(site: RunningSite) -> None:
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in site.state.iterdir()}

    assert modes["books.sqlite3"] == modes["challenge.key"] == 0o600
    assert stat.S_IMODE(site.state.stat().st_mode) == 0o700


def test_a_site_ends_cleanly_and_knows_its_channels_and_challenges_afterwards(
    furnished: FurnishedChain, files: Path, payer: Payer, tmp_path: Path
) -> None:
    payee = to_hex(furnished.chain.accounts[2].address)
    prices = tmp_path / "prices.toml"
    prices.write_text('[[price]]\npath = "/**"\nprice = "0.01"\n')
    options = ("--prices", str(prices), "--payee", payee)
    with running(furnished, files, tmp_path / "state", *options) as first:
        channel = opened(first, payer)
        header = first.header(VoucherPayload(channel.sign(PRICE)))
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(30) == 0

    with running(furnished, files, tmp_path / "state", *options) as second:
        response = second.get("/page.md", Authorization=header)
        assert response.status_code == 200

        second.process.send_signal(signal.SIGINT)
        assert second.process.wait(30) == 0


def test_a_site_takes_several_tokens_and_the_reader_chooses(
    furnished: FurnishedChain, files: Path, payer: Payer, tmp_path: Path
) -> None:
    token = to_hex(furnished.token)
    prices = ("--price", f"{token}=0.01", "--price", "eth=0.000004", "--free", "/free.md")
    payee = ("--payee", to_hex(furnished.chain.accounts[2].address))
    with running(furnished, files, tmp_path / "state", "--token", "eth", *prices, *payee) as site:
        assert [one["symbol"] for one in site.ready["tokens"]] == ["TUSD", "ETH"]
        assert site.ready["prices"][-1]["amounts"] == {token: "10000", ETHER: "4000000000000"}
        assert '<span class="cost">0.01 TUSD or 0.000004 ETH<' in site.get("/").text
        page = site.get("/page.md", Accept="text/html").text
        assert 'This page costs <strong class="price">0.01 TUSD or 0.000004 ETH<' in page

        asked = [SessionRequest.decode(one.request) for one in challenges_of(site.get("/page.md"))]
        currencies = [(one.currency, one.amount) for one in asked]
        assert currencies == [(furnished.token, PRICE), (NATIVE, 4 * 10**12)]

        for place, currency in enumerate((furnished.token, NATIVE)):
            channel = payer.open(2 * asked[place].amount, token=currency)
            challenge = challenges_of(site.get("/page.md"))[place]
            voucher = channel.open_payload(asked[place].amount)
            header = Credential(challenge, voucher, source=channel.source).to_header()
            response = site.get("/page.md", Authorization=header)
            assert response.status_code == 200
            assert receipt_of(response).spent == asked[place].amount


def test_a_changed_price_file_changes_the_prices_of_a_running_site(
    furnished: FurnishedChain, files: Path, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text('[[price]]\npath = "/**"\nprice = "0.01"\n')
    payee = to_hex(furnished.chain.accounts[2].address)
    options = ("--prices", str(prices), "--payee", payee)
    with running(furnished, files, tmp_path / "state", *options) as site:
        assert site.get("/page.md").json()["detail"] == "this costs 0.01 TUSD"

        prices.write_text('[[price]]\npath = "/**"\nprice = "0.2"\nunit = "kilobyte"\n')
        wait_for(lambda: "0.2 TUSD per kilobyte" in site.get("/page.md").json()["detail"])
        assert '<span class="cost">0.2 TUSD per kilobyte<' in site.get("/").text

        prices.write_text('[[price]]\npath = "/page.md"\nprice = "0"\n')
        wait_for(lambda: site.get("/page.md").status_code == 200)


def test_indexes_and_the_health_check_are_free_whatever_the_price_file_says(
    furnished: FurnishedChain, tmp_path: Path
) -> None:
    files = tmp_path / "files"
    (files / "docs").mkdir(parents=True)
    for name in ("healthz", "page.md", "docs/page.md"):
        (files / name).write_text("# A page")
    prices = tmp_path / "prices.toml"
    dear = ("/healthz", "/", "/**/", "/**")
    prices.write_text("".join(f'[[price]]\npath = "{path}"\nprice = "1"\n' for path in dear))
    payee = to_hex(furnished.chain.accounts[2].address)
    options = ("--prices", str(prices), "--payee", payee)
    with running(furnished, files, tmp_path / "state", *options) as site:
        statuses = [site.get(path).status_code for path in ("/healthz", "/", "/docs/", "/page.md")]
        assert statuses == [200, 200, 200, 402]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ((), "the prices are missing"),
        (("--price", "1", "--prices", "prices.toml"), "given twice"),
        (("--prices", "prices.toml", "--free", "/a"), "given twice"),
        (("--price", "1", "--price", "2"), "--price must name a token"),
        (("--price", "1", "--price", "eth=2"), "--price must name a token"),
        (("--price", "eth=1", "--price", "eth=2"), "--price must name a token"),
    ],
)
def test_prices_are_given_in_one_way(
    files: Path, tmp_path: Path, options: tuple[str, ...], problem: str
) -> None:
    command = ["site", str(files), "--token", "eth", "--rpc", "http://localhost:1", *options]

    done = CliRunner().invoke(cli, [*command, "--state", str(tmp_path)])

    assert done.exit_code == 2
    assert problem in done.stderr


def test_the_price_file_and_the_state_are_never_served(
    furnished: FurnishedChain, files: Path, tmp_path: Path
) -> None:
    prices = files / "prices.toml"
    prices.write_text('[[price]]\npath = "/docs/*"\nprice = "0.01"\n')
    payee = to_hex(furnished.chain.accounts[2].address)
    options = ("--prices", str(prices), "--payee", payee)
    try:
        with running(furnished, files, files / "state", *options) as site:
            paths = ("/prices.toml", "/state/books.sqlite3", "/state/challenge.key")
            assert [site.get(path).status_code for path in paths] == [404] * 3
            assert site.get("/docs/other.md").status_code == 402
            assert site.get("/page.md").status_code == 200
    finally:
        prices.unlink()


def test_the_secret_is_made_once(tmp_path: Path) -> None:
    secret = kept_secret(tmp_path / "key")

    assert len(secret) == 32
    assert kept_secret(tmp_path / "key") == secret
    assert [file.name for file in tmp_path.iterdir()] == ["key"]


def test_a_secret_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    kept_secret(tmp_path / "key")
    (tmp_path / "key").chmod(0o640)

    with pytest.raises(ConfigError):
        kept_secret(tmp_path / "key")


def test_a_cut_secret_is_not_used(tmp_path: Path) -> None:
    kept_secret(tmp_path / "key")
    (tmp_path / "key").write_bytes(b"short")

    with pytest.raises(ConfigError):
        kept_secret(tmp_path / "key")


def test_a_taken_port_is_a_configuration_error() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(ConfigError):
        listen("127.0.0.1", taken.getsockname()[1])


def raw_request(site: RunningSite, request: bytes) -> bytes:
    """The first bytes of the answer; empty if the site hangs up."""
    address = httpx2.URL(site.url)
    with socket.create_connection((address.host, address.port or 80), 30) as connection:
        try:
            connection.sendall(request)
            return connection.recv(12)
        except ConnectionError:
            return b""
