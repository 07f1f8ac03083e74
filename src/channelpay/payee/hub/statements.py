"""What a network says it owes a member: every sale that the member has a share in, every payout,
and the sums, signed by the network's key. Whoever has the file can check it, with nothing but a
node.

A statement is for one member and one token, from the first sale on. Amounts are decimal strings of
base units, times Unix milliseconds. The signature (EIP-191) is of the canonical JSON of all other
members.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eth_account import Account
from eth_account.messages import encode_defunct

from channelpay.chain.payouts import PaidRow, PayoutsContract
from channelpay.errors import InputError, StatementContradicted
from channelpay.payee.hub.members import Member
from channelpay.payee.hub.rounds import Round, rounds_of
from channelpay.payee.hub.wire import sale_id
from channelpay.protocol.entries import canonical
from channelpay.protocol.parse import parse_address, parse_amount
from channelpay.protocol.rules import Outcome, Payment
from channelpay.protocol.splits import AUTHOR, PUBLISHER, REFERRER, Agreement, parts_of
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import Address, Deployment
from channelpay.store import Store

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

VERSION = 1
LOST = "lost"
"""The role in which a member has a share of sales that the network's books lost."""
_SIGNATURE = "signature"


@dataclass(frozen=True, slots=True)
class Clerk:
    """Writes the statements of a network and signs them with its ``account``."""

    deployment: Deployment
    account: LocalAccount
    secret: bytes
    now: Callable[[], float] = time.time

    def statement(self, store: Store, member: Member, token: Address) -> dict[str, Any]:
        """The statement as JSON: one row for each sale, oldest first. Reads the whole ledger.

        A sale that is made, or given back, meanwhile is in this statement or in the next one.
        """
        rounds = [one for one in rounds_of(store) if one.is_ended and one.token == token]
        sales = _sales(store, member, token, self.secret) + _lost_sales(rounds, member)
        payouts = _payouts(rounds, member)
        earned = sum(int(one["share"]) for one in sales)
        paid = sum(int(one["amount"]) for one in payouts if one["paid"])
        statement = {
            "version": VERSION,
            "chainId": self.deployment.chain_id,
            "contract": to_hex(self.deployment.contract),
            "network": to_hex(bytes.fromhex(self.account.address[2:])),
            "member": member.name,
            "token": to_hex(token),
            "until": int(self.now() * 1000),
            "sales": sales,
            "payouts": payouts,
            "earned": str(earned),
            "paid": str(paid),
            "owed": str(earned - paid),
        }
        return {**statement, _SIGNATURE: _signed(statement, self.account)}


def _sales(store: Store, member: Member, token: Address, secret: bytes) -> list[dict[str, Any]]:
    found: list[tuple[int, dict[str, Any]]] = []
    for record in store.records():
        if record.channel.token != token:
            continue
        for stored in store.payments(record.channel_id):
            rows = _shares(stored.payment, member.name)
            identity = sale_id(secret, stored.payment_id, stored.payment.time) if rows else ""
            found += [(stored.payment_id, {"id": identity, **row}) for row in rows]
    return [row for _, row in sorted(found, key=lambda pair: pair[0])]


def _shares(payment: Payment, name: str) -> list[dict[str, Any]]:
    """What a member has of a payment that stands. Nobody is told who the reader was."""
    if payment.outcome is Outcome.RELEASED:
        return []
    return [
        {
            "time": payment.time,
            "resource": payment.resource,
            "price": str(payment.price),
            "role": part.role,
            "share": str(part.amount),
        }
        for part in parts_of(payment.details)
        if part.name == name
    ]


def _lost_sales(rounds: Iterable[Round], member: Member) -> list[dict[str, Any]]:
    """What payouts show that books had which were lost since, a row for each payout."""
    return [
        {
            "id": f"round {one.number}",
            "time": one.time,
            "resource": f"sales before the books were restored, as round {one.number} shows",
            "price": str(row.lost),
            "role": LOST,
            "share": str(row.lost),
        }
        for one in rounds
        for row in one.rows
        if row.name == member.name and row.lost
    ]


def _payouts(rounds: Iterable[Round], member: Member) -> list[dict[str, Any]]:
    """Those that ended; what is under way is owed still."""
    return [
        {
            "round": one.number,
            "txHash": to_hex(one.transaction_hash),
            "block": one.block,
            "receiver": to_hex(row.address),
            "amount": str(row.amount),
            "paid": row.is_paid,
        }
        for one in rounds
        for row in one.rows
        if row.name == member.name
    ]


def _signed(statement: Mapping[str, Any], account: LocalAccount) -> str:
    signed = account.sign_message(encode_defunct(text=canonical(statement)))
    return to_hex(bytes(signed.signature))


# --- checking ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Checked:
    """A statement that holds: what it says, in base units."""

    network: Address
    member: str
    token: Address
    sales: int
    payouts: int
    earned: int
    paid: int
    receivers: tuple[Address, ...]

    @property
    def owed(self) -> int:
        return self.earned - self.paid


def read_statement(text: bytes) -> dict[str, Any]:
    """Raises :class:`~channelpay.errors.InputError` for what is no statement."""
    try:
        statement: Any = json.loads(text)
    except ValueError as error:
        raise InputError("the statement is not JSON") from error
    if not isinstance(statement, dict):
        raise InputError("the statement is not a JSON object")
    if statement.get("version") != VERSION or _SIGNATURE not in statement:
        raise InputError("this is no statement of a network, or one of another version")
    return statement


