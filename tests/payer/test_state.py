"""The payer's books: what is on disk, what only grows, and what no two requests share."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from channelpay.errors import (
    AmountExceedsDeposit,
    BudgetExceeded,
    ConfigError,
    NotFound,
    StoreUnavailable,
)
from channelpay.payer.budgets import Budget
from channelpay.payer.database import Database
from channelpay.payer.fundings import FUNDING_SECONDS_MAX
from channelpay.payer.promises import RESERVATION_SECONDS_MAX
from channelpay.payer.records import Funding, PayerChannel, Token, TopUp
from channelpay.payer.schema import MIGRATIONS
from channelpay.payer.state import PayerState
from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.types import (
    AMOUNT_MAX,
    NATIVE,
    Address,
    ChannelId,
    ChannelState,
    ChannelStatus,
)
from tests.payer.site import DEPLOYMENT, KEY, PAYEE, Clock, Ground, Site, signing

SIGNER = VoucherSigner(DEPLOYMENT, KEY)
SIGN = signing(SIGNER)
DEADLINE_SECONDS = 60.0


def reopened(tmp_path: Path) -> PayerState:
    return PayerState(tmp_path / "payer.sqlite3", Clock())


def test_what_was_signed_is_there_after_a_kill(tmp_path: Path, ground: Ground) -> None:
    entry = ground.open()
    program = f"""
