"""Pay for several pages of a site at once, all on one channel, and close it.

    READER_KEY=0x... python examples/pay_async.py http://127.0.0.1:8402/articles/{one,two,three}

The settings are those of pay.py.
"""

import asyncio
import os
import sys
from contextlib import closing

import httpx2
from eth_account import Account

from channelpay import NATIVE, ChannelPayAuth, Limits, Payer

RPC = os.environ.get("CHANNELPAY_RPC", "http://127.0.0.1:8545")
LIMITS = Limits(NATIVE, price_max=10**15, deposit=2 * 10**16, deposit_max=2 * 10**16)


async def read(payer: Payer, urls: list[str]) -> list[httpx2.Response]:
    async with httpx2.AsyncClient(auth=ChannelPayAuth(payer)) as client:
        return await asyncio.gather(*map(client.get, urls))


account = Account.from_key(os.environ["READER_KEY"])
with closing(Payer(account, RPC, "payer.sqlite3", limits=[LIMITS])) as payer:
    pages = asyncio.run(read(payer, sys.argv[1:]))
    print("".join(page.raise_for_status().text for page in pages), end="")
    channel_id = pages[0].extensions["channelpay"].channel_id
    payer.close_channel(channel_id)
    print(f"paid {payer.state.channel(channel_id).settled} wei in all", file=sys.stderr)
