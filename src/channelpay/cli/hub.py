"""``channelpay hub``: one channel for many sites. Init, member, run, statement, verify; its
payouts are in :mod:`channelpay.cli.payouts`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from channelpay.cli.books import Books, books_options, opened
from channelpay.cli.common import (
    Setting,
    connected,
    duration_text,
    parse_duration,
    pass_output,
    rpc_option,
    setting_options,
    token_address,
    token_option,
)
from channelpay.cli.confirming import Confirming, confirmations_option
from channelpay.cli.office import Place
from channelpay.cli.output import Output, facts_table, json_option
from channelpay.cli.payouts import paymaster_of, payout, recover
from channelpay.cli.settling import (
    Fees,
    Settling,
    alerts_of,
    amounts_in,
    fee_options,
    fee_policy_of,
    policy_of,
    settling_options,
)
from channelpay.errors import ConfigError, InputError
from channelpay.protocol.parse import parse_address
from channelpay.protocol.splits import NETWORK, WHOLE, Agreement, HubSettings, share_key
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import NATIVE, Address

if TYPE_CHECKING:
    from rich.table import Table

    from channelpay.observe.alerts import Alerts
    from channelpay.payee.asgi import App
    from channelpay.payee.hub.members import Member
    from channelpay.payee.hub.statements import Checked
    from channelpay.payee.payee import Payee
    from channelpay.payee.server import Place as WorkerPlace
    from channelpay.payee.terms import Token
    from channelpay.store import Store

_SECRET = "hub.key"  # noqa: S105  a file name
_CHALLENGE_SECRET = "challenge.key"  # noqa: S105  a file name
_BASIS_POINTS = click.IntRange(0, WHOLE)


@click.group()
def hub() -> None:
    """Sell for many sites: a reader opens one channel with the network, and reads on all of them.

    Every sale is divided at its moment between author, publisher, referrer and network; members are
    paid in rounds, many in one transaction. See docs/explanation/hub.md for who trusts whom.
    """


hub.add_command(payout)
hub.add_command(recover)


# --- settings and members ------------------------------------------------------------------------


@hub.command(epilog="Example: channelpay hub init --token eth --cap 0.5 --network 300 --every 1d")
@books_options
@rpc_option
@click.option(
    "--token",
    multiple=True,
    default=("eth",),
    show_default=True,
    metavar="eth|NAME|ADDRESS",
    help="What readers pay with.",
)
@click.option(
    "--cap",
    multiple=True,
    required=True,
    metavar="[TOKEN=]AMOUNT",
    help="What may be owed to a member at most; nothing more is sold then until it is paid.",
)
@click.option(
    "--least",
    multiple=True,
    metavar="[TOKEN=]AMOUNT",
    help="What a payout to a member is at least, unless half of the cap is owed.",
)
@click.option(
    "--every",
    default="1d",
    show_default=True,
    metavar="TIME",
    callback=lambda _context, _parameter, text: parse_duration(text),
    help="How often members are paid.",
)
@click.option("--author", type=_BASIS_POINTS, default=0, help="The author's part, in 1/10000.")
@click.option("--referrer", type=_BASIS_POINTS, default=0, help="The referrer's part, in 1/10000.")
@click.option("--network", type=_BASIS_POINTS, default=0, help="The network's part, in 1/10000.")
@json_option
@pass_output
def init(
    output: Output,
    /,
    *,
    books: Books,
    rpc: str | None,
    token: tuple[str, ...],
    cap: tuple[str, ...],
    least: tuple[str, ...],
    every: int,
    **parts: int,
) -> None:
    """Begin a network, or change what its members have agreed to.

    A change holds from the next sale on. What is left of a sale is its publisher's.
    """
    from channelpay.payee.hub.members import save_settings
    from channelpay.payee.hub.rounds import begin_intervals
    from channelpay.store import open_store

    tokens = _tokens(rpc, [token_address(name) for name in token])
    caps = amounts_in(tokens, cap, "cap")
    if len(caps) < len(tokens) or not all(caps.values()):
        raise ConfigError(
            "every token needs a cap above 0", hint="Say --cap TOKEN=AMOUNT for each."
        )
    settings = HubSettings(Agreement(**parts), caps, amounts_in(tokens, least, "least"), every)
    books.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with closing(open_store(books.url)) as store:
        save_settings(store, settings)
        begin_intervals(store, [*settings.caps], int(time.time() * 1000))
    members, facts = _settings_shown(settings, tokens)
    output.show(members, lambda: facts_table(facts))


def _tokens(rpc: str | None, addresses: Sequence[Address]) -> list[Token]:
    from channelpay.payee.payee import token_at
    from channelpay.payee.terms import ETHER

    if list(addresses) == [NATIVE]:
        return [ETHER]
    connection = connected(rpc)
    return [token_at(connection, address) for address in addresses]


def _settings_shown(
    settings: HubSettings, tokens: Sequence[Token]
) -> tuple[dict[str, Any], dict[str, str]]:
    agreement = settings.agreement
    parts = {"author": agreement.author, "referrer": agreement.referrer}
    parts[NETWORK] = agreement.network
    parts["publisher"] = WHOLE - sum(parts.values())
    members = {
        "basisPoints": parts,
        "caps": {to_hex(token): str(cap) for token, cap in settings.caps.items()},
        "everySeconds": settings.every_seconds,
    }
    facts = {name.capitalize(): f"{part / 100:g} %" for name, part in parts.items()}
    for token in tokens:
        facts[f"Owed at most, {token.symbol}"] = token.format(settings.caps[token.address])
    return members, facts | {"Paid every": duration_text(settings.every_seconds)}


@hub.group()
def member() -> None:
    """Who sells for the network, or shares what others sell: add, list, move, remove."""


@member.command(
    epilog="Example: channelpay hub member add anna --key anna.key --address"
    " 0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
)
@click.argument("name")
@click.option("--address", required=True, metavar="ADDRESS", help="Where its money goes.")
@click.option(
    "--key",
    "file",
    required=True,
    type=click.Path(path_type=Path),
    help="A new file for the key that its site shows; give it to the member, and to nobody else.",
)
@books_options
@json_option
@pass_output
def add(output: Output, /, *, name: str, address: str, file: Path, books: Books) -> None:
    """Add a member: a site, or an author or referrer who shares what sites sell.

    The books keep only the hash of the key: who loses it is removed and added again.
    """
    from channelpay.payee.hub.members import add_member, settings_of
    from channelpay.private_files import write_private

    receiver = parse_address(address)
    if file.exists():
        raise ConfigError(f"{file} is there already", hint="Name a new file with --key.")
    with opened(books) as store:
        settings_of(store)
        write_private(file, add_member(store, name, receiver).encode())
    members = {"name": name, "address": checksum_address(receiver), "key": str(file)}
    shown = {"Member": name, "Address": members["address"], "Key in": str(file)}
    output.show(members, lambda: facts_table(shown))


@member.command("list", epilog="Example: channelpay hub member list --rpc http://127.0.0.1:8545")
@books_options
@rpc_option
@json_option
@pass_output
def list_(output: Output, /, *, books: Books, rpc: str | None) -> None:
    """List the members, with what they earned, were paid, and are owed."""
    from channelpay.payee.hub.members import members_of, settings_of

    with opened(books) as store:
        settings = settings_of(store)
        rows = [
            row for one in members_of(store) for row in _member_rows(store, one, [*settings.caps])
        ]
    output.show(rows, lambda: _members_table(rows, rpc, [*settings.caps]))


def _member_rows(store: Store, one: Member, tokens: Sequence[Address]) -> Iterator[dict[str, Any]]:
    from channelpay.protocol.splits import Share

    for token in tokens:
        share = Share.from_state(store.entry(share_key(token, one.name)))
        yield {
            "name": one.name,
            "address": checksum_address(one.address),
            "removed": one.is_removed,
            "token": to_hex(token),
            "sales": share.sales,
            "earned": str(share.earned),
            "paid": str(share.paid),
            "owed": str(share.outstanding),
            "held": bool(share.held),
        }


def _members_table(
    rows: Sequence[Mapping[str, Any]], rpc: str | None, tokens: Sequence[Address]
) -> Table:
    from rich.table import Table

    known = {to_hex(token.address): token for token in _tokens(rpc, tokens)}
    table = Table()
    for name in ("Member", "Address", "Sales", "Earned", "Paid", "Owed", ""):
        table.add_column(name)
    for row in rows:
        amounts = (
            known[row["token"]].format(int(row[name])) for name in ("earned", "paid", "owed")
        )
        note = "removed" if row["removed"] else "could not be paid" if row["held"] else ""
        table.add_row(row["name"], row["address"], str(row["sales"]), *amounts, note)
    return table


@member.command(epilog="Example: channelpay hub member remove anna")
@click.argument("name")
@books_options
@json_option
@pass_output
def remove(output: Output, /, *, name: str, books: Books) -> None:
    """Take a member's key away, within a second. What it is owed is still paid."""
    from channelpay.payee.hub.members import remove_member

    with opened(books) as store:
        removed = remove_member(store, name)
    members = {"name": removed.name, "removed": True}
    output.show(members, lambda: facts_table({"Removed": removed.name}))


