"""Which URL opens which store."""

from __future__ import annotations

import sys
import traceback
from contextlib import closing
from pathlib import Path

import pytest

from channelpay.errors import ConfigError
from channelpay.store import MemoryStore, SqliteStore, open_store
from channelpay.store.postgres import PostgresStore


@pytest.mark.parametrize("url", ["sqlite://books", "mysql:///books", "books", "sqlite:///"])
def test_an_unknown_url_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError):
        open_store(url)


def test_a_url_names_a_relative_or_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    open_store("sqlite:///relative").close()
    open_store(f"sqlite:///{tmp_path / 'absolute'}").close()

    assert {"relative", "absolute"} <= {file.name for file in tmp_path.iterdir()}


def test_each_kind_of_url_opens_its_store(tmp_path: Path, postgres_url: str) -> None:
    kinds = {
        "memory:": MemoryStore,
        f"sqlite:///{tmp_path / 'books'}": SqliteStore,
        postgres_url: PostgresStore,
        postgres_url.replace("postgresql://", "postgres://"): PostgresStore,
    }
    for url, kind in kinds.items():
        with closing(open_store(url)) as store:
            assert isinstance(store, kind)


@pytest.mark.parametrize(
    "url",
    [
        "postgrseql://site:s3cret@127.0.0.1/books",
        "postgresql://site:s3cret@127.0.0.1/books?no_such_setting=1",
        "postgresql://site:s3cret@[::1/books",
    ],
)
def test_a_refused_url_is_not_repeated_with_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        open_store(url)

    assert "s3cret" not in "".join(traceback.format_exception(refused.value))


def test_without_its_driver_postgres_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "channelpay.store.postgres", None)

    with pytest.raises(ConfigError) as refused:
        open_store("postgresql://site@127.0.0.1/books")

    assert "channelpay[postgres]" in refused.value.hint
