"""A network of sites, two members' sites and a reader, each a process, with the network's books in
either store: what the reader has, what the members see, and what reaches the chain.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import NATIVE, Address
from scripts.docs.blocks import DOCS, blocks_of
from tests.e2e.programs import REPOSITORY, Workplace, url_in
from tests.e2e.world import PASSWORD, Person, World
from tests.support.postgres import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url"]

EXAMPLE = REPOSITORY / "examples" / "get_paid_network.py"
PRICE = 10**15
TERMS = ("--cap", "0.5", "--author", "2000", "--referrer", "500", "--network", "300")
EARNED = {
    "herald": (7_700 + 500) * PRICE // 10_000,
    "tribune": 9_200 * PRICE // 10_000,
    "anna": 2_000 * PRICE // 10_000,
}
"""By an article of anna's in the herald, and one in the tribune to which the herald referred."""
ADDRESSES = {name: Address(name.encode().rjust(20, b"\x42")) for name in EARNED}


class Office:
    """Where the network is run, over books in the store ``--store`` names."""

    def __init__(self, network: Person, workplace: Workplace, books: tuple[str, ...]) -> None:
        self.network = network
        self.folder = workplace.folder
        self.books = books
        self._variables = workplace.variables
        home = {"CHANNELPAY_HOME": str(network.home), "CHANNELPAY_PASSWORD": PASSWORD}
        self._hub = Workplace(self.folder, {**workplace.variables, **home})
        network.do("contract", "deploy", "payouts")
        network.do("hub", "init", *TERMS, *books)
        for name, address in ADDRESSES.items():
            facts = ("--key", str(self.folder / f"{name}.key"), "--address", to_hex(address))
            network.do("hub", "member", "add", name, *facts, *books)

    @contextmanager
    def running(self) -> Iterator[str]:
        options = ("--port", "0", "--workers", "2", *self.books)
        with self._hub.serving("channelpay", "hub", "run", *options) as line:
            yield url_in(line)

    @contextmanager
    def site(self, name: str, hub: str) -> Iterator[str]:
        place = Workplace(self.folder, {**self._variables, "NETWORK": hub})
        with place.serving("python", EXAMPLE, name) as line:
            yield url_in(line)

    def statement(self, name: str, hub: str) -> str:
        """The file of a statement that the member asked for."""
        key = (self.folder / f"{name}.key").read_text()
        asked = f"{hub}/v1/statement?token={to_hex(NATIVE)}"
        file = self.folder / f"{name}.json"
        file.write_bytes(httpx2.get(asked, headers={"authorization": f"Bearer {key}"}).content)
        return str(file)


@pytest.mark.parametrize("whole_chain", ["embedded"], indirect=True, scope="session")
@pytest.mark.parametrize(("store", "number"), [("sqlite", 3), ("postgres", 4)])
def test_one_deposit_buys_on_all_sites_and_one_transaction_pays_all_members(
    world: World,
    reader: Person,
    workplace: Workplace,
    request: pytest.FixtureRequest,
    store: str,
    number: int,
) -> None:
    books = ("--store", request.getfixturevalue("postgres_url")) if store == "postgres" else ()
    network = world.person("network", number)
    office = Office(network, workplace, books)
    payout = ("hub", "payout", "--token", "eth", *books, "--json")
    before = {name: world.connection.balance_wei(one) for name, one in ADDRESSES.items()}
    block = world.block

    with (
        office.running() as hub,
        office.site("herald", hub) as herald,
        office.site("tribune", hub) as tribune,
    ):
        pages = (f"{herald}/anna/one", f"{tribune}/two?via=herald")
        bought = reader.do("pay", *pages, "--max", "0.001", "--deposit", "0.02")
        tried = network.run(*payout, "--dry-run")
        paid = network.do(*payout).result
        statement = office.statement("tribune", hub)

    log = str(office.folder / "tribune-sales.jsonl")
    own = ("--address", to_hex(ADDRESSES["tribune"]), "--sales", log, *TERMS[2:])
    checked = reader.do(
        "hub", "verify", statement, "--network-address", checksum_address(network.address), *own
    ).result
    assert bought.output == "herald: /anna/one\ntribune: /two\n"
    (channel,) = reader.do("channel", "list", "--json").result
    assert int(channel["spent"]) == 2 * PRICE
    assert tried.code == 10
    for rows in (tried.result["result"]["rows"], paid):
        assert {row["member"]: int(row["amount"]) for row in rows} == EARNED
    assert (checked["holds"], int(checked["paid"])) == (True, EARNED["tribune"])
    owned = {name: world.connection.balance_wei(one) for name, one in ADDRESSES.items()}
    assert {name: owned[name] - before[name] for name in owned} == EARNED
    sent = [to_hex(one) for one in (reader.address, network.address)]
    assert [one["from"] for one in world.transactions_since(block)] == sent


def test_the_site_of_the_how_to_page_is_the_example() -> None:
    (program,) = (one for one in blocks_of(DOCS / "how-to" / "hub.md") if one.title == EXAMPLE.name)

    assert program.text == EXAMPLE.read_text()
