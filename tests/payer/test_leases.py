"""How long the place of a program among others lasts."""

from __future__ import annotations

import gc
import os
from pathlib import Path

from channelpay.payer.leases import Lease


def test_a_lease_ends_with_whatever_held_it(tmp_path: Path) -> None:
    lease, other = (Lease(tmp_path / "books") for _ in range(2))
    name = lease.name
    assert not other.is_over(name)

    del lease
    gc.collect()

    assert other.is_over(name)
    assert list((tmp_path / "books-leases").iterdir()) == []


def test_a_copy_of_the_process_does_not_end_its_lease(tmp_path: Path) -> None:
    lease, other = (Lease(tmp_path / "books") for _ in range(2))
    name = lease.name

    child = os.fork()
    if child == 0:
        lease.end()
        os._exit(0)

    assert os.waitpid(child, 0) == (child, 0)
    assert not other.is_over(name)
