"""Pay for one page with one call. It may be killed and run again: it pays once.

    READER_KEY=0x... python examples/pay_page.py http://127.0.0.1:8402/articles/one purchase-1

The second argument names the purchase; another name is another one. The settings are those of
pay.py.
"""

import os
import sys
from contextlib import closing

from eth_account import Account

import channelpay
from channelpay import NATIVE, Limits, Payer

RPC = os.environ.get("CHANNELPAY_RPC", "http://127.0.0.1:8545")
LIMITS = Limits(NATIVE, price_max=10**15, deposit=2 * 10**16, deposit_max=2 * 10**16)

account = Account.from_key(os.environ["READER_KEY"])
with closing(Payer(account, RPC, "payer.sqlite3", limits=[LIMITS])) as payer:
    page = channelpay.get(sys.argv[1], payer, idempotency_key=sys.argv[2])
    print(page.text, end="")
    print(f"paid {page.cost} wei", file=sys.stderr)
