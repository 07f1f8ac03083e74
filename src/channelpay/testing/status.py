"""What a development chain looks like now: for its page and for ``channelpay dev status``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from string import Template
from threading import Lock

from channelpay.chain.connection import Connection, connect
from channelpay.chain.contract import Erc20, PaymentChannelsContract
from channelpay.chain.events import ChannelOpened, EventReader
from channelpay.errors import ChannelPayError
from channelpay.payee.style import STYLE
from channelpay.protocol.text import checksum_address, format_amount, to_hex
from channelpay.protocol.types import NATIVE, Address, Channel, ChannelId, ChannelState
from channelpay.testing.furnished import FurnishedChain

CHANNELS_SHOWN = 100
ETHER_DECIMALS = 18
_DAY, _HOUR, _MINUTE = 86_400, 3600, 60


@dataclass(frozen=True, slots=True)
class Holdings:
    """What an account has: wei, and base units of the test token."""

    address: Address
    ether_wei: int
    tokens: int


@dataclass(frozen=True, slots=True)
class ShownChannel:
    """A channel as the contract has it."""

    id: ChannelId
    channel: Channel
    state: ChannelState


@dataclass(frozen=True, slots=True)
class ChainStatus:
    """``time`` is that of the latest block, in Unix seconds; ``ahead_seconds`` how far it is from
    this machine's. ``channels`` are the newest, newest first, of ``channel_count``.
    """

    furnished: FurnishedChain
    block: int
    time: int
    ahead_seconds: int
    accounts: tuple[Holdings, ...]
    channels: tuple[ShownChannel, ...]
    channel_count: int

    def amount(self, token: Address, amount: int) -> str:
        """In human units, with the symbol."""
        if token == NATIVE:
            return format_amount(amount, ETHER_DECIMALS, "ETH")
        if token == self.furnished.token:
            return format_amount(amount, self.furnished.token_decimals, self.furnished.token_symbol)
        return f"{amount} base units"

    @property
    def time_text(self) -> str:
        """The chain's time for people, and how far it was moved."""
        return f"{moment_text(self.time)}{_moved(self.ahead_seconds)}"

    def state_text(self, shown: ShownChannel) -> str:
        """Where a channel is in its life, and when its payer may take the rest back."""
        requested_at = shown.state.close_requested_at
        if not requested_at:
            return str(shown.state.status)
        withdrawable_at = requested_at + self.furnished.grace_seconds
        if withdrawable_at <= self.time:
            return "closing, can be withdrawn"
        return f"closing until {moment_text(withdrawable_at)}"

    def as_json(self) -> dict[str, object]:
        """Amounts are decimal strings in base units."""
        return {
            "rpcUrl": self.furnished.rpc_url,
            "chainId": self.furnished.deployment.chain_id,
            "block": self.block,
            "time": self.time,
            "aheadSeconds": self.ahead_seconds,
            "contract": to_hex(self.furnished.contract),
            "gracePeriodSeconds": self.furnished.grace_seconds,
            "token": to_hex(self.furnished.token),
            "accounts": [
                {
                    "address": to_hex(one.address),
                    "balance": str(one.ether_wei),
                    "tokenBalance": str(one.tokens),
                }
                for one in self.accounts
            ],
            "channelCount": self.channel_count,
            "channels": [_channel_json(one) for one in self.channels],
        }


def read_status(furnished: FurnishedChain) -> ChainStatus:
    """Raises :class:`~channelpay.errors.NetworkError` if the chain does not answer."""
    connection = connect(furnished.rpc_url, expected_chain_id=furnished.deployment.chain_id)
    block = connection.latest_block()
    opened = _opened(connection, furnished)
    contract = PaymentChannelsContract(connection, furnished.deployment)
    newest = opened[: -CHANNELS_SHOWN - 1 : -1]
    states = contract.states([event.channel for event in newest])
    return ChainStatus(
        furnished,
        block.number,
        block.timestamp,
        block.timestamp - int(time.time()),
        _holdings(connection, furnished),
        tuple(
            ShownChannel(event.channel_id, event.channel, state)
            for event, state in zip(newest, states, strict=True)
        ),
        len(opened),
    )


class StatusPage:
    """The page of one chain, made anew each time; ``page()`` is what a server calls."""

    def __init__(self) -> None:
        self._furnished: FurnishedChain | None = None
        self._one_at_a_time = Lock()

    def show(self, furnished: FurnishedChain) -> None:
        """The chain is ready."""
        self._furnished = furnished

    def __call__(self) -> str:
        if self._furnished is None:
            return _page("<p>The chain starts.</p>")
        try:
            with self._one_at_a_time:
                return _page(_body(read_status(self._furnished)))
        except ChannelPayError as error:
            return _page(f"<p>The chain does not answer: {escape(error.detail)}</p>")


