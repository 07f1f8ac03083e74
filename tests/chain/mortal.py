"""A sender that ends at a chosen step of its journal, as a process does that is killed there.

Run as a program, it is killed for real:
``python -m tests.chain.mortal URL FILE ACCOUNT MOMENT VERB…``.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

from eth_account import Account

from channelpay.chain.connection import Connection, connect
from channelpay.chain.fees import FeePolicy
from channelpay.chain.outgoing import TransactionSender
from channelpay.chain.types import ContractCall
from channelpay.protocol.types import Address
from channelpay.store import open_store
from channelpay.testing.accounts import dev_accounts

RECEIVER = Address(b"\x44" * 20)
PATIENCE_SECONDS = 60.0
_STEPS = frozenset({"journal", "add_broadcast", "finish", "send_raw_transaction"})


class Killed(BaseException):
    """The process ends here: nothing that it has in memory is there any more."""


class Fate:
    """Ends everything at the ``end_at``-th of these moments: before and after each write to the
    journal and each broadcast.
    """

    def __init__(self, end_at: int | None = None, end: Callable[[], None] | None = None) -> None:
        self.moments = 0
        self._end_at = end_at
        self._end = end or _die

    def pass_by(self) -> None:
        if self.moments == self._end_at:
            self._end()
        self.moments += 1


class Mortal:
    """``behind``, with a moment to end at before and after each step."""

    def __init__(self, behind: object, fate: Fate) -> None:
        self._behind = behind
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._behind, name)
        if name not in _STEPS:
            return verb

        def step(*arguments: object) -> object:
            self._fate.pass_by()
            done = verb(*arguments)
            if isinstance(done, Future):
                done.exception()
            self._fate.pass_by()
            return done

        return step


def mortal_sender(
    connection: Connection,
    account_number: int,
    store: object,
    fate: Fate,
    clock: Callable[[], float],
    policy: FeePolicy,
) -> TransactionSender:
    return TransactionSender(
        cast("Connection", Mortal(connection, fate)),
        Account.from_key(dev_accounts()[account_number].private_key),
        cast(Any, Mortal(store, fate)),
        policy,
        clock,
    )


def payment(amount_wei: int) -> ContractCall:
    return ContractCall(RECEIVER, value_wei=amount_wei)


def _die() -> None:
    raise Killed


def _be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Verbs: an amount to send; ``later`` for a step an hour later."""
    url, file, account, end_at, *verbs = sys.argv[1:]
    store = open_store(f"sqlite:///{Path(file)}")
    time = [1_000_000.0]
    fate = Fate(int(end_at), _be_killed)
    policy = FeePolicy(replace_after_seconds=PATIENCE_SECONDS)
    sender = mortal_sender(connect(url), int(account), store, fate, lambda: time[0], policy)
    for verb in verbs:
        if verb == "later":
            time[0] += 3600
            sender.step()
        else:
            sender.send(payment(int(verb)), verb)
    store.close()


if __name__ == "__main__":
    main()