@member.command(
    epilog="Example: channelpay hub member move anna --address"
    " 0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
)
@click.argument("name")
@click.option("--address", required=True, metavar="ADDRESS", help="Where its money goes.")
@books_options
@json_option
@pass_output
def move(output: Output, /, *, name: str, address: str, books: Books) -> None:
    """Pay a member to another address, from the next payout on.

    A member whose last payout failed is held until then: name the same address to try it again.
    """
    from channelpay.payee.hub.members import move_member, settings_of

    receiver = parse_address(address)
    with opened(books) as store:
        moved = move_member(store, name, receiver, [*settings_of(store).caps])
    members = {"name": moved.name, "address": checksum_address(moved.address)}
    output.show(members, lambda: facts_table({"Member": name, "Address": members["address"]}))


# --- the service ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Running:
    """The options of ``run``, as they were given."""

    books: Books
    setting: Setting
    confirmations: Confirming
    settling: Settling
    fees: Fees
    suggested_deposit: str | None


@hub.command(epilog="Example: channelpay hub run --account network --port 8410")
@books_options
@setting_options
@confirmations_option
@settling_options
@fee_options
@click.option("--suggested-deposit", metavar="AMOUNT", help="Told to readers, in the first token.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8410, show_default=True, help="0: a free one."
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Processes that answer members.",
)
@json_option
@pass_output
def run(output: Output, /, *, host: str, port: int, workers: int, **given: Any) -> None:
    """Check and charge for the members' sites, settle, and pay the members, until Ctrl-C.

    Members speak to it over HTTP with their keys: put a server that speaks TLS in front of it. The
    account is the payee of all channels; it pays the members out of what it settled.
    """
    from channelpay.observe.logs import configure_logging
    from channelpay.payee.server import listen, serve, url_of_socket

    running = _Running(**given)
    configure_logging(sys.stderr, as_json=output.as_json)
    place = Place.of(running.setting)
    with listen(host, port) as listening:

        @contextmanager
        def service(worker: WorkerPlace) -> Iterator[App]:
            with _served(running, place, worker) as (payee, app):
                if worker.announces:
                    members = {
                        "url": url_of_socket(listening),
                        "network": checksum_address(payee.terms.payee),
                        "chainId": payee.terms.deployment.chain_id,
                        "contract": checksum_address(payee.terms.deployment.contract),
                    }
                    output.show(members, lambda: _running_table(members))
                yield app

        serve(service, listening, workers)


