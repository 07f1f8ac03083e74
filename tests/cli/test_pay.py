"""``channelpay pay`` over real HTTP, from a payee of the real rules and no chain."""

from __future__ import annotations

import json
import os
import pty
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from channelpay.cli import pay
from channelpay.cli.limits import BudgetSettings, TokenBudget
from channelpay.cli.output import Output
from channelpay.errors import ConfigError
from channelpay.payer import records
from channelpay.payer.client import Payer
from channelpay.payer.limits import Limits
from channelpay.payer.records import PayerChannel
from channelpay.payer.steps import Answer, Send
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import NATIVE
from channelpay.testing.furnished import FurnishedChain
from tests.cli.conftest import Run
from tests.payer.site import DEPLOYMENT, KEY, Ground, Site
from tests.payer.stream_server import StreamServer, serving

ETHER = 10**18
UNIT = 10**12
"""One base unit of :class:`Site` prices, so that they are amounts of ether with few digits."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        headers = {name: value for name, value in self.headers.items() if name in _OURS}
        path = self.path
        if path == "/missing":
            answer = Answer(404, path)
        else:
            with self.server.lock:
                answer = self.server.site.answer(f"{self.server.url}{path}", Send(headers))
        self._respond(answer, f"content of {path}\n".encode())

    def _respond(self, answer: Answer, content: bytes) -> None:
        body = json.dumps(answer.problem).encode() if answer.problem else content
        self.send_response(answer.status)
        for challenge in answer.challenges:
            self.send_header("WWW-Authenticate", challenge)
        if answer.receipt is not None:
            self.send_header("Payment-Receipt", answer.receipt)
        if answer.problem:
            self.send_header("Content-Type", "application/problem+json")
        missing = 10 if self.path == "/short" else 0
        self.send_header("Content-Length", str(len(body) + missing))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: the test's output is the program's."""


_OURS = {"Authorization", "Idempotency-Key"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, site: Site) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.site = site
        self.paths: list[str] = []
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    # The program's clock is the real one; the site's challenges must not have expired.
    monkeypatch.setattr("tests.payer.site.NOW", time.time())
    return Site(default_price=UNIT)


@pytest.fixture
def server(site: Site) -> Iterator[_Server]:
    server = _Server(site)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def ground(run: Run, home: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> Ground:
    """The program's own books, with the key that the tests know imported."""
    assert run("account", "import", "main", input=KEY.hex()).exit_code == 0
    monkeypatch.setenv("CHANNELPAY_CONTRACT", to_hex(DEPLOYMENT.contract))
    return Ground(home, site)


@pytest.fixture
def channel(ground: Ground) -> PayerChannel:
    return ground.open(deposit=5 * UNIT)


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stderr.splitlines()]


def test_the_content_goes_to_standard_output_and_the_receipt_to_standard_error(
    run: Run, server: _Server, channel: PayerChannel
) -> None:
    result = run("pay", f"{server.url}/a", f"{server.url}/b", "--max", "0.000001")
    assert result.exit_code == 0, result.output
    assert result.stdout == "content of /a\ncontent of /b\n"
    short = to_hex(channel.channel_id)[:10]
    first, second = result.stderr.splitlines()
    assert first.startswith(f"paid 0.000001 ETH: {server.url}/a (0.000001 ETH of 0.000005 ETH")
    assert short in first
    assert "(0.000002 ETH of" in second


def test_several_urls_take_one_channel_and_one_round_trip_each_after_the_first(
    run: Run, server: _Server, ground: Ground, channel: PayerChannel
) -> None:
    urls = [f"{server.url}/{name}" for name in "abc"]
    result = run("pay", *urls, "--max", "0.000001", "--json")
    assert [line["cost"] for line in lines(result)] == [str(UNIT)] * 3
    assert {line["channelId"] for line in lines(result)} == {to_hex(channel.channel_id)}
    assert server.paths == ["/a", "/a", "/b", "/c"]
    assert ground.state.channel(channel.channel_id).url == urls[-1]


def test_a_later_run_pays_at_once_from_the_same_channel(
    run: Run, server: _Server, channel: PayerChannel
) -> None:
    for _ in range(2):
        assert run("pay", f"{server.url}/a", "--max", "0.000001").exit_code == 0
    assert server.paths == ["/a", "/a", "/a"]


def test_a_price_over_the_limit_is_said_in_units_of_the_token(
    run: Run, server: _Server, ground: Ground, channel: PayerChannel
) -> None:
    result = run("pay", f"{server.url}/a", "--max", "0.0000001")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "it costs 0.000001 ETH" in result.stderr
    assert "--max 0.000001" in result.stderr
    assert ground.state.channel(channel.channel_id).signed == 0


