"""A program that reads many pages at once, one of several on the same books.

``READER_KEY=0x… python parallel_reader.py BOOKS URL COUNT``; it begins at the first line of its
standard input, and prints status and cost of each answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import closing

import httpx2

from channelpay import NATIVE, ChannelPayAuth, Limits, Payer

PAGE_WEI = 10**15
LIMITS = Limits(
    NATIVE,
    price_max=PAGE_WEI,
    deposit=20 * PAGE_WEI,
    top_up=20 * PAGE_WEI,
    deposit_max=100 * PAGE_WEI,
)


async def read(payer: Payer, url: str, count: int) -> list[httpx2.Response]:
    async with httpx2.AsyncClient(auth=ChannelPayAuth(payer), timeout=60) as client:
        return await asyncio.gather(*(client.get(f"{url}/{number}") for number in range(count)))


def main(books: str, url: str, count: int) -> None:
    key = bytes.fromhex(os.environ["READER_KEY"][2:])
    with closing(Payer(key, os.environ["CHANNELPAY_RPC"], books, limits=[LIMITS])) as payer:
        print("ready", flush=True)  # noqa: T201
        sys.stdin.readline()
        answers = asyncio.run(read(payer, url, count))
    paid = [answer.extensions["channelpay"] for answer in answers]
    costs = [None if one is None else one.cost for one in paid]
    print(json.dumps([[answer.status_code for answer in answers], costs]))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
