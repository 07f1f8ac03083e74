"""Pay for pages with requests.

    READER_KEY=0x... python examples/pay_requests.py http://127.0.0.1:8402/articles/{one,two}

The settings are those of pay.py.
"""

import os
import sys
from contextlib import closing

import requests
from eth_account import Account

from channelpay import NATIVE, ChannelPayAdapter, Limits, Payer, paid_of

RPC = os.environ.get("CHANNELPAY_RPC", "http://127.0.0.1:8545")
LIMITS = Limits(NATIVE, price_max=10**15, deposit=2 * 10**16, deposit_max=2 * 10**16)

account = Account.from_key(os.environ["READER_KEY"])
with (
    closing(Payer(account, RPC, "payer.sqlite3", limits=[LIMITS])) as payer,
    requests.Session() as session,
):
    session.mount("https://", ChannelPayAdapter(payer))
    session.mount("http://127.0.0.1", ChannelPayAdapter(payer))
    for url in sys.argv[1:]:
        page = session.get(url, timeout=30)
        page.raise_for_status()
        print(page.text, end="")
        paid = paid_of(page)
        print(f"paid {paid.cost if paid else 0} wei", file=sys.stderr)
