"""The text of `docs/gas.md`, from the figures that `scripts/gas.py` measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PAYMENTS = (1, 10, 100, 1_000, 100_000)

# EIP-8037 and EIP-8038 as published in August 2026 (status: Review).
STATE_BYTES_PER_SLOT = 64
GAS_PER_STATE_BYTE = 1_530
STORAGE_WRITE, STORAGE_WRITE_NOW = 10_000, 2_800
COLD_ACCOUNT, COLD_ACCOUNT_NOW = 3_000, 2_600
STORAGE_SET_NOW = 20_000 - STORAGE_WRITE_NOW - 100
"""What a new slot costs today beyond its write and the warm access."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; all in gas. `floor` is what the opcodes cost that no design avoids."""

    name: str
    reach: int | None = None
    floor: int | None = None
    peer: int | None = None
    peer_name: str = ""


ROWS = (
    Row("open, ETH", 50_200, 46_000, 116_700, "Machinomy"),
    Row("re-open, ETH", 33_200),
    Row("top up, ETH", 31_500, peer=40_100),
    Row("settle, ETH"),
    Row("close, ETH", 53_900, 49_800, 56_800, "Machinomy"),
    Row("close with authorization, ETH"),
    Row("request close, ETH"),
    Row("withdraw, ETH"),
    Row("settle a batch of one, ETH"),
    Row("one more settlement in a batch, ETH"),
    Row("close a batch of one, ETH"),
    Row("one more close in a batch, ETH"),
    Row("payout to one, ETH"),
    Row("one more receiver in a payout, ETH"),
    Row("open, ERC-20", 69_200, 64_500, 69_300, "Tempo"),
    Row("re-open, ERC-20", 52_100),
    Row("open with permit, ERC-20"),
    Row("open with authorization, ERC-20"),
    Row("top up, ERC-20", 52_400, peer=52_400),
    Row("settle, ERC-20", 52_600, peer=59_500, peer_name="µRaiden"),
    Row("close, ERC-20", 61_500, 55_300, 64_000, "Tempo"),
    Row("close with authorization, ERC-20"),
    Row("request close, ERC-20"),
    Row("withdraw, ERC-20"),
    Row("settle a batch of one, ERC-20"),
    Row("one more settlement in a batch, ERC-20", 13_500, 11_900, 21_600, "x402"),
    Row("close a batch of one, ERC-20"),
    Row("one more close in a batch, ERC-20"),
    Row("payout to one, ERC-20"),
    Row("one more receiver in a payout, ERC-20"),
    Row("approve, ERC-20"),
    Row("plain transfer, ETH"),
    Row("plain transfer, ERC-20"),
)


@dataclass(frozen=True, slots=True)
class StateUse:
    """What a transaction does to the state: new slots, slots changed, cold accounts called."""

    name: str
    new_slots: int
    changed_slots: int
    cold_accounts: int


# An ERC-20 pull changes two balances and calls one account that is cold.
STATE_USES = (
    StateUse("open, ETH", 1, 0, 0),
    StateUse("re-open, ETH", 0, 1, 0),
    StateUse("top up, ETH", 0, 1, 0),
    StateUse("open, ERC-20", 1, 2, 1),
    StateUse("re-open, ERC-20", 0, 3, 1),
    StateUse("top up, ERC-20", 0, 3, 1),
)


@dataclass(frozen=True, slots=True)
class _Way:
    """A way to pay: gas once, gas for each payment, and the count that beats plain transfers."""

    name: str
    fixed: int
    each: int
    cheaper_from: str


def repriced(use: StateUse, gas: int) -> int:
    """An estimate of the same transaction's gas under EIP-8037 and EIP-8038."""
    write = STORAGE_WRITE - STORAGE_WRITE_NOW
    creation = STATE_BYTES_PER_SLOT * GAS_PER_STATE_BYTE - STORAGE_SET_NOW
    slots = use.new_slots * (creation + write) + use.changed_slots * write
    return gas + slots + use.cold_accounts * (COLD_ACCOUNT - COLD_ACCOUNT_NOW)


