"""A payee that does not answer: since when is in the books, and an answer ends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from channelpay.payer.origins import origin_of
from channelpay.payer.records import PayerChannel
from channelpay.payer.state import PayerState
from channelpay.payer.steps import Answer
from tests.payer.site import NOW, URL, Ground, Site


def lose_answer(ground: Ground) -> None:
    steps = ground.session().run()
    next(steps)
    steps.close()


def entry_of(ground: Ground) -> PayerChannel:
    (entry,) = ground.state.channels(ground.payer)
    return entry


def since(ground: Ground) -> tuple[int, int]:
    entry = entry_of(ground)
    return entry.unanswered, entry.unanswered_since


@pytest.fixture
def used(ground: Ground) -> Ground:
    ground.open()
    ground.pay()
    assert since(ground) == (0, 0)
    return ground


def test_the_first_request_without_an_answer_is_when_silence_began(used: Ground) -> None:
    lose_answer(used)
    used.clock.now += 500
    lose_answer(used)
    assert since(used) == (2, int(NOW))
    assert used.state.used_at(used.payer, origin_of(URL)) == [entry_of(used)]
    assert used.state.used_at(used.payer, "https://other.example:443") == []


def test_silence_is_known_after_a_restart(used: Ground, tmp_path: Path) -> None:
    lose_answer(used)
    used.state = PayerState(tmp_path / "payer.sqlite3", used.clock)
    assert since(used) == (1, int(NOW))


def test_a_killed_request_counts_as_one_without_an_answer(used: Ground) -> None:
    steps = used.session().run()
    next(steps)
    assert since(used) == (1, int(NOW))
    steps.close()


def test_an_answer_ends_silence_also_one_that_refuses(used: Ground, site: Site) -> None:
    lose_answer(used)
    site.scripted = [Answer(404, URL)]
    used.pay()
    assert since(used) == (0, 0)
    lose_answer(used)
    used.pay()
    assert since(used) == (0, 0)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_gateway_that_answers_for_the_payee_is_no_answer(
    used: Ground, site: Site, status: int
) -> None:
    site.scripted = [Answer(status, URL)]
    used.pay()
    assert since(used) == (1, int(NOW))


def test_also_a_request_that_only_asks_for_the_price_waits_for_an_answer(used: Ground) -> None:
    """The known price has expired: the first attempt is without a voucher."""
    used.clock.now += 3600
    lose_answer(used)
    assert since(used) == (1, int(NOW) + 3600)
    used.pay()
    assert since(used) == (0, 0)


def test_a_site_that_was_never_paid_is_nobodys_silence(used: Ground) -> None:
    steps = used.session("https://other.example/").run()
    next(steps)
    steps.close()
    assert since(used) == (0, 0)