def test_without_a_channel_and_a_deposit_nothing_is_opened(
    run: Run, server: _Server, ground: Ground
) -> None:
    result = run("pay", f"{server.url}/a", "--max", "1")
    assert result.exit_code == 4
    assert "opening one is not allowed" in result.stderr
    assert ground.state.channels(ground.payer) == []


def test_another_token_is_not_paid_in(
    run: Run, server: _Server, site: Site, channel: PayerChannel
) -> None:
    site.request_fields = {"currency": b"\x99" * 20}
    result = run("pay", f"{server.url}/a", "--max", "1")
    assert result.exit_code == 4
    assert "--token" in result.stderr


def test_a_free_page_is_said_to_be_free(
    run: Run, server: _Server, site: Site, ground: Ground
) -> None:
    site.prices[f"{server.url}/free"] = None
    result = run("pay", f"{server.url}/free")
    assert result.stdout == "content of /free\n"
    assert result.stderr == f"free: {server.url}/free\n"


def test_content_goes_into_a_file(
    run: Run, server: _Server, channel: PayerChannel, tmp_path: Path
) -> None:
    target = tmp_path / "page"
    result = run("pay", f"{server.url}/a", "--max", "1", "-o", target)
    assert (result.exit_code, result.stdout) == (0, "")
    assert target.read_text() == "content of /a\n"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/docs/a.txt?x=1", "a.txt"),
        ("/", "index.html"),
        ("/%2e%2e%2fevil", "evil"),
        ("/.profile", "index.html"),
        ("/a%5Cb", "index.html"),
        ("/a%0Ab", "index.html"),
    ],
)
def test_files_are_named_by_the_url_and_stay_in_the_folder(
    run: Run,
    server: _Server,
    channel: PayerChannel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    name: str,
) -> None:
    folder = tmp_path / "deep" / "folder"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert run("pay", f"{server.url}{path}", "--max", "1", "-O").exit_code == 0
    assert [file.name for file in folder.iterdir()] == [name]
    assert [file.name for file in folder.parent.iterdir()] == ["folder"]


def test_one_file_does_not_take_several_urls(run: Run, tmp_path: Path) -> None:
    result = run("pay", "https://a/", "https://b/", "-o", tmp_path / "file")
    assert (result.exit_code, "one URL" in result.stderr) == (2, True)


def test_a_failure_is_an_error_with_the_url_and_leaves_no_file(
    run: Run, server: _Server, channel: PayerChannel, tmp_path: Path
) -> None:
    target = tmp_path / "page"
    result = run("pay", f"{server.url}/missing", "--max", "1", "-o", target)
    assert result.exit_code == 5
    assert f"{server.url}/missing" in result.stderr
    assert not target.exists()


def test_content_that_breaks_off_leaves_no_file(
    run: Run, server: _Server, ground: Ground, tmp_path: Path
) -> None:
    server.site.prices[f"{server.url}/short"] = None
    folder = tmp_path / "folder"
    folder.mkdir()
    result = run("pay", f"{server.url}/short", "-o", folder / "page")
    assert result.exit_code == 3, result.output
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("deposit", "deposit_max", "expected"),
    [
        (None, None, Limits(NATIVE, ETHER, 0, 0, 0)),
        ("2", None, Limits(NATIVE, ETHER, 2 * ETHER, 2 * ETHER, 0)),
        ("2", "5", Limits(NATIVE, ETHER, 5 * ETHER, 2 * ETHER, 2 * ETHER)),
        ("2", "1", Limits(NATIVE, ETHER, 2 * ETHER, 2 * ETHER, 0)),
    ],
)
def test_the_options_are_the_payers_limits(
    deposit: str | None, deposit_max: str | None, expected: Limits
) -> None:
    options = {"request": "1", "deposit": deposit, "channel": deposit_max}
    assert pay.Wish(options).limits(records.ETHER) == expected


def test_the_limit_of_a_metered_response_is_an_option_of_its_own() -> None:
    limits = pay.Wish({"request": "1", "metered": "3"}).limits(records.ETHER)
    assert (limits.price_max, limits.metered_max) == (ETHER, 3 * ETHER)


@pytest.fixture
def stream(site: Site, home: Path, ground: Ground) -> Iterator[StreamServer]:
    """A stream of 400 events that cost a base unit of the site each."""
    site.metered, site.media_type = True, "text/event-stream"
    site.request_fields = {"unit_type": "token"}
    with serving(StreamServer(site, [UNIT] * 400)) as server:
        ground.open(deposit=2000 * UNIT)
        yield server


