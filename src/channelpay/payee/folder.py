"""A folder of files as a site may show it: nothing hidden, nothing outside, nothing by detours."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
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
        if not url_path.startswith("/") or any(char in url_path for char in "\\\0"):
            return None
        names = url_path[1:].split("/")
        if any(not name or name.startswith(".") for name in names):
            return None
        return self._shown(self._root.joinpath(*names))

    def is_folder(self, url_path: str) -> bool:
        """Whether ``/docs/`` names a folder with something to list."""
        return url_path.endswith("/") and any(self.list(url_path))

    def list(self, url_path: str = "/") -> Iterator[str]:
        """URL paths (percent-decoded) of the files below ``/docs/``, in order of their names."""
        listed = 0
        for path in self._walk():
            if path.startswith(url_path) and listed < LISTED_MAX:
                listed += 1
                yield path

    def _walk(self) -> Iterator[str]:
        """All files; folders that are links are not gone into, since they could lead in circles."""
        for directory, folders, files in os.walk(self._root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            base = "/" + os.path.relpath(directory, self._root) + "/"
            for name in sorted(files):
                path = ("/" if base == "/./" else base) + name
                if self.find(path) is not None:
                    yield path

    def _shown(self, path: Path) -> Path | None:
        try:
            real = path.resolve(strict=True)
            within = real.relative_to(self._root)
        except (OSError, RuntimeError, ValueError):
            return None
        is_hidden = any(part.startswith(".") for part in within.parts)
        if is_hidden or any(real.is_relative_to(hidden) for hidden in self._hidden):
            return None
        return real if real.is_file() else None


def url_of(path: str) -> str:
    """A percent-decoded URL path as it stands in a link."""
    return quote(path)
