"""Purchases that a program of one URL after the other has begun: if it ends before it has the whole
answer, the next one to ask for the same goes on with the same Idempotency-Key, and pays once.

One file for each such URL, named by its hash, with the key. Whoever fetches the URL holds its lock;
a second program that fetches it at the same time makes a purchase of its own.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from channelpay.payer.leases import lock, remove_unlocked, unlock

KEY_SECONDS_MAX = 82_800
"""For so long a key is used again: 23 hours, an hour less than payees know it."""
_KEY_BYTES_MAX = 64


class Purchase:
    """One that was begun. ``key`` is its Idempotency-Key; with ``is_over`` the answer is there, and
    to ask once more is another purchase.
    """

    def __init__(self, key: str) -> None:
        self.key: str = key
        self.is_over: bool = False


def folder_beside(books: Path) -> Path:
    """Where the purchases are kept that are paid out of these books."""
    return books.with_name(f"{books.name}-purchases")


def forget_purchases(folder: Path, begun_before: float) -> None:
    """Remove what is kept of purchases that were begun before then (Unix seconds) and that no
    program is at.
    """
    if folder.is_dir():
        remove_unlocked(folder, begun_before)


@contextmanager
def purchase_of(folder: Path, payer: bytes, url: str) -> Iterator[Purchase]:
    """What ``payer`` buys at ``url``: new, or one that was begun and has not ended. ``folder`` is
    where such are kept.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    remove_unlocked(folder, before=time.time() - KEY_SECONDS_MAX)
    place = folder / hashlib.sha256(payer + url.encode(errors="surrogatepass")).hexdigest()
    file = lock(place)
    if file is None:
        yield Purchase(str(uuid.uuid4()))
        return
    purchase = Purchase(_begun(file) or _begin(file))
    try:
        yield purchase
    finally:
        if purchase.is_over:
            unlock(file, place)
        else:
            os.close(file)


def _begun(file: int) -> str | None:
    found = os.fstat(file)
    if not 0 <= time.time() - found.st_mtime < KEY_SECONDS_MAX:
        return None
    text = os.pread(file, _KEY_BYTES_MAX, 0).decode(errors="replace")
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


def _begin(file: int) -> str:
    key = str(uuid.uuid4())
    os.ftruncate(file, 0)
    os.pwrite(file, key.encode(), 0)
    os.fsync(file)
    return key
