"""A network of sites, with its books in either store: what a member can do there and what not, that
its splits add up, that payouts go on where they were broken off, and that restored books pay nobody
twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount

from channelpay.chain.connection import Connection, connect
from channelpay.chain.contract import Erc20
from channelpay.chain.create2 import DEPLOYER, SALT, payouts_creation
from channelpay.chain.deploy import create
from channelpay.chain.outgoing import TransactionSender
from channelpay.chain.payouts import ROWS_MAX, PayoutsContract
from channelpay.chain.sender import Sender
from channelpay.chain.types import ContractCall
from channelpay.errors import (
    ConfigError,
    InputError,
    InsufficientFunds,
    StatementContradicted,
)
from channelpay.payee import Payee, PriceRule
from channelpay.payee.hub import join_hub
from channelpay.payee.hub.member import noted_sales
from channelpay.payee.hub.members import (
    add_member,
    member_of,
    move_member,
    remove_member,
    save_settings,
    settings_of,
)
from channelpay.payee.hub.paymaster import Paymaster, PayoutThread
from channelpay.payee.hub.recovery import recover_rounds
from channelpay.payee.hub.rounds import begin_intervals, begin_round, rounds_of, shares_of
from channelpay.payee.hub.service import HubService
from channelpay.payee.hub.statements import (
    Checked,
    Clerk,
    _signed,
    check_statement,
    read_statement,
)
from channelpay.payee.hub.wire import BODY_BYTES_MAX, SaleTicket
from channelpay.payee.verifier import Verifier
from channelpay.protocol.entries import Change, Entries, EntryKey, EntryState
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.splits import NETWORK, Agreement, HubSettings, Share, share_key
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import NATIVE, Address, Voucher
from channelpay.protocol.wire import VoucherPayload
from channelpay.store import Store, open_store
from channelpay.store.backup import back_up
from channelpay.testing import dev_accounts, serving_site
from channelpay.testing.furnished import FurnishedChain
from channelpay.testing.token import mint
from tests.payee.shop import (
    PRICE,
    OpenChannel,
    Payer,
    Shop,
    challenges_of,
    receipt_of,
    wait_for,
)
from tests.support.postgres import PostgresServer, postgres_server

__all__ = ["postgres_server"]

pytestmark = pytest.mark.anyio

SECRET = b"s" * 32
SITES = ("herald", "tribune", "gazette")
AUTHOR_PART, NETWORK_PART = 2_000, 300
NO_KEY = "A" * 43


@dataclass
class Network:
    """The network, its books and its members, each behind a middleware of its own."""

    payee: Payee
    account: LocalAccount
    store: Store
    url: str
    keys: dict[str, str]
    addresses: dict[str, Address]
    payer: Payer
    folder: Path
    stack: ExitStack

    @property
    def token(self) -> Address:
        return self.payee.terms.tokens[0].address

    def site(self, name: str, **settings: Any) -> Site:
        """The site of a member."""
        chosen: dict[str, Any] = {
            "prices": [PriceRule("/dear", "0.02"), PriceRule("/**", "0.01")],
            "authors": {"/anna": "anna", "/slow": "anna"},
            "sales_log": self.log(name),
        }
        member = join_hub(self.url, self.keys[name], **(chosen | settings))
        self.stack.callback(member.close)
        return Site(member, self)

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"

    def share(self, name: str) -> Share:
        return Share.from_state(self.store.entry(share_key(self.token, name)))

    def ask(self, path: str, api_key: str, **json_: Any) -> httpx2.Response:
        headers = {"authorization": f"Bearer {api_key}"}
        method = "POST" if json_ else "GET"
        return httpx2.request(method, self.url + path, headers=headers, json=json_ or None)

    def statement(self, name: str) -> dict[str, Any]:
        answer = self.ask(f"/v1/statement?token={to_hex(self.token)}", self.keys[name])
        return read_statement(answer.content)

    def paymaster(self) -> Paymaster:
        sender = TransactionSender(self.payouts.connection, self.account, self.store)
        return Paymaster(self.store, sender)

    @property
    def payouts(self) -> PayoutsContract:
        return PayoutsContract(connect(self.payer.furnished.rpc_url))

    def held_by(self, name: str) -> int:
        """What a member has on the chain."""
        return Erc20(self.payouts.connection, self.token).balance(self.addresses[name])


class Site(Shop):
    """A member's site: the books are the network's."""

    def __init__(self, member: Payee, network: Network) -> None:
        super().__init__(member, network.folder, network.payer)
        self._store = network.store

    def spent(self, channel: OpenChannel) -> int:
        record = self._store.record(channel.id)
        assert record is not None
        return record.spent


@contextmanager
def opened_network(
    furnished: FurnishedChain,
    books: str,
    folder: Path,
    payer: Payer,
    keys: dict[str, str] | None = None,
) -> Iterator[Network]:
    """A new network; with ``keys``, the one that is in the books."""
    account: LocalAccount = Account.from_key(furnished.accounts[2].private_key)
    with ExitStack() as stack:
        payee = Payee.create(
            rpc=furnished.rpc_url,
            token=to_hex(furnished.token),
            contract=to_hex(furnished.contract),
            prices=[],
            store=books,
            account=account,
        )
        stack.callback(payee.close)
        store = stack.enter_context(closing(open_store(books)))
        addresses = {name: Address(name.encode().rjust(20, b"\x77")) for name in (*SITES, "anna")}
        if keys is None:
            agreement = Agreement(AUTHOR_PART, 500, NETWORK_PART)
            save_settings(store, HubSettings(agreement, {furnished.token: 100 * PRICE}))
            keys = {name: add_member(store, name, one) for name, one in addresses.items()}
        clerk = Clerk(payee.terms.deployment, account, SECRET)
        service = HubService(payee, store, SECRET, clerk)
        url = stack.enter_context(serving_site(service))
        yield Network(payee, account, store, url, keys, addresses, payer, folder, stack)


@pytest.fixture(scope="session")
def with_payouts(furnished: FurnishedChain) -> FurnishedChain:
    connection = connect(furnished.rpc_url)
    create(
        Sender(connection, Account.from_key(furnished.accounts[9].private_key)), payouts_creation()
    )
    return furnished


@pytest.fixture(params=["sqlite", "postgres"])
def new_books(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Gives the URL of other empty books whenever it is called."""
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        return server.new_books
    numbers = count()
    return lambda: f"sqlite:///{tmp_path / f'books-{next(numbers)}.sqlite3'}"


