"""How an SQLite file comes to the newest version of its tables, whosever books it holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from channelpay.errors import ConfigError


def run_migrations(connection: sqlite3.Connection, migrations: Sequence[Sequence[str]]) -> None:
    """Run the steps that a file has not seen, in the caller's transaction; ``user_version`` counts
    those that were run. Raises :class:`ConfigError` for a file of an unknown version.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(migrations):
        raise ConfigError(
            f"the books were written by a newer channelpay (version {version})",
            hint="Upgrade channelpay, or name another file.",
        )
    for statements in migrations[version:]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(migrations)}")
