"""Files for their owner alone: how secrets are read and written."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from channelpay.errors import ConfigError

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def require_private(path: Path, mode: int) -> None:
    """Raises :class:`ConfigError` if others than its owner may use the file or folder at ``path``,
    whose mode (``st_mode``) is ``mode``.
    """
    if mode & _OTHERS:
        right = "700" if stat.S_ISDIR(mode) else "600"
        raise ConfigError(
            f"others may use {path} (mode {stat.S_IMODE(mode):04o})",
            hint=f"Make it yours alone: chmod {right} {path}",
        )


@contextmanager
def open_private(path: Path) -> Iterator[BufferedReader]:
    """Read a file that only its owner may use; or a pipe, whoever may.

    Raises :class:`ConfigError` if others may use it, and :class:`OSError`.
    """
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISREG(mode):
            require_private(path, mode)
        yield file


def write_private(path: Path, content: bytes) -> None:
    """A new file with mode 0600: whole or not at all, on disk when this returns, and never over
    another file. Raises :class:`FileExistsError` and other :class:`OSError`.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a renaming, refuses a name that is taken.
        path.hardlink_to(draft)
    finally:
        draft.unlink()
    sync(path.parent)


def sync(path: Path) -> None:
    """A file, or what was made or removed in a folder, is on disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