@pytest.fixture
def network(
    with_payouts: FurnishedChain, payer: Payer, tmp_path: Path, new_books: Callable[[], str]
) -> Iterator[Network]:
    snapshot = with_payouts.chain.snapshot()
    with opened_network(with_payouts, new_books(), tmp_path, payer) as opened:
        yield opened
    with_payouts.chain.revert(snapshot)


# Buying


async def test_one_channel_buys_on_every_site(network: Network) -> None:
    sites = [network.site(name) for name in SITES]
    channel = await sites[0].opened()

    answers = [await site.pay(channel, (n + 1) * PRICE) for n, site in enumerate(sites)]

    assert [one.status_code for one in answers] == [200, 200, 200]
    assert [receipt_of(one).spent for one in answers] == [PRICE, 2 * PRICE, 3 * PRICE]
    network_part = PRICE * NETWORK_PART // 10_000
    assert [network.share(name).earned for name in SITES] == [PRICE - network_part] * 3
    assert network.share(NETWORK).earned == 3 * network_part


async def test_an_article_is_divided_between_author_publisher_referrer_and_network(
    network: Network,
) -> None:
    site = network.site("herald")
    channel = await site.opened()

    assert (await site.pay(channel, PRICE, "/anna?via=tribune")).status_code == 200

    earned = {name: network.share(name).earned for name in (*SITES, "anna", NETWORK)}
    assert earned == {"herald": 7_200, "tribune": 500, "gazette": 0, "anna": 2_000, NETWORK: 300}


async def test_a_referrer_whom_nobody_knows_is_left_out(network: Network) -> None:
    site = network.site("herald")
    channel = await site.opened()

    assert (await site.pay(channel, PRICE, "/page?via=nobody")).status_code == 200

    assert network.share("herald").earned == 9_700


async def test_what_failed_is_given_back_with_its_shares(network: Network) -> None:
    site = network.site("herald")
    channel = await site.opened()

    assert (await site.pay(channel, PRICE, "/error")).status_code == 500
    assert site.spent(channel) == 0
    assert (network.share("herald").earned, network.share("herald").sales) == (0, 0)
    assert (await site.pay(channel, PRICE)).status_code == 200
    assert site.spent(channel) == PRICE
    assert len(noted_sales(network.log("herald"))) == 1


async def test_a_retry_is_served_again_and_shared_once(network: Network) -> None:
    site = network.site("herald")
    channel = await site.opened()

    answers = [await site.pay(channel, PRICE, key="the same") for _ in range(3)]

    assert [one.status_code for one in answers] == [200, 200, 200]
    assert (network.share("herald").sales, site.spent(channel)) == (1, PRICE)


async def test_a_reader_closes_its_channel_on_any_site(network: Network) -> None:
    sites = [network.site(name) for name in SITES[:2]]
    channel = await sites[0].opened()
    await sites[0].pay(channel, PRICE)

    closed = await sites[1].close(channel, PRICE)

    assert (closed.status_code, closed.json()["settled"]) == (200, str(PRICE))


async def test_while_the_network_is_away_nobody_is_charged(
    network: Network, with_payouts: FurnishedChain
) -> None:
    site = network.site("herald")
    channel = await site.opened()
    site.payee._verifier._hub._client.base_url = "http://127.0.0.1:9"  # type: ignore[attr-defined]

    answer = await site.pay(channel, PRICE)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert site.spent(channel) == 0
    assert (await site.get("/page")).status_code == 402


async def test_over_the_cap_nothing_is_sold_until_the_member_is_paid(network: Network) -> None:
    settings = settings_of(network.store)
    save_settings(network.store, replace(settings, caps={network.token: 15_000}))
    site = network.site("herald")
    channel = await site.opened()
    assert (await site.pay(channel, PRICE)).status_code == 200

    refused = await site.pay(channel, 2 * PRICE, key="later")

    assert (refused.status_code, site.spent(channel)) == (503, PRICE)
    assert network.paymaster().due(settings_of(network.store)) == [network.token]
    network.paymaster().pay(network.token)
    assert (await site.pay(channel, 2 * PRICE, key="later")).status_code == 200


