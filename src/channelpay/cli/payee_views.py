"""What the commands of a payee show: channels, plans, what was taken and how things stand. Programs
get amounts as decimal strings in base units, people in units of the token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from channelpay.cli.common import connected, format_amount_of, short
from channelpay.cli.consent import about_ether
from channelpay.cli.explorer import link_facts, link_members, transaction_link
from channelpay.cli.output import Output, facts_table
from channelpay.protocol.text import checksum_address, format_amount, to_hex
from channelpay.protocol.types import NATIVE, Address, ChannelStatus

if TYPE_CHECKING:
    from rich.table import Table

    from channelpay.chain.connection import Connection
    from channelpay.payee.closer import Taken
    from channelpay.payee.policy import Plan
    from channelpay.payee.terms import Token
    from channelpay.protocol.rules import ChannelRecord
    from channelpay.protocol.transactions import Outgoing
    from channelpay.store import Store, Totals

ETHER_DECIMALS = 18
JOURNAL_SHOWN = 1_000
"""How many of the newest transactions are looked through for pending ones."""
Tokens = Mapping[Address, "Token"]


def tokens_at(addresses: Iterable[Address], rpc: str | None) -> Tokens:
    """What is known of these tokens: without a node, ether only."""
    from channelpay.payee.terms import ETHER

    wanted = set(addresses)
    if rpc is None or wanted <= {NATIVE}:
        return {NATIVE: ETHER}
    return tokens_on(wanted, connected(rpc))


def tokens_on(addresses: Iterable[Address], connection: Connection) -> Tokens:
    from channelpay.payee.payee import token_at

    return {address: token_at(connection, address) for address in set(addresses)}


# --- channels ------------------------------------------------------------------------------------


def channel_members(record: ChannelRecord) -> dict[str, Any]:
    return {
        "channelId": to_hex(record.channel_id),
        "status": record.chain.status.value,
        "payer": checksum_address(record.channel.payer),
        "payee": checksum_address(record.channel.payee),
        "token": checksum_address(record.channel.token),
        "deposit": str(record.chain.deposit),
        "accepted": str(record.accepted),
        "spent": str(record.spent),
        "settled": str(record.chain.settled),
        "unsettled": str(record.unsettled),
    }


def channels_table(records: Sequence[ChannelRecord], rpc: str | None) -> Table:
    tokens = tokens_at({record.channel.token for record in records}, rpc)
    columns = ("Channel", "Payer", "Status", "Deposit", "Accepted", "Spent", "Settled", "Unsettled")
    rows = []
    for record in records:
        chain, token = record.chain, tokens.get(record.channel.token)
        amounts = (chain.deposit, record.accepted, record.spent, chain.settled, record.unsettled)
        names = (short(record.channel_id), short(record.channel.payer), chain.status.value)
        rows.append((*names, *(format_amount_of(amount, token) for amount in amounts)))
    return _table(columns, rows)


# --- plans ---------------------------------------------------------------------------------------


def show_plans(output: Output, plans: Sequence[Plan], connection: Connection) -> None:
    """What would be done, and what it would cost."""
    output.show(plans_members(plans), lambda: plans_table(plans, connection))


def plans_members(plans: Sequence[Plan]) -> list[dict[str, Any]]:
    return [_plan_members(plan) for plan in plans]


def _plan_members(plan: Plan) -> dict[str, Any]:
    return {
        "kind": plan.kind.value,
        "reason": plan.reason.value,
        "token": checksum_address(plan.token),
        "channels": [to_hex(record.channel_id) for record in plan.records],
        "value": str(plan.value),
        "gas": plan.gas,
        "costWei": str(plan.cost_wei),
        "urgency": round(plan.urgency, 3),
    }


def plans_table(plans: Sequence[Plan], connection: Connection) -> Table:
    tokens = tokens_on((plan.token for plan in plans), connection)
    rows = [
        (
            plan.kind.value,
            _channels(plan.records),
            plan.reason.value,
            tokens[plan.token].format(plan.value),
            f"{plan.gas:,}",
            about_ether(plan.cost_wei),
        )
        for plan in plans
    ]
    if not rows:
        rows = [("nothing", "", "", "", "", "")]
    return _table(("Would", "Channels", "Because", "Brings", "Gas", "Costs about"), rows)


def _channels(records: Sequence[ChannelRecord]) -> str:
    first = short(records[0].channel_id)
    return first if len(records) == 1 else f"{first} and {len(records) - 1} more"


# --- what was taken ------------------------------------------------------------------------------


def show_taken(output: Output, taken: Taken, token: Token) -> None:
    record = taken.record
    members = {
        "channelId": to_hex(record.channel_id),
        "status": record.chain.status.value,
        "txHash": to_hex(taken.transaction_hash),
        "amount": str(taken.amount),
        "feeWei": str(taken.fee_wei),
    }
    shown = {
        "Channel": members["channelId"],
        "Status": members["status"],
        "Taken": token.format(taken.amount),
        "Gas fee": _ether(taken.fee_wei),
        "Transaction": members["txHash"],
    }
    link = transaction_link(taken.transaction_hash)
    output.show(members | link_members(link), lambda: facts_table(shown | link_facts(link)))


# --- how things stand ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Closing:
    """A channel whose payer wants it closed, with something unsettled. ``deadline`` is the Unix
    second in which the grace period ends, and ``is_late`` whether its urgent part has begun: where
    a node told it.
    """

    record: ChannelRecord
    deadline: int | None
    is_late: bool


@dataclass(frozen=True, slots=True)
class Status:
    """What the books say, with what a node added."""

    totals: Mapping[Address, Totals]
    unsettled: Mapping[Address, int]
    closing: Sequence[Closing]
    pending: Sequence[Outgoing]
    carried: Sequence[Outgoing]


def status_of(store: Store, rpc: str | None, contract: str | None) -> Status:
    from channelpay.payee.carrier import is_carried
    from channelpay.protocol.transactions import TransactionStatus

    closing = [
        record
        for record in store.owed()
        if record.chain.status is ChannelStatus.CLOSING and record.unsettled
    ]
    newest = store.transactions(JOURNAL_SHOWN)
    return Status(
        store.totals(),
        store.unsettled(),
        _closing(closing, rpc, contract),
        [one for one in newest if one.status is TransactionStatus.PENDING],
        [one for one in newest if is_carried(one)],
    )


def _closing(
    records: Sequence[ChannelRecord], rpc: str | None, contract: str | None
) -> list[Closing]:
    if rpc is None or not records:
        return [Closing(record, None, is_late=False) for record in records]
    from channelpay.chain.contract import PaymentChannelsContract
    from channelpay.cli.office import reached
    from channelpay.payee.policy import Moment, SettlementPolicy

    connection, deployment = reached(rpc, contract)
    grace = PaymentChannelsContract(connection, deployment).grace_period_seconds()
    moment = Moment(0, connection.latest_block().timestamp, grace, 0, 0)
    policy = SettlementPolicy()
    return [
        Closing(
            record,
            record.chain.close_requested_at + grace,
            is_late=policy.urgency(record, moment) > 0,
        )
        for record in records
    ]


def status_members(status: Status) -> dict[str, Any]:
    return {
        "tokens": [
            {
                "token": checksum_address(address),
                "channels": sums.channels,
                "deposit": str(sums.deposit),
                "accepted": str(sums.accepted),
                "spent": str(sums.spent),
                "settled": str(sums.settled),
                "unsettled": str(status.unsettled.get(address, 0)),
            }
            for address, sums in sorted(status.totals.items())
        ],
        "closing": [
            {
                "channelId": to_hex(one.record.channel_id),
                "token": checksum_address(one.record.channel.token),
                "unsettled": str(one.record.unsettled),
                "deadline": one.deadline,
                "late": one.is_late,
            }
            for one in status.closing
        ],
        "pending": [
            {
                "number": one.number,
                "nonce": one.nonce,
                "purpose": _purpose(one),
                "broadcasts": len(one.broadcasts),
                "txHash": to_hex(one.broadcasts[-1].hash),
            }
            for one in status.pending
        ],
        "carried": [
            {
                "time": one.broadcasts[0].time,
                "purpose": one.purpose,
                "feeWei": None if one.fee_wei is None else str(one.fee_wei),
            }
            for one in status.carried
        ],
    }


def status_table(status: Status, rpc: str | None) -> Table:
    tokens = tokens_at(status.totals, rpc)
    table = _table(("What", "Which", "State", "Amount"), [])
    for address, sums in sorted(status.totals.items()):
        token = tokens.get(address)
        name = checksum_address(address) if token is None else token.symbol
        settled = f"{format_amount_of(sums.settled, token)} settled of {sums.channels} channels"
        unsettled = format_amount_of(status.unsettled.get(address, 0), token)
        _add(table, ("unsettled", name, settled, unsettled))
    for one in status.closing:
        amount = format_amount_of(one.record.unsettled, tokens.get(one.record.channel.token))
        _add(table, ("closing", short(one.record.channel_id), _deadline(one), amount))
    for sent in status.pending:
        attempts = f"nonce {sent.nonce}, sent {len(sent.broadcasts)} times"
        _add(table, ("pending", short(sent.broadcasts[-1].hash), attempts, _purpose(sent)))
    if status.carried:
        fees = sum(one.fee_wei or 0 for one in status.carried)
        sent_for = f"{len(status.carried)} transactions of payers"
        _add(table, ("carried", "gas", sent_for, about_ether(fees)))
    return table


def _deadline(closing: Closing) -> str:
    if closing.deadline is None:
        return "deadline unknown without --rpc"
    end = datetime.fromtimestamp(closing.deadline, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"LATE: {end}" if closing.is_late else f"until {end}"


def _purpose(outgoing: Outgoing) -> str:
    from channelpay.payee.closer import Work

    work = Work.of(outgoing)
    if work is None:
        return outgoing.purpose
    return f"{work.kind.value} {len(work.channel_ids)} channels"


def _ether(wei: int) -> str:
    return format_amount(wei, ETHER_DECIMALS, "ETH")


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    from rich.table import Table

    table = Table(*columns)
    for row in rows:
        _add(table, row)
    return table


def _add(table: Table, row: Sequence[str]) -> None:
    """Names come from others: nothing in them is markup."""
    from rich.markup import escape

    table.add_row(*map(escape, row))
