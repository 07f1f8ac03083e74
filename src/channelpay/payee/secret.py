"""The secret behind a site's challenges: made once, kept in a file for its owner alone."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

from channelpay.errors import ConfigError
from channelpay.private_files import open_private, write_private

SECRET_BYTES = 32


def kept_secret(path: Path) -> bytes:
    """32 bytes from ``path``, made with mode 0600 on the first call.

    Raises :class:`~channelpay.errors.ConfigError` for a file that others may use, or of another
    size.
    """
    if not path.exists():
        # Of two processes that start at once, one wins and both read its file.
        with suppress(FileExistsError):
            write_private(path, secrets.token_bytes(SECRET_BYTES))
    with open_private(path) as file:
        secret = file.read(SECRET_BYTES + 1)
    if len(secret) != SECRET_BYTES:
        raise ConfigError(
            f"{path} must hold {SECRET_BYTES} bytes", hint="Delete it; a new one is made."
        )
    return secret
