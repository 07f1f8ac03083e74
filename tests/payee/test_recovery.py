"""A payee whose books are gone or old: the chain gives the channels back, the payers' next requests
the vouchers, and what was promised before is not sold again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from channelpay.payee.chain_link import ChainLink
from channelpay.payee.follower import begin_books, first_block
from channelpay.payee.recovery import Rebuilt, rebuild
from channelpay.payee.terms import Terms
from channelpay.protocol.rules import Purchase
from channelpay.protocol.types import Address, ChannelStatus
from channelpay.store import Accepted, SqliteStore
from channelpay.store.backup import back_up
from channelpay.testing.furnished import FurnishedChain
from tests.payee.shop import DEPOSIT, PRICE, OpenChannel, Payer, opened_shop
from tests.support.chains import sender_of

NOW = 1_800_000_000_000


@pytest.fixture
def books(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "books.sqlite3")
    yield store
    store.close()


@pytest.fixture
def payer(furnished: FurnishedChain) -> Payer:
    return Payer(furnished)


@pytest.fixture
def payee(furnished: FurnishedChain) -> Address:
    return furnished.chain.accounts[2].address


@pytest.fixture
def link(payer: Payer) -> ChainLink:
    return ChainLink(payer.contract)


@pytest.fixture
def begin(payer: Payer) -> int:
    """The first block of the test: other tests have channels on the same chain."""
    return payer.contract.connection.latest_block().number + 1


def pay(store: SqliteStore, channel: OpenChannel, cumulative: int) -> Accepted:
    voucher = channel.sign(cumulative)
    (answer,) = store.accept([Purchase(voucher, PRICE, "GET /", NOW, str(uuid4()))]).result()
    assert isinstance(answer, Accepted), answer
    return answer


def refusal(store: SqliteStore, channel: OpenChannel, cumulative: int) -> str:
    (answer,) = store.accept([Purchase(channel.sign(cumulative), PRICE, "GET /2", NOW)]).result()
    assert not isinstance(answer, Accepted)
    return answer.code


def test_live_channels_are_found_with_their_deposits_and_in_doubt(
    books: SqliteStore, payer: Payer, link: ChainLink, payee: Address, begin: int
) -> None:
    plain, grown, closing, closed = (payer.open() for _ in range(4))
    payer.top_up(grown, PRICE)
    payer.request_close(closing)
    furnished = payer.furnished
    close = payer.contract.close(closed.channel)
    sender_of(payer.contract.connection, furnished.chain.accounts[2]).send(close)

    rebuilt = rebuild(link, books, payee, begin)

    assert set(rebuilt.found) == {plain.id, grown.id, closing.id}
    states = {record.channel_id: record.chain for record in books.records()}
    assert (states[plain.id].deposit, states[grown.id].deposit) == (DEPOSIT, DEPOSIT + PRICE)
    assert states[closing.id].status is ChannelStatus.CLOSING
    assert all(record.in_doubt for record in books.records())


def test_all_that_the_first_voucher_promises_beside_the_price_counts_as_charged(
    books: SqliteStore, payer: Payer, link: ChainLink, payee: Address, begin: int
) -> None:
    channel = payer.open()
    rebuild(link, books, payee, begin)

    record = pay(books, channel, 8 * PRICE).record

    assert (record.accepted, record.spent, record.in_doubt) == (8 * PRICE, 8 * PRICE, False)
    assert refusal(books, channel, 8 * PRICE) == "insufficient-balance"
    assert pay(books, channel, 9 * PRICE).record.spent == 9 * PRICE


def test_a_second_run_changes_nothing_that_was_sold_meanwhile(
    books: SqliteStore, payer: Payer, link: ChainLink, payee: Address, begin: int
) -> None:
    channel = payer.open()
    rebuild(link, books, payee, begin)
    sold = pay(books, channel, 8 * PRICE).record

    assert rebuild(link, books, payee, begin) == Rebuilt((), 1, 0)
    assert books.record(channel.id) == sold


def test_an_old_copy_sells_nothing_out_of_what_it_does_not_know(
    books: SqliteStore, payer: Payer, link: ChainLink, payee: Address, begin: int, tmp_path: Path
) -> None:
    """A voucher from before the copy, and one from after it, are both taken for used up."""
    channel = payer.open()
    rebuild(link, books, payee, begin)
    pay(books, channel, 3 * PRICE)
    back_up(tmp_path / "books.sqlite3", tmp_path / "copy.sqlite3")
    pay(books, channel, 8 * PRICE)
    restored = SqliteStore(tmp_path / "copy.sqlite3")
    later = payer.open()

    assert rebuild(link, restored, payee, begin) == Rebuilt((later.id,), 1, 0)
    assert refusal(restored, channel, 3 * PRICE) == "insufficient-balance"
    assert pay(restored, channel, 9 * PRICE).record.spent == 9 * PRICE
    restored.close()


def test_a_payer_that_hides_its_last_voucher_gets_what_it_had_promised_and_no_more(
    books: SqliteStore, payer: Payer, link: ChainLink, payee: Address, begin: int
) -> None:
    """It had promised 8 prices, and shows 2 first: 6 are sold again, and all 8 are held."""
    channel = payer.open()
    rebuild(link, books, payee, begin)

    pay(books, channel, 2 * PRICE)
    sold = [pay(books, channel, 8 * PRICE) for _ in range(6)]

    assert sold[-1].record.accepted == sold[-1].record.spent == 8 * PRICE
    assert refusal(books, channel, 8 * PRICE) == "insufficient-balance"


def test_books_that_were_restored_by_other_means_are_marked_when_told(
    books: SqliteStore, payer: Payer, link: ChainLink, payee: Address, begin: int
) -> None:
    channel = payer.open()
    rebuild(link, books, payee, begin)
    pay(books, channel, PRICE)

    rebuilt = rebuild(link, books, payee, begin, restored=True)

    assert (rebuilt.known, rebuilt.marked) == (1, 1)
    record = books.record(channel.id)
    assert record is not None
    assert record.in_doubt


def test_channels_from_before_the_given_block_are_not_read(
    books: SqliteStore, payer: Payer, link: ChainLink, payee: Address
) -> None:
    payer.open()
    later = payer.contract.connection.latest_block().number + 1
    second = payer.open()
    assert rebuild(link, books, payee, later).found == (second.id,)


@pytest.mark.anyio
async def test_books_that_began_later_than_a_channel_do_not_sell_its_money_again(
    furnished: FurnishedChain, tmp_path: Path
) -> None:
    payer = Payer(furnished)
    channel = payer.open()
    furnished.chain.mine()

    with opened_shop(furnished, tmp_path, payer) as shop:
        again = shop.header(channel.open_payload(7 * PRICE), source=channel.source)
        assert (await shop.confirmed(again)).status_code == 200

        assert shop.spent(channel) == 7 * PRICE
        assert (await shop.pay(channel, 7 * PRICE, "/page?2")).status_code == 402


@pytest.mark.anyio
async def test_a_copy_does_not_sell_again_on_channels_that_came_after_it(
    furnished: FurnishedChain, tmp_path: Path
) -> None:
    """Also where nobody reads the chain for them first."""
    payer = Payer(furnished)
    copy = tmp_path / "copy.sqlite3"
    with opened_shop(furnished, tmp_path, payer) as shop:
        back_up(tmp_path / "books.sqlite3", copy)
        channel = await shop.opened()
        assert (await shop.pay(channel, 7 * PRICE)).status_code == 200
    furnished.chain.mine()
    copy.replace(tmp_path / "books.sqlite3")

    with opened_shop(furnished, tmp_path, payer) as shop:
        again = shop.header(channel.open_payload(7 * PRICE), source=channel.source)
        assert (await shop.confirmed(again)).status_code == 200
        assert (await shop.pay(channel, 7 * PRICE, "/page?2")).status_code == 402


def test_restored_books_that_nobody_marked_begin_anew_when_told(
    books: SqliteStore, payer: Payer, link: ChainLink, payee: Address, begin: int
) -> None:
    terms = Terms(link.contract.deployment, payee, ())
    begin_books(books, link, terms)
    payer.open()
    rebuild(link, books, payee, begin, restored=True)
    assert first_block(books, terms) == link.latest_block().number