def test_a_stream_is_paid_for_as_it_comes_and_its_cost_said_at_the_end(
    run: Run, stream: StreamServer
) -> None:
    result = run("pay", stream.url, "--max-cost", "0.001")
    assert result.exit_code == 0, result.output
    assert result.stdout == "".join(f"data: {count * UNIT}\n\n" for count in range(1, 401))
    assert result.stderr.startswith(f"paid 0.0004 ETH: {stream.url} (0.0004 ETH of 0.002 ETH")


def test_a_stream_that_reaches_the_limit_is_stopped_and_says_what_it_cost(
    run: Run, stream: StreamServer
) -> None:
    result = run("pay", stream.url, "--max-cost", "0.0003")
    assert result.exit_code == 4
    assert result.stdout.endswith(f"data: {300 * UNIT}\n\n")
    assert "stopped when it had cost up to 0.0003 ETH: the limit is 0.0003 ETH" in result.stderr
    assert "--max-cost" in result.stderr


def test_a_stream_that_uses_the_channel_up_says_so(
    run: Run, stream: StreamServer, ground: Ground
) -> None:
    result = run("pay", stream.url, "--max-cost", "1")
    assert result.exit_code == 0
    stream.amounts = [UNIT] * 2000
    result = run("pay", stream.url, "--max-cost", "1")
    assert result.exit_code == 4
    assert "the channel is used up" in result.stderr


def test_without_max_cost_a_stream_costs_no_more_than_max(run: Run, stream: StreamServer) -> None:
    result = run("pay", stream.url, "--max", "0.00001")
    assert (result.exit_code, result.stdout.count("data:")) == (4, 10)


def test_a_stream_is_written_as_it_comes(run: Run, stream: StreamServer, tmp_path: Path) -> None:
    stream.hold_after = 1
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def read() -> str:
        with pipe.open() as reader:
            first = reader.readline()
            stream.released.set()
            return first + reader.read()

    with ThreadPoolExecutor(1) as threads:
        content = threads.submit(read)
        result = run("pay", stream.url, "--max-cost", "1", "-o", pipe)
        assert (result.exit_code, content.result(10).count("data:")) == (0, 400)


def test_ctrl_c_while_a_channel_is_opened_says_what_to_run(
    run: Run,
    server: _Server,
    ground: Ground,
    dev_chain: FurnishedChain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Payer, "perform", interrupted)
    node = ("--rpc", dev_chain.chain.rpc_url)
    result = run("pay", f"{server.url}/a", "--max", "1", "--deposit", "1", *node)
    assert result.exit_code == 130
    assert "channelpay channel list" in result.stderr


def test_the_first_failure_ends_it(run: Run, server: _Server, channel: PayerChannel) -> None:
    result = run("pay", f"{server.url}/missing", f"{server.url}/a", "--max", "1", "--json")
    assert result.exit_code == 5
    assert server.paths == ["/missing"]
    (problem,) = lines(result)
    assert problem["code"] == "not-found"


def test_the_payees_refusal_keeps_its_code(
    run: Run, server: _Server, site: Site, channel: PayerChannel
) -> None:
    problem = {"code": "signer-mismatch", "detail": "who is \x1b[2Jthis?"}
    site.scripted = [
        Answer(402, "", challenges=(site.challenge(UNIT),)),
        Answer(402, "", challenges=(site.challenge(UNIT),), problem=dict(problem)),
    ]
    result = run("pay", f"{server.url}/a", "--max", "1", "--json")
    assert result.exit_code == 4
    (shown,) = lines(result)
    assert shown["code"] == "signer-mismatch"
    assert "\x1b" not in shown["detail"]


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://127.0.0.1:1/", 3),
        ("ftp://example/", 2),
        ("nothing", 2),
        ("http://a..example/", 2),
        ("http://127.0.0.1:1/\udcff", 2),
    ],
)
def test_a_url_that_leads_nowhere(run: Run, ground: Ground, url: str, code: int) -> None:
    result = run("pay", url, "--max", "1")
    assert result.exit_code == code, result.output


def test_a_file_that_cannot_be_written_is_named(
    run: Run, server: _Server, channel: PayerChannel, tmp_path: Path
) -> None:
    for target in (tmp_path / "none" / "page", tmp_path):
        result = run("pay", f"{server.url}/a", "--max", "1", "-o", target)
        assert (result.exit_code, "cannot be written" in result.stderr) == (2, True)
    assert server.paths == []


