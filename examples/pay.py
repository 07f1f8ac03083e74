"""Pay for one page; the channel stays open for the next run.

    READER_KEY=0x... python examples/pay.py http://127.0.0.1:8402/articles/one

READER_KEY is the private key of the account that pays, CHANNELPAY_RPC the node (default: that of
`channelpay dev`). What was signed is kept in payer.sqlite3.
"""

import os
import sys
from contextlib import closing

import httpx2
from eth_account import Account

from channelpay import NATIVE, ChannelPayAuth, Limits, Payer

RPC = os.environ.get("CHANNELPAY_RPC", "http://127.0.0.1:8545")
# In wei: at most 0.001 ETH for a page; a channel that is missing is opened with 0.02 ETH.
LIMITS = Limits(NATIVE, price_max=10**15, deposit=2 * 10**16, deposit_max=2 * 10**16)

account = Account.from_key(os.environ["READER_KEY"])
with (
    closing(Payer(account, RPC, "payer.sqlite3", limits=[LIMITS])) as payer,
    httpx2.Client(auth=ChannelPayAuth(payer)) as client,
):
    page = client.get(sys.argv[1]).raise_for_status()
    print(page.text, end="")
    print(f"paid {page.extensions['channelpay'].cost} wei", file=sys.stderr)
