"""``channelpay payee backup``: no chain and no key is needed for it."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

from channelpay.store import open_store
from tests.cli.conftest import Run
from tests.store.books import add, dump, order, purchase


def test_the_books_are_copied_while_a_site_has_them_open(run: Run, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    with closing(open_store(f"sqlite:///{tmp_path / 'site' / 'books.sqlite3'}")) as store:
        add(store)
        order(store, purchase(30, 10, key="k"))

        result = run("payee", "backup", tmp_path / "copy", "--state", tmp_path / "site")

        assert result.exit_code == 0, result.output
        said = json.loads(result.stdout)
        assert said == {
            "backup": str(tmp_path / "copy"),
            "bytes": (tmp_path / "copy").stat().st_size,
        }
        with closing(open_store(f"sqlite:///{tmp_path / 'copy'}")) as restored:
            store.mark_in_doubt().result()  # which a copy is from the start
            assert dump(restored) == dump(store)


def test_a_file_that_is_there_and_books_that_are_not_are_errors(run: Run, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    missing = run("payee", "backup", tmp_path / "copy", "--state", tmp_path / "site")
    open_store(f"sqlite:///{tmp_path / 'site' / 'books.sqlite3'}").close()
    (tmp_path / "copy").write_text("the backup of last week")
    taken = run("payee", "backup", tmp_path / "copy", "--state", tmp_path / "site")

    assert (missing.exit_code, json.loads(missing.stderr)["code"]) == (5, "not-found")
    assert (taken.exit_code, json.loads(taken.stderr)["code"]) == (2, "invalid-input")
    assert (tmp_path / "copy").read_text() == "the backup of last week"