def _running_table(members: Mapping[str, Any]) -> Table:
    table = facts_table({name: str(value) for name, value in members.items()})
    table.caption = "Ctrl-C stops it."
    return table


@contextmanager
def _served(running: _Running, place: Place, worker: WorkerPlace) -> Iterator[tuple[Payee, App]]:
    """What one process serves; the first one pays members and follows the chain as well."""
    from channelpay.observe import Observer
    from channelpay.payee.hub.paymaster import PayoutThread
    from channelpay.payee.hub.service import HubService

    with (
        opened(running.books) as store,
        alerts_of(running.fees, Observer()) as alerts,
        closing(_network(running, place, store, alerts, watches=worker.number == 0)) as payee,
    ):
        clerk, secret = _clerk(running.books, place)
        service = HubService(payee, store, secret, clerk)
        paymaster = paymaster_of(store, place, running.fees)
        if worker.number:
            yield payee, service
            return
        with closing(PayoutThread(paymaster, store)) as payouts:
            payouts.start()
            yield payee, service


def _network(
    running: _Running, place: Place, store: Store, alerts: Alerts, *, watches: bool
) -> Payee:
    from channelpay.payee.acceptance import Acceptance
    from channelpay.payee.hub.members import settings_of
    from channelpay.payee.payee import Payee, token_at
    from channelpay.payee.secret import kept_secret

    addresses = [*settings_of(store).caps]
    tokens = [token_at(place.connection, one) for one in addresses]
    return Payee.create(
        rpc=running.setting.rpc or "",
        chain_id=place.deployment.chain_id,
        token=["eth" if one == NATIVE else to_hex(one) for one in addresses],
        prices=[],
        store=running.books.url,
        account=place.account,
        contract=to_hex(place.deployment.contract),
        suggested_deposit=running.suggested_deposit,
        acceptance=Acceptance(running.confirmations.in_tokens(tokens)),
        settlement=policy_of(running.settling, running.fees, tokens),
        fees=fee_policy_of(running.fees),
        alerts=alerts,
        challenge_secret=kept_secret(running.books.state / _CHALLENGE_SECRET),
        watches=watches,
    )