def check_statement(
    statement: Mapping[str, Any],
    network: Address,
    addresses: Collection[Address],
    contract: PayoutsContract,
    own_sales: Sequence[Mapping[str, Any]] = (),
    agreement: Agreement | None = None,
) -> Checked:
    """Check a statement against itself, the network's signature, the chain, the member's
    ``addresses``, what it noted of its ``own_sales``
    (:func:`channelpay.payee.hub.member.noted_sales`), and the ``agreement`` on the shares.

    Raises :class:`~channelpay.errors.StatementContradicted`, which says where, and
    :class:`~channelpay.errors.InputError` for a malformed one.
    """
    try:
        checked = _checked(statement)
        _require(checked.network == network, "it is of another network")
        _check_signature(statement, network)
        _check_sums(statement, checked)
        _check_own(statement, own_sales)
        if agreement is not None:
            _check_shares(statement, own_sales, agreement)
        strangers = [to_hex(one) for one in checked.receivers if one not in addresses]
        _require(not strangers, f"it has payouts to somebody else: {strangers[:1]}")
        _check_chain(statement, contract)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("the statement is malformed") from error
    return checked


def _checked(statement: Mapping[str, Any]) -> Checked:
    return Checked(
        parse_address(statement["network"]),
        str(statement["member"]),
        parse_address(statement["token"]),
        len(statement["sales"]),
        sum(1 for one in statement["payouts"] if one["paid"]),
        parse_amount(statement["earned"], "earned"),
        parse_amount(statement["paid"], "paid"),
        tuple(dict.fromkeys(parse_address(one["receiver"]) for one in statement["payouts"])),
    )


def _check_signature(statement: Mapping[str, Any], network: Address) -> None:
    unsigned = {name: one for name, one in statement.items() if name != _SIGNATURE}
    message = encode_defunct(text=canonical(unsigned))
    try:
        signer = Account.recover_message(message, signature=statement[_SIGNATURE])
    except Exception:  # noqa: BLE001  whatever the library raises, it is no signature
        signer = ""
    _require(signer == checksum_address(network), "the network did not sign it")


def _check_sums(statement: Mapping[str, Any], checked: Checked) -> None:
    earned = sum(parse_amount(one["share"], "share") for one in statement["sales"])
    _require(earned == checked.earned, f"its sales add up to {earned}, it says {checked.earned}")
    paid = sum(parse_amount(one["amount"], "amount") for one in statement["payouts"] if one["paid"])
    _require(paid == checked.paid, f"its payouts add up to {paid}, it says {checked.paid}")
    owed = checked.earned - checked.paid
    _require(str(owed) == statement["owed"], f"it owes {owed}, it says {statement['owed']}")
    names = [(one["id"], one["role"]) for one in statement["sales"]]
    _require(len(set(names)) == len(names), "a sale is in it twice")


def _check_own(statement: Mapping[str, Any], own_sales: Sequence[Mapping[str, Any]]) -> None:
    sold = {one["id"]: one for one in statement["sales"] if one["role"] == PUBLISHER}
    missing = [one["id"] for one in own_sales if one["id"] not in sold]
    _require(not missing, f"{len(missing)} of your sales are missing, such as {missing[:1]}")
    for one in own_sales:
        price = parse_amount(sold[one["id"]]["price"], "price")
        # A retry is noted as well, and charges nothing.
        charged = parse_amount(one["charged"], "charged")
        _require(price >= charged, f"the price of {one['id']} is {price}, you noted {charged}")


def _check_shares(
    statement: Mapping[str, Any], own_sales: Sequence[Mapping[str, Any]], agreement: Agreement
) -> None:
    """No share is less than was agreed. Who shares a sale is what the member noted; of others it
    may be anybody.
    """
    noted = {one["id"]: one for one in own_sales}
    for one in statement["sales"]:
        price, share = parse_amount(one["price"], "price"), parse_amount(one["share"], "share")
        parts = agreement.divide(price, PUBLISHER, AUTHOR, REFERRER)
        if (own := noted.get(one["id"])) is not None:
            names = (statement["member"], own.get("author"), own.get("referrer"))
            parts = agreement.divide(price, *names)
        agreed = next((part.amount for part in parts if part.role == one["role"]), 0)
        _require(share >= agreed, f"the share in {one['id']} is {share}, {agreed} was agreed")


def _check_chain(statement: Mapping[str, Any], contract: PayoutsContract) -> None:
    network = parse_address(statement["network"])
    token = parse_address(statement["token"])
    told = [_told_row(one) for one in statement["payouts"]]
    blocks = [int(one["block"]) for one in statement["payouts"]]
    receivers = {row[1] for row in told}
    found: list[PaidRow] = []
    for receiver in sorted(receivers):
        found += contract.rows(network, receiver=receiver, from_block=min(blocks))
    on_chain = [_row_of(row) for row in found if row.token == token]
    for row in told:
        _require(row in on_chain, f"payout {row[0]} of {row[2]} is not on the chain")
        on_chain.remove(row)


_Row = tuple[int, Address, int, bool, str]


def _told_row(payout: Mapping[str, Any]) -> _Row:
    amount = parse_amount(payout["amount"], "amount")
    receiver = parse_address(payout["receiver"])
    return int(payout["round"]), receiver, amount, bool(payout["paid"]), str(payout["txHash"])


def _row_of(row: PaidRow) -> _Row:
    return row.round, row.receiver, row.amount, row.paid, to_hex(row.transaction_hash)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise StatementContradicted(f"the statement does not hold: {otherwise}")
