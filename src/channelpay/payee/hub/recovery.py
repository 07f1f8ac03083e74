"""Books of a network that were restored from a copy: the rounds that were paid since are on the
chain, and are entered from there. So nobody is paid twice, and statements say what the chain says.

What a round had for a member beyond what these books owed it was for sales that were lost with the
newer books. It counts as earned, and the statement says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from channelpay.chain.connection import checksum
from channelpay.chain.payouts import PaidRow, PayoutsContract
from channelpay.errors import ConfigError
from channelpay.payee.hub.members import members_of
from channelpay.payee.hub.rounds import (
    Round,
    Row,
    end_round,
    enter_round,
    next_number,
    open_round,
    rounds_of,
    shares_of,
)
from channelpay.protocol.splits import Share
from channelpay.protocol.types import Address
from channelpay.store import Store


def recover_rounds(
    store: Store,
    contract: PayoutsContract,
    network: Address,
    *,
    confirmations: int = 1,
    from_block: int | None = None,
) -> list[Round]:
    """Enter the rounds of ``network`` that the chain has with so many ``confirmations``, and that
    these books do not have, or have otherwise. Calling it again changes nothing.

    The chain is read from ``from_block`` on, or from the newest round that the books know. Raises
    :class:`~channelpay.errors.ConfigError` at a round that is older, or that paid somebody who is
    no member of these books; those before it are entered.
    """
    begun = open_round(store)
    head = contract.connection.latest_block().number
    count = contract.rounds(network, block=max(0, head - confirmations + 1))
    unknown = range(next_number(store) if begun is None else begun.number, count)
    if from_block is None:
        from_block = max((one.block for one in rounds_of(store)), default=0)
    paid: defaultdict[int, list[PaidRow]] = defaultdict(list)
    for row in contract.rows(network, from_block=from_block) if unknown else ():
        paid[row.round].append(row)
    return [_entered(store, contract, number, paid[number]) for number in unknown]


def _entered(
    store: Store, contract: PayoutsContract, number: int, paid: Sequence[PaidRow]
) -> Round:
    if not paid:
        raise ConfigError(
            f"round {number} was paid earlier than was looked for",
            hint="Say with --from-block where to begin: before the first payout.",
        )
    begun = open_round(store)
    if begun is not None and begun.is_that(paid):
        return end_round(store, begun.ended(paid))
    block = contract.connection.block(paid[0].block_number)
    time_ms = 0 if block is None else block.timestamp * 1000
    first = paid[0]
    rows = _rows(store, paid)
    whole = Round(number, first.token, rows, first.block_number, time_ms, first.transaction_hash)
    return enter_round(store, whole, begun)


def _rows(store: Store, paid: Sequence[PaidRow]) -> tuple[Row, ...]:
    """Who was paid. Of members with one address, who is owed most is in a round first."""
    shares = shares_of(store, paid[0].token)
    at: defaultdict[Address, list[str]] = defaultdict(list)
    for member in members_of(store):
        at[member.address].append(member.name)
    for names in at.values():
        names.sort(key=lambda name: shares.get(name, Share()).outstanding)
    rows = []
    for one in paid:
        if not at[one.receiver]:
            raise ConfigError(
                f"round {one.round} paid {checksum(one.receiver)}, which is no member's address",
                hint="Add the member that had it (channelpay hub member add), or move it there for"
                " now (channelpay hub member move).",
            )
        rows.append(Row(at[one.receiver].pop(), one.receiver, one.amount, one.paid))
    return tuple(rows)
