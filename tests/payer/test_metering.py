"""What a metered response may take, and which vouchers it gets; the payee has the real rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from channelpay.errors import BudgetExceeded, ConfigError, NetworkError, PaymentRefused
from channelpay.payer.limits import Limits
from channelpay.payer.metering import MeteredResponse
from channelpay.payer.offers import Allowed
from channelpay.payer.session import PaymentSession
from channelpay.payer.steps import Add, Answer, Send, Step, Wait
from channelpay.protocol.sse import NeedVoucher, need_voucher_event, receipt_event
from channelpay.protocol.types import NATIVE, ChannelId
from channelpay.protocol.wire import Credential, Receipt, TopUpPayload, VoucherPayload
from tests.payer.selling import LIMITS, Reading, metered_site
from tests.payer.site import NOW, URL, Ground, Site, refused

CONTENT = b"data: hello\n\n"
OTHER = "https://other.example/"
TRUSTED = Allowed(origins=frozenset({"https://other.example"}))


@pytest.fixture
def site() -> Site:
    return metered_site()


@pytest.fixture
def ground(tmp_path: Path, site: Site) -> Iterator[Ground]:
    ground = Ground(tmp_path, site, LIMITS)
    yield ground
    ground.state.close()


@pytest.fixture
def reading(ground: Ground) -> Reading:
    return Reading(ground, [1] * 1000)


def only_channel(ground: Ground) -> Any:
    (entry,) = ground.state.channels(ground.payer)
    return entry


def for_ever(ask: Callable[[], None]) -> None:
    for _ in range(1_000_000):
        ask()


def payload_of(step: Step) -> Any:
    assert isinstance(step, Send)
    return Credential.parse(step.headers["Authorization"]).payload


def need_of(reading: Reading, **changes: Any) -> bytes:
    """A need for one unit more than the payee has."""
    entry = reading.metered.paid.channel_id
    need = NeedVoucher(entry, 101, 100, 2000)
    return need_voucher_event(replace(need, **changes))


# --- the promise -----------------------------------------------------------------------------


def test_a_response_is_promised_a_sixteenth_of_its_limit_before_it_begins(ground: Ground) -> None:
    reading = Reading(ground, [1])
    assert ground.signed == [(reading.metered.paid.channel_id, 100)]


@pytest.mark.parametrize(
    ("limits", "unit_price", "delta", "expected"),
    [
        (replace(LIMITS, ahead=300), 1, 0, 300),
        (replace(LIMITS, ahead=0), 7, 0, 7),
        (replace(LIMITS, ahead=5000), 1, 0, 1600),
        (LIMITS, 150, 0, 150),
        (LIMITS, 1, 400, 400),
        (replace(LIMITS, metered_max=None), 1, 0, 1),
    ],
    ids=["as the payer says", "one unit at least", "the limit", "a dear unit", "delta", "price"],
)
def test_what_is_promised_before_it_begins(
    tmp_path: Path, limits: Limits, unit_price: int, delta: int, expected: int
) -> None:
    ground = Ground(tmp_path, metered_site(unit_price, min_voucher_delta=delta), limits)
    Reading(ground, [1])
    assert [amount for _, amount in ground.signed] == [expected]


def test_a_nearly_used_up_channel_promises_what_is_left(tmp_path: Path) -> None:
    ground = Ground(tmp_path, metered_site(), replace(LIMITS, deposit=40))
    Reading(ground, [1])
    assert [amount for _, amount in ground.signed] == [40]


@pytest.mark.parametrize(("unit_price", "delta"), [(1601, 0), (1, 1601)])
def test_a_unit_over_the_limit_is_refused_before_anything_is_signed(
    tmp_path: Path, unit_price: int, delta: int
) -> None:
    ground = Ground(tmp_path, metered_site(unit_price, min_voucher_delta=delta), LIMITS)
    with pytest.raises(BudgetExceeded, match="it costs 1601, over the limit of 1600"):
        ground.pay()
    assert (ground.signed, ground.opened) == ([], 0)


def test_a_stream_gets_its_vouchers_and_costs_what_was_charged(ground: Ground) -> None:
    reading = Reading(ground, [1] * 1000).to_the_end()
    assert reading.content == b"".join(b"data: %d\n\n" % (count + 1) for count in range(1000))
    assert reading.metered.paid.cost == 1000
    entry = only_channel(ground)
    assert (entry.spent, entry.in_flight, entry.presented) == (1000, 0, True)


def test_few_vouchers_are_needed_and_little_is_promised_that_is_not_used(ground: Ground) -> None:
    reading = Reading(ground, [1] * 1000).to_the_end()
    assert [amount for _, amount in ground.signed] == [100, 301, 702, 1103]
    assert reading.vouchers == 3


def test_what_was_not_used_pays_for_the_next_request(ground: Ground) -> None:
    Reading(ground, [10]).to_the_end()
    Reading(ground, [20]).to_the_end()
    assert [amount for _, amount in ground.signed] == [100, 110]


def test_while_it_is_read_the_cost_is_what_was_promised(reading: Reading) -> None:
    assert reading.metered.paid.cost == 100
    reading.read(reading.selling.content())
    assert reading.metered.paid.cost == 301


@pytest.mark.parametrize("delta", [1, 64, 150, 400, 700, 1600])
def test_every_voucher_exceeds_the_one_before_as_the_payee_wants(
    tmp_path: Path, delta: int
) -> None:
    ground = Ground(tmp_path, metered_site(min_voucher_delta=delta), LIMITS)
    try:
        Reading(ground, [1] * 1600).to_the_end()
    except BudgetExceeded:
        assert 1600 % delta
    amounts = [0, *(amount for _, amount in ground.signed)]
    assert all(later - sooner >= delta for sooner, later in pairwise(amounts))
    assert amounts[-1] <= 1600


def test_a_page_of_fixed_price_obeys_the_least_increment_too(tmp_path: Path) -> None:
    site = Site()
    site.request_fields = {"min_voucher_delta": 5}
    ground = Ground(tmp_path, site)
    for _ in range(6):
        assert ground.pay()[0].status == 200
    assert [amount for _, amount in ground.signed] == [5, 10]
    assert only_channel(ground).spent == 6


# --- the limit -------------------------------------------------------------------------------


def test_at_the_limit_the_reader_is_told_what_it_cost(ground: Ground) -> None:
    reading = Reading(ground, [1] * 5000)
    with pytest.raises(
        BudgetExceeded, match=r"had cost up to 1600 .* the limit is 1600"
    ) as stopped:
        reading.to_the_end()
    assert stopped.value.context == {"paid": "1600", "limit": "1600"}
    assert "Nothing was signed" not in stopped.value.hint
    assert reading.selling.total == 1600, "all that the limit allows was served"


def test_the_total_over_all_channels_stops_a_response(tmp_path: Path) -> None:
    ground = Ground(tmp_path, metered_site(), replace(LIMITS, total_max=500))
    reading = Reading(ground, [1] * 5000)
    with pytest.raises(BudgetExceeded, match=r"had cost up to 500 .* the limit of 500"):
        reading.to_the_end()


def test_a_used_up_deposit_stops_a_response(tmp_path: Path) -> None:
    ground = Ground(tmp_path, metered_site(), replace(LIMITS, deposit=250))
    reading = Reading(ground, [1] * 5000)
    with pytest.raises(BudgetExceeded, match=r"had cost up to 250 .* used up"):
        reading.to_the_end()
    assert reading.selling.total == 250


def test_a_top_up_within_the_limits_is_made_and_told_before_the_voucher(tmp_path: Path) -> None:
    limits = replace(LIMITS, deposit=250, top_up=500, deposit_max=1000)
    ground = Ground(tmp_path, metered_site(), limits)
    reading = Reading(ground, [1] * 900)
    steps: list[Step] = []
    while not reading.selling.is_over:
        reading.read(reading.selling.content(), steps.append)
    assert reading.metered.settle().cost == 900
    kinds = [type(step if isinstance(step, Add) else payload_of(step)) for step in steps]
    topped = [index for index, kind in enumerate(kinds) if kind is Add]
    assert len(topped) == 2
    for index in topped:
        assert kinds[index : index + 3] == [Add, TopUpPayload, VoucherPayload]


def test_a_payee_that_asks_for_ever_gets_few_vouchers_and_no_more_than_the_limit(
    ground: Ground,
) -> None:
    reading = Reading(ground, [])

    def ask_for_more() -> None:
        last = ground.signed[-1][1]
        reading.read(need_of(reading, required=last + 1, accepted=last))

    with pytest.raises(BudgetExceeded):
        for_ever(ask_for_more)
    assert reading.vouchers < 20
    assert max(amount for _, amount in ground.signed) <= 1600


def test_a_payee_that_asks_for_what_it_has_gets_nothing_more(ground: Ground) -> None:
    reading = Reading(ground, [])
    ground.site.requests = 0
    reading.read(need_of(reading) * 10_000)
    assert (ground.site.requests, len(ground.signed)) == (1, 2)


def test_of_many_receipts_the_last_one_is_entered(reading: Reading) -> None:
    receipt = reading.selling.receipt()
    for _ in range(100):
        reading.read(receipt * 20)
    assert reading.content == b""
    assert reading.metered.settle().cost == 0


@given(
    limit=st.integers(1, 300),
    deposit=st.integers(1, 300),
    delta=st.integers(0, 40),
    ahead=st.none() | st.integers(0, 400),
    streams=st.lists(st.lists(st.integers(0, 30), max_size=30), min_size=1, max_size=3),
    turns=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 8)), max_size=60),
)
@example(limit=1, deposit=2, delta=0, ahead=None, streams=[[], [2]], turns=[])
@settings(max_examples=60)
def test_streams_at_the_same_time_stay_within_their_limits_and_both_sides_agree(
    limit: int,
    deposit: int,
    delta: int,
    ahead: int | None,
    streams: list[list[int]],
    turns: list[tuple[int, int]],
) -> None:
    limits = Limits(NATIVE, 0, 300, deposit=deposit, metered_max=limit, ahead=ahead)
    with TemporaryDirectory() as folder:
        ground = Ground(Path(folder), metered_site(min_voucher_delta=delta), limits)
        try:
            under_way = [Reading(ground, amounts) for amounts in streams]
        except BudgetExceeded:
            ground.state.close()
            return
        everyone = list(under_way)
        end = [(index, 1_000_000) for index in range(len(streams)) for _ in range(100)]
        for index, number in [*turns, *end]:
            reading = everyone[index % len(everyone)]
            if reading not in under_way:
                continue
            try:
                reading.read(reading.selling.content(number))
            except BudgetExceeded:
                reading.metered.settle()
                under_way.remove(reading)
            else:
                if reading.selling.is_over:
                    reading.metered.settle()
                    under_way.remove(reading)
            entry, record = (
                only_channel(ground),
                ground.site.records[reading.metered.paid.channel_id],
            )
            assert entry.spent <= entry.signed <= min(deposit, len(streams) * limit + delta)
            assert record.spent <= record.accepted <= entry.signed
        assert under_way == []
        assert only_channel(ground).in_flight == 0
        if all(reading.selling.is_over for reading in everyone):
            (record,) = ground.site.records.values()
            costs = sum(reading.metered.paid.cost for reading in everyone)
            assert only_channel(ground).spent == record.spent == costs
        ground.state.close()


# --- what makes no sense ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{"channel_id": ChannelId(bytes(32))}, {"required": 100}, {"required": 50}],
    ids=["another channel", "no lack", "less than it has"],
)
def test_a_need_that_makes_no_sense_gets_nothing(
    ground: Ground, reading: Reading, changes: dict[str, Any]
) -> None:
    signed = list(ground.signed)
    with pytest.raises(PaymentRefused, match="asked for a voucher while"):
        reading.read(CONTENT + need_of(reading, **changes))
    assert (reading.content, ground.signed) == (CONTENT, signed)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"null", b'{"channelId": 7}', b"\xff" * 30, b"[" * 10_000]
)
def test_a_malformed_need_ends_it(ground: Ground, reading: Reading, data: bytes) -> None:
    with pytest.raises(PaymentRefused, match="asked for a voucher while"):
        reading.read(b"event: payment-need-voucher\ndata:" + data + b"\n\n")
    assert len(ground.signed) == 1


@pytest.mark.parametrize(("required", "accepted"), [(1601, 100), (2**128 - 1, 0), (1501, 0)])
def test_what_is_over_the_limit_is_not_signed(
    ground: Ground, reading: Reading, required: int, accepted: int
) -> None:
    with pytest.raises(BudgetExceeded):
        reading.read(need_of(reading, required=required, accepted=accepted, deposit=2**128 - 1))
    assert len(ground.signed) == 1


def test_no_voucher_promises_more_than_the_deposit_whatever_the_payee_says(tmp_path: Path) -> None:
    ground = Ground(tmp_path, metered_site(), replace(LIMITS, deposit=120))
    reading = Reading(ground, [])
    with pytest.raises(BudgetExceeded, match="used up"):
        reading.read(need_of(reading, required=121, accepted=100, deposit=2**100))
    assert [amount for _, amount in ground.signed] == [100]


@pytest.mark.parametrize(
    "data",
    [
        b"garbage",
        Receipt(ChannelId(bytes(32)), 31337, "c", 1, 1, NOW).to_json().encode(),
    ],
    ids=["malformed", "another channel"],
)
def test_a_receipt_that_is_not_ours_is_taken_out_and_not_believed(
    ground: Ground, reading: Reading, data: bytes
) -> None:
    reading.read(CONTENT + b"event: payment-receipt\ndata: " + data + b"\n\n" + CONTENT)
    assert reading.content == CONTENT * 2
    assert reading.metered.settle().receipt is None


def test_a_receipt_that_claims_more_than_was_signed_is_not_believed(
    ground: Ground, reading: Reading
) -> None:
    channel_id = reading.metered.paid.channel_id
    reading.read(receipt_event(Receipt(channel_id, 31337, "c", 5000, 101, NOW)))
    paid = reading.metered.settle()
    assert (paid.receipt, paid.cost, only_channel(ground).spent) == (None, 100, 0)


def test_all_other_events_are_handed_on_to_the_byte(reading: Reading) -> None:
    strange = b": ping\r\n\r\nid: 7\rretry: 3\r\revent: payment\ndata\n\n" + b"\xff\0\n\n" + b"half"
    for index in range(len(strange)):
        reading.read(strange[index : index + 1])
    assert reading.content + reading.metered.rest() == strange


def test_a_broken_off_event_of_payments_is_not_handed_on(reading: Reading) -> None:
    reading.read(CONTENT + b"event: payment-receipt\ndata: {")
    assert (reading.content, reading.metered.rest()) == (CONTENT, b"")


# --- the way to the payee --------------------------------------------------------------------


def test_a_busy_payee_is_asked_again(ground: Ground, reading: Reading) -> None:
    ground.site.scripted = [Answer(503, URL, retry_after="0"), Answer(503, URL, retry_after="3")]
    reading.read(reading.selling.content())
    assert ground.clock.now == NOW + 4
    reading.to_the_end()


def test_a_voucher_that_is_not_taken_in_time_ends_it(ground: Ground, reading: Reading) -> None:
    ground.site.scripted = [Answer(503, URL, retry_after="1")] * 1000
    with pytest.raises(NetworkError, match="was not taken"):
        reading.read(reading.selling.content())
    assert 29 <= ground.clock.now - NOW <= 30


@pytest.mark.parametrize("status", [301, 400, 402, 410, 500])
def test_a_refused_voucher_ends_it(ground: Ground, reading: Reading, status: int) -> None:
    ground.site.scripted = [Answer(status, URL)]
    with pytest.raises(Exception, match="was not taken") as raised:
        reading.read(reading.selling.content())
    assert "Nothing was" not in getattr(raised.value, "hint", "")


def test_an_expired_challenge_is_replaced_by_the_fresh_one_once(
    ground: Ground, site: Site, reading: Reading
) -> None:
    fresh = Answer(402, URL, challenges=(site.challenge(1),))
    site.scripted = [fresh]
    reading.to_the_end()
    again = Reading(ground, [1] * 1000)
    site.scripted = [fresh, fresh]
    with pytest.raises(PaymentRefused):
        again.to_the_end()


def test_a_fresh_challenge_of_another_payee_is_not_answered(
    ground: Ground, site: Site, reading: Reading
) -> None:
    site.request_fields |= {"recipient": b"\x77" * 20}
    site.scripted = [Answer(402, URL, challenges=(site.challenge(1),))]
    site.requests = 0
    with pytest.raises(PaymentRefused):
        reading.read(reading.selling.content())
    assert site.requests == 1


def test_no_voucher_goes_over_plain_http_where_a_redirect_led_there(
    ground: Ground, site: Site
) -> None:
    Reading(ground, [1]).to_the_end()
    steps = ground.session().run()
    step = next(steps)
    assert isinstance(step, Send)
    moved = replace(site.answer(URL, step), url="http://site.example/page")
    with pytest.raises(StopIteration) as end:
        steps.send(moved)
    metered = end.value.value
    last = ground.signed[-1][1]
    need = NeedVoucher(metered.paid.channel_id, last + 1, last, 2000)
    with pytest.raises(ConfigError, match="plain http"):
        next(metered.answer(need))
    assert ground.signed[-1][1] == last


def test_a_payee_that_missed_a_top_up_is_told_again(ground: Ground, reading: Reading) -> None:
    channel_id = reading.metered.paid.channel_id
    reading.read(reading.selling.content(1))
    ground.top_up(channel_id, 500)
    (top_up,) = ground.state.unpresented_top_ups(channel_id)
    ground.state.record_presented(top_up)
    steps: list[Step] = []
    reading.read(reading.selling.content(), steps.append)
    assert [type(payload_of(step)) for step in steps] == [TopUpPayload, VoucherPayload]


def test_a_top_up_by_another_process_is_waited_for(tmp_path: Path) -> None:
    limits = replace(LIMITS, deposit=250, top_up=500)
    ground = Ground(tmp_path, metered_site(), limits)
    reading = Reading(ground, [1] * 500)
    reading.read(reading.selling.content(240))
    steps: list[Step] = []

    def watch(step: Step) -> None:
        steps.append(step)
        if [type(step) for step in steps] == [Add, Wait]:
            perform.undo()

    perform = pytest.MonkeyPatch()
    perform.setattr(ground, "top_up", lambda *_: None)
    reading.read(reading.selling.content(), watch)
    reading.read(reading.selling.content(), watch)
    assert [type(step) for step in steps[-4:]] == [Wait, Add, Send, Send]


# --- the end ---------------------------------------------------------------------------------


def test_a_response_that_breaks_off_has_cost_its_promise_at_most(ground: Ground) -> None:
    reading = Reading(ground, [1] * 50)
    reading.read(reading.selling.content(10))
    paid = reading.metered.settle()
    assert (paid.cost, paid.receipt) == (100, None)
    assert only_channel(ground).in_flight == 0


def test_the_next_response_puts_the_books_in_order_after_one_that_broke_off(
    ground: Ground,
) -> None:
    broken = Reading(ground, [1] * 50)
    broken.read(broken.selling.content(30))
    broken.metered.settle()
    after = Reading(ground, [1] * 5).to_the_end()
    assert (after.metered.paid.cost, only_channel(ground).spent) == (5, 35)


def test_readers_that_never_read_to_the_end_do_not_use_the_deposit_up(ground: Ground) -> None:
    for _ in range(100):
        reading = Reading(ground, [1] * 10)
        reading.read(reading.selling.content(5))
        reading.metered.settle()
    assert only_channel(ground).signed <= 500 + 2 * 100


def test_a_fixed_price_after_one_that_broke_off_costs_its_price(ground: Ground, site: Site) -> None:
    broken = Reading(ground, [1] * 50)
    broken.read(broken.selling.content(30))
    broken.metered.settle()
    site.metered, site.media_type, site.request_fields = False, "text/html", {}
    session = ground.session(OTHER, allowed=TRUSTED)
    answer, paid = ground.drive(session.run(), OTHER)
    assert (answer.status, paid.cost, only_channel(ground).spent) == (200, 1, 31)


def test_what_was_charged_before_the_head_is_part_of_the_cost(ground: Ground) -> None:
    Reading(ground, [10]).to_the_end()
    charge = early(ground, 7)
    reading = Reading(ground, [5])
    charge.undo()
    reading.selling.total = 7
    reading.to_the_end()
    assert reading.metered.paid.cost == 12


def early(ground: Ground, amount: int) -> pytest.MonkeyPatch:
    """The site charges this much before its response begins."""
    patch = pytest.MonkeyPatch()
    receipt = ground.site.receipt

    def charged(channel_id: ChannelId) -> Receipt:
        key = next(reversed(ground.site.payments))[1]
        ground.site.charge(channel_id, key, amount)
        return receipt(channel_id)

    patch.setattr(ground.site, "receipt", charged)
    return patch


def test_settling_twice_enters_it_once(ground: Ground, reading: Reading) -> None:
    reading.to_the_end()
    assert reading.metered.settle() == reading.metered.settle()
    assert only_channel(ground).spent == 1000


# --- responses that are no event streams -----------------------------------------------------


def test_a_body_without_events_is_handed_on_as_it_is(ground: Ground, site: Site) -> None:
    site.media_type = "application/octet-stream"
    body = b"event: payment-need-voucher\ndata: x\n\n"
    reading = Reading(ground, [])
    reading.read(body)
    assert (reading.content, reading.metered.rest()) == (body, b"")
    assert reading.metered.settle().cost == 100


def test_a_body_that_was_charged_before_it_began_costs_that(ground: Ground, site: Site) -> None:
    site.media_type = "application/json"
    patch = early(ground, 30)
    reading = Reading(ground, [])
    patch.undo()
    assert reading.metered.settle().cost == 30
    assert only_channel(ground).spent == 30


def test_after_a_body_of_unknown_cost_the_next_receipt_is_not_taken_for_a_charge(
    ground: Ground, site: Site
) -> None:
    site.media_type = "application/octet-stream"
    broken = Reading(ground, [1] * 50)
    broken.selling.content(30)
    broken.metered.settle()
    after = Reading(ground, [])
    assert (after.metered.settle().receipt, only_channel(ground).spent) == (None, 30)


def test_a_response_that_costs_more_than_its_promise_before_it_begins_is_promised_that(
    ground: Ground, site: Site
) -> None:
    site.media_type = "application/json"
    patch = early(ground, 700)
    reading = Reading(ground, [])
    patch.undo()
    assert reading.metered.settle().cost == 700
    assert [amount for _, amount in ground.signed] == [100, 700]


def test_a_response_that_costs_more_than_its_limit_before_it_begins_is_not_paid(
    ground: Ground,
) -> None:
    patch = early(ground, 1601)
    with pytest.raises(BudgetExceeded, match="costs 1601, the limit is 1600"):
        ground.pay()
    patch.undo()
    assert [amount for _, amount in ground.signed] == [100]
    assert only_channel(ground).in_flight == 0


def test_a_payee_that_finds_every_promise_insufficient_stays_within_the_limit(
    ground: Ground, site: Site
) -> None:
    def more(signed: int) -> Answer:
        problem = refused(402, "insufficient-balance", spent=str(signed), requiredCumulative="1")
        return replace(problem, challenges=(site.challenge(1),))

    ground.open(2000)
    site.scripted = [more(0), *(more(amount) for amount in (100, 200, 400, 800, 1600, 1600, 1600))]
    answer, paid = ground.pay()
    assert (answer.status, paid) == (402, None)
    assert max(amount for _, amount in ground.signed) <= 1600


def test_an_event_stream_of_fixed_price_is_freed_of_the_events_of_payments(tmp_path: Path) -> None:
    site = Site()
    site.media_type = "text/event-stream"
    ground = Ground(tmp_path, site)
    session = ground.session()
    assert isinstance(session, PaymentSession)
    _, metered = ground.drive(session.run(), URL)
    assert isinstance(metered, MeteredResponse)
    parts = list(metered.read(CONTENT + receipt_event(site.receipt(metered.paid.channel_id))))
    assert parts == [CONTENT]
    assert (metered.settle().cost, only_channel(ground).spent) == (1, 1)


def test_an_event_stream_of_fixed_price_that_breaks_off_costs_what_its_head_said(
    tmp_path: Path,
) -> None:
    site = Site()
    site.media_type = "text/event-stream"
    ground = Ground(tmp_path, site)
    _, metered = ground.pay()
    assert (metered.settle().cost, only_channel(ground).spent) == (1, 1)


def test_a_head_request_costs_nothing(ground: Ground, site: Site) -> None:
    site.media_type = None  # type: ignore[assignment]
    _, paid = ground.pay()
    assert (paid.cost, only_channel(ground).spent) == (0, 0)


def test_a_page_beside_a_stream_that_uses_its_share_is_paid_again(
    ground: Ground, site: Site
) -> None:
    """Credit is not kept apart at the payee: a stream may use what another request promised."""
    reading = Reading(ground, [1] * 200)
    site.metered, site.media_type, site.request_fields = False, "text/html", {}
    page = ground.session(OTHER, allowed=TRUSTED).run()
    asking = next(page)
    assert isinstance(asking, Send)
    step = page.send(site.answer(OTHER, asking))
    assert isinstance(step, Send)
    raised = payload_of(step).voucher
    channel_id = reading.metered.paid.channel_id
    site.records[channel_id] = replace(
        site.records[channel_id], accepted=raised.cumulative_amount, signature=raised.signature
    )
    reading.selling.content(raised.cumulative_amount)
    answer = site.answer(OTHER, step)
    assert answer.code == "insufficient-balance"
    again = page.send(answer)
    assert isinstance(again, Send)
    assert site.answer(OTHER, again).status == 200