async def test_who_has_the_key_goes_on_at_a_site_with_what_was_settled(network: Network) -> None:
    site = network.site("herald")
    channel = await site.opened()
    ahead = channel.sign(2 * PRICE)
    assert (await site.pay(channel, 2 * PRICE)).status_code == 200
    _settle(network, channel, ahead)
    challenge = challenges_of(await site.get("/page"))[0]
    header = site.header(VoucherPayload(ahead), challenge)

    copied = await site.get("/page", header, key="a stranger's")
    proven = await site.get("/page", header, key="the reader's", **channel.proof(challenge))

    assert (copied.status_code, copied.json()["code"]) == (402, "voucher-public")
    assert (proven.status_code, site.spent(channel)) == (200, 2 * PRICE)


# What a member cannot do


async def test_a_member_cannot_charge_beyond_a_readers_voucher(network: Network) -> None:
    site, other = network.site("herald"), network.site("tribune")
    channel = await site.opened()
    assert (await site.pay(channel, PRICE)).status_code == 200
    header = site.header(VoucherPayload(channel.sign(PRICE)))

    again = _sale(network, "herald", header, PRICE)
    dearer = _sale(network, "herald", header, 50 * PRICE)
    foreign = _sale(network, "tribune", header, PRICE)
    theirs = _sale(network, "tribune", other.header(VoucherPayload(channel.sign(PRICE))), PRICE)

    assert [one.json()["code"] for one in (again, dearer, foreign, theirs)] == [
        "insufficient-balance",
        "payment-insufficient",
        "invalid-challenge",
        "insufficient-balance",
    ]
    assert site.spent(channel) == PRICE


async def test_a_members_key_buys_nothing_with_the_sale_of_another(network: Network) -> None:
    """Not even with its Idempotency-Key and its URL."""
    site, other = network.site("herald"), network.site("tribune")
    channel = await site.opened()
    assert (await site.pay(channel, PRICE, key="the reader's")).status_code == 200

    header = other.header(VoucherPayload(channel.sign(PRICE)))
    answer = _sale(network, "tribune", header, PRICE, idempotencyKey="the reader's")

    assert answer.json()["code"] == "insufficient-balance"


async def test_one_idempotency_key_buys_on_two_sites(network: Network) -> None:
    """Neither site learns from it what the other one sold."""
    sites = [network.site(name) for name in SITES[:2]]
    channel = await sites[0].opened()

    answers = [
        await site.pay(channel, n * PRICE, key="the reader's") for n, site in enumerate(sites, 1)
    ]

    assert [one.status_code for one in answers] == [200, 200]
    assert sites[0].spent(channel) == 2 * PRICE


async def test_a_member_sees_its_own_sales_alone(network: Network) -> None:
    herald, tribune = network.site("herald"), network.site("tribune")
    channel = await herald.opened()
    await herald.pay(channel, PRICE, "/herald-only")
    await tribune.pay(channel, 2 * PRICE, "/tribune-only")

    text = json.dumps(network.statement("herald"))

    assert "herald-only" in text
    assert "tribune" not in text
    assert channel.id.hex() not in text
    assert channel.source.payer.hex() not in text


async def test_a_member_gives_back_its_own_sales_alone(network: Network) -> None:
    site = network.site("herald")
    channel = await site.opened()
    header = site.header(VoucherPayload(channel.sign(PRICE)))
    sale = _sale(network, "herald", header, PRICE).json()["sale"]

    stolen = network.ask("/v1/releases", network.keys["tribune"], sale=sale)
    forged = SaleTicket(1, 1, 2**40, channel.id).to_text(b"x" * 32, "tribune")
    invented = network.ask("/v1/releases", network.keys["tribune"], sale=forged)

    assert (stolen.status_code, invented.status_code) == (400, 400)
    assert site.spent(channel) == PRICE
    assert network.ask("/v1/releases", network.keys["herald"], sale=sale).json() == {
        "released": True
    }
    assert site.spent(channel) == 0


async def test_a_sale_is_final_after_ten_minutes(network: Network) -> None:
    site = network.site("herald")
    channel = await site.opened()
    await site.pay(channel, PRICE)
    old = SaleTicket(1, 1, 1_000_000, channel.id).to_text(SECRET, "herald")

    answer = network.ask("/v1/releases", network.keys["herald"], sale=old)

    assert (answer.status_code, site.spent(channel)) == (400, PRICE)


@pytest.mark.parametrize("path", ["/v1/terms", "/v1/statement", "/v1/sales", "/v1/releases"])
async def test_nobody_without_a_members_key_is_told_anything(network: Network, path: str) -> None:
    sent = {"sale": "x"} if path in {"/v1/sales", "/v1/releases"} else {}

    answer = network.ask(path, NO_KEY, **sent)

    assert answer.status_code == 401
    assert "payee" not in answer.text


