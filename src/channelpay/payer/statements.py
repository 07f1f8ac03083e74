"""Statements from the payer's own books: what it kept of its purchases, in the sums of channels."""

from __future__ import annotations

from collections.abc import Iterable

from channelpay.payer.purchased import Purchased
from channelpay.payer.records import ETHER, PayerChannel, Token
from channelpay.payer.state import PayerState
from channelpay.protocol.statements import Movement, Period, Sheet, Statement, statement
from channelpay.protocol.types import NATIVE, Address


def statements(state: PayerState, payer: Address, period: Period) -> list[Statement]:
    """One for each payee and token, over all channels of ``payer``; without those of which nothing
    was kept in the period. What was not kept is in the opening amounts.
    """
    by_parties: dict[tuple[Address, Address, Address], list[PayerChannel]] = {}
    for entry in state.channels(payer):
        channel = entry.channel
        parties = (channel.payer, channel.payee, channel.token)
        by_parties.setdefault(parties, []).append(entry)
    made = (
        statement(parties, [_sheet(state, one) for one in entries], period)
        for parties, entries in sorted(by_parties.items())
    )
    return [one for one in made if one.lines]


def tokens_of(
    state: PayerState, payer: Address, addresses: Iterable[Address]
) -> dict[Address, Token]:
    """What the books know of these tokens."""
    found = {NATIVE: ETHER}
    chains = {entry.deployment.chain_id for entry in state.channels(payer)}
    for address in addresses:
        known = (state.token(chain_id, address) for chain_id in sorted(chains))
        token = next((one for one in known if one is not None), None)
        if token is not None:
            found[address] = token
    return found


def _sheet(state: PayerState, entry: PayerChannel) -> Sheet:
    kept = state.purchases.of_channel(entry.channel_id)
    # What was kept meanwhile is known to the channel as well.
    current = state.channel(entry.channel_id)
    movements = [_movement(one) for one in kept]
    return Sheet(entry.channel_id, current.spent, current.settled, movements)


def _movement(one: Purchased) -> Movement:
    return Movement(one.time, one.kind, one.url, one.cost, one.list_price, one.on_tab)