def test_a_dry_run_says_what_would_be_promised_and_signs_nothing(
    run: Run, server: _Server, site: Site, ground: Ground, channel: PayerChannel
) -> None:
    site.prices |= {f"{server.url}/free": None, f"{server.url}/dear": 2 * UNIT}
    urls = [f"{server.url}/{name}" for name in ("a", "free")]

    seen = run("pay", *urls, "--max", "0.000001", "--dry-run", "--json")
    people = run("pay", urls[0], "--max", "0.000001", "--dry-run")
    refused = run("pay", f"{server.url}/dear", "--max", "0.000001", "--dry-run")

    first, second = map(json.loads, seen.stdout.splitlines())
    assert (seen.exit_code, people.exit_code, refused.exit_code) == (10, 10, 4)
    assert first["channelId"] == to_hex(channel.channel_id)
    assert (first["open"], first["topUp"], first["promised"]) == (None, None, str(UNIT))
    assert second == {"dryRun": True, "url": urls[1], "cost": "0"}
    assert people.stdout == f"would promise 0.000001 ETH more: {urls[0]}\n"
    assert ground.state.channel(channel.channel_id).signed == 0


def test_a_pipe_is_written_to_and_not_replaced(
    run: Run, server: _Server, channel: PayerChannel, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as threads:
        content = threads.submit(pipe.read_text)
        result = run("pay", f"{server.url}/a", "--max", "1", "-o", pipe)
        assert (result.exit_code, content.result(10)) == (0, "content of /a\n")
    assert pipe.is_fifo()


def test_a_paid_request_whose_answer_is_lost_is_repeated_and_not_charged_twice(
    run: Run,
    server: _Server,
    ground: Ground,
    channel: PayerChannel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    respond = _Handler._respond
    lost: list[str] = []

    def lose_the_first(self: _Handler, answer: Answer, content: bytes) -> None:
        if answer.receipt is None or lost:
            respond(self, answer, content)
        else:
            lost.append(self.path)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    monkeypatch.setattr(_Handler, "_respond", lose_the_first)
    result = run("pay", f"{server.url}/a", "--max", "1")
    assert (result.exit_code, result.stdout) == (0, "content of /a\n")
    assert lost == ["/a"]
    assert ground.state.channel(channel.channel_id).signed == UNIT
    assert server.site.records[channel.channel_id].spent == UNIT


def test_content_that_does_not_decode_is_an_error_of_ours(
    run: Run, server: _Server, site: Site, ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.prices[f"{server.url}/a"] = None
    end_headers = _Handler.end_headers

    def say_gzip(self: _Handler) -> None:
        self.send_header("Content-Encoding", "gzip")
        end_headers(self)

    monkeypatch.setattr(_Handler, "end_headers", say_gzip)
    result = run("pay", f"{server.url}/a")
    assert (result.exit_code, type(result.exception)) == (3, SystemExit)


# --- the budget ----------------------------------------------------------------------------------


def settings(home: Path, **limits: str) -> None:
    told = {"request": "0.00001", "origin_day": "0.0001", "day": "0.001", **limits}
    text = "".join(f'{name} = "{amount}"\n' for name, amount in told.items())
    (home / "config.toml").write_text(f"[budget.eth]\n{text}")


def at_a_terminal(*arguments: str, answers: str) -> tuple[int, str]:
    """The program's exit code, and what it shows while somebody types an answer to each prompt."""
    screen, end = pty.openpty()
    program = (sys.executable, "-c", "from channelpay.cli import main; main()", *arguments)
    with os.fdopen(end, "wb") as keyboard:
        process = subprocess.Popen(program, stdin=keyboard, stdout=keyboard, stderr=keyboard)
    shown, deadline = b"", time.monotonic() + 60
    while process.poll() is None or select.select([screen], [], [], 0)[0]:
        assert time.monotonic() < deadline, shown
        if not select.select([screen], [], [], 0.1)[0]:
            continue
        try:
            shown += os.read(screen, 4096)
        except OSError:  # The program has ended.
            break
        if answers and shown.rstrip().endswith(b"[n]:"):
            os.write(screen, answers[:1].encode() + b"\n")
            answers = answers[1:]
    os.close(screen)
    return process.wait(timeout=60), shown.decode()


def test_a_small_page_is_paid_without_any_limit_named_and_a_dear_one_is_refused(
    run: Run, server: _Server, ground: Ground
) -> None:
    ground.open(deposit=ETHER)
    server.site.prices[f"{server.url}/dear"] = 100 * UNIT
    assert run("pay", f"{server.url}/small").exit_code == 0
    refused = run("pay", f"{server.url}/dear")
    assert refused.exit_code == 4
    assert "it costs 0.0001 ETH, and the limit is 0.00002 ETH" in refused.stderr
    assert "--max 0.0001" in refused.stderr
    (entry,) = ground.state.channels(ground.payer)
    assert entry.spent == UNIT


def test_many_small_pages_are_not_paid_without_end(
    run: Run, server: _Server, home: Path, ground: Ground
) -> None:
    settings(home, origin_day="0.000002")
    ground.open(deposit=ETHER)
    urls = [f"{server.url}/{name}" for name in "abc"]
    refused = run("pay", *urls)
    assert (refused.exit_code, refused.stdout) == (4, "content of /a\ncontent of /b\n")
    assert "limit for this origin today is 0.000002 ETH, of which 0.000002 ETH is used" in (
        refused.stderr
    )
    assert "--max-day 0.000003" in refused.stderr
    assert run("pay", urls[2], "--max-day", "0.000003").exit_code == 0


def test_beyond_a_limit_a_person_is_asked_once_for_each_url(
    server: _Server, home: Path, ground: Ground
) -> None:
    settings(home, day="0 ETH")
    ground.open(deposit=ETHER)
    code, shown = at_a_terminal("pay", f"{server.url}/a", answers="n")
    assert (code, server.site.highest) == (4, {})
    assert "it costs 0.000001 ETH, and the limit" in shown
    code, shown = at_a_terminal("pay", f"{server.url}/a", f"{server.url}/a", answers="y")
    assert (code, shown.count("content of /a")) == (0, 2), shown


def test_always_is_for_this_origin_today_and_for_programs_too(
    run: Run, server: _Server, home: Path, ground: Ground
) -> None:
    settings(home, request="0")
    ground.open(deposit=ETHER)
    code, _ = at_a_terminal("pay", f"{server.url}/a", answers="a")
    assert code == 0
    assert run("pay", f"{server.url}/b").exit_code == 0
    server.site.prices[f"{server.url}/dear"] = 2 * UNIT
    assert run("pay", f"{server.url}/dear").exit_code == 4


def test_who_is_not_listed_in_the_settings_is_not_paid(
    run: Run, server: _Server, home: Path, ground: Ground
) -> None:
    (home / "config.toml").write_text('[budget]\norigins = ["https://site.example"]\n')
    ground.open()
    refused = run("pay", f"{server.url}/a", "--max", "1")
    assert (refused.exit_code, "not among those" in refused.stderr) == (4, True)


def test_the_settings_open_a_channel_where_no_option_does() -> None:
    budget = TokenBudget("1", "2", "3", total="4", metered="5", deposit="6", channel="7")
    wish = pay.Wish({"request": "0.5"}, BudgetSettings({"eth": budget}))
    assert wish.limits(records.ETHER) == Limits(
        NATIVE,
        price_max=ETHER // 2,
        deposit_max=7 * ETHER,
        deposit=6 * ETHER,
        top_up=6 * ETHER,
        total_max=4 * ETHER,
        metered_max=5 * ETHER,
        day_max=3 * ETHER,
        origin_day_max=2 * ETHER,
    )


def test_an_amount_in_another_unit_is_refused() -> None:
    wish = pay.Wish({}, BudgetSettings({"eth": TokenBudget("1 USDC", "2", "3")}))
    with pytest.raises(ConfigError, match="in USDC, and the token is ETH"):
        wish.limits(records.ETHER)


def test_budget_shows_what_was_spent_and_what_is_left(
    run: Run, server: _Server, home: Path, ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings(home, total="1")
    ground.open(deposit=ETHER)
    run("pay", f"{server.url}/a", f"{server.url}/b")
    (shown,) = json.loads(run("budget").stdout)
    assert (shown["symbol"], shown["paid"], shown["promised"]) == ("ETH", *2 * [str(2 * UNIT)])
    assert shown["limits"]["originDay"] == str(100 * UNIT)
    assert shown["left"] == str(100 * UNIT), "at another origin"
    (origin,) = shown["origins"]
    assert (origin["origin"], origin["left"]) == (server.url, str(98 * UNIT))
    monkeypatch.setattr(Output, "of_process", classmethod(lambda cls: cls(as_json=False)))
    table = run("budget").stdout
    assert (server.url in table, "0.000098 ETH" in table) == (True, True)