async def test_a_removed_member_sells_nothing_and_is_still_paid(network: Network) -> None:
    site = network.site("herald")
    channel = await site.opened()
    await site.pay(channel, PRICE)

    remove_member(network.store, "herald")
    wait_for(lambda: network.ask("/v1/terms", network.keys["herald"]).status_code == 401)

    assert (await site.pay(channel, 2 * PRICE)).status_code == 503
    with pytest.raises(ConfigError):
        network.site("herald")
    network.paymaster().pay(network.token)
    assert network.held_by("herald") == 9_700


async def test_a_removal_and_a_move_at_once_both_hold(network: Network) -> None:
    """No removed member gets its key back, and no money goes to an address that was left."""
    new = Address(b"\x01" * 20)

    remove_first = _Meanwhile(network.store, lambda store: remove_member(store, "herald"))
    move_member(remove_first, "herald", new, [])  # type: ignore[arg-type]
    move_first = _Meanwhile(network.store, lambda store: move_member(store, "tribune", new, []))
    remove_member(move_first, "tribune")  # type: ignore[arg-type]

    both = [member_of(network.store, name) for name in SITES[:2]]
    assert [(one.is_removed, one.address) for one in both] == [(True, new)] * 2


async def test_the_books_and_the_statements_hold_no_key(network: Network) -> None:
    kept = [network.store.entries(kind) for kind in ("hub", "member", "share")]

    assert to_hex(network.addresses["herald"])[2:] in str(kept)
    assert network.keys["herald"] not in f"{kept} {network.statement('herald')}"


BAD_SALES: list[dict[str, Any]] = [
    {},
    {"prices": {}},
    {"prices": {"0x00": "1"}},
    {"prices": {"TOKEN": "-1"}},
    {"prices": {"TOKEN": "0"}},
    {"prices": {"0x" + "22" * 20: "1"}},
    {"resource": "x" * 3_000},
    {"credential": "Payment e30"},
    {"charged": "yes"},
    {"idempotencyKey": 7},
    {"idempotencyKey": "a\0b"},
    {"resource": "GET http://herald.example/\0"},
    {"resource": "GET http://herald.example/\n"},
    {"proof": 7},
    {"proof": "0x" + "AB" * 65},
    {"proof": "0x" + "11" * 66},
]


async def test_a_malformed_sale_is_refused_and_charges_nothing(network: Network) -> None:
    site = network.site("herald")
    channel = await site.opened()
    header = site.header(VoucherPayload(channel.sign(PRICE)))

    for change in BAD_SALES:
        sale: dict[str, Any] = {
            "credential": header,
            "resource": "GET http://herald.example/",
            "prices": {"TOKEN": str(PRICE)},
            "charged": True,
        }
        sale = sale | change if change else {"resource": "x"}
        text = json.dumps(sale).replace("TOKEN", to_hex(network.token))
        answer = network.ask("/v1/sales", network.keys["herald"], **json.loads(text))
        assert answer.status_code == 400, (change, answer.text)
    huge = network.ask("/v1/sales", network.keys["herald"], filler="x" * BODY_BYTES_MAX)
    assert (huge.status_code, site.spent(channel)) == (400, 0)


async def test_an_author_whom_nobody_knows_is_the_sites_fault(network: Network) -> None:
    site = network.site("herald", authors={"/page": "nobody"})
    channel = await network.site("tribune").opened()

    assert (await site.pay(channel, PRICE)).status_code == 503
    assert site.spent(channel) == 0


async def test_a_member_sells_whole_requests(network: Network) -> None:
    with pytest.raises(ConfigError, match="not for a request"):
        network.site("herald", prices=[PriceRule("/chat", "0.01", unit="token")])

    prices = network.folder / "prices.toml"
    rule = '[[price]]\npath = "/**"\nprice = "0.01"\n'
    prices.write_text(rule + '[[incentive]]\nkind = "cash-back"\npercent = 10\n')
    site = network.site("herald", prices=prices)
    channel = await network.site("tribune").opened()
    assert (await site.pay(channel, PRICE)).status_code == 503
    assert site.spent(channel) == 0


async def test_a_key_is_sent_to_loopback_or_over_tls_only() -> None:
    with pytest.raises(ConfigError, match="https"):
        join_hub("http://network.example", NO_KEY, prices=[])


# Payouts


async def earned(network: Network) -> OpenChannel:
    """Three sales: of the herald, of the tribune, and of anna's article in the herald."""
    herald, tribune = network.site("herald"), network.site("tribune")
    channel = await herald.opened()
    for number, (site, path) in enumerate(
        [(herald, "/page"), (tribune, "/dear"), (herald, "/anna")], 1
    ):
        cumulative = (number + (number > 1)) * PRICE
        assert (await site.pay(channel, cumulative, path)).status_code == 200
    return channel


EARNED = {"herald": 9_700 + 7_700, "tribune": 19_400, "anna": 2_000}


async def test_payouts_on_the_chain_are_what_the_statements_say(network: Network) -> None:
    await earned(network)

    (ended,) = network.paymaster().pay(network.token)

    assert {row.name: row.amount for row in ended.rows} == EARNED
    for name, amount in EARNED.items():
        said = network.statement(name)
        own = noted_sales(network.log(name)) if name != "anna" else []
        checked = _check(network, said, name, own)
        assert (checked.earned, checked.paid, checked.owed) == (amount, amount, 0)
        assert network.held_by(name) == amount
    assert network.paymaster().pay(network.token) == []


