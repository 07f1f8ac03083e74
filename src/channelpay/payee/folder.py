"""A folder of files as a site may show it: nothing hidden, nothing outside, nothing by detours."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from urllib.parse import quote

from channelpay.errors import ConfigError

LISTED_MAX = 2_000
"""Files that an index lists; a folder with more needs an index of its own making."""


class Folder:
    """The files below ``root``, without dot files and what is ``hidden`` (files or folders).

    A symbolic link counts as what it points to, which must be in the folder and shown, too. Raises
    :class:`~channelpay.errors.ConfigError` if ``root`` is no folder.
    """

    def __init__(self, root: Path, hidden: Iterable[Path] = ()) -> None:
        if not root.is_dir():
            raise ConfigError(f"{root} is not a folder")
        self._root = root.resolve()
        self._hidden = [path.resolve() for path in hidden]

    def find(self, url_path: str) -> Path | None:
        """The file for a percent-decoded URL path like ``/docs/page.md``, or None."""
        path = self._located(url_path)
        return None if path is None else self._shown(path)

    def is_folder(self, url_path: str) -> bool:
        """Whether ``/docs/`` names a folder with something to list."""
        return url_path.endswith("/") and any(self.list(url_path))

    def list(self, url_path: str = "/") -> Iterator[str]:
        """URL paths (percent-decoded) of the files below ``/docs/``, in order of their names."""
        return islice(self._walk(url_path), LISTED_MAX)

    def _walk(self, url_path: str) -> Iterator[str]:
        """Folders that are links are not gone into, since they could lead in circles."""
        top = self._root if url_path == "/" else self._located(url_path.removesuffix("/"))
        if top is None or not self._is_gone_into(top):
            return
        for directory, folders, files in os.walk(top):
            here = Path(directory)
            folders[:] = sorted(name for name in folders if self._is_gone_into(here / name))
            base = "/" if here == self._root else f"/{here.relative_to(self._root).as_posix()}/"
            yield from (base + name for name in sorted(files) if self.find(base + name) is not None)

    def _is_gone_into(self, path: Path) -> bool:
        try:
            is_plain = path.resolve(strict=True) == path
        except (OSError, RuntimeError, ValueError):
            return False
        hidden = path != self._root and path.name.startswith(".")
        return is_plain and not hidden and not self._is_hidden(path)

    def _located(self, url_path: str) -> Path | None:
        """Where a URL path leads without detours, whatever is there."""
        if not url_path.startswith("/") or any(char in url_path for char in "\\\0"):
            return None
        names = url_path[1:].split("/")
        if any(not name or name.startswith(".") for name in names):
            return None
        return self._root.joinpath(*names)

    def _shown(self, path: Path) -> Path | None:
        try:
            real = path.resolve(strict=True)
            within = real.relative_to(self._root)
        except (OSError, RuntimeError, ValueError):
            return None
        if any(part.startswith(".") for part in within.parts) or self._is_hidden(real):
            return None
        return real if real.is_file() else None

    def _is_hidden(self, real: Path) -> bool:
        return any(real.is_relative_to(hidden) for hidden in self._hidden)


def url_of(path: str) -> str:
    """A percent-decoded URL path as it stands in a link."""
    return quote(path)
