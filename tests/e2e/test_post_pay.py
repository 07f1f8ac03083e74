"""Sites whose price is paid, or known, after they were read, and their readers, each a process:
what is owed, when it is paid, what both sides' statements and receipts say, and what reaches the
chain.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from channelpay.protocol.receipts import SignedReceipt
from tests.e2e.programs import ENVIRONMENT, REPOSITORY, Workplace, url_in
from tests.e2e.world import Person, World

pytestmark = pytest.mark.parametrize("whole_chain", ["embedded"], indirect=True, scope="session")

EXAMPLE = REPOSITORY / "examples" / "get_paid_later.py"
PRICE = 10**15
TOTAL = 5 * PRICE
START = 3 * PRICE
"""What a new reader may owe there."""
WISH = ("--max", "0.001", "--max-tab", "0.01", "--deposit", "0.02", "--keep", "--json")


def read(reader: Person, *urls: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in reader.do("pay", *urls, *WISH).errors.splitlines()]


def test_what_is_read_first_is_paid_by_itself_and_by_hand_and_settled(
    world: World, reader: Person, workplace: Workplace
) -> None:
    with workplace.serving("python", EXAMPLE) as line:
        page = f"{url_in(line)}/articles"
        stranger = reader.do("offers", f"{page}/one", "--json").result
        five = read(reader, *(f"{page}/{name}" for name in ("1", "2", "3", "4", "5")))
        owing = reader.do("tab", "show", "--json").result
        asked = reader.do("tab", "pay", f"{page}/5", "--ask", "--json").result
        paid = reader.do("tab", "pay", f"{page}/5", "--keep", "--json").result
        again = reader.do("tab", "pay", f"{page}/5", "--json").result
        closed = reader.do("channel", "close", five[0]["channelId"], "--json").result

    assert [one["kind"] for one in stranger["offers"]] == ["per-request", "tab"]
    # Three are put on the tab, then it is full: the fourth is paid with them, the fifth fits again.
    assert [int(one["cost"]) for one in five] == [0, 0, 0, START + PRICE, 0]
    owed = [int(one["tab"]["owed"]) for one in five]
    assert owed == [PRICE, 2 * PRICE, START, 0, PRICE]
    assert int(five[4]["tab"]["limit"]) == START + START // 2
    assert [int(one["owed"]) for one in owing] == [PRICE]
    assert (asked["tab"]["owed"], asked["known"]) == (str(PRICE), str(PRICE))
    assert (int(paid["paid"]), paid["tab"]["owed"], int(again["paid"])) == (PRICE, "0", 0)
    assert int(closed["settled"]) == TOTAL
    the_statements_say_what_reached_the_chain(reader, workplace.folder, closed["txHash"])
    what_was_kept_is_a_proof(reader, f"GET {page}/4")


def the_statements_say_what_reached_the_chain(reader: Person, folder: Path, sent: str) -> None:
    """Of both sides, to the base unit."""
    books = ("--store", f"sqlite:///{folder / 'books.sqlite3'}")
    files = ("--html", str(folder / "s.html"), "--csv", str(folder / "s.csv"))
    (sold,) = reader.do("statement", "payee", *books, *files, "--json").result
    (bought,) = reader.do("statement", "payer", "--json").result

    assert [one["closing"] for one in (*sold["channels"], *bought["channels"])] == [str(TOTAL)] * 2
    for side in (sold, bought):
        assert sum(int(line["onTab"]) for line in side["lines"]) == 4 * PRICE
        assert {line["kind"]: (line["count"], int(line["amount"])) for line in side["lines"]} == {
            "sale": (1, PRICE),
            "tab": (4, 0),
            "tab-payment": (2, 4 * PRICE),
        }
    assert (int(sold["total"]), sold["transactions"][0]["txHash"]) == (TOTAL, sent)
    rows = list(csv.DictReader((folder / "s.csv").read_text().splitlines()))
    assert sum(int(row["amount"]) for row in rows if row["row"] == "line") == TOTAL
    html = (folder / "s.html").read_text()
    assert sent in html
    assert "0.005 ETH" in html


def what_was_kept_is_a_proof(reader: Person, resource: str) -> None:
    kept = reader.do("receipt", "list", "--json").result
    (fourth,) = [one["number"] for one in kept if one["kind"] == "sale"]
    proof = reader.do("receipt", "show", str(fourth), "--json").result
    receipt = SignedReceipt.from_json(json.dumps(proof).encode())

    receipt.check()
    signed = [one["kind"] for one in kept if one["signed"]]
    assert signed == ["tab", "tab", "tab", "sale", "tab"]
    assert (receipt.amount, receipt.resource) == (PRICE, resource)


WORD = 10**14
COUNTS = {"stream": 12, "body": 5, "whole": 12}


def test_a_stream_and_a_body_by_the_word_are_proven_to_somebody_without_a_node(
    world: World, reader: Person, workplace: Workplace
) -> None:
    variables = {**workplace.variables, "CHALLENGE_SECRET": "5a" * 32}
    uvicorn = (ENVIRONMENT / "uvicorn", "--app-dir", REPOSITORY, "tests.e2e.stream_site:app")
    limits = ("--max", "0.0001", "--max-cost", "0.01", "--deposit", "0.02")
    auditor = world.person("auditor", 3)
    with Workplace(workplace.folder, variables).serving(*uvicorn, "--port", "0") as line:
        urls = [f"{url_in(line)}/{kind}/{count}" for kind, count in COUNTS.items()]
        reader.do("pay", *urls, *limits, "--keep", "--json")
        kept = reader.do("receipt", "list", "--json").result
        reader.do("channel", "close", kept[0]["channelId"], "--json")
        again = reader.do("receipt", "fetch", "1", "--json").output

    costs = [str(count * WORD) for count in COUNTS.values()]
    assert [one["cost"] for one in kept] == costs
    assert [one["signed"] for one in kept] == [True] * 3
    shown = [reader.do("receipt", "show", str(number), "--json").output for number in (1, 2, 3)]
    assert shown[0] == again
    for number, url in enumerate(urls):
        file = world.homes / f"{number}.json"
        file.write_text(shown[number])
        proven = auditor.do("receipt", "verify", str(file), "--json").result
        assert (proven["valid"], proven["resource"]) == (True, f"GET {url}")
        assert proven["amount"] == costs[number]
