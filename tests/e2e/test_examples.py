"""Every program of ``examples/``, as a user would start it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from channelpay.chain.connection import connect
from channelpay.protocol.text import to_hex
from channelpay.testing.furnished import FurnishedChain
from tests.e2e.programs import ENVIRONMENT, REPOSITORY, Workplace, url_in

on_the_embedded_chain = pytest.mark.parametrize(
    "whole_chain", ["embedded"], indirect=True, scope="session"
)

EXAMPLES = REPOSITORY / "examples"
PRICE_WEI = 10**15
UVICORN = (ENVIRONMENT / "uvicorn", "--app-dir", REPOSITORY, "examples.get_paid:app", "--port", "0")
SCRIPT = (ENVIRONMENT / "python", EXAMPLES / "get_paid.py")

WorkplaceOf = Callable[[str, int], Workplace]


@pytest.fixture
def workplace(furnished: FurnishedChain, tmp_path: Path) -> WorkplaceOf:
    def make(name: str, number: int) -> Workplace:
        key = to_hex(furnished.chain.accounts[number].private_key)
        folder = tmp_path / name
        folder.mkdir()
        rpc_url = furnished.chain.rpc_url
        variables = {"CHANNELPAY_RPC": rpc_url, f"{name.upper()}_KEY": key, "PORT": "0"}
        return Workplace(folder, variables)

    return make


@on_the_embedded_chain
def test_get_paid_and_the_two_ways_to_pay(
    furnished: FurnishedChain, workplace: WorkplaceOf
) -> None:
    publisher, reader = workplace("publisher", 2), workplace("reader", 1)
    connection = connect(furnished.chain.rpc_url)
    first_block = connection.latest_block().number

    with publisher.serving(*UVICORN) as line:
        articles = f"{url_in(line)}/articles"
        paid = reader.run("python", EXAMPLES / "pay.py", f"{articles}/one")
        urls = [f"{articles}/{name}" for name in ("two", "three", "four")]
        paid_at_once = reader.run("python", EXAMPLES / "pay_async.py", *urls)

    payer = to_hex(furnished.chain.accounts[1].address)
    assert paid.stdout == f"Article one, paid for by {payer}\n"
    assert paid.stderr == f"paid {PRICE_WEI} wei\n"
    names = [line.split(",")[0] for line in paid_at_once.stdout.splitlines()]
    assert names == ["Article two", "Article three", "Article four"]
    assert paid_at_once.stderr == f"paid {4 * PRICE_WEI} wei in all\n"
    # Each transaction has a block of its own on this chain: one open, one close.
    assert connection.latest_block().number - first_block == 2


@on_the_embedded_chain
def test_pay_with_requests_and_with_one_call(workplace: WorkplaceOf) -> None:
    publisher, reader = workplace("publisher", 2), workplace("reader", 1)

    with publisher.serving(*UVICORN) as line:
        one, two = (f"{url_in(line)}/articles/{name}" for name in ("one", "two"))
        pages = reader.run("python", EXAMPLES / "pay_requests.py", one, two)
        bought = [reader.run("python", EXAMPLES / "pay_page.py", one, "once") for _ in range(2)]

    names = [line.split(",")[0] for line in pages.stdout.splitlines()]
    assert names == ["Article one", "Article two"]
    assert pages.stderr == f"paid {PRICE_WEI} wei\n" * 2
    assert bought[0].stdout == bought[1].stdout == pages.stdout.splitlines(keepends=True)[0]
    assert [one.stderr for one in bought] == [f"paid {PRICE_WEI} wei\n", "paid 0 wei\n"]


@on_the_embedded_chain
@pytest.mark.parametrize("framework", ["fastapi", "flask", "django", "wsgi"])
def test_each_framework_gets_paid_and_closes(
    furnished: FurnishedChain, workplace: WorkplaceOf, framework: str
) -> None:
    publisher, reader = workplace("publisher", 2), workplace("reader", 1)

    with publisher.serving("python", EXAMPLES / f"get_paid_{framework}.py") as line:
        paid = reader.run("python", EXAMPLES / "pay.py", f"{url_in(line)}/articles/one")
        closed = reader.run("python", EXAMPLES / "pay_async.py", f"{url_in(line)}/articles/two")

    payer = to_hex(furnished.chain.accounts[1].address)
    assert paid.stdout == f"Article one, paid for by {payer}\n"
    assert paid.stderr == f"paid {PRICE_WEI} wei\n"
    assert closed.stderr == f"paid {2 * PRICE_WEI} wei in all\n"


@on_the_embedded_chain
@pytest.mark.parametrize(
    ("framework", "path", "first", "units", "unit_wei"),
    [
        ("fastapi", "/answers?question=Why%3F", "You", 10, PRICE_WEI // 100),
        ("flask", "/poem", "A channel opened once,", 3, PRICE_WEI // 10),
        ("django", "/poem", "A channel opened once,", 3, PRICE_WEI // 10),
    ],
)
def test_a_stream_is_paid_by_the_unit_while_it_comes(
    workplace: WorkplaceOf, framework: str, path: str, first: str, units: int, unit_wei: int
) -> None:
    publisher, reader = workplace("publisher", 2), workplace("reader", 1)

    with publisher.serving("python", EXAMPLES / f"get_paid_{framework}.py") as line:
        read = reader.run("python", EXAMPLES / "pay.py", url_in(line) + path)

    events = read.stdout.removesuffix("\n\n").split("\n\n")
    assert (events[0], len(events)) == (f"data: {first}", units)
    assert read.stderr == f"paid {units * unit_wei} wei\n"


@on_the_embedded_chain
def test_get_paid_runs_as_a_script(workplace: WorkplaceOf) -> None:
    with workplace("publisher", 2).serving(*SCRIPT) as line:
        answer = httpx2.get(f"{url_in(line)}/articles/one")

    assert answer.status_code == 402
    assert answer.headers["WWW-Authenticate"].startswith("Payment ")


def test_every_example_is_in_their_readme() -> None:
    text = (EXAMPLES / "README.md").read_text()

    assert [path.name for path in EXAMPLES.glob("*.py") if f"]({path.name})" not in text] == []
