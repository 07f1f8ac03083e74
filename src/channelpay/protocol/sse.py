"""Server-Sent Events as far as payments need them: the two events of draft-evm-session-00, and a
reader that tells them from all others.

Follows the event stream format of the HTML Standard (WHATWG, section Server-sent events).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

from channelpay.protocol.parse import parse_amount, parse_channel_id, parse_json_object
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import ChannelId
from channelpay.protocol.wire import Receipt, canonical_json

MEDIA_TYPE: Final = "text/event-stream"
NEED_VOUCHER: Final = "payment-need-voucher"
"""The payee has used up what was promised and waits for a voucher."""
RECEIPT: Final = "payment-receipt"
"""The last event of a paid stream."""
EVENT_BYTES_MAX: Final = 64 * 1024
"""A larger event is none of ours: it is handed on in parts, and not interpreted."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


# --- events of payments ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NeedVoucher:
    """What a paused stream waits for: a voucher of ``required`` at least. Amounts are cumulative
    base units; ``accepted`` and ``deposit`` are what the payee knows of the channel
    (draft-evm-session-00, Insufficient Balance During Streaming).
    """

    channel_id: ChannelId
    required: int
    accepted: int
    deposit: int

    def to_json(self) -> str:
        """The event's data, in one line."""
        members = {
            "channelId": to_hex(self.channel_id),
            "requiredCumulative": str(self.required),
            "acceptedCumulative": str(self.accepted),
            "deposit": str(self.deposit),
        }
        return canonical_json(members)

    @classmethod
    def from_json(cls, data: str) -> Self:
        """From an event's data, strictly. Raises :class:`InputError`."""
        members = parse_json_object(data.encode(), NEED_VOUCHER)
        return cls(
            channel_id=parse_channel_id(members.get("channelId")),
            required=parse_amount(members.get("requiredCumulative"), "requiredCumulative"),
            accepted=parse_amount(members.get("acceptedCumulative"), "acceptedCumulative"),
            deposit=parse_amount(members.get("deposit"), "deposit"),
        )


def need_voucher_event(need: NeedVoucher) -> bytes:
    """The event that pauses a stream, ready to be sent between two others."""
    return _event(NEED_VOUCHER, need.to_json())


def receipt_event(receipt: Receipt) -> bytes:
    """The event that ends a paid stream."""
    return _event(RECEIPT, receipt.to_json())


def _event(name: str, line: str) -> bytes:
    return f"event: {name}\ndata: {line}\n\n".encode()


# --- reading ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Event:
    """One part of a stream, up to an empty line. ``raw`` is what came, to the byte: the ``raw`` of
    all events together are the stream.

    ``data`` is None where a reader of events would be told nothing: no data, only comments, an
    event that is too large or cut off. ``name`` is empty where the stream gave none.
    """

    name: str
    data: str | None
    raw: bytes


class EventReader:
    """Reads one stream as it comes, in chunks of any size. Holds :data:`EVENT_BYTES_MAX` bytes at
    most, beside the chunk.

    An event is yielded as soon as its empty line is there, even if that ends in a CR which may be
    the first half of a CRLF; the second half then follows alone, under the same name.
    """

    def __init__(self) -> None:
        self._raw = bytearray()
        self._line = bytearray()
        self._name = ""
        self._data: list[str] = []
        self._after_cr = False
        self._too_large = False
        self._at_start = True

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that this chunk completes."""
        for piece in chunk.splitlines(keepends=True):
            completes_crlf = self._after_cr and piece == b"\n"
            self._after_cr = piece.endswith(b"\r")
            event = self._second_half() if completes_crlf else self._take(piece)
            if event is not None:
                yield event

    def close(self) -> Event | None:
        """What came after the last empty line, once the stream has ended: never an event."""
        return self._part() if self._raw else None

    def _second_half(self) -> Event | None:
        if self._raw:
            self._raw += b"\n"
            return None
        return Event(self._name, None, b"\n")

    def _take(self, piece: bytes) -> Event | None:
        """One line, or a part of one."""
        if not self._raw and not self._too_large:
            self._name = ""
        content = piece.rstrip(b"\r\n")
        self._raw += piece
        self._line += content
        if len(content) < len(piece):
            line = self._ended_line()
            if not line:
                return self._ended_event()
            self._interpret(line)
        return self._part() if len(self._raw) > EVENT_BYTES_MAX else None

    def _ended_line(self) -> bytes:
        line = bytes(self._line)
        self._line.clear()
        if self._at_start:
            self._at_start = False
            return line.removeprefix(_BYTE_ORDER_MARK)
        return line

    def _interpret(self, line: bytes) -> None:
        """Fields other than these two, and comments, are only handed on."""
        if self._too_large:
            return
        field, _, value = line.decode(errors="replace").partition(":")
        if field == "event":
            self._name = value.removeprefix(" ")
        elif field == "data":
            self._data.append(value.removeprefix(" "))

    def _ended_event(self) -> Event:
        data = "\n".join(self._data) if self._data and not self._too_large else None
        event = Event(self._name, data, bytes(self._raw))
        self._raw.clear()
        self._data.clear()
        self._too_large = False
        return event

    def _part(self) -> Event:
        """Hand on what is there of an event that is not going to be interpreted."""
        part = Event(self._name, None, bytes(self._raw))
        self._raw.clear()
        self._data.clear()
        del self._line[1:]  # Whether it is empty still tells where the event ends.
        self._too_large = True
        return part
