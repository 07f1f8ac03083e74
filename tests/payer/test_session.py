"""One paid request after another, against a payee of the real rules: what is sent, signed, kept."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from channelpay.errors import (
    BudgetExceeded,
    ConfigError,
    NetworkError,
    TooFewConfirmations,
    WrongChain,
)
from channelpay.payer.limits import Limits
from channelpay.payer.patience import DEADLINE_SECONDS
from channelpay.payer.steps import Answer, Open, Send, Step, Wait
from channelpay.protocol.parse import parse_json_object
from channelpay.protocol.proofs import HEADER
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import NATIVE, Address, ChannelState, ChannelStatus, Deployment
from channelpay.protocol.wire import Receipt, decode_base64url
from tests.payer.site import DEPLOYMENT, NOW, URL, Ground, Site, refused

OTHER_URL = "https://site.example/other"


def payload_of(step: Send) -> dict[str, Any]:
    token = step.headers["Authorization"].removeprefix("Payment ")
    payload: dict[str, Any] = parse_json_object(decode_base64url(token, "c"), "c")["payload"]
    return payload


def sends(ground: Ground, url: str = URL) -> list[Send]:
    seen: list[Step] = []
    ground.drive(ground.session(url).run(), url, seen.append)
    return [step for step in seen if isinstance(step, Send)]


def only_channel(ground: Ground) -> Any:
    (entry,) = ground.state.channels(ground.payer)
    return entry


def test_an_unknown_origin_is_asked_without_a_credential(ground: Ground) -> None:
    ground.open()
    first, second = sends(ground)
    assert first.headers == {}
    assert "Authorization" in second.headers


def test_once_the_price_is_known_a_paid_request_takes_one_round_trip(
    ground: Ground, site: Site
) -> None:
    ground.open()
    ground.pay()
    site.requests = 0
    answer, paid = ground.pay(OTHER_URL)
    assert (answer.status, site.requests) == (200, 1)
    assert paid is not None
    assert paid.cost == 1


def test_an_expired_challenge_is_not_answered(ground: Ground) -> None:
    ground.open()
    ground.pay()
    ground.clock.now = NOW + 601
    first, *_ = sends(ground)
    assert first.headers == {}


def test_a_new_channel_pays_for_its_first_request_with_the_open_itself(ground: Ground) -> None:
    _, paying = sends(ground)
    payload = payload_of(paying)
    assert (payload["action"], payload["cumulativeAmount"]) == ("open", "1")
    assert [payload_of(step)["action"] for step in sends(ground)] == ["voucher"]
    assert only_channel(ground).spent == 2


def test_the_deposit_is_what_the_site_suggests_within_the_limit(tmp_path: Path, site: Site) -> None:
    ground = Ground(tmp_path, site, Limits(NATIVE, price_max=10, deposit_max=40))
    ground.pay()
    assert only_channel(ground).deposit == 40


def test_the_callers_deposit_goes_before_the_sites(tmp_path: Path, site: Site) -> None:
    ground = Ground(tmp_path, site, Limits(NATIVE, price_max=10, deposit_max=40, deposit=7))
    ground.pay()
    assert only_channel(ground).deposit == 7


@pytest.mark.parametrize(
    "limits",
    [
        Limits(NATIVE, price_max=0, deposit_max=100),
        Limits(NATIVE, price_max=10),
        Limits(NATIVE, price_max=10, deposit_max=100, deposit=0),
        Limits(NATIVE, price_max=10, deposit_max=100, total_max=0),
        Limits(Address(b"\x77" * 20), price_max=10, deposit_max=100),
    ],
    ids=["price", "no deposit allowed", "deposit below the price", "total", "other token"],
)
def test_a_limit_stops_the_payment_before_anything_is_signed(
    tmp_path: Path, site: Site, limits: Limits
) -> None:
    ground = Ground(tmp_path, site, limits)
    with pytest.raises(BudgetExceeded):
        ground.pay()
    assert ground.signed == []
    assert ground.opened == 0


def test_the_total_counts_all_channels(tmp_path: Path, site: Site) -> None:
    limits = Limits(NATIVE, price_max=10, deposit_max=2, total_max=3)
    ground = Ground(tmp_path, site, limits)
    ground.pay()
    ground.pay()
    ground.state.refuse(only_channel(ground).channel_id, "channel-finalized")
    ground.pay()
    with pytest.raises(BudgetExceeded):
        ground.pay()
    assert sum(entry.signed for entry in ground.state.channels(ground.payer)) == 3


def test_a_contract_that_is_not_trusted_gets_nothing(ground: Ground, site: Site) -> None:
    site.request_fields = {"deployment": Deployment(31337, Address(b"\xbb" * 20))}
    with pytest.raises(ConfigError, match="not the trusted one"):
        ground.pay()
    assert ground.signed == []


def test_a_site_on_another_chain_gets_nothing(ground: Ground, site: Site) -> None:
    ground.chain_id = 1
    with pytest.raises(WrongChain):
        ground.pay()
    assert ground.signed == []


@pytest.mark.parametrize("challenge", ["Basic realm=x", 'Payment id="a", realm="b"', "Payment"])
def test_a_402_without_a_challenge_of_ours_is_the_callers(ground: Ground, challenge: str) -> None:
    ground.site.scripted = [Answer(402, URL, challenges=(challenge,))]
    answer, paid = ground.pay()
    assert (answer.status, paid) == (402, None)


def test_a_challenge_with_a_malformed_time_is_not_answered(ground: Ground, site: Site) -> None:
    challenge = re.sub('expires="[^"]*"', 'expires="soon"', site.challenge(1))
    site.scripted = [Answer(402, URL, challenges=(challenge,))]
    answer, paid = ground.pay()
    assert (answer.status, paid, ground.signed) == (402, None, [])


@pytest.mark.parametrize("url", ["http://site.example/page", "http://127.0.0.1.evil.example/"])
def test_no_credential_goes_over_plain_http(ground: Ground, url: str) -> None:
    with pytest.raises(ConfigError, match="plain http"):
        ground.pay(url)
    assert ground.signed == []


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "http://localhost/", "http://[::1]:8/", "http://a.localhost/"]
)
def test_plain_http_to_this_machine_is_fine(ground: Ground, url: str) -> None:
    answer, _ = ground.pay(url)
    assert answer.status == 200


def test_plain_http_can_be_allowed(ground: Ground) -> None:
    answer, _ = ground.pay("http://site.example/page", allow_plain_http=True)
    assert answer.status == 200


def test_a_known_price_does_not_send_a_credential_over_plain_http_either(ground: Ground) -> None:
    url = "http://site.example/page"
    ground.pay(url, allow_plain_http=True)
    signed = list(ground.signed)
    with pytest.raises(ConfigError, match="plain http"):
        ground.pay(url)
    assert ground.signed == signed


def test_a_free_page_uses_nothing_up(ground: Ground, site: Site) -> None:
    ground.open()
    ground.pay()
    site.prices[OTHER_URL] = None
    answer, paid = ground.pay(OTHER_URL)
    assert (answer.status, paid) == (200, None)
    entry = only_channel(ground)
    assert (entry.spent, entry.in_flight, entry.signed) == (1, 0, 2)
    ground.pay()
    assert only_channel(ground).signed == 2


def test_of_a_voucher_that_was_settled_the_payer_proves_that_it_has_the_key(
    ground: Ground, site: Site
) -> None:
    credit_that_was_settled(ground, site)

    asked, proven = sends(ground)

    assert (HEADER in asked.headers, HEADER in proven.headers) == (False, True)
    assert ground.signed == [], "the credit is spent"
    assert only_channel(ground).spent == 2
    (next_one,) = sends(ground)
    assert HEADER not in next_one.headers


def test_only_the_place_that_the_channel_was_used_at_gets_such_a_proof(
    ground: Ground, site: Site
) -> None:
    credit_that_was_settled(ground, site)

    seen = sends(ground, "https://elsewhere.example/page")

    assert not any(HEADER in step.headers for step in seen)


def credit_that_was_settled(ground: Ground, site: Site) -> None:
    """A page was paid for twice, once without being served."""
    ground.open()
    ground.pay()
    site.failing = True
    ground.pay()
    site.failing = False
    site.settle()
    ground.signed.clear()


def test_a_failed_request_leaves_its_voucher_for_the_next(ground: Ground, site: Site) -> None:
    ground.open()
    ground.pay()
    site.failing = True
    answer, paid = ground.pay()
    assert (answer.status, paid) == (500, None)
    site.failing = False
    ground.pay()
    entry = only_channel(ground)
    assert (entry.signed, entry.spent) == (2, 2)


def test_a_dearer_page_is_paid_on_its_own_challenge(ground: Ground, site: Site) -> None:
    ground.open()
    ground.pay()
    site.prices[OTHER_URL] = 5
    answer, paid = ground.pay(OTHER_URL)
    assert paid is not None
    assert (answer.status, paid.cost) == (200, 5)


def test_a_dearer_page_over_the_limit_is_not_paid_and_does_not_spoil_the_others(
    ground: Ground, site: Site
) -> None:
    ground.open()
    ground.pay()
    site.prices[OTHER_URL] = 11
    with pytest.raises(BudgetExceeded):
        ground.pay(OTHER_URL)
    site.requests = 0
    answer, _ = ground.pay()
    assert (answer.status, site.requests) == (200, 1)


def test_a_cheaper_page_costs_its_own_price(ground: Ground, site: Site) -> None:
    site.prices[URL] = 5
    ground.pay()
    answer, paid = ground.pay(OTHER_URL)
    assert paid is not None
    assert (answer.status, paid.cost) == (200, 1)
    assert only_channel(ground).spent == 6


def test_a_retry_keeps_its_idempotency_key_and_the_next_request_has_another(
    ground: Ground, site: Site
) -> None:
    ground.open()
    site.scripted = [
        Answer(402, URL, challenges=(site.challenge(1),)),
        Answer(503, URL, retry_after="3"),
    ]
    paying = sends(ground)[1:]
    keys = [step.headers["Idempotency-Key"] for step in paying]
    assert len(keys) == 2
    assert len({*keys}) == 1
    assert ground.clock.now == NOW + 3
    (next_request,) = sends(ground)
    assert next_request.headers["Idempotency-Key"] != keys[0]


def test_waiting_ends_at_the_deadline_with_the_payees_answer(ground: Ground, site: Site) -> None:
    ground.open()
    ground.pay()
    site.scripted = [Answer(503, URL, retry_after="100")] * 10
    answer, paid = ground.pay()
    assert (answer.status, paid, site.requests) == (503, None, 2 + 2)


def test_a_payee_that_says_at_once_is_not_pestered(ground: Ground, site: Site) -> None:
    ground.open()
    ground.pay()
    site.scripted = [Answer(503, URL, retry_after="0")]
    assert ground.pay()[0].status == 200
    assert ground.clock.now == NOW + 1


@pytest.mark.parametrize("retry_after", ["0", "1"])
def test_a_payee_that_stays_busy_is_not_asked_so_often_that_it_looks_like_a_loop_of_redirects(
    ground: Ground, site: Site, retry_after: str
) -> None:
    ground.open()
    ground.pay()
    site.requests = 0
    site.scripted = [Answer(503, URL, retry_after=retry_after)] * 1000
    answer, paid = ground.pay()
    assert (answer.status, paid) == (503, None)
    assert 5 < site.requests <= 15 < httpx2.Client().max_redirects
    assert 100 < ground.clock.now - NOW <= 180


def test_a_503_that_gives_no_time_is_final(ground: Ground, site: Site) -> None:
    ground.open()
    ground.pay()
    site.scripted = [Answer(503, URL)]
    assert ground.pay()[0].status == 503


def test_too_few_confirmations_are_waited_for(ground: Ground, site: Site) -> None:
    ground.open()
    site.scripted = [
        Answer(402, URL, challenges=(site.challenge(1),)),
        site.refusal(URL, TooFewConfirmations()),
    ]
    answer, paid = ground.pay()
    assert (answer.status, ground.clock.now) == (200, NOW + 2)
    assert paid is not None


def test_the_payees_count_is_adopted_as_far_as_we_signed(ground: Ground, site: Site) -> None:
    """A request that was charged although its answer never came."""
    ground.open()
    ground.pay()
    lost = ground.session().run()
    step = next(lost)
    assert isinstance(step, Send)
    site.answer(URL, step)
    lost.close()
    answer, _ = ground.pay()
    assert answer.status == 200
    entry = only_channel(ground)
    assert (entry.spent, entry.signed, entry.in_flight) == (3, 3, 0)


def test_a_payee_that_claims_more_than_we_signed_is_not_believed(
    ground: Ground, site: Site
) -> None:
    ground.open()
    ground.pay()
    site.scripted = [
        replace(
            refused(402, "insufficient-balance", spent="50", requiredCumulative="51"),
            challenges=(site.challenge(1),),
        )
    ]
    answer, paid = ground.pay()
    assert (answer.status, paid) == (402, None)
    entry = only_channel(ground)
    assert (entry.spent, entry.signed) == (1, 2)


def test_a_payee_that_claims_what_was_just_signed_gets_no_second_voucher(
    ground: Ground, site: Site
) -> None:
    ground.open()
    ground.pay()
    site.scripted = [
        replace(refused(402, "insufficient-balance", spent="2"), challenges=(site.challenge(1),))
    ] * 5
    answer, _ = ground.pay()
    assert answer.status == 402
    assert only_channel(ground).signed == 2


@pytest.mark.parametrize(
    "receipt",
    [
        "not base64!",
        Receipt(bytes(32), 31337, "c", 1, 1, NOW).to_header(),  # type: ignore[arg-type]
    ],
    ids=["malformed", "other channel"],
)
def test_a_receipt_that_is_not_ours_counts_as_the_price(
    ground: Ground, site: Site, receipt: str
) -> None:
    ground.open()
    ground.pay()
    site.scripted = [Answer(200, URL, receipt=receipt)]
    _, paid = ground.pay()
    assert paid is not None
    assert (paid.receipt, paid.cost) == (None, 1)


def test_a_receipt_that_claims_more_than_we_signed_is_not_believed(
    ground: Ground, site: Site
) -> None:
    entry = ground.open()
    ground.pay()
    claim = Receipt(entry.channel_id, 31337, "c", 90, 90, NOW).to_header()
    site.scripted = [Answer(200, URL, receipt=claim)]
    _, paid = ground.pay()
    assert paid is not None
    assert (paid.receipt, only_channel(ground).spent) == (None, 2)


@pytest.mark.parametrize("code", ["channel-closing", "channel-finalized"])
def test_a_channel_that_the_payee_gave_up_is_replaced(
    ground: Ground, site: Site, code: str
) -> None:
    old = ground.open()
    ground.pay()
    site.scripted = [replace(refused(410, code), challenges=(site.challenge(1),))]
    answer, paid = ground.pay()
    assert paid is not None
    assert answer.status == 200
    assert paid.channel_id != old.channel_id
    assert ground.state.channel(old.channel_id).refused == code


def test_a_payee_that_gives_up_every_channel_gets_one_new_deposit_per_request(
    ground: Ground, site: Site
) -> None:
    refusal = replace(refused(410, "channel-finalized"), challenges=(site.challenge(1),))
    ground.open()
    ground.pay()
    site.scripted = [refusal] * 9
    answer, paid = ground.pay()
    assert (answer.status, paid, ground.opened) == (410, None, 2)


def test_a_payee_that_lost_its_books_is_told_of_the_open_again(ground: Ground, site: Site) -> None:
    ground.pay()
    ground.pay()
    site.records.clear()
    first, second = sends(ground)
    assert payload_of(first)["action"] == "voucher"
    assert payload_of(second)["action"] == "open"
    assert ground.opened == 1


def test_a_used_up_channel_is_not_topped_up_without_permission(tmp_path: Path, site: Site) -> None:
    limits = Limits(NATIVE, price_max=10, deposit_max=100, deposit=2)
    ground = Ground(tmp_path, site, limits)
    ground.pay()
    ground.pay()
    with pytest.raises(BudgetExceeded, match="used up"):
        ground.pay()
    assert ground.opened == 1


def test_a_used_up_channel_is_topped_up_within_the_limit(tmp_path: Path, site: Site) -> None:
    limits = Limits(NATIVE, price_max=10, deposit_max=5, deposit=2, top_up=2)
    ground = Ground(tmp_path, site, limits)
    for _ in range(5):
        answer, _ = ground.pay()
        assert answer.status == 200
    with pytest.raises(BudgetExceeded):
        ground.pay()
    entry = only_channel(ground)
    assert (entry.deposit, entry.spent) == (5, 5)


def test_the_payee_learns_of_a_top_up_before_the_voucher_that_needs_it(
    tmp_path: Path, site: Site
) -> None:
    limits = Limits(NATIVE, price_max=10, deposit_max=4, deposit=1, top_up=3)
    ground = Ground(tmp_path, site, limits)
    ground.pay()
    _, first, second = sends(ground)
    assert (payload_of(first)["action"], first.bare) == ("topUp", True)
    assert payload_of(second)["action"] == "voucher"
    assert [payload_of(step)["action"] for step in sends(ground)] == ["voucher"]


def test_a_top_up_before_the_first_request_is_told_when_the_payee_misses_it(
    tmp_path: Path, site: Site
) -> None:
    site.default_price = 5
    ground = Ground(tmp_path, site, Limits(NATIVE, price_max=10))
    entry = ground.open(deposit=2)
    ground.top_up(entry.channel_id, 8)
    actions = []

    def watch(step: Step) -> None:
        if isinstance(step, Send) and step.headers:
            actions.append(payload_of(step)["action"])
            # An open counts with its own deposit only, until the top-up is told.
            site.confirmed_deposits[entry.channel_id] = 10 if "topUp" in actions else 2

    answer, paid = ground.drive(ground.session().run(), URL, watch)
    assert (answer.status, actions) == (200, ["open", "topUp", "voucher"])
    assert paid is not None


def test_an_open_by_another_process_is_waited_for(ground: Ground) -> None:
    session = ground.session().run()
    answer = ground.site.answer(URL, next(session))  # type: ignore[arg-type]
    step = session.send(answer)
    assert isinstance(step, Open)
    # Nothing was opened here: somebody else is at it.
    assert isinstance(session.send(None), Wait)
    ground.open()
    assert isinstance(session.send(None), Send)


def test_waiting_for_a_channel_ends_at_the_deadline(ground: Ground) -> None:
    session = ground.session().run()
    session.send(ground.site.answer(URL, next(session)))  # type: ignore[arg-type]
    session.send(None)
    ground.clock.now += DEADLINE_SECONDS
    assert isinstance(session.send(None), Open)
    with pytest.raises(NetworkError, match="in time"):
        session.send(None)


def test_a_redirect_to_another_origin_pays_that_origin_anew(ground: Ground, site: Site) -> None:
    elsewhere = "https://elsewhere.example/page"
    ground.open()
    ground.pay()
    session = ground.session().run()
    first = next(session)
    assert isinstance(first, Send)
    moved = replace(site.answer(elsewhere, Send({})), url=elsewhere)
    second = session.send(moved)
    assert isinstance(second, Send)
    assert first.headers["Idempotency-Key"] != second.headers["Idempotency-Key"]
    assert only_channel(ground).in_flight == 1
    with pytest.raises(StopIteration) as end:
        session.send(site.answer(elsewhere, second))
    assert end.value.value.cost == 1


def test_a_channel_whose_open_failed_is_not_presented_again(ground: Ground, site: Site) -> None:
    failed = ground.open()
    site.scripted = [refused(402, "payment-required"), refused(409, "transaction-reverted")]
    site.scripted[0] = replace(site.scripted[0], challenges=(site.challenge(1),))

    answer, paid = ground.pay()

    assert (answer.status, paid) == (409, None)
    entry = ground.state.channel(failed.channel_id)
    assert (entry.refused, entry.in_flight) == ("transaction-reverted", 0)
    assert ground.pay()[0].status == 200


def test_a_refusal_for_good_is_the_callers(ground: Ground, site: Site) -> None:
    ground.open()
    ground.pay()
    site.scripted = [replace(refused(402, "signer-mismatch"), challenges=(site.challenge(1),))]
    answer, paid = ground.pay()
    assert (answer.code, paid) == ("signer-mismatch", None)
    assert only_channel(ground).in_flight == 0


def test_a_problem_of_another_implementation_is_known_by_its_type(
    ground: Ground, site: Site
) -> None:
    ground.open()
    ground.pay()
    problem = {"type": "https://paymentauth.org/problems/invalid-challenge"}
    site.scripted = [Answer(402, URL, challenges=(site.challenge(1),), problem=dict(problem))]
    assert ground.pay()[0].status == 200


def test_a_session_that_is_dropped_frees_what_it_set_aside(ground: Ground) -> None:
    ground.open()
    ground.pay()
    session = ground.session().run()
    next(session)
    assert only_channel(ground).in_flight == 1
    session.close()
    assert only_channel(ground).in_flight == 0


def test_no_voucher_leaves_before_it_is_in_the_books(ground: Ground) -> None:
    def watch(step: Step) -> None:
        if isinstance(step, Send) and step.headers:
            promised = int(payload_of(step)["cumulativeAmount"])
            assert only_channel(ground).signed >= promised

    for _ in range(3):
        ground.drive(ground.session().run(), URL, watch)


def test_a_channel_that_closes_is_not_used(ground: Ground) -> None:
    entry = ground.open()
    closing = ChannelState(ChannelStatus.CLOSING, 100, 0, 5)
    ground.state.record_chain_state(entry.channel_id, closing)
    _, paid = ground.pay()
    assert paid is not None
    assert paid.channel_id != entry.channel_id


def test_the_chain_is_not_asked_while_a_channel_can_pay(ground: Ground) -> None:
    def fail() -> int:
        raise AssertionError("asked the node")

    ground.open()
    answer, _ = ground.pay(chain_id=fail)
    assert answer.status == 200
    assert ground.pay(chain_id=fail)[0].status == 200


def test_the_deployment_of_the_channel_is_the_challenges(ground: Ground, site: Site) -> None:
    """A channel on one chain never pays a challenge of another chain."""
    ground.open()
    site.request_fields = {"deployment": Deployment(1, DEPLOYMENT.contract)}
    with pytest.raises(WrongChain):
        ground.pay()
    assert ground.signed == []


def test_what_earlier_requests_of_unknown_outcome_explain_is_believed(
    ground: Ground, site: Site
) -> None:
    ground.open()
    ground.pay()
    lost = ground.session().run()
    assert isinstance(next(lost), Send)
    lost.close()
    claim = refused(402, "insufficient-balance", spent="2")
    site.scripted = [replace(claim, challenges=(site.challenge(1),))]
    ground.pay()
    assert only_channel(ground).signed == 3


def test_a_voucher_set_aside_for_one_payee_never_goes_to_another(
    ground: Ground, site: Site
) -> None:
    bob = Address(b"\xbb" * 20)
    alices, bobs = ground.open(), ground.open(payee=bob)
    ground.pay()
    vouchers: list[str] = []

    def watch(step: Step) -> None:
        if isinstance(step, Send):
            vouchers.append(payload_of(step)["channelId"])

    site.request_fields = {"recipient": bob}
    challenge = site.challenge(1)
    stale = replace(refused(402, "invalid-challenge"), challenges=(challenge,))
    site.scripted = [stale, Answer(200, URL)]
    ground.drive(ground.session().run(), URL, watch)
    assert vouchers == [to_hex(alices.channel_id), to_hex(bobs.channel_id)]


def test_on_another_chain_than_the_one_that_is_meant_nothing_is_paid(ground: Ground) -> None:
    """Though a channel is open there, the node is not asked, and the price is known."""
    ground.open()
    ground.pay()
    before = list(ground.signed)

    with pytest.raises(WrongChain, match="chain 31337"):
        ground.pay(only_chain_id=1)

    assert ground.signed == before
    assert ground.pay(only_chain_id=DEPLOYMENT.chain_id)[0].status == 200
