"""A process that buys without end, which an entry counts, and prints each purchase once it is
acknowledged.

``python -m tests.store.acknowledge URL``: somebody kills it.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from channelpay.store import open_store
from tests.store.books import order, purchase
from tests.store.terms import ACCOUNT, Adding

WORKERS = 8


def main() -> None:
    store = open_store(sys.argv[1])

    def buy_without_end(worker: int) -> None:
        bought = 0
        while True:
            key = f"{worker}-{bought}"
            order(store, purchase(10**9, 1, key=key, terms=Adding({ACCOUNT: 1})))
            sys.stdout.write(f"{key}\n")
            sys.stdout.flush()
            bought += 1

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(buy_without_end, range(WORKERS)))


if __name__ == "__main__":
    main()
