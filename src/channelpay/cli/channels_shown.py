"""A payer's channels as people and programs see them: the money, and what happens next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from channelpay.cli.common import format_amount_of, short
from channelpay.cli.explorer import link_facts, link_members, transaction_link
from channelpay.payer.money import Next, Standing, standing_of
from channelpay.payer.records import PayerChannel, Token
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import ChannelStatus
from channelpay.protocol.wire import format_time

if TYPE_CHECKING:
    from rich.table import Table

_PARTS = {
    "settled": "settled",
    "promised": "promised",
    "available": "available",
    "in_grace": "inGrace",
    "withdrawable": "withdrawable",
    "withdrawn": "withdrawn",
}
"""The parts of :class:`~channelpay.payer.money.Money`, and their names for programs."""


@dataclass(frozen=True)
class Shown:
    """One channel at ``now`` (Unix seconds); without a token, amounts are in base units."""

    entry: PayerChannel
    token: Token | None
    now: float

    @cached_property
    def standing(self) -> Standing:
        return standing_of(self.entry, self.now)

    def members(self) -> dict[str, Any]:
        """What programs read; amounts are decimal strings in base units, times Unix seconds."""
        entry, described, opened = self.entry, self.entry.channel, self.entry.open_transaction
        money, standing = self.standing.money, self.standing
        return {
            "channelId": to_hex(entry.channel_id),
            "status": entry.status.value,
            "payer": checksum_address(described.payer),
            "payee": checksum_address(described.payee),
            "token": checksum_address(described.token),
            "chainId": entry.deployment.chain_id,
            "contract": checksum_address(entry.deployment.contract),
            "deposit": str(entry.deposit),
            "signed": str(entry.signed),
            "spent": str(entry.spent),
            "settled": str(entry.settled),
            "url": entry.url,
            "refused": entry.refused,
            "inDoubt": entry.in_doubt,
            "unansweredSince": entry.unanswered_since or None,
            "openTxHash": None if opened is None else to_hex(opened),
            "closeRequestedAt": entry.close_requested_at or None,
            "withdrawableAt": entry.withdrawable_at,
            "money": {json: str(getattr(money, name)) for name, json in _PARTS.items()},
            "next": {"action": standing.next.value, "at": standing.at, "text": self.next_text()},
        } | link_members(self._link())

    def facts(self) -> dict[str, str]:
        """What people read, without what there is nothing to say about."""
        entry = self.entry
        opened = "" if entry.open_transaction is None else to_hex(entry.open_transaction)
        facts = {
            "Channel": to_hex(entry.channel_id),
            "Status": self.status(),
            "Payee": checksum_address(entry.channel.payee),
            "Deposit": self._amount(entry.deposit),
            "Spent": self._amount(entry.spent),
            "Signed": self._amount(entry.signed),
            "Settled": self._amount(entry.settled),
            "Money": self.money_text(),
            "Next": self.next_text(),
            "URL": entry.url or "",
            "Opened by": opened,
            **link_facts(self._link()),
        }
        return {name: value for name, value in facts.items() if value}

    def status(self) -> str:
        entry = self.entry
        if entry.status is ChannelStatus.FINALIZED:
            return entry.status.value
        remarks = [] if entry.refused is None else ["refused"]
        remarks += ["in doubt"] if entry.in_doubt else []
        return entry.status.value + (f" ({', '.join(remarks)})" if remarks else "")

    def money_text(self) -> str:
        """Each part of the deposit that is not zero."""
        money = self.standing.money
        amounts = {name: getattr(money, name) for name in _PARTS}
        return ", ".join(
            f"{self._amount(amount)} {name.replace('_', ' ')}"
            for name, amount in amounts.items()
            if amount
        )

    def next_text(self) -> str:
        """What happens next, when, and the command that makes it happen."""
        name = short(self.entry.channel_id)
        match self.standing.next:
            case Next.CONFIRM:
                return "the open may still be mined: channelpay channel list --rpc URL"
            case Next.ASK:
                return "the next request asks the payee what it holds"
            case Next.PAY:
                return f"it pays until: channelpay channel close {name}"
            case Next.REQUEST_CLOSE:
                return f"{self._trouble()}: channelpay channel close {name} --request"
            case Next.WITHDRAW:
                return f"{self._when()}: channelpay channel withdraw {name}"
            case Next.NOTHING:
                return ""

    def _trouble(self) -> str:
        entry = self.entry
        if entry.refused is not None:
            return f"the payee refuses it ({entry.refused})"
        since = _time_text(entry.unanswered_since)
        return f"no answer from the payee since {since}; if it stays silent"

    def _when(self) -> str:
        at = self.standing.at
        return "now" if at is None or at <= self.now else f"from {_time_text(at)}"

    def _link(self) -> str | None:
        """To its open."""
        opened = self.entry.open_transaction
        return None if opened is None else transaction_link(opened, self.entry.deployment.chain_id)

    def _amount(self, amount: int) -> str:
        return format_amount_of(amount, self.token)


def _time_text(seconds: int) -> str:
    """With spaces, at which a table may break it."""
    return format_time(seconds).replace("T", " ").replace("Z", " UTC")


def list_table(channels: Sequence[Shown]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table("Channel", "Status", "Payee", "Deposit", "Money")
    # Its commands are to be copied.
    table.add_column("Next", overflow="fold")
    for shown in channels:
        entry = shown.entry
        cells = (
            short(entry.channel_id),
            shown.status(),
            short(entry.channel.payee),
            format_amount_of(entry.deposit, shown.token),
            shown.money_text(),
            shown.next_text(),
        )
        table.add_row(*map(escape, cells))
    return table