@pytest.mark.parametrize("at", ["begun", "journaled", "sent", "mined"])
async def test_a_payout_goes_on_where_it_was_killed_and_pays_once(
    network: Network, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await earned(network)
    broken = network.paymaster()

    with monkeypatch.context() as patch:
        _kill_at(at, broken, patch)
        with pytest.raises(_Killed):
            broken.pay(network.token)
    (ended,) = network.paymaster().pay(network.token)

    assert {row.name: row.amount for row in ended.rows if row.is_paid} == EARNED
    assert {name: network.held_by(name) for name in EARNED} == EARNED
    assert network.payouts.rounds(_address_of(network)) == 1
    assert {name: one.outstanding for name, one in _shares(network).items()} == dict.fromkeys(
        EARNED, 0
    )


async def test_what_is_sold_during_a_payout_is_paid_with_the_next(network: Network) -> None:
    channel = await earned(network)
    begun = begin_round(network.store, network.token, ["herald", "tribune"], 0, 0)
    assert begun is not None
    site = network.site("herald")
    assert (await site.pay(channel, 5 * PRICE)).status_code == 200

    first, second = network.paymaster().pay(network.token)

    assert (first.number, first.total) == (0, EARNED["herald"] + EARNED["tribune"])
    assert {row.name: row.amount for row in second.rows} == {"herald": 9_700, "anna": 2_000}


async def test_who_cannot_be_paid_is_skipped_held_and_paid_when_it_moved(
    network: Network,
) -> None:
    connection = network.payouts.connection
    move_member(network.store, "anna", _refusing(connection), [NATIVE])
    keys = [share_key(NATIVE, name) for name in ("anna", "herald")]
    owed = {key: Share(earned=1_000).to_state() for key in keys}
    network.store.change_entries(keys, lambda _: owed).result()

    (ended,) = network.paymaster().pay(NATIVE)

    assert {row.name: row.is_paid for row in ended.rows} == {"anna": False, "herald": True}
    assert connection.balance_wei(network.addresses["herald"]) == 1_000
    shares = shares_of(network.store, NATIVE)
    assert (shares["anna"].outstanding, shares["herald"].outstanding) == (1_000, 0)
    assert network.paymaster().pay(NATIVE) == []
    move_member(network.store, "anna", network.addresses["anna"], [NATIVE])
    assert len(network.paymaster().pay(NATIVE)) == 1
    assert connection.balance_wei(network.addresses["anna"]) == 1_000


async def test_many_members_are_paid_in_several_rounds_each_once(network: Network) -> None:
    names = [f"site-{number}" for number in range(ROWS_MAX + 1)]
    for number, name in enumerate(names):
        add_member(network.store, name, Address(b"\x99" * 19 + bytes([number])))
    keys = [share_key(NATIVE, name) for name in names]
    owed = {key: Share(earned=1_000 + n).to_state() for n, key in enumerate(keys)}
    network.store.change_entries(keys, lambda _: owed).result()

    ended = network.paymaster().pay(NATIVE)

    assert [len(one.rows) for one in ended] == [ROWS_MAX, 1]
    assert sum(one.total for one in ended) == sum(1_000 + n for n in range(len(names)))
    assert all(one.outstanding == 0 for one in shares_of(network.store, NATIVE).values())


async def test_no_round_begins_that_the_account_cannot_pay(network: Network) -> None:
    await earned(network)
    token = Erc20(network.payouts.connection, network.token)
    sender = TransactionSender(network.payouts.connection, network.account, network.store)
    everything = token.balance(sender.address)
    away = b"\xa9\x05\x9c\xbb" + (b"\x01" * 20).rjust(32, b"\0") + everything.to_bytes(32, "big")
    sender.wait(sender.send(ContractCall(network.token, away), "away").number)

    with pytest.raises(InsufficientFunds, match="owes its members"):
        network.paymaster().pay(network.token)

    assert list(rounds_of(network.store)) == []
    sender.wait(
        sender.send(mint(sender.connection, network.token, sender.address, 10**6), "back").number
    )
    assert len(network.paymaster().pay(network.token)) == 1


async def test_no_round_begins_while_another_one_is_under_way(network: Network) -> None:
    owe(network.store, network.token, herald=100, tribune=50)

    assert begin_round(network.store, network.token, ["herald"], 0, 0) is not None
    assert begin_round(network.store, network.token, ["tribune"], 0, 0) is None

    assert [one.total for one in network.paymaster().pay(network.token)] == [100, 50]


async def test_the_first_payout_waits_for_its_interval(network: Network) -> None:
    await earned(network)
    settings = settings_of(network.store)
    hour = replace(settings, every_seconds=3_600)
    begin_intervals(network.store, [*settings.caps], 1_000_000)
    begin_intervals(network.store, [*settings.caps], 2_000_000)

    def due_at(seconds: float) -> list[Address]:
        sender = TransactionSender(network.payouts.connection, network.account, network.store)
        return Paymaster(network.store, sender, now=lambda: seconds).due(hour)

    assert (due_at(1_000 + 3_599), due_at(1_000 + 3_600)) == ([], [network.token])


async def test_half_of_a_cap_is_paid_whatever_a_payout_is_at_least(network: Network) -> None:
    caps = {network.token: 1_000}
    save_settings(network.store, HubSettings(Agreement(), caps, least=caps))
    owe(network.store, network.token, herald=995, tribune=499)
    payouts = PayoutThread(network.paymaster(), network.store)

    payouts._step()

    owed = {name: one.outstanding for name, one in _shares(network).items()}
    assert owed == {"herald": 0, "tribune": 499}


async def test_what_a_payout_would_do_is_known_before(network: Network) -> None:
    await earned(network)
    paymaster = network.paymaster()

    planned = paymaster.plan(network.token)
    tried = paymaster.trials(planned)

    assert [one.purpose for one in tried] == ["approve", "payout"]
    assert [one.was_tried for one in tried] == [True, False]
    assert list(rounds_of(network.store)) == []
    (ended,) = paymaster.pay(network.token)
    assert [(row.name, row.amount) for row in planned[0].rows] == [
        (row.name, row.amount) for row in ended.rows
    ]
    used = network.payouts.connection.receipt(ended.transaction_hash)
    assert used is not None
    assert used.gas_used < 2 * tried[1].trial.gas
    assert (paymaster.plan(network.token), paymaster.trials([])) == ([], [])


async def test_of_several_payouts_the_one_that_is_under_way_comes_first(network: Network) -> None:
    channel = await earned(network)
    network.paymaster().pay(network.token)
    site = network.site("herald")
    assert (await site.pay(channel, 5 * PRICE)).status_code == 200
    begun = begin_round(network.store, network.token, ["herald"], 0, 0)
    assert (await site.pay(channel, 6 * PRICE)).status_code == 200

    planned = network.paymaster().plan(network.token)

    assert [(one.number, one.total) for one in planned] == [(1, 9_700), (2, 9_700)]
    assert planned[0] == begun
    tried = network.paymaster().trials(planned)
    assert [(one.purpose, one.was_tried) for one in tried] == [("payout", True), ("payout", False)]


# Restored books


@pytest.fixture
def older(network: Network, new_books: Callable[[], str]) -> Iterator[Store]:
    """Books that know the members and settings of the network, and nothing that was sold."""
    with closing(open_store(new_books())) as store:
        for kind in ("hub", "member"):
            known = dict(network.store.entries(kind))
            store.change_entries([*known], lambda _, known=known: known).result()  # type: ignore[misc]
        yield store


def owe(store: Store, token: Address, **amounts: int) -> None:
    keys = {share_key(token, name): amount for name, amount in amounts.items()}
    states = {key: Share(earned=amount).to_state() for key, amount in keys.items()}
    store.change_entries([*keys], lambda _: states).result()


def paymaster_of(network: Network, store: Store) -> Paymaster:
    return Paymaster(store, TransactionSender(network.payouts.connection, network.account, store))


async def test_older_books_pay_nobody_until_they_know_what_was_paid(
    network: Network, older: Store
) -> None:
    await earned(network)
    network.paymaster().pay(network.token)
    owe(older, network.token, herald=10_000, tribune=20_000)
    with pytest.raises(ConfigError, match="the chain has 1 rounds") as refused:
        paymaster_of(network, older).pay(network.token)
    assert "channelpay hub recover" in refused.value.hint

    taken = recover_rounds(older, network.payouts, _address_of(network))

    assert [{row.name: row.lost for row in one.rows} for one in taken] == [
        {"herald": 7_400, "tribune": 0, "anna": 2_000}
    ]
    owed = {name: one.outstanding for name, one in shares_of(older, network.token).items()}
    assert owed == {"herald": 0, "tribune": 600, "anna": 0}
    assert recover_rounds(older, network.payouts, _address_of(network)) == []
    assert [one.total for one in paymaster_of(network, older).pay(network.token)] == [600]
    assert network.held_by("herald") == EARNED["herald"]


async def test_a_round_that_only_the_older_books_began_gives_way_to_the_chains(
    network: Network, older: Store
) -> None:
    await earned(network)
    network.paymaster().pay(network.token)
    owe(older, network.token, gazette=50, herald=30_000)
    assert begin_round(older, network.token, ["gazette", "herald"], 0, 0) is not None
    with pytest.raises(ConfigError, match="other payments") as refused:
        paymaster_of(network, older).pay(network.token)
    assert "channelpay hub recover" in refused.value.hint

    recover_rounds(older, network.payouts, _address_of(network), from_block=0)

    shares = shares_of(older, network.token)
    assert {name: one.moving for name, one in shares.items()} == dict.fromkeys(shares, 0)
    assert (shares["gazette"].payable, shares["herald"].payable) == (50, 30_000 - EARNED["herald"])


async def test_a_round_of_the_older_books_that_was_paid_ends(
    network: Network, older: Store
) -> None:
    owe(network.store, network.token, herald=700)
    owe(older, network.token, herald=700)
    assert begin_round(older, network.token, ["herald"], 0, 0) is not None
    network.paymaster().pay(network.token)

    (taken,) = recover_rounds(older, network.payouts, _address_of(network))

    assert (taken.is_ended, [row.lost for row in taken.rows]) == (True, [0])
    assert shares_of(older, network.token)["herald"] == Share(earned=700, paid=700)


async def test_members_with_one_address_are_not_taken_for_each_other(
    network: Network, older: Store
) -> None:
    for store in (network.store, older):
        move_member(store, "tribune", network.addresses["herald"], [network.token])
        owe(store, network.token, herald=100, tribune=300)
    network.paymaster().pay(network.token)

    recover_rounds(older, network.payouts, _address_of(network))

    assert paymaster_of(network, older).pay(network.token) == []
    assert network.held_by("herald") == 400


async def test_who_was_skipped_since_the_copy_is_owed_it_still(
    network: Network, older: Store
) -> None:
    refusing = _refusing(network.payouts.connection)
    for store in (network.store, older):
        move_member(store, "anna", refusing, [NATIVE])
    owe(network.store, NATIVE, anna=1_000)
    network.paymaster().pay(NATIVE)

    recover_rounds(older, network.payouts, _address_of(network))

    share = shares_of(older, NATIVE)["anna"]
    assert (share.outstanding, share.payable, share.held) == (1_000, 0, 1)


async def test_who_was_paid_and_is_no_member_has_to_be_named_first(
    network: Network, older: Store
) -> None:
    owe(network.store, network.token, herald=100)
    network.paymaster().pay(network.token)
    move_member(older, "herald", Address(b"\x01" * 20), [network.token])

    with pytest.raises(ConfigError, match="no member's address"):
        recover_rounds(older, network.payouts, _address_of(network))
    assert list(rounds_of(older)) == []

    move_member(older, "herald", network.addresses["herald"], [network.token])
    assert len(recover_rounds(older, network.payouts, _address_of(network))) == 1


async def test_only_what_is_confirmed_and_was_looked_for_is_taken_in(
    network: Network, older: Store
) -> None:
    owe(network.store, network.token, herald=100)
    network.paymaster().pay(network.token)
    network_address, head = _address_of(network), network.payouts.connection.latest_block().number

    assert recover_rounds(older, network.payouts, network_address, confirmations=2) == []
    with pytest.raises(ConfigError, match="earlier than was looked for"):
        recover_rounds(older, network.payouts, network_address, from_block=head + 1)


async def test_a_network_goes_on_with_a_copy_and_no_statement_contradicts_the_chain(
    with_payouts: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    snapshot = with_payouts.chain.snapshot()
    books, copy = (tmp_path / f"{name}.sqlite3" for name in ("books", "copy"))
    with opened_network(with_payouts, f"sqlite:///{books}", tmp_path, payer) as network:
        channel = await earned(network)
        back_up(books, copy)
        herald = network.site("herald")
        lost = _sale(
            network, "herald", herald.header(VoucherPayload(channel.sign(5 * PRICE))), PRICE
        ).json()
        network.paymaster().pay(network.token)
        keys = network.keys

    with opened_network(with_payouts, f"sqlite:///{copy}", tmp_path, payer, keys) as network:
        recover_rounds(network.store, network.payouts, _address_of(network))
        herald = network.site("herald")
        sold = _sale(
            network, "herald", herald.header(VoucherPayload(channel.sign(6 * PRICE))), PRICE
        ).json()
        stale = network.ask("/v1/releases", keys["herald"], sale=lost["sale"])
        said = network.statement("herald")

        assert sold["id"] != lost["id"]
        assert stale.status_code == 400
        checked = _check(network, said, "herald")
        assert (checked.paid, checked.owed) == (EARNED["herald"] + 9_700, 9_700)
        assert [one["role"] for one in said["sales"]] == [
            "publisher",
            "publisher",
            "publisher",
            "lost",
        ]
        with pytest.raises(StatementContradicted, match="missing"):
            _check(network, said, "herald", [lost])
        assert [one.total for one in network.paymaster().pay(network.token)] == [9_700]
    with_payouts.chain.revert(snapshot)


# Statements


async def test_a_statement_that_was_changed_does_not_hold(network: Network) -> None:
    await earned(network)
    network.paymaster().pay(network.token)
    said = network.statement("herald")
    first, second = said["sales"]
    more: list[dict[str, Any]] = [
        {"earned": "1"},
        {"paid": "0", "owed": said["earned"]},
        {"sales": [first]},
        {"sales": [first, first]},
        {"payouts": []},
        {"payouts": [{**said["payouts"][0], "amount": "1"}]},
        {"network": to_hex(network.addresses["anna"])},
        {"member": "anna"},
        {"signature": "0x" + "11" * 65},
    ]

    assert _check(network, said, "herald").sales == 2
    for change in more:
        with pytest.raises(StatementContradicted):
            _check(network, {**said, **change}, "herald")
    for text in (b"[]", b"{}", b"no JSON"):
        with pytest.raises(InputError):
            read_statement(text)
    assert second["role"] == "publisher"


@pytest.mark.parametrize("lie", ["a payout that never was", "a sale that is left out"])
async def test_what_the_network_signed_and_did_not_do_is_found(network: Network, lie: str) -> None:
    await earned(network)
    network.paymaster().pay(network.token)
    clerk = Clerk(network.payee.terms.deployment, network.account, SECRET)
    lying = _LyingStore(network.store, lie)

    said = clerk.statement(lying, member_of(network.store, "herald"), network.token)  # type: ignore[arg-type]

    own = noted_sales(network.log("herald"))
    with pytest.raises(StatementContradicted, match=r"not on the chain|missing"):
        _check(network, said, "herald", own)


async def test_what_the_network_signed_and_agreed_otherwise_is_found(network: Network) -> None:
    """A lower price than the site noted, a lower share than was agreed, a part for an author or
    referrer whom nobody named, and payouts to somebody else.
    """
    await earned(network)
    network.paymaster().pay(network.token)
    said, own = network.statement("herald"), noted_sales(network.log("herald"))
    page, annas = said["sales"]
    (payout,) = said["payouts"]
    other = network.addresses["tribune"]
    lies: dict[str, dict[str, Any]] = {
        "price": {"sales": [{**page, "price": "9999"}, annas]},
        "agreed": {"sales": [{**page, "share": "9699"}, annas], "earned": "17399"},
        "to somebody else": {"payouts": [{**payout, "receiver": to_hex(other)}]},
        "missing": {"sales": [{**page, "role": "author"}, annas]},
    }

    assert _check(network, said, "herald", own).receivers == (network.addresses["herald"],)
    assert _check(network, network.statement("anna"), "anna").earned == EARNED["anna"]
    for match, lie in lies.items():
        lying = {name: one for name, one in (said | lie).items() if name != "signature"}
        lying["owed"] = str(int(lying["earned"]) - int(lying["paid"]))
        lying["signature"] = _signed(lying, network.account)
        with pytest.raises(StatementContradicted, match=match):
            _check(network, lying, "herald", own)


# Helpers


def _check(
    network: Network, said: dict[str, Any], name: str, own: Sequence[dict[str, Any]] = ()
) -> Checked:
    """As the member does, who knows its address and what was agreed."""
    place = (_address_of(network), {network.addresses[name]}, network.payouts)
    return check_statement(said, *place, own, settings_of(network.store).agreement)


def _refusing(connection: Connection) -> Address:
    """A contract that takes no ether."""
    code = bytes.fromhex("6460006000fd6000526005601bf3")
    anyone = Account.from_key(dev_accounts()[9].private_key)
    Sender(connection, anyone).send(ContractCall(DEPLOYER, SALT + code))
    return Address(keccak256(b"\xff" + DEPLOYER + SALT + keccak256(code))[12:])


class _Killed(Exception):
    """The process ends here."""


class _Meanwhile:
    """Books in which another process changes something before the first change."""

    def __init__(self, store: Store, other: Callable[[Store], object]) -> None:
        self._store = store
        self._other = other

    def entry(self, key: EntryKey) -> EntryState | None:
        return self._store.entry(key)

    def change_entries(self, keys: Sequence[EntryKey], change: Change) -> Future[Entries]:
        self._other(self._store)
        return self._store.change_entries(keys, change)


class _LyingStore:
    """Books of a network that cheats."""

    def __init__(self, store: Store, lie: str) -> None:
        self._store = store
        self._lie = lie

    def entries(self, kind: str, **options: Any) -> Any:
        found = self._store.entries(kind, **options)
        if self._lie != "a payout that never was":
            return found
        return [(key, {**state, "tx": "11" * 32}) for key, state in found]

    def records(self) -> Any:
        return self._store.records()

    def payments(self, channel_id: Any) -> Any:
        found = self._store.payments(channel_id)
        return found[1:] if self._lie == "a sale that is left out" else found


def _kill_at(at: str, paymaster: Paymaster, patch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise _Killed

    sender: Any = paymaster._sender
    if at == "begun":
        patch.setattr(Paymaster, "_sent", killed)
    elif at == "journaled":
        whole = sender.outbox.journal

        def journal(outgoing: Any) -> Any:
            done = whole(outgoing)
            if outgoing.purpose.startswith("payout"):
                done.result()
                raise _Killed
            return done

        patch.setattr(sender.outbox, "journal", journal)
    elif at == "sent":
        patch.setattr(Paymaster, "_wait", killed)
    else:
        patch.setattr("channelpay.payee.hub.paymaster.end_round", killed)


def _settle(network: Network, channel: OpenChannel, voucher: Voucher) -> None:
    """As anyone may, and the network learns of it."""
    amount, signature = voucher.cumulative_amount, voucher.signature
    network.payer.sender.send(network.payer.contract.settle(channel.channel, amount, signature))
    verifier = network.payee._verifier
    assert isinstance(verifier, Verifier)
    (view,) = verifier._link.views([channel.channel])
    network.store.update_chain(channel.id, view).result()


def _sale(network: Network, name: str, header: str, price: int, **more: Any) -> httpx2.Response:
    """What a member's program may send, honest or not."""
    sale = {
        "credential": header,
        "resource": "GET http://shop.example/page",
        "prices": {to_hex(network.token): str(price)},
        "charged": True,
        **more,
    }
    return network.ask("/v1/sales", network.keys[name], **sale)


def _address_of(network: Network) -> Address:
    return Address(bytes.fromhex(network.account.address[2:]))


def _shares(network: Network) -> dict[str, Share]:
    return shares_of(network.store, network.token)
