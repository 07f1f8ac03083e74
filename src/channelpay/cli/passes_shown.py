"""How passes are shown, to people and programs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from channelpay.cli.common import short
from channelpay.cli.output import Output, cells, facts_table, visible
from channelpay.protocol.text import to_hex

if TYPE_CHECKING:
    from rich.table import Table

    from channelpay.payer.passes import HeldPass


def report_pass(output: Output, url: str, status: int, held: HeldPass) -> None:
    """Say that a pass covered a request."""
    members = {"url": url, "status": status, "cost": "0", "pass": to_hex(held.pass_id)}
    members |= {"left": held.left if held.uses else None, "until": _until(held)}
    # On one line: a label could bring lines that look like ours.
    label = " ".join(visible(held.label).split())
    output.note(f"covered by your {label} ({rest(held)}): {url}", members)


def rest(held: HeldPass) -> str:
    """What is left of a pass, for people."""
    if held.ended is not None:
        return held.ended
    parts = [f"{held.left} left"] if held.uses else []
    return ", ".join([*parts, *([f"until {_until(held)}"] if held.until else [])])


def pass_members(held: HeldPass) -> dict[str, Any]:
    """A pass for programs; without its token, which is as good as the pass."""
    return {
        "pass": to_hex(held.pass_id),
        "origin": held.origin,
        "plan": held.plan,
        "label": held.label,
        "paths": list(held.paths),
        "price": str(held.price),
        "uses": held.uses or None,
        "left": held.left if held.uses else None,
        "until": _until(held),
        "refundUntil": _time(held.refund_until) if held.refund_until else None,
        "channelId": to_hex(held.channel_id),
        "renews": held.renews,
        "ended": held.ended,
    }


def pass_facts(held: HeldPass) -> Table:
    """A pass for people."""
    facts = {
        "Pass": to_hex(held.pass_id),
        "At": held.origin,
        "What": held.label,
        "On": " ".join(held.paths),
        "Left": rest(held),
        "Renews itself": "yes" if held.renews else "no",
    }
    if held.refund_until:
        facts["Refund until"] = _time(held.refund_until)
    return facts_table(facts)


def pass_list(passes: list[HeldPass]) -> Table:
    """All passes for people."""
    from rich.table import Table

    table = Table("Pass", "At", "What", "Left", "Renews")
    for held in passes:
        renews = "yes" if held.renews else ""
        table.add_row(*cells(short(held.pass_id), held.origin, held.label, rest(held), renews))
    return table


def _until(held: HeldPass) -> str | None:
    return _time(held.until) if held.until else None


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
