"""A program that reads pages with passes, one of several on the same books.

``READER_KEY=0x… python pass_reader.py BOOKS URL NUMBER`` prints status and cost of each answer.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx2

from channelpay import NATIVE, ChannelPayAuth, Limits, Payer

PAGES = 12
LIMITS = Limits(NATIVE, price_max=0)


def main(books: str, url: str, number: str) -> None:
    key = bytes.fromhex(os.environ["READER_KEY"][2:])
    pages = [f"{url}/{kind}/{number}-{n}" for n in range(PAGES) for kind in ("time", "count")]
    with (
        closing(Payer(key, None, books, limits=[LIMITS])) as payer,
        httpx2.Client(auth=ChannelPayAuth(payer), timeout=60) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        answers = list(pool.map(client.get, pages))
    paid = [answer.extensions["channelpay"] for answer in answers]
    costs = [-1 if one is None else one.cost for one in paid]
    statuses = [answer.status_code for answer in answers]
    print(json.dumps(list(zip(statuses, costs, strict=True))))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
