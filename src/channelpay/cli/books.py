"""A payee's books on the command line: which ones they are, and opening them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
from click.core import ParameterSource

from channelpay.cli.common import SITE_BOOKS, state_option
from channelpay.errors import ConfigError, NotFound

if TYPE_CHECKING:
    from channelpay.store import Store


@dataclass(frozen=True, slots=True)
class Books:
    """Where they are: in the folder ``state``, unless ``store`` is the URL of others."""

    state: Path
    store: str | None

    @property
    def url(self) -> str:
        return self.store or f"sqlite:///{self.state / SITE_BOOKS}"


def store_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--store``: the command gets the URL of the books, or None for those of ``--state``."""
    return click.option(
        "--store",
        envvar="CHANNELPAY_STORE",
        metavar="URL",
        callback=_without_password,
        help="The books (default: an SQLite file in the folder of --state).",
    )(command)


def books_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--state`` and ``--store``; the command gets them as ``books``."""

    @state_option
    @store_option
    @wraps(command)
    def with_books(*arguments: Any, state: Path, store: str | None, **options: Any) -> Any:
        return command(*arguments, books=Books(state, store), **options)

    return with_books


@contextmanager
def opened(books: Books) -> Iterator[Store]:
    """The books of a site. Raises :class:`~channelpay.errors.NotFound` where there are none."""
    from channelpay.store import open_store, sqlite_file

    file = sqlite_file(books.url)
    if file is not None and not file.exists():
        raise NotFound(
            f"there are no books at {file}",
            hint="Name the folder of a site with --state, or its books with --store.",
        )
    with closing(open_store(books.url)) as store:
        yield store


def _without_password(
    context: click.Context, parameter: click.Parameter, url: str | None
) -> str | None:
    """A password may not come from the command line, where all users of the machine read it."""
    parts = urlsplit(url or "")
    secret = parts.password is not None or "password=" in parts.query
    source = context.get_parameter_source(parameter.name or "")
    if source is ParameterSource.COMMANDLINE and secret:
        raise ConfigError(
            "the URL of --store has a password in it",
            hint="Put the URL into CHANNELPAY_STORE, or the password into ~/.pgpass.",
        )
    return url