import os, signal, sys
from pathlib import Path
from channelpay.payer.state import PayerState
from tests.payer.site import DEPLOYMENT, KEY, Clock, signing
from channelpay.protocol.eip712 import VoucherSigner
state = PayerState(Path({str(tmp_path / "payer.sqlite3")!r}), Clock())
sign = signing(VoucherSigner(DEPLOYMENT, KEY))
reservation = state.reserve(bytes.fromhex({entry.channel_id.hex()!r}), 7, sign)
print(reservation.voucher.cumulative_amount, reservation.voucher.signature.hex(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == -9, done.stderr
    amount, signature = done.stdout.split()
    kept = reopened(tmp_path).channel(entry.channel_id)
    assert (kept.signed, kept.signature.hex(), kept.in_flight) == (7, signature, 7)
    assert int(amount) == 7


RESERVER = """
import sys
from pathlib import Path
from channelpay.payer.state import PayerState
from channelpay.protocol.eip712 import VoucherSigner
from tests.payer.site import DEPLOYMENT, KEY, Clock, signing
state = PayerState(Path(sys.argv[1]), Clock())
sign = signing(VoucherSigner(DEPLOYMENT, KEY))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[3])):
    reservation = state.reserve(bytes.fromhex(sys.argv[2]), 3, sign)
    print(reservation.voucher.cumulative_amount, flush=True)
print("done", flush=True)
sys.stdin.readline()
"""


def lines_until_done(process: subprocess.Popen[str]) -> list[str]:
    """What it printed; it still holds its reservations then."""
    assert process.stdout is not None
    return list(iter(process.stdout.readline, "done\n"))


def test_what_a_process_had_set_aside_is_free_when_it_is_gone(
    tmp_path: Path, ground: Ground
) -> None:
    entry = ground.open(deposit=100)
    sign = signing(ground.signer)
    ours = ground.state.reserve(entry.channel_id, 5, sign)
    command = [
        *(sys.executable, "-c", RESERVER),
        *(str(tmp_path / "payer.sqlite3"), entry.channel_id.hex(), "2"),
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        assert lines_until_done(process)[1:] == ["8\n", "11\n"]
        assert ground.state.reserve(entry.channel_id, 1, sign).voucher.cumulative_amount == 12
        process.kill()

    following = ground.state.reserve(entry.channel_id, 3, sign)

    assert following.voucher.cumulative_amount == 12, "the highest that was signed covers it"
    kept = ground.state.channel(entry.channel_id)
    assert (kept.in_flight, kept.credible) == (9, 6), "and the payee may say that it took those"
    ground.state.settle(ours, 5)
    assert list((tmp_path / "payer.sqlite3-leases").iterdir()) != []
    ground.state.close()
    assert list((tmp_path / "payer.sqlite3-leases").iterdir()) == []


def test_two_processes_never_share_an_increment(tmp_path: Path, ground: Ground) -> None:
    each = 60
    entry = ground.open(deposit=10_000)
    command = [
        *(sys.executable, "-c", RESERVER),
        *(str(tmp_path / "payer.sqlite3"), entry.channel_id.hex(), str(each)),
    ]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    amounts = [int(line) for process in processes for line in lines_until_done(process)]
    for process in processes:
        process.communicate("end\n", timeout=DEADLINE_SECONDS)
    assert sorted(amounts) == [3 * count for count in range(1, 2 * each + 1)]
    assert ground.state.channel(entry.channel_id).signed == 3 * 2 * each


def test_books_that_a_program_opens_again_keep_their_locks(tmp_path: Path, ground: Ground) -> None:
    """Else another program takes itself for the last one, and removes what is written to."""
    ground.open()
    look = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('SELECT * FROM channels')"

    with closing(reopened(tmp_path)):
        file = tmp_path / "payer.sqlite3"
        subprocess.run([sys.executable, "-c", look, str(file)], check=True)
        assert file.with_name("payer.sqlite3-wal").exists()


def test_amounts_up_to_the_last_bit_survive(tmp_path: Path, ground: Ground) -> None:
    entry = ground.open(deposit=AMOUNT_MAX)
    ground.state.reserve(entry.channel_id, AMOUNT_MAX, SIGN)
    kept = reopened(tmp_path).channel(entry.channel_id)
    assert (kept.deposit, kept.signed, kept.in_flight) == (AMOUNT_MAX,) * 3


def test_more_than_the_deposit_is_never_signed(ground: Ground) -> None:
    entry = ground.open(deposit=5)
    ground.state.reserve(entry.channel_id, 4, SIGN)
    with pytest.raises(AmountExceedsDeposit):
        ground.state.reserve(entry.channel_id, 2, signing(ground.signer))
    kept = ground.state.channel(entry.channel_id)
    assert (kept.signed, kept.in_flight) == (4, 4)


def test_a_refused_reservation_leaves_the_one_that_it_would_replace(ground: Ground) -> None:
    entry = ground.open(deposit=8)
    held = ground.state.reserve(entry.channel_id, 5, SIGN)
    with pytest.raises(AmountExceedsDeposit):
        ground.state.reserve(entry.channel_id, 9, SIGN, instead_of=held)
    assert ground.state.channel(entry.channel_id).in_flight == 5


def test_a_failure_to_sign_leaves_nothing_behind(ground: Ground) -> None:
    entry = ground.open()

    def fail(channel_id: ChannelId, amount: int) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        ground.state.reserve(entry.channel_id, 2, fail)  # type: ignore[arg-type]
    kept = ground.state.channel(entry.channel_id)
    assert (kept.signed, kept.in_flight) == (0, 0)


def test_the_same_amount_is_signed_once(ground: Ground) -> None:
    entry = ground.open()
    first = ground.state.reserve(entry.channel_id, 2, SIGN)
    ground.state.release(first)
    again = ground.state.reserve(entry.channel_id, 2, lambda *_: pytest.fail("signed anew"))
    assert again.voucher == first.voucher


def test_a_request_alone_takes_the_payees_count_and_others_only_their_price(
    ground: Ground,
) -> None:
    entry = ground.open()
    alone = ground.state.reserve(entry.channel_id, 5, SIGN)
    assert ground.state.settle(alone, 3) == 3
    first, second = (ground.state.reserve(entry.channel_id, 5, SIGN) for _ in range(2))
    # The payee had charged both when it answered the first.
    assert ground.state.settle(first, 13) == 5
    assert ground.state.channel(entry.channel_id).spent == 8
    assert ground.state.settle(second, 13) == 5
    assert ground.state.channel(entry.channel_id).spent == 13


def test_a_charge_that_the_payee_gave_back_is_not_kept(ground: Ground) -> None:
    entry = ground.open()
    ground.state.settle(ground.state.reserve(entry.channel_id, 5, SIGN), 5)
    # The charge was released afterwards; the next request cost 4.
    ground.state.settle(ground.state.reserve(entry.channel_id, 5, SIGN), 4)
    assert ground.state.channel(entry.channel_id).spent == 4


def test_what_was_signed_never_shrinks_when_requests_fail(ground: Ground) -> None:
    entry = ground.open()
    for reservation in [ground.state.reserve(entry.channel_id, 5, SIGN) for _ in range(2)]:
        ground.state.release(reservation)
    again = ground.state.reserve(entry.channel_id, 1, SIGN)
    assert again.voucher.cumulative_amount == 10
    assert ground.state.channel(entry.channel_id).signed == 10


def test_a_late_answer_does_not_lower_what_was_spent(ground: Ground) -> None:
    entry = ground.open()
    first, second = (ground.state.reserve(entry.channel_id, 5, SIGN) for _ in range(2))
    ground.state.settle(second, 10)
    ground.state.settle(first, 5)
    assert ground.state.channel(entry.channel_id).spent == 10


def test_the_payee_is_never_believed_above_what_was_signed(ground: Ground) -> None:
    entry = ground.open()
    reservation = ground.state.reserve(entry.channel_id, 5, SIGN)
    assert ground.state.adopt_spent(entry.channel_id, 6).spent == 0
    ground.state.settle(reservation, 50)
    assert ground.state.channel(entry.channel_id).spent == 5
    assert ground.state.adopt_spent(entry.channel_id, 6).spent == 5


def test_a_reservation_of_a_dead_process_ends(ground: Ground) -> None:
    entry = ground.open()
    ground.state.reserve(entry.channel_id, 5, SIGN)
    ground.clock.now += RESERVATION_SECONDS_MAX + 1
    assert ground.state.channel(entry.channel_id).in_flight == 0
    again = ground.state.reserve(entry.channel_id, 5, SIGN)
    assert again.voucher.cumulative_amount == 5


def test_a_receipt_claims_no_more_than_limits_explain(ground: Ground) -> None:
    entry = ground.open()
    stream = ground.state.reserve(entry.channel_id, 60, SIGN)
    assert ground.state.settle(stream, 0, metered=True) == 0
    page = ground.state.reserve(entry.channel_id, 5, SIGN)
    assert page.voucher.cumulative_amount == 60
    ground.state.settle(page, 60)
    assert ground.state.channel(entry.channel_id).spent == 5


@pytest.mark.parametrize(("claim", "left"), [(0, 20), (8, 12), (10, 10)])
def test_a_slow_response_whose_reservation_ended_keeps_what_was_not_claimed_of_its_limit(
    ground: Ground, claim: int, left: int
) -> None:
    entry = ground.open()
    held = ground.state.reserve(entry.channel_id, 10, SIGN, limit=20)
    ground.clock.now += RESERVATION_SECONDS_MAX + 1
    page = ground.state.reserve(entry.channel_id, 1, SIGN)
    assert ground.state.adopt_spent(entry.channel_id, claim, page).spent == claim
    with pytest.raises(BudgetExceeded):
        ground.state.reserve(entry.channel_id, left + 1, SIGN, limit=20, instead_of=held)
    again = ground.state.reserve(entry.channel_id, left, SIGN, limit=20, instead_of=held)
    assert (again.ceiling, again.voucher.cumulative_amount) == (left, 20 + 1)


def planned(number: int = 1) -> PayerChannel:
    from channelpay.protocol.types import ZERO_ADDRESS, Channel

    channel = Channel(SIGNER.address, PAYEE, NATIVE, ZERO_ADDRESS, number.to_bytes(32, "big"))
    return PayerChannel.planned(DEPLOYMENT, channel, 50, None, 0)


def test_one_open_at_a_time_between_the_same_two(ground: Ground) -> None:
    assert ground.state.begin_open(planned(1), unless_usable=lambda _: True)
    assert not ground.state.begin_open(planned(2), unless_usable=lambda _: True)
    ground.clock.now += FUNDING_SECONDS_MAX + 1
    assert ground.state.begin_open(planned(2), unless_usable=lambda _: True)


def test_no_second_channel_is_opened_by_itself_beside_a_usable_one(ground: Ground) -> None:
    ground.open()
    assert not ground.state.begin_open(planned(9), unless_usable=lambda _: True)
    assert ground.state.begin_open(planned(9))


def test_an_open_that_failed_for_certain_is_forgotten_and_a_confirmed_one_is_not(
    ground: Ground,
) -> None:
    ground.state.begin_open(planned())
    ground.state.abandon_open(planned().channel_id)
    with pytest.raises(NotFound):
        ground.state.channel(planned().channel_id)
    entry = ground.open()
    ground.state.abandon_open(entry.channel_id)
    assert ground.state.channel(entry.channel_id).status is ChannelStatus.OPEN


def test_an_answer_of_the_chain_that_is_out_of_date_is_dropped(ground: Ground) -> None:
    """Asked before the open was mined, answered after it was noted."""
    ground.state.begin_open(planned())
    seen = ground.state.channel(planned().channel_id)
    opened = ChannelState(ChannelStatus.OPEN, 50)
    ground.state.record_chain_state(seen.channel_id, opened)
    ground.state.record_chain_state(seen.channel_id, ChannelState(ChannelStatus.ABSENT), seen)
    assert ground.state.channel(seen.channel_id).status is ChannelStatus.OPEN


def test_one_top_up_at_a_time(ground: Ground) -> None:
    entry = ground.open()
    assert ground.state.begin_top_up(entry.channel_id, entry.deposit)
    assert not ground.state.begin_top_up(entry.channel_id, entry.deposit)
    ground.state.drop_funding(entry.channel_id, None)
    assert ground.state.begin_top_up(entry.channel_id, entry.deposit)


def test_the_end_of_a_program_ends_no_claim_that_another_made_after_it(
    tmp_path: Path, ground: Ground
) -> None:
    channel_id, now = planned().channel_id, int(ground.clock.now)
    with closing(reopened(tmp_path)) as gone:
        gone.begin_open(planned())
        gone.drop_funding(channel_id, None)
        assert ground.state.signed.claim_open(channel_id, now + FUNDING_SECONDS_MAX, now)

    assert ground.state.is_being_funded(channel_id)


def test_a_top_up_that_another_process_made_meanwhile_is_not_made_again(ground: Ground) -> None:
    """Both saw the channel used up, and deposit_max allows it once."""
    seen = ground.open().deposit
    (entry,) = ground.state.channels(ground.payer)
    ground.top_up(entry.channel_id, 50)
    assert not ground.state.begin_top_up(entry.channel_id, seen)
    assert ground.state.begin_top_up(entry.channel_id, seen + 50)


def test_a_deposit_that_grew_is_used_once_the_payee_can_be_told_why(ground: Ground) -> None:
    """Another process may see the block before the one that sent the top-up does."""
    entry, top_up = ground.open(deposit=20), b"\x77" * 32
    ground.state.begin_top_up(entry.channel_id, 20)
    ground.state.record_funding(Funding(entry.channel_id, top_up, 3, 20))
    grown = ChannelState(ChannelStatus.OPEN, 40)

    ground.state.record_chain_state(entry.channel_id, grown, seen=entry)
    assert ground.state.channel(entry.channel_id).deposit == 20

    ground.state.record_top_up(TopUp(entry.channel_id, top_up, 20), 40)
    ground.state.end_funding(entry.channel_id, top_up)
    assert ground.state.channel(entry.channel_id).deposit == 40
    assert len(ground.state.unpresented_top_ups(entry.channel_id)) == 1


def test_the_file_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    PayerState(folder / "payer.sqlite3").remember_token(1, Token(NATIVE, "ETH", 18))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {0o600}


def test_books_of_a_newer_version_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "payer.sqlite3"
    PayerState(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigError, match="newer channelpay"):
        PayerState(path)


def test_a_file_that_is_no_database_is_an_error_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "payer.sqlite3"
    path.write_text("not a database, but long enough to be taken for one" * 40)
    with pytest.raises(StoreUnavailable):
        PayerState(path)


def test_every_commit_goes_to_disk(tmp_path: Path) -> None:
    state = reopened(tmp_path)
    with state._database.read() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_a_channel_of_another_pair_is_not_offered(ground: Ground) -> None:
    ground.open(payee=Address(b"\x01" * 20))
    other_chain = replace(DEPLOYMENT, chain_id=1)
    for deployment in (DEPLOYMENT, other_chain):
        assert ground.state.channels_to(deployment, ground.payer, PAYEE, NATIVE) == []


def test_the_channel_with_most_signed_is_used_first(ground: Ground) -> None:
    entries = [ground.open() for _ in range(3)]
    ground.state.reserve(entries[1].channel_id, 5, SIGN)
    found = ground.state.channels_to(DEPLOYMENT, ground.payer, PAYEE, NATIVE)
    assert found[0].channel_id == entries[1].channel_id
    assert Counter(entry.channel_id for entry in found) == Counter(
        entry.channel_id for entry in entries
    )


def test_a_locked_file_is_waited_for(tmp_path: Path, ground: Ground, site: Site) -> None:
    """Another process holds the write lock while a request reserves."""
    entry = ground.open()
    holder = f"""
import sqlite3, sys, threading
connection = sqlite3.connect({str(tmp_path / "payer.sqlite3")!r}, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
threading.Timer(0.3, lambda: None).run()
connection.execute("COMMIT")
"""
    process = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    started = time.monotonic()
    reservation = ground.state.reserve(entry.channel_id, 1, SIGN)
    assert reservation.voucher.cumulative_amount == 1
    assert time.monotonic() - started < DEADLINE_SECONDS
    process.communicate(timeout=DEADLINE_SECONDS)


V1_COLUMNS = (
    "channel_id, chain_id, contract, payer, payee, token, authorized_signer, salt, url, status,"
    " deposit, settled, close_requested_at, signed, signature, spent, claimed, presented, refused,"
    " open_transaction, first_block, funding_until"
)


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_books_of_an_earlier_version_are_taken_over(
    tmp_path: Path, ground: Ground, version: int
) -> None:
    """As that version had written them, from the first columns on; then they are used."""
    entry = ground.open()
    ground.state.close()
    books, old = tmp_path / "payer.sqlite3", tmp_path / "old.sqlite3"
    Database(old, MIGRATIONS[:version]).close()
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("ATTACH ? AS new", (str(books),))
        connection.execute(
            f"INSERT INTO main.channels ({V1_COLUMNS}) SELECT {V1_COLUMNS} FROM new.channels"  # noqa: S608
        )
        connection.commit()
    with closing(PayerState(old, Clock())) as state:
        assert state.channel(entry.channel_id) == entry
        budget = Budget("https://site.example:443", day_max=5)
        reservation = state.reserve(entry.channel_id, 5, SIGN, budget=budget)
        assert state.settle(reservation, 5, "https://site.example/") == 5
        with pytest.raises(BudgetExceeded):
            state.reserve(entry.channel_id, 1, SIGN, budget=budget)
