"""How a tab is shown: what a payer owes, and until when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from channelpay.cli.common import format_amount_of
from channelpay.protocol.tabs import TabNote
from channelpay.protocol.wire import format_time

if TYPE_CHECKING:
    from channelpay.payer.records import Token


def tab_members(note: TabNote) -> dict[str, Any]:
    """For programs."""
    return {
        "added": str(note.added),
        "owed": str(note.owed),
        "limit": str(note.limit),
        "dueAt": due_text(note.due_at) or None,
    }


def tab_text(note: TabNote, token: Token | None) -> str:
    """For people, in a line."""
    added = f"on your tab: {format_amount_of(note.added, token)}; " if note.added else ""
    due = f", due {due_text(note.due_at)}" if note.owed and note.due_at else ""
    return f"{added}you owe {format_amount_of(note.owed, token)} there{due}"


def due_text(seconds: int) -> str:
    """Empty where nothing is due."""
    return format_time(seconds) if seconds else ""