def _clerk(books: Books, place: Place) -> tuple[Any, bytes]:
    from channelpay.payee.hub.statements import Clerk
    from channelpay.payee.secret import kept_secret

    books.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = kept_secret(books.state / _SECRET)
    return Clerk(place.deployment, place.account, secret), secret


# --- statements ----------------------------------------------------------------------------------


@hub.command(epilog="Example: channelpay hub statement anna --account network --out anna.json")
@click.argument("name")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="The file; one that is there is replaced.",
)
@books_options
@setting_options
@token_option
@json_option
@pass_output
def statement(
    output: Output, /, *, name: str, out: Path, books: Books, setting: Setting, token: Address
) -> None:
    """Write a member's statement: every sale it shares, every payout, signed by the network.

    Members get the same from the running network by their key: GET /v1/statement?token=ADDRESS.
    """
    from channelpay.payee.hub.members import member_of

    place = Place.of(setting)
    with opened(books) as store:
        clerk, _ = _clerk(books, place)
        written = clerk.statement(store, member_of(store, name), token)
    out.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    members = {key: written[key] for key in ("member", "earned", "paid", "owed")}
    members |= {"sales": len(written["sales"]), "file": str(out)}
    facts = {key.capitalize(): str(value) for key, value in members.items()}
    output.show(members, lambda: facts_table(facts))


@hub.command(
    epilog="Example: channelpay hub verify anna.json --network-address"
    " 0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC --address"
    " 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --sales sales.jsonl --author 2000 --network 300"
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--network-address", required=True, metavar="ADDRESS", help="The network's account.")
@click.option(
    "--address",
    multiple=True,
    required=True,
    metavar="ADDRESS",
    help="Where your money goes; again for each address where it went before.",
)
@click.option(
    "--sales",
    type=click.Path(path_type=Path),
    help="What your site noted of its sales: none of them may be missing, or cost less.",
)
@click.option("--author", type=_BASIS_POINTS, help="The author's part as agreed, in 1/10000.")
@click.option("--referrer", type=_BASIS_POINTS, help="The referrer's part as agreed.")
@click.option("--network", type=_BASIS_POINTS, help="The network's part as agreed.")
@rpc_option
@json_option
@pass_output
def verify(
    output: Output,
    /,
    *,
    file: Path,
    network_address: str,
    address: tuple[str, ...],
    sales: Path | None,
    rpc: str | None,
    **parts: int | None,
) -> None:
    """Check a statement: its signature, its sums, its payouts to you on the chain, your own sales.

    With --author, --referrer or --network, also that no share is less than was agreed; name the
    highest where they changed. Needs a node and no key. Exits with 6 where the statement is
    contradicted.
    """
    from channelpay.chain.payouts import PayoutsContract
    from channelpay.payee.hub.member import noted_sales
    from channelpay.payee.hub.statements import check_statement, read_statement

    network = parse_address(network_address, "network-address")
    addresses = {parse_address(one) for one in address}
    given = {name: part for name, part in parts.items() if part is not None}
    agreement = Agreement(**given) if given else None
    connection = connected(rpc)
    try:
        told = read_statement(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    if told.get("chainId") != connection.chain_id:
        raise InputError(f"the statement is of chain {told.get('chainId')}")
    own = noted_sales(sales) if sales is not None else []
    contract = PayoutsContract(connection)
    checked = check_statement(told, network, addresses, contract, own, agreement)
    _show_checked(output, checked)


def _show_checked(output: Output, checked: Checked) -> None:
    members = {
        "holds": True,
        "member": checked.member,
        "token": to_hex(checked.token),
        "receivers": [checksum_address(one) for one in checked.receivers],
        "sales": checked.sales,
        "payouts": checked.payouts,
        "earned": str(checked.earned),
        "paid": str(checked.paid),
        "owed": str(checked.owed),
    }
    facts = {key.capitalize(): str(value) for key, value in members.items()}
    facts["Receivers"] = ", ".join(checksum_address(one) for one in checked.receivers)
    output.show(members, lambda: facts_table(facts | {"Holds": "yes, and so do its payouts"}))