def _opened(connection: Connection, furnished: FurnishedChain) -> list[ChannelOpened]:
    reader = EventReader(PaymentChannelsContract(connection, furnished.deployment))
    batches = reader.read(reader.cursor_at(0))
    events = [event for batch in batches for event in batch.events]
    return [event for event in events if isinstance(event, ChannelOpened)]


def _holdings(connection: Connection, furnished: FurnishedChain) -> tuple[Holdings, ...]:
    token = Erc20(connection, furnished.token)
    addresses = [account.address for account in furnished.accounts]
    return tuple(
        Holdings(address, connection.balance_wei(address), token.balance(address))
        for address in addresses
    )


def moment_text(time: int) -> str:
    """A Unix second for people."""
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _moved(seconds: int) -> str:
    """How far the chain's clock is from this machine's, to the minute."""
    if abs(seconds) < _MINUTE:
        return ""
    where = "ahead of" if seconds > 0 else "behind"
    return f", {_span(abs(seconds))} {where} this machine"


def _span(seconds: int) -> str:
    """``1 d 2 h 30 min``: to the minute."""
    days, rest = divmod(seconds, _DAY)
    hours, rest = divmod(rest, _HOUR)
    parts = [(days, "d"), (hours, "h"), (rest // _MINUTE, "min")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def _channel_json(shown: ShownChannel) -> dict[str, object]:
    return {
        "channelId": to_hex(shown.id),
        "payer": to_hex(shown.channel.payer),
        "payee": to_hex(shown.channel.payee),
        "token": to_hex(shown.channel.token),
        "status": str(shown.state.status),
        "deposit": str(shown.state.deposit),
        "settled": str(shown.state.settled),
        "closeRequestedAt": shown.state.close_requested_at,
    }


# --- HTML --------------------------------------------------------------------------------------

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="5">
<title>channelpay dev</title>
<style>$style
main { max-width: 76rem; }
td.number, th.number { text-align: right; white-space: nowrap; }
td code { white-space: nowrap; }
</style>
</head>
<body>
<main>
<p class="kicker">channelpay dev</p>
<h1>Development chain</h1>
$body
</main>
</body>
</html>
""")


def _page(body: str) -> str:
    return _PAGE.substitute(style=STYLE, body=body)


def _body(status: ChainStatus) -> str:
    return "\n".join([_facts(status), _accounts_table(status), _channels_table(status)])


def _facts(status: ChainStatus) -> str:
    furnished = status.furnished
    facts = {
        "RPC URL": f"<code>{escape(furnished.rpc_url)}</code>",
        "Chain id": str(furnished.deployment.chain_id),
        "Block": f"{status.block}",
        "Time": escape(status.time_text),
        "Contract": f"<code>{checksum_address(furnished.contract)}</code>",
        f"Token {escape(furnished.token_symbol)}": (
            f"<code>{checksum_address(furnished.token)}</code>"
        ),
        "Grace period": _span(furnished.grace_seconds),
    }
    rows = "\n".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())
    return f"<dl>\n{rows}\n</dl>"


def _accounts_table(status: ChainStatus) -> str:
    rows = [
        (
            f"<code>{checksum_address(one.address)}</code>",
            status.amount(NATIVE, one.ether_wei),
            status.amount(status.furnished.token, one.tokens),
        )
        for one in status.accounts
    ]
    return "<h2>Accounts</h2>\n" + _table(("Address", "Ether", "Tokens"), rows, numbers=(1, 2))


def _channels_table(status: ChainStatus) -> str:
    if not status.channels:
        return "<h2>Channels</h2>\n<p>No channel was opened yet.</p>"
    names = ("Channel", "Payer", "Payee", "Status", "Deposit", "Settled")
    rows = [
        (
            f"<code>{to_hex(one.id)}</code>",
            _code(checksum_address(one.channel.payer)),
            _code(checksum_address(one.channel.payee)),
            status.state_text(one),
            status.amount(one.channel.token, one.state.deposit),
            status.amount(one.channel.token, one.state.settled),
        )
        for one in status.channels
    ]
    title = f"<h2>Channels ({status.channel_count})</h2>\n"
    return title + _table(names, rows, numbers=(4, 5))


def _code(text: str) -> str:
    """A long identifier by its first digits; the whole of it where the pointer rests."""
    return f'<code title="{text}">{text[:10]}…</code>'


def _table(names: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int]) -> str:
    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f'<{tag} class="number">{value}</{tag}>'
            if place in numbers
            else f"<{tag}>{value}</{tag}>"
            for place, value in enumerate(values)
        )

    lines = [cells("th", names), *(cells("td", row) for row in rows)]
    return "<table>\n" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "\n</table>"