def break_even(channel: int, transfer: int) -> int:
    """The least number of payments at which a channel costs less than as many transfers."""
    return channel // transfer + 1


def costs(figures: dict[str, int]) -> str:
    """What each transaction costs, as a Markdown table."""
    return _table(
        ("transaction", "gas used", "floor", "to reach", "best peer"),
        [_cost_cells(row, figures[row.name]) for row in ROWS],
    )


def per_payment(figures: dict[str, int]) -> str:
    """Gas per payment over one channel beside plain transfers, as a Markdown table."""
    ways = _ways(figures)
    lines = [
        (f"{count:,}", *(f"{way.fixed / count + way.each:,.1f}" for way in ways))
        for count in PAYMENTS
    ]
    even = ("cheaper than plain from", *(way.cheaper_from for way in ways))
    return _table(("payments", *(way.name for way in ways)), [*lines, even])


def repricing(figures: dict[str, int]) -> str:
    """Today's gas and the estimate, as a Markdown table."""
    lines = [
        (use.name, f"{figures[use.name]:,}", f"{repriced(use, figures[use.name]):,}")
        for use in STATE_USES
    ]
    return _table(("transaction", "gas today", "estimate"), lines)


def tables(figures: dict[str, int]) -> str:
    """All tables, for a terminal."""
    return "\n".join((costs(figures), per_payment(figures), repricing(figures)))


def page(figures: dict[str, int]) -> str:
    """The whole page."""
    return f"""# Gas

Written by `make gas`; a test fails when a figure grows by more than 1 %.

`gasUsed` of whole transactions, from the receipts of anvil under the rules of the Prague fork: a
plain ERC-20, unlimited allowance, no balance zero before, vouchers signed by the payer's own key,
`settle` and `close` sent by the payee, `close` with one voucher and a refund. A re-open uses the
storage slot of a finalized channel again. An open with a permit or an authorization starts
without an allowance; without it, a first open takes `approve` and `open`.

{costs(figures)}
The floor is the sum of the opcodes that no design avoids. The best peer is the cheapest of the
other contracts with a full implementation, measured in the same way.

## For each payment

A channel costs its open and its close, however many payments it carries; a plain transfer costs
its whole gas each time. A channel in a lane that was used before costs the re-open instead.

{per_payment(figures)}
## Under the announced repricing of state (an estimate)

EIP-8037 and EIP-8038, as published in August 2026 and not final. The estimate replaces these
charges in the measured figure and leaves all others as they are:

- a new storage slot: {STATE_BYTES_PER_SLOT} bytes of state at {GAS_PER_STATE_BYTE:,} gas each
- the first change of a slot: {STORAGE_WRITE:,} gas (now {STORAGE_WRITE_NOW:,})
- a cold account: {COLD_ACCOUNT:,} gas (now {COLD_ACCOUNT_NOW:,})

A fresh channel pays for one new slot; a re-open for none, which is what the lanes are for.

{repricing(figures)}"""


def _ways(figures: dict[str, int]) -> list[_Way]:
    ways = []
    for kind in ("ETH", "ERC-20"):
        plain, close = figures[f"plain transfer, {kind}"], figures[f"close, {kind}"]
        for name, opening in (("channel", "open"), ("re-used lane", "re-open")):
            fixed = figures[f"{opening}, {kind}"] + close
            ways.append(_Way(f"{name}, {kind}", fixed, 0, str(break_even(fixed, plain))))
        ways.append(_Way(f"plain, {kind}", 0, plain, ""))
    return ways


def _cost_cells(row: Row, gas: int) -> tuple[str, ...]:
    goal = _cell(row.reach) + (" (missed)" if row.reach is not None and gas > row.reach else "")
    peer = f"{_cell(row.peer)} {row.peer_name}".strip()
    return row.name, f"{gas:,}", _cell(row.floor), goal, peer


def _cell(gas: int | None) -> str:
    return "" if gas is None else f"{gas:,}"


def _table(heads: tuple[str, ...], lines: Sequence[tuple[str, ...]]) -> str:
    rule = ("---", *("---:" for _ in heads[1:]))
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (heads, rule, *lines))
