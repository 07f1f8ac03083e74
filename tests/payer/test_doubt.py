"""Books that are too old: restored from a copy, or rebuilt from the chain. The payee is asked, and
believed as far as our own signatures prove what it says.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from channelpay.payer.backup import back_up
from channelpay.payer.closing import CloseSession
from channelpay.payer.records import PayerChannel
from channelpay.payer.state import PayerState
from channelpay.payer.steps import Answer, Send, Step
from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import ChannelStatus
from channelpay.protocol.wire import ClosePayload, Credential, OpenPayload, VoucherPayload
from tests.payer.selling import Reading, metered_site
from tests.payer.site import DEPLOYMENT, URL, Ground, Site, signing

STRANGER = VoucherSigner(DEPLOYMENT, bytes(31) + b"\x02")


class Seen:
    """The vouchers that were shown, and whether by HEAD."""

    def __init__(self) -> None:
        self.vouchers: list[tuple[int, bool]] = []

    def __call__(self, step: Step) -> None:
        if isinstance(step, Send) and "Authorization" in step.headers:
            payload = Credential.parse(step.headers["Authorization"]).payload
            assert isinstance(payload, OpenPayload | VoucherPayload)
            self.vouchers.append((payload.voucher.cumulative_amount, step.head))


def backed_up(ground: Ground, tmp_path: Path) -> Path:
    copy = tmp_path / "copy.sqlite3"
    back_up(tmp_path / "payer.sqlite3", copy)
    return copy


def put_back(ground: Ground, copy: Path) -> PayerChannel:
    """The payer goes on with a copy; returns its one channel."""
    ground.state.close()
    ground.state = PayerState(copy, ground.clock)
    ground.signed.clear()
    (entry,) = ground.state.channels(ground.payer)
    return entry


def paid(ground: Ground, times: int) -> None:
    for _ in range(times):
        assert ground.pay()[0].status == 200


@pytest.fixture
def old(ground: Ground, tmp_path: Path) -> Path:
    """A copy of the books from when 3 were signed and spent; there are 8 now."""
    ground.open()
    paid(ground, 3)
    copy = backed_up(ground, tmp_path)
    paid(ground, 5)
    return copy


def test_after_a_restore_the_payee_shows_what_was_signed_and_goes_on_from_there(
    ground: Ground, site: Site, old: Path
) -> None:
    entry, seen = put_back(ground, old), Seen()
    assert (entry.in_doubt, entry.signed, entry.spent) == (True, 3, 3)

    answer, cost = ground.drive(ground.session().run(), URL, seen)

    after = ground.state.channel(entry.channel_id)
    assert (answer.status, cost.cost) == (200, 1)
    assert seen.vouchers == [(3, True), (3, False), (9, False)]
    assert [amount for _, amount in ground.signed] == [9]
    assert (after.in_doubt, after.signed, after.spent, after.credible) == (False, 9, 9, 9)
    assert site.records[entry.channel_id].spent == 9


def test_a_copy_since_which_nothing_was_paid_costs_one_question(
    ground: Ground, tmp_path: Path
) -> None:
    ground.open()
    paid(ground, 3)
    entry, seen = put_back(ground, backed_up(ground, tmp_path)), Seen()

    assert ground.drive(ground.session().run(), URL, seen)[0].status == 200

    assert seen.vouchers == [(3, True), (4, False)]
    assert not ground.state.channel(entry.channel_id).in_doubt
    seen.vouchers.clear()
    ground.drive(ground.session().run(), URL, seen)
    assert seen.vouchers == [(5, False)]


def test_what_is_available_at_the_payee_is_used_before_anything_is_signed(
    ground: Ground, site: Site, tmp_path: Path
) -> None:
    entry = ground.open()
    paid(ground, 1)
    copy = backed_up(ground, tmp_path)
    site.failing = True
    ground.pay()  # Signed, and given back.
    site.failing = False
    put_back(ground, copy)

    paid(ground, 1)

    assert ground.signed == []
    assert ground.state.channel(entry.channel_id).in_doubt
    paid(ground, 1)
    assert (
        ground.state.channel(entry.channel_id).signed == site.records[entry.channel_id].spent == 3
    )


def test_books_that_were_copied_by_other_means_are_proven_to_be_too_old(
    ground: Ground, tmp_path: Path
) -> None:
    ground.open()
    paid(ground, 3)
    copy = tmp_path / "snapshot.sqlite3"
    with ground.state._database.write() as connection:
        connection.execute("UPDATE channels SET refused = NULL")
    shutil.copy(tmp_path / "payer.sqlite3", copy)
    shutil.copy(tmp_path / "payer.sqlite3-wal", tmp_path / "snapshot.sqlite3-wal")
    paid(ground, 5)
    entry = put_back(ground, copy)
    assert (entry.in_doubt, entry.signed) == (False, 3)

    paid(ground, 1)

    after = ground.state.channel(entry.channel_id)
    assert (after.signed, after.spent) == (9, 9)


def claim(site: Site, monkeypatch: pytest.MonkeyPatch, claims: dict[str, Any]) -> None:
    """Have the payee say something else when it refuses."""
    honest = site.answer

    def answer(url: str, step: Send) -> Answer:
        answer = honest(url, step)
        refuses = answer.code == "insufficient-balance"
        return replace(answer, problem=answer.problem | claims) if refuses else answer

    monkeypatch.setattr(site, "answer", answer)


@pytest.mark.parametrize(
    "claims",
    [
        {"acceptedSignature": None},
        {"acceptedSignature": "0x" + "11" * 65},
        {"acceptedCumulative": "90"},
        {"acceptedCumulative": "90", "spent": "90", "requiredCumulative": "91"},
        {"spent": "9"},
    ],
    ids=["no proof", "no signature", "another amount", "all of it", "more spent than held"],
)
def test_a_payee_that_proves_nothing_has_nothing_more_signed(
    ground: Ground, site: Site, old: Path, monkeypatch: pytest.MonkeyPatch, claims: dict[str, Any]
) -> None:
    entry = put_back(ground, old)
    claim(site, monkeypatch, claims)

    assert ground.pay()[0].status == 402

    after = ground.state.channel(entry.channel_id)
    assert (after.in_doubt, after.signed, after.spent, ground.signed) == (True, 3, 3, [])


@pytest.mark.parametrize("whose", ["a stranger's", "of another channel", "for less"])
def test_a_proof_is_ours_and_of_the_channel_and_amount_that_it_is_shown_for(
    ground: Ground, site: Site, old: Path, whose: str
) -> None:
    entry = put_back(ground, old)
    shown = {
        "a stranger's": STRANGER.sign(entry.channel_id, 8),
        "of another channel": ground.signer.sign(ground.open().channel_id, 8),
        "for less": ground.signer.sign(entry.channel_id, 7),
    }
    record = site.records[entry.channel_id]
    site.records[entry.channel_id] = replace(record, signature=shown[whose].signature)

    answer, _ = ground.pay()

    assert answer.problem["acceptedSignature"] == to_hex(shown[whose].signature)
    assert ground.state.channel(entry.channel_id).in_doubt
    assert ground.signed == []


def test_without_doubt_a_payee_is_not_believed_above_what_limits_explain(
    ground: Ground, site: Site
) -> None:
    """It has a genuine voucher for 64, of which 4 were used, and says that all was."""
    site.metered, site.media_type = True, "text/event-stream"
    site.request_fields = {"unit_type": "token"}
    ground.limits = replace(ground.limits, metered_max=64, ahead=64)
    reading = Reading(ground, [1] * 4)
    reading.to_the_end()
    (entry,) = ground.state.channels(ground.payer)
    assert (entry.signed, entry.spent) == (64, 4)
    ground.state.end_doubt(entry.channel_id, 64)
    proof = ground.signer.sign(entry.channel_id, 64)
    ground.state.end_doubt(entry.channel_id, 64, proof)
    assert ground.state.channel(entry.channel_id).spent == 4


def test_also_in_doubt_no_more_is_believed_to_be_spent_than_was_signed(
    ground: Ground, old: Path
) -> None:
    entry = put_back(ground, old)
    ground.state.end_doubt(entry.channel_id, 99)
    assert ground.state.channel(entry.channel_id).spent == entry.signed == 3


def test_a_channel_found_on_chain_is_presented_with_a_voucher_for_nothing(
    ground: Ground, site: Site, tmp_path: Path
) -> None:
    entry = ground.open()
    paid(ground, 8)
    ground.state = PayerState(tmp_path / "new.sqlite3", ground.clock)
    found = PayerChannel(
        entry.channel_id,
        DEPLOYMENT,
        entry.channel,
        entry.deposit,
        status=ChannelStatus.OPEN,
        open_transaction=entry.open_transaction,
    )
    assert ground.state.add_found(found)
    seen = Seen()

    assert ground.drive(ground.session().run(), URL, seen)[0].status == 200

    assert seen.vouchers == [(0, True), (0, False), (9, False)]
    assert ground.state.channel(entry.channel_id).spent == 9


def test_what_the_books_know_is_not_overwritten_by_what_is_found(ground: Ground) -> None:
    entry = ground.open()
    paid(ground, 2)
    known = ground.state.channel(entry.channel_id)
    assert not ground.state.add_found(replace(entry, deposit=1))
    assert ground.state.channel(entry.channel_id) == known


def test_a_stream_over_books_in_doubt_begins_after_the_payee_was_asked(tmp_path: Path) -> None:
    site = metered_site()
    ground = Ground(tmp_path, site)
    ground.limits = replace(ground.limits, deposit_max=2000, metered_max=400)
    Reading(ground, [1] * 30).to_the_end()
    copy = backed_up(ground, tmp_path)
    (before,) = ground.state.channels(ground.payer)
    entry = put_back(ground, copy)
    assert entry.in_doubt

    again = Reading(ground, [1] * 200).to_the_end()

    after = ground.state.channel(entry.channel_id)
    assert again.selling.total == 200
    assert after.spent == site.records[entry.channel_id].spent == before.spent + 200
    assert not after.in_doubt


def test_a_copy_drops_the_requests_that_were_under_way_elsewhere(
    ground: Ground, tmp_path: Path
) -> None:
    entry = ground.open()
    ground.state.reserve(entry.channel_id, 5, signing(ground.signer))
    assert put_back(ground, backed_up(ground, tmp_path)).in_flight == 0


# --- closing ---------------------------------------------------------------------------------


def closed_with(ground: Ground, entry: PayerChannel) -> int:
    """The amount of the voucher that closes the channel."""
    steps = CloseSession(ground.terms(), ground.state, entry, URL, ground.clock).run()
    step = next(steps)
    while True:
        assert isinstance(step, Send)
        header = step.headers.get("Authorization")
        payload = None if header is None else Credential.parse(header).payload
        if isinstance(payload, ClosePayload):
            steps.close()
            return payload.voucher.cumulative_amount
        # A bare GET of what costs something is a purchase, also where nobody wants its body.
        if step.bare and not step.head and header is not None:
            step = replace(step, bare=False, headers=step.headers | {"Idempotency-Key": "bare"})
        step = steps.send(ground.site.answer(URL, step))


def test_a_close_over_old_books_takes_the_proof_and_pays_what_was_spent(
    ground: Ground, site: Site, old: Path
) -> None:
    entry = put_back(ground, old)
    assert closed_with(ground, entry) == site.records[entry.channel_id].spent == 8


def test_a_close_over_old_books_buys_nothing_for_the_sake_of_the_proof(
    ground: Ground, site: Site, tmp_path: Path
) -> None:
    entry = ground.open()
    paid(ground, 1)
    copy = backed_up(ground, tmp_path)
    site.failing = True
    ground.pay()
    site.failing = False
    spent = site.records[entry.channel_id].spent
    assert closed_with(ground, put_back(ground, copy)) == 1
    assert site.records[entry.channel_id].spent == spent


# --- the copy --------------------------------------------------------------------------------


def test_a_copy_is_private_marked_and_made_while_the_books_are_in_use(
    ground: Ground, tmp_path: Path
) -> None:
    ground.open()
    held = ground.state.reserve(
        ground.state.channels(ground.payer)[0].channel_id, 5, signing(ground.signer)
    )
    copy = backed_up(ground, tmp_path)
    ground.state.settle(held, 5)

    assert copy.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.glob("copy*")] == ["copy.sqlite3"]
    (entry,) = PayerState(copy).channels(ground.payer)
    assert (entry.in_doubt, entry.signed) == (True, 5)
    assert not ground.state.channel(entry.channel_id).in_doubt
