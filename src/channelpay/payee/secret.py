"""The secret behind a site's challenges: made once, kept in a file for its owner alone."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from channelpay.errors import ConfigError

SECRET_BYTES = 32
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def kept_secret(path: Path) -> bytes:
    """32 bytes from ``path``, made with mode 0600 on the first call.

    Raises :class:`~channelpay.errors.ConfigError` for a file that others may use, or of another
    size.
    """
    if not path.exists():
        _make(path)
    if path.stat().st_mode & _OTHERS:
        raise ConfigError(f"others may use {path}", hint=f"Make it yours alone: chmod 600 {path}")
    secret = path.read_bytes()
    if len(secret) != SECRET_BYTES:
        raise ConfigError(
            f"{path} must hold {SECRET_BYTES} bytes", hint="Delete it; a new one is made."
        )
    return secret


def _make(path: Path) -> None:
    """Whole or not at all: of two processes that start at once, one wins and both read its file."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(draft)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
