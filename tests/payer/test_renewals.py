"""What a site that sells passes can take from a reader who lets them renew themselves, and what it
can learn at its counter.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from channelpay.errors import ConfigError, InputError
from channelpay.payer import httpx as adapter
from channelpay.payer.buying import buy_pass, redeem
from channelpay.payer.limits import Limits
from channelpay.payer.passes import HeldPass, PassState
from channelpay.payer.purchases import Purchase, purchase_of
from channelpay.payer.steps import Answer, Send
from channelpay.protocol.coupons import CODE_HEADER, code_of
from channelpay.protocol.passes import HEADER, PLACE
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import NATIVE
from tests.payer.site import NOW, URL, Ground, Site
from tests.payer.test_httpx import FakePayer
from tests.payer.test_passes import token

PAGE, PASS, DAY = 1, 3, 86_400
SITE, ELSEWHERE = "https://site.example", "https://elsewhere.example"
BUY = f"{PLACE}passes/ten"
COUPON = code_of(b"0123456789ab")
Members = dict[str, Any]


class PassSite(Site):
    """Sells passes of ``PASS`` for ten pages within a day. It takes each for so many uses as its
    answers say, or for ``takes``; ``says`` is what it says of all of them that is not so.
    """

    def __init__(self) -> None:
        super().__init__(default_price=PAGE)
        self.takes = 10
        self.told = PassState("", 10, int(NOW) + DAY)
        self.says: Members = {}
        self.left: dict[bytes, int] = {}
        self.sold: dict[str, bytes] = {}
        self.counter_price = PASS

    def price(self, url: str) -> int | None:
        return self.counter_price if PLACE in url else super().price(url)

    def answer(self, url: str, step: Send) -> Answer:
        shown = step.headers.get("Authorization", "")
        if shown.startswith("PaymentPass "):
            return self.covered(url, shown.removeprefix("PaymentPass "))
        answer = super().answer(step.to or url, Send(step.headers))
        if PLACE not in answer.url or answer.status != 200:
            return answer
        return self.handed_out(answer, step.headers["Idempotency-Key"])

    def covered(self, url: str, text: str) -> Answer:
        pass_id = PassState(text).pass_id
        if self.left[pass_id] <= 0:
            challenge = self.challenge(self.price(url) or 0)
            return Answer(402, url, (challenge,), problem={"code": "pass-ended"})
        self.left[pass_id] -= 1
        return Answer(200, url, shown=PassState(text, self.left[pass_id], self.told.until))

    def handed_out(self, answer: Answer, key: str) -> Answer:
        pass_id = self.sold.setdefault(key, bytes([len(self.sold) + 1]) * 16)
        self.left.setdefault(pass_id, self.takes)
        state = PassState(token(pass_id), self.told.left, self.told.until)
        return Answer(200, answer.url, receipt=answer.receipt, shown=state)

    def members(self, channel_id: bytes) -> Members:
        """The body of an answer that hands a pass out."""
        pass_id = list(self.sold.values())[-1]
        honest = {"pass": to_hex(pass_id), "plan": "ten", "label": "ten", "paths": ["/**"]}
        return (
            honest | {"channelId": to_hex(channel_id), "price": str(PASS), "uses": 10} | self.says
        )


class Transport(httpx2.BaseTransport):
    """The site behind httpx; what is ``moved`` is at another origin."""

    def __init__(self, site: PassSite) -> None:
        self.site = site
        self.moved = ""
        self.seen: list[httpx2.Request] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.seen.append(request)
        if self.moved and request.url.host == "site.example":
            return httpx2.Response(307, headers={"Location": f"{self.moved}{request.url.path}"})
        names = {"authorization": "Authorization", "idempotency-key": "Idempotency-Key"}
        headers = {names[name]: value for name, value in request.headers.items() if name in names}
        return self.response(self.site.answer(str(request.url), Send(headers)))

    def response(self, answer: Answer) -> httpx2.Response:
        headers = [("WWW-Authenticate", challenge) for challenge in answer.challenges]
        if answer.receipt is not None:
            headers.append(("Payment-Receipt", answer.receipt))
        if answer.shown is None:
            headers.append(("Content-Type", "application/problem+json"))
            return httpx2.Response(answer.status, headers=headers, json=answer.problem)
        shown = answer.shown
        headers.append((HEADER, f"{shown.token};left={shown.left};until={shown.until}"))
        (channel_id,) = self.site.records
        body = json.dumps(self.site.members(channel_id))
        return httpx2.Response(answer.status, headers=headers, text=body)


class Reader(FakePayer):
    """What buying uses of a payer."""

    def __init__(self, ground: Ground, folder: Path) -> None:
        super().__init__(ground)
        self.address, self.state = ground.payer, ground.state
        self._folder = folder

    def purchase(self, name: str) -> AbstractContextManager[Purchase]:
        return purchase_of(self._folder / "purchases", self.address, name)


@pytest.fixture
def site() -> PassSite:
    return PassSite()


@pytest.fixture
def ground(tmp_path: Path, site: PassSite) -> Iterator[Ground]:
    limits = Limits(NATIVE, price_max=PASS, deposit_max=0)
    ground = Ground(tmp_path, site, limits)
    ground.open(1000)
    yield ground
    ground.state.close()


@pytest.fixture
def transport(site: PassSite, monkeypatch: pytest.MonkeyPatch) -> Transport:
    transport, client = Transport(site), adapter._client
    monkeypatch.setattr(adapter, "_client", lambda **most: client(transport=transport, **most))
    return transport


@pytest.fixture
def reader(ground: Ground, tmp_path: Path) -> Any:
    return Reader(ground, tmp_path)


@pytest.fixture
def held(reader: Any, transport: Transport) -> HeldPass:
    """A pass that renews itself, from an honest sale."""
    return buy_pass(reader, SITE, "ten", renews=True)


def signed(ground: Ground) -> int:
    (entry,) = ground.state.channels(ground.payer)
    return entry.signed


def live(ground: Ground) -> list[HeldPass]:
    return [one for one in ground.state.passes.all(ground.payer) if one.ended is None]


def test_a_pass_that_is_used_up_is_bought_again_once_with_the_page_that_needs_it(
    ground: Ground, held: HeldPass
) -> None:
    for _ in range(25):
        answer, paid = ground.pay()
        assert (answer.status, paid.cost, paid.by_pass is None) == (200, 0, False)

    assert signed(ground) == 3 * PASS
    assert [(one.left, one.price, one.renews) for one in live(ground)] == [(5, PASS, True)]


def test_one_whose_time_is_over_is_bought_again(
    ground: Ground, site: PassSite, reader: Any, transport: Transport
) -> None:
    site.says = {"uses": None}
    held = buy_pass(reader, SITE, "ten", renews=True)
    ground.clock.now += DAY
    site.left[held.pass_id] = 0
    site.told = PassState("", None, int(ground.clock.now) + DAY)

    assert ground.pay()[1].by_pass is not None
    assert signed(ground) == 2 * PASS


@pytest.mark.parametrize("lie", [{"price": "90"}, {"channelId": to_hex(b"c" * 32)}])
def test_what_a_pass_cost_and_on_which_channel_is_what_was_paid(
    ground: Ground, site: PassSite, reader: Any, transport: Transport, lie: Members
) -> None:
    site.says = lie

    held = buy_pass(reader, SITE, "ten", renews=True)

    (entry,) = ground.state.channels(ground.payer)
    assert (held.price, held.channel_id) == (PASS, entry.channel_id)
    assert live(ground) == [held]


def test_one_that_costs_more_than_it_did_is_not_bought_again(
    ground: Ground, site: PassSite, held: HeldPass
) -> None:
    ground.limits = Limits(NATIVE, price_max=90, deposit_max=0)
    for _ in range(10):
        ground.pay()
    site.counter_price = PASS + 1

    assert [ground.pay()[1].cost for _ in range(2)] == [PAGE, PAGE]
    assert signed(ground) == PASS + 2 * PAGE


@pytest.mark.parametrize("pages", [0, 9])
def test_one_that_the_books_say_is_good_is_not_bought_again(
    ground: Ground, site: PassSite, held: HeldPass, pages: int
) -> None:
    for _ in range(pages):
        ground.pay()
    site.left[held.pass_id] = 0

    assert [ground.pay()[1].cost for _ in range(2)] == [PAGE, PAGE]
    assert signed(ground) == PASS + 2 * PAGE


def test_for_one_request_passes_are_bought_once(
    ground: Ground, site: PassSite, held: HeldPass
) -> None:
    for _ in range(10):
        ground.pay()
    site.takes = 0

    assert ground.pay()[1].cost == PAGE
    assert ground.pay()[1].cost == PAGE
    assert signed(ground) == 2 * PASS + 2 * PAGE


def test_of_two_that_are_used_up_the_other_is_bought_again_with_the_next_request(
    ground: Ground, site: PassSite, held: HeldPass, reader: Any
) -> None:
    buy_pass(reader, SITE, "ten", renews=True)
    for _ in range(20):
        ground.pay()
    site.counter_price = PASS + 1
    ground.pay()
    site.counter_price = PASS

    assert ground.pay()[1].by_pass is not None
    assert (len(live(ground)), len(site.sold)) == (1, 3)


@pytest.mark.parametrize(
    "worse", [PassState("", 1, int(NOW) + DAY), PassState("", 10, int(NOW) + 60)]
)
def test_one_that_got_worse_renews_itself_no_more(
    ground: Ground, site: PassSite, held: HeldPass, worse: PassState
) -> None:
    site.takes, site.told = worse.left or 0, worse
    for _ in range(40):
        assert ground.pay()[0].status == 200

    assert len(site.sold) == 2


def test_what_an_answer_says_of_its_end_does_not_make_a_pass_older(
    ground: Ground, site: PassSite, held: HeldPass
) -> None:
    site.told = PassState("", 0, 1)
    ground.pay()
    site.left[held.pass_id] = 0
    ground.pay()

    assert len(site.sold) == 1


def test_other_programs_of_the_same_books_do_not_keep_it_from_being_bought_again(
    ground: Ground, site: PassSite, held: HeldPass
) -> None:
    """Of twelve requests at once two find it used up, before the books have the answers of ten."""
    running = [ground.session().run() for _ in range(12)]
    sent = [(steps, steps.send(None)) for steps in running]
    answers = [site.answer(URL, step) for _, step in sent]  # type: ignore[arg-type]

    for (steps, _), answer in list(zip(sent, answers, strict=True))[::-1]:
        follow(ground, steps, answer)

    (entry,) = ground.state.channels(ground.payer)
    assert (len(site.sold), entry.spent) == (2, 2 * PASS)


def follow(ground: Ground, steps: Any, result: Answer | None) -> None:
    while True:
        try:
            step = steps.send(result)
        except StopIteration:
            return
        result = ground.site.answer(URL, step) if isinstance(step, Send) else None


# --- the counter ---------------------------------------------------------------------------------


def test_a_coupon_does_not_leave_over_plain_http(reader: Any, transport: Transport) -> None:
    with pytest.raises(ConfigError, match="plain http"):
        redeem(reader, "http://site.example/", COUPON)
    assert transport.seen == []


def test_a_coupon_does_not_follow_a_redirect(reader: Any, transport: Transport) -> None:
    transport.moved = ELSEWHERE

    with pytest.raises(InputError, match="elsewhere"):
        redeem(reader, SITE, COUPON)

    assert [request.headers[CODE_HEADER] for request in transport.seen] == [COUPON]
    assert {request.url.host for request in transport.seen} == {"site.example"}


def test_a_pass_is_not_bought_where_a_redirect_leads(
    ground: Ground, reader: Any, transport: Transport
) -> None:
    transport.moved = ELSEWHERE

    with pytest.raises(InputError, match="elsewhere"):
        buy_pass(reader, SITE, "ten")

    assert (signed(ground), live(ground)) == (0, [])


def test_nor_is_one_that_renews_itself(
    ground: Ground, site: PassSite, held: HeldPass, reader: Any, transport: Transport
) -> None:
    for _ in range(10):
        ground.pay()
    transport.moved, site.sold = f"{ELSEWHERE}/", {}
    moves = transport.handle_request

    def only_at_the_counter(request: httpx2.Request) -> httpx2.Response:
        transport.moved = ELSEWHERE if PLACE in request.url.path else ""
        return moves(request)

    transport.handle_request = only_at_the_counter  # type: ignore[method-assign]
    with adapter.paid_get(reader, URL) as response:
        assert response.extensions["channelpay"].cost == PAGE

    assert (site.sold, signed(ground), live(ground)) == ({}, PASS + PAGE, [])
