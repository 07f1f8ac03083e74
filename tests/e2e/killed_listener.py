"""A program that reads a stream of words and is killed on the way, as by a power cut.

``READER_KEY=0x… python killed_listener.py BOOKS URL KEY COUNT``: after COUNT words; and where there
are fewer, not at all.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import closing

import httpx2

from channelpay import NATIVE, ChannelPayAuth, Limits, Payer

WORD = 10**14
"""What a word costs, in wei."""
LIMITS = Limits(
    NATIVE, price_max=0, metered_max=1600 * WORD, deposit=2000 * WORD, deposit_max=4000 * WORD
)


def main(books: str, url: str, key: str, count: int) -> None:
    secret = bytes.fromhex(os.environ["READER_KEY"][2:])
    with (
        closing(Payer(secret, os.environ["CHANNELPAY_RPC"], books, limits=[LIMITS])) as payer,
        httpx2.Client(auth=ChannelPayAuth(payer), timeout=30) as client,
        client.stream("GET", url, headers={"Idempotency-Key": key}) as response,
    ):
        for line in response.iter_lines():
            if line:
                print(line, flush=True)  # noqa: T201
                count -= 1
            if not count:
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    books, url, key, count = sys.argv[1:]
    main(books, url, key, int(count))
