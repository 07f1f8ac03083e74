"""``channelpay forget``: what the books say about finished channels goes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from channelpay.cli.common import BOOKS, home, parse_duration, pass_output
from channelpay.cli.consent import DRY_RUN_PASSED, Consent, consent_options
from channelpay.cli.output import Output, facts_table, json_option
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import ChannelId

if TYPE_CHECKING:
    from rich.table import Table


@click.command(epilog="Example: channelpay forget --older-than 30d")
@click.option(
    "--older-than",
    type=parse_duration,
    metavar="DURATION",
    default="0s",
    help="Only channels that are finalized for so long, say 30d (default: all that are).",
)
@consent_options
@json_option
@pass_output
def forget(output: Output, *, older_than: int, consent: Consent) -> int:
    """Remove what is kept about finalized channels: whom you paid, where, when and how much.

    Channels that may hold money stay, and so do the origins that they are used at, and for a day
    what keeps a purchase that was cut off from being paid for twice. What is
    on the chain stays there, and 'channelpay recover payer' finds it again. Copies that
    'channelpay backup' made are yours to delete. Close other programs that pay first.
    """
    from channelpay.payer.forget import finished
    from channelpay.payer.forget import forget as remove

    books, now = home() / BOOKS, time.time()
    found = finished(books, now - older_than) if books.exists() else ()
    if not consent.given_to(
        output,
        {"dryRun": True, **_members(found)},
        lambda: _table(found),
        "Remove what is kept about them?",
    ):
        return DRY_RUN_PASSED
    done = remove(books, now - older_than, now) if books.exists() else ()
    output.show(_members(done), lambda: _table(done))
    return 0


def _members(channels: Sequence[ChannelId]) -> dict[str, list[str]]:
    return {"channels": [to_hex(one) for one in channels]}


def _table(channels: Sequence[ChannelId]) -> Table:
    return facts_table({"Finalized channels": str(len(channels))})
