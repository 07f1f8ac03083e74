"""The pictures of a terminal: what is on the screen at the end, and nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.docs.blocks import DOCS, blocks_of
from scripts.docs.follow import NotAsThePageSays, check_picture, text_of
from scripts.docs.pictures import LAST_PAGE, lines_left, picture_of
from scripts.docs.terminal import Done

SPINNER = "\x1b[?25l⠋ Waiting\r\x1b[2K⠙ Waiting\n\x1b[?25h\r\x1b[1A\x1b[2K"
LOGGED = "2026-01-31T12:00:00.1Z info x: y"
SCREEN = f"$ channelpay pay\n{SPINNER}\x1b[1mpaid\x1b[0m 0.5 & more\n{LOGGED}\n"


def test_what_a_spinner_wrote_is_not_left() -> None:
    assert lines_left(SCREEN)[:2] == ["$ channelpay pay", "\x1b[1mpaid\x1b[0m 0.5 & more"]


def test_a_picture_has_the_text_and_not_the_log() -> None:
    assert text_of(picture_of(SCREEN, "pay")) == ["$ channelpay pay", "paid 0.5 & more"]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "pay.svg"
    path.write_text(picture_of(SCREEN, "pay"))
    return path


def test_a_picture_may_show_other_numbers(picture: Path) -> None:
    check_picture(picture, Done(0, "paid 0.75 & more\n"))


def test_a_picture_is_old_when_the_words_are_others(picture: Path) -> None:
    with pytest.raises(NotAsThePageSays):
        check_picture(picture, Done(0, "owed 0.5 & more\n"))


def test_every_picture_is_on_a_page_and_loads_nothing() -> None:
    shown = {
        (page.parent / block.text).resolve()
        for page in LAST_PAGE.parent.glob("*.md")
        for block in blocks_of(page)
        if block.is_picture
    }

    assert shown == set((DOCS / "assets" / "terminal").glob("*.svg"))
    for path in shown:
        drawn = re.sub(r">[^<]*</text>", "", path.read_text())
        assert re.findall(r"url\((?!#)|href|@import|<(?:image|script)", drawn) == []
