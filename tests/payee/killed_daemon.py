"""A daemon that kills itself between two steps of its work.

It works once over the books and ends, unless it is killed before, after as many steps as it is
told. A step is whatever leaves the process: a write to the books, or a transaction for the node.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from typing import Any, cast

from eth_account import Account

from channelpay.chain.connection import Connection, connect
from channelpay.chain.contract import PaymentChannelsContract
from channelpay.chain.outgoing import TransactionSender
from channelpay.observe.alerts import Alerts
from channelpay.payee import settler as settler_module
from channelpay.payee.chain_link import ChainLink
from channelpay.payee.closer import Closer
from channelpay.payee.daemon import Daemon, Timing, place_of
from channelpay.payee.follower import Follower
from channelpay.payee.policy import SettlementPolicy
from channelpay.payee.settler import Settler
from channelpay.payee.terms import Terms
from channelpay.protocol.parse import parse_address
from channelpay.protocol.types import Deployment
from channelpay.store import Store, open_store
from channelpay.testing.accounts import dev_accounts

PAYEE = 2
LEASE_SECONDS = 1.0
STEPS = frozenset(
    {"journal", "add_broadcast", "finish", "begin_close", "close_failed", "update_chain"}
)


class Countdown:
    """Kills the process when it has been told of ``left`` steps; never if that is 0."""

    def __init__(self, left: int) -> None:
        self._left = left
        self.done = 0

    def step(self) -> None:
        self.done += 1
        if self.done == self._left:
            os.kill(os.getpid(), signal.SIGKILL)


class CountedStore:
    """Books whose writes are counted when they are durable."""

    def __init__(self, store: Store, countdown: Countdown) -> None:
        self._store = store
        self._countdown = countdown

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return self._counted(found) if name in STEPS else found

    def _counted(self, verb: Callable[..., Future[Any]]) -> Callable[..., Future[Any]]:
        def call(*arguments: Any, **more: Any) -> Future[Any]:
            future = verb(*arguments, **more)
            future.result()
            self._countdown.step()
            return future

        return call


def count_broadcasts(connection: Connection, countdown: Countdown) -> None:
    send = connection.send_raw_transaction

    def counted(raw_transaction: bytes) -> None:
        send(raw_transaction)
        countdown.step()

    connection.send_raw_transaction = counted  # type: ignore[method-assign]


def main(rpc: str, contract: str, books: str, kill_after: str) -> None:
    settler_module.UNFINISHED_SECONDS = 0.0
    countdown = Countdown(int(kill_after))
    connection = connect(rpc)
    count_broadcasts(connection, countdown)
    deployment = Deployment(connection.chain_id, parse_address(contract))
    account = dev_accounts()[PAYEE]
    link = ChainLink(PaymentChannelsContract(connection, deployment))
    with closing(open_store(books)) as opened:
        store = cast(Store, CountedStore(opened, countdown))
        sender = TransactionSender(connection, Account.from_key(account.private_key), store)
        closer = Closer(link, sender, store)
        alerts = Alerts()
        policy = SettlementPolicy(value_min={_token(opened): 0}, batch_rows_max=2)
        settler = Settler(closer, account.address, policy, alerts)
        follower = Follower(Terms(deployment, account.address, ()), link, store)
        place = place_of(deployment, account.address)
        timing = Timing(lease_seconds=LEASE_SECONDS, trouble_seconds=0)
        daemon = Daemon(follower, settler, store, place, alerts, timing=timing)
        daemon.run_once(60)
    sys.stdout.write(json.dumps({"steps": countdown.done, "code": alerts.exit_code}))


def _token(store: Store) -> Any:
    (token,) = store.totals()
    return token


if __name__ == "__main__":
    main(*sys.argv[1:])
