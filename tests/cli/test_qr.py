"""QR codes in the terminal."""

from __future__ import annotations

import pytest
import segno

from channelpay.cli.output import Output
from channelpay.cli.qr import QUIET_MODULES, qr_rows, show_qr

ADDRESS = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
_HALVES = {"█": (1, 1), "▀": (1, 0), "▄": (0, 1), " ": (0, 0)}


def test_each_character_is_two_modules_one_above_the_other_and_light_ones_are_drawn() -> None:
    code = segno.make(ADDRESS, error="m", micro=False)
    expected = [[1 - dark for dark in row] for row in code.matrix_iter(border=QUIET_MODULES)]

    rows = qr_rows(ADDRESS)

    drawn = [[_HALVES[one][half] for one in row] for row in rows for half in (0, 1)]
    assert drawn[: len(expected)] == expected
    assert expected[0] == [1] * len(expected)  # the margin is light


def test_a_code_that_does_not_fit_is_not_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = []
    for columns in ("20", "100"):
        monkeypatch.setenv("COLUMNS", columns)
        show_qr(Output(as_json=False), ADDRESS)
        shown.append(capsys.readouterr())

    narrow, wide = shown
    assert (narrow.out, "columns" in narrow.err) == ("", True)
    assert wide.out.splitlines() == qr_rows(ADDRESS)


def test_a_program_gets_none(capsys: pytest.CaptureFixture[str]) -> None:
    show_qr(Output(as_json=True), ADDRESS)

    assert capsys.readouterr() == ("", "")
