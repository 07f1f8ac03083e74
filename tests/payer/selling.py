"""A payee that sells event streams by the unit, by the real rules: what it sends, and when it
pauses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from channelpay.errors import InsufficientBalance
from channelpay.payer.limits import Limits
from channelpay.payer.metering import MeteredResponse
from channelpay.payer.steps import Answer, Send, Step
from channelpay.protocol.sse import NeedVoucher, need_voucher_event, receipt_event
from channelpay.protocol.types import NATIVE, ChannelId
from tests.payer.site import URL, Ground, Site

LIMITS = Limits(NATIVE, price_max=10, deposit_max=2000, metered_max=1600)


def metered_site(unit_price: int = 1, **fields: Any) -> Site:
    """A site whose pages are streams that cost ``unit_price`` for each token."""
    site = Site(default_price=unit_price)
    site.metered = True
    site.media_type = "text/event-stream"
    site.suggested_deposit = 2000
    site.request_fields = {"unit_type": "token", **fields}
    return site


class Selling:
    """One stream: an event of content for each of ``amounts``, once that is charged."""

    def __init__(self, site: Site, channel_id: ChannelId, key: str, amounts: Sequence[int]) -> None:
        self._site = site
        self._channel_id = channel_id
        self._key = key
        self._left = list(amounts)
        self.total = 0

    @property
    def is_over(self) -> bool:
        return not self._left

    def event(self) -> tuple[bytes, NeedVoucher | None]:
        """The next event of content; or the one that asks for a voucher, and what it says."""
        try:
            self._site.charge(self._channel_id, self._key, self.total + self._left[0])
        except InsufficientBalance as lack:
            need = need_of(lack)
            return need_voucher_event(need), need
        self.total += self._left.pop(0)
        return b"data: %d\n\n" % self.total, None

    def content(self, number: int = 1_000_000) -> bytes:
        """Up to ``number`` events; the last one asks for a voucher, or is the receipt."""
        sent = b""
        while self._left and number > 0:
            event, need = self.event()
            sent += event
            if need is not None:
                return sent
            number -= 1
        return sent if self._left else sent + self.receipt()

    def receipt(self) -> bytes:
        return receipt_event(self._site.receipt(self._channel_id))


def need_of(lack: InsufficientBalance) -> NeedVoucher:
    members = ("requiredCumulative", "acceptedCumulative", "deposit")
    required, accepted, deposit = (int(lack.context[name]) for name in members)
    channel_id = ChannelId(bytes.fromhex(str(lack.context["channelId"])[2:]))
    return NeedVoucher(channel_id, required, accepted, deposit)


class Reading:
    """One stream's buyer: a request, and what it reads of the answer."""

    def __init__(self, ground: Ground, amounts: Sequence[int], url: str = URL) -> None:
        self._ground = ground
        self._url = url
        keys: list[str] = []

        def watch(step: Step) -> None:
            if isinstance(step, Send) and "Idempotency-Key" in step.headers:
                keys.append(step.headers["Idempotency-Key"])

        self.answer, self.metered = ground.drive(ground.session(url).run(), url, watch)
        assert isinstance(self.metered, MeteredResponse), self.answer
        channel_id = self.metered.paid.channel_id
        self.selling = Selling(ground.site, channel_id, keys[-1], amounts)
        self.content = b""
        self.vouchers = 0

    def read(self, chunk: bytes, watch: Callable[[Step], None] = lambda step: None) -> None:
        """Take what the payee sent, and answer what it asks."""
        for part in self.metered.read(chunk):
            if isinstance(part, bytes):
                self.content += part
            else:
                self._answer(part, watch)

    def _answer(self, need: NeedVoucher, watch: Callable[[Step], None]) -> None:
        self.vouchers += 1
        steps = self.metered.answer(need)
        result: Answer | None = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration:
                return
            watch(step)
            result = None
            if isinstance(step, Send):
                assert step.bare
                # A HEAD request's answer has no body to say what is wrong.
                result = replace(self._ground.site.answer(self._url, step), problem={})
            else:
                self._ground.perform(step)

    def to_the_end(self) -> Reading:
        while not self.selling.is_over:
            self.read(self.selling.content())
        self.metered.settle()
        return self
