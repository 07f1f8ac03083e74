"""A site that sells passes and takes coupons, and its readers, each a process: what they read, what
it cost, and what reaches the chain.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from channelpay.payer.state import PayerState
from channelpay.protocol.text import to_hex
from channelpay.store import open_store
from tests.e2e.programs import ENVIRONMENT, REPOSITORY, Workplace, url_in
from tests.e2e.world import Person, World

pytestmark = pytest.mark.parametrize("whole_chain", ["embedded"], indirect=True, scope="session")

EXAMPLE = REPOSITORY / "examples" / "get_paid_passes.py"
PAGE = 10**15
LIMITS = ("--max", "0.003", "--deposit", "0.02")
READER = (ENVIRONMENT / "python", "-m", "tests.e2e.pass_reader")
SITE = (ENVIRONMENT / "python", "-m", "tests.e2e.pass_site")
PROCESSES = 3


@pytest.fixture
def workplace(workplace: Workplace) -> Workplace:
    """Its programs are among the tests."""
    return Workplace(workplace.folder, {**workplace.variables, "PYTHONPATH": str(REPOSITORY)})


@pytest.fixture
def site(workplace: Workplace) -> Iterator[str]:
    with workplace.serving("python", EXAMPLE) as line:
        yield f"{url_in(line)}/articles"


def paid(reader: Person, *urls: str) -> list[dict[str, Any]]:
    done = reader.do("pay", *urls, "--max", "0.001", "--json")
    return [json.loads(line) for line in done.errors.splitlines()]


def test_what_a_pass_covers_is_paid_once_and_what_is_not_used_comes_back(
    reader: Person, site: str
) -> None:
    offers = reader.do("offers", f"{site}/one", "--json").result["offers"]
    three = reader.do("pass", "buy", site, "three", *LIMITS, "--json").result
    read = paid(reader, f"{site}/one", f"{site}/two")
    listed = reader.do("pass", "list", "--json").result
    back = reader.do("pass", "refund", three["pass"], "--json").result
    after = paid(reader, f"{site}/three")
    closed = reader.do("channel", "close", three["channelId"], "--json").result

    passes = {one["label"]: one["amounts"] for one in offers if one["kind"] == "pass"}
    assert [list(one.values()) for one in passes.values()] == [[str(3 * PAGE)], [str(2 * PAGE)]]
    assert [(one["cost"], one["left"]) for one in read] == [("0", 2), ("0", 1)]
    assert [(one["plan"], one["left"], one["ended"]) for one in listed] == [("three", 1, None)]
    assert back["refunded"] == str(2 * PAGE // 3)
    assert after[0]["cost"] == str(PAGE)
    assert closed["settled"] == str(2 * PAGE - 2 * PAGE // 3 + PAGE)


def test_a_coupon_is_redeemed_by_one_reader_and_a_gift_by_another(
    reader: Person, publisher: Person, workplace: Workplace, site: str, world: World
) -> None:
    books = ("--state", str(workplace.folder))
    codes = workplace.folder / "codes.csv"
    given = ("--value", "0.001", "--count", "2", "--per-payer", "1", "--expires", "30d")
    issued = publisher.do("coupon", "issue", *given, "-o", str(codes), *books, "--json").result
    first, second = (row["code"] for row in csv.DictReader(codes.read_text().splitlines()))

    got = reader.do("coupon", "redeem", site, first, *LIMITS, "--json").result
    again = reader.run("coupon", "redeem", site, first, "--json")
    more = reader.run("coupon", "redeem", site, second, "--json")
    typo = reader.run("coupon", "redeem", site, second[:-1] + "0" * 3, "--json")
    (page,) = paid(reader, f"{site}/one")
    gift = reader.do("coupon", "buy", site, "--value", "0.002", *LIMITS, "--json").result
    publisher.do("coupon", "revoke", issued["batch"], *books)
    friend = world.person("friend", 3)
    late = friend.run("coupon", "redeem", site, second, *LIMITS, "--json")
    theirs = friend.do("coupon", "redeem", site, gift["code"], *LIMITS, "--json").result
    free = paid(friend, f"{site}/one", f"{site}/two")
    listed = publisher.do("coupon", "list", *books, "--json").result

    assert codes.stat().st_mode & 0o777 == 0o600
    assert got["amount"] == str(PAGE)
    assert again.problem["code"] == more.problem["code"] == "coupon-used"
    assert typo.problem["code"] == "coupon-not-valid"
    assert late.problem["code"] == "coupon-ended"
    assert [one["cost"] for one in (page, *free)] == ["0", "0", "0"]
    assert [one["label"] for one in page["why"]] == ["your credit"]
    assert theirs["amount"] == str(2 * PAGE)
    assert {(one["label"], one["redeemed"], one["count"]) for one in listed} == {
        ("", 1, 2),
        ("gift", 1, 1),
    }


def test_programs_that_share_a_pass_follow_its_tokens_and_buy_the_next_one_once(
    reader: Person, workplace: Workplace, world: World
) -> None:
    """Tokens are replaced every moment at this site, and passes end after so many pages."""
    with workplace.serving(*SITE) as line:
        url = f"{url_in(line)}/articles"
        for plan in ("hour", "nine"):
            reader.do("pass", "buy", url, plan, "--renew", *LIMITS, "--json")
        reader_key = to_hex(world.chain.accounts[1].private_key)
        books = reader.home / "payer.sqlite3"
        variables = {**workplace.variables, "READER_KEY": reader_key}
        place = Workplace(workplace.folder, variables)

        def read(number: int) -> Any:
            return json.loads(place.run(*READER, str(books), url, str(number)).stdout)

        with ThreadPoolExecutor(PROCESSES) as pool:
            results = list(pool.map(read, range(PROCESSES)))

    statuses = [status for one in results for status, _ in one]
    assert set(statuses) == {200}
    assert sum(cost for one in results for _, cost in one) == 0
    with closing(PayerState(books)) as state:
        held = state.passes.all(world.chain.accounts[1].address)
    with closing(open_store(f"sqlite:///{workplace.folder / 'books.sqlite3'}")) as store:
        (record,) = store.records()
        payments = [stored.payment for stored in store.payments(record.channel_id)]
    counted = [one for one in payments if one.kind == "pass-use"]
    bought = [one for one in payments if one.kind == "pass"]
    uses = sum(one.served for one in counted)
    assert uses == PROCESSES * 12
    # Of nine pages each; the pass for an hour is one, and cannot have been bought twice.
    assert len(bought) == 1 + -(-uses // 9)
    assert len(held) == len(bought)
    assert record.spent == sum(one.price for one in bought)
    (hour,) = (one for one in held if one.plan == "hour")
    assert hour.ended is None
    assert hour.token != "", "it was followed"
