"""A payer that is killed: ``python -m scripts.chaos.payer SETTINGS``.

It reads pages for money with the client of this package, and opens, tops up and closes channels as
it goes. When it reads ``leave`` on its standard input it takes its money back from all of them, and
ends. Killed at any moment it goes on from its books when it is started again.

What it got goes as one JSON line each to the end of a file, so that nothing of it is lost in a
kill: ``{"status", "code", "presented"}`` for each answer (``presented``: a credential was with the
request), ``{"served", "price", "channelId"}`` for each page that was paid for (the Idempotency-Key
and base units), ``{"trouble"}`` for what the payer raised.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx2

from channelpay import ChannelPayAuth, Limits, Payer
from channelpay.chain.sender import SendPolicy
from channelpay.errors import BudgetExceeded, ChannelPayError
from channelpay.payer.messages import answer_of, has_problem, read_small
from channelpay.payer.records import PayerChannel
from channelpay.payer.steps import Paid
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Address, ChannelStatus
from channelpay.testing.accounts import dev_accounts
from channelpay.testing.execution import CHAIN_ID

LEAVE = "leave"
ANSWER_SECONDS = 40.0
CONFIRM_SECONDS = 40.0
PACE_SECONDS = 0.04
"""What a payer waits after each page, so that the machine is not busy with pages alone."""
PAUSE_SECONDS = 0.2
"""Between two attempts at something that failed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """``account`` is the number of a development account; amounts are base units of ``token``, a
    hex address. A channel is opened with ``deposit``, and topped up by as much, twice at most.
    ``close_share`` is how likely the payer closes one after a page, and ``request_share`` how
    likely it does so on chain, without asking the payee.
    """

    rpc_url: str
    contract: str
    account: int
    token: str
    price: int
    deposit: int
    urls: list[str]
    folder: str
    seed: str
    close_share: float
    request_share: float

    @property
    def journal(self) -> Path:
        return Path(self.folder) / f"payer-{self.account}.jsonl"

    @property
    def books(self) -> Path:
        return Path(self.folder) / f"payer-{self.account}.sqlite3"

    @property
    def limits(self) -> Limits:
        token = Address(bytes.fromhex(self.token))
        return Limits(
            token, self.price, 3 * self.deposit, deposit=self.deposit, top_up=self.deposit
        )


class Customer:
    """One payer's life. ``leaving`` is set when it shall end."""

    def __init__(self, settings: Settings, leaving: Event) -> None:
        self._settings = settings
        self._leaving = leaving
        # How often it was started before decides as well, or each life would be the same.
        lives = settings.journal.read_bytes().count(b'"born"') if settings.journal.exists() else 0
        self._rng = random.Random(f"{settings.seed} {settings.account} {lives}")  # noqa: S311
        self._journal = os.open(settings.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._note(born=os.getpid())

    def live(self) -> None:
        """Until it shall end; then until all channels are closed."""
        settings = self._settings
        account = dev_accounts()[settings.account]
        payer = Payer(
            account.private_key,
            settings.rpc_url,
            settings.books,
            limits=[settings.limits],
            contract=Address(bytes.fromhex(settings.contract)),
            policy=SendPolicy(deadline_seconds=CONFIRM_SECONDS),
            chain_id=CHAIN_ID,  # It may be born while its node serves another one.
        )
        client = httpx2.Client(
            auth=ChannelPayAuth(payer),
            timeout=ANSWER_SECONDS,
            event_hooks={"response": [self._note_answer]},
        )
        with closing(payer), client:
            while not self._leaving.is_set():
                self._buy(payer, client)
                time.sleep(PACE_SECONDS)
                if self._rng.random() < self._settings.close_share:
                    self._close_one(payer)
            while not self._has_left(payer):
                time.sleep(PAUSE_SECONDS)

    def _buy(self, payer: Payer, client: httpx2.Client) -> None:
        """One page with one key, in as many attempts as it takes."""
        url = self._rng.choice(self._settings.urls)
        key = str(uuid.uuid4())
        while not self._leaving.is_set():
            try:
                response = client.get(url, headers={"Idempotency-Key": key})
            except BudgetExceeded as over:
                # The deposit is used up, or of no use; without room nothing was signed.
                self._note(trouble=over.code)
                self._close_one(payer)
                return
            except ChannelPayError as error:
                self._note(trouble=error.code)
            except httpx2.TransportError as error:
                self._note(trouble=type(error).__name__)
            else:
                paid = response.extensions["channelpay"]
                if response.is_success and isinstance(paid, Paid):
                    channel_id = to_hex(paid.channel_id)
                    self._note(served=key, price=self._settings.price, channelId=channel_id)
                    return
            time.sleep(PAUSE_SECONDS)

    # --- the end of channels -----------------------------------------------------------------

    def _close_one(self, payer: Payer) -> None:
        with self._noted():
            entries = payer.channels()
            is_open = [entry for entry in entries if entry.status is ChannelStatus.OPEN]
            if is_open:
                self._close(payer, self._rng.choice(is_open))

    def _close(self, payer: Payer, entry: PayerChannel) -> None:
        """By the payee, or on chain."""
        if self._rng.random() < self._settings.request_share or entry.url is None:
            payer.request_close(entry.channel_id)
            self._note(requested=to_hex(entry.channel_id))
            return
        closed = payer.close_channel(entry.channel_id)
        self._note(closed=to_hex(entry.channel_id), txHash=to_hex(closed.transaction_hash))

    def _has_left(self, payer: Payer) -> bool:
        """Whether all channels are closed; if not, do what can be done now."""
        has_left = False
        with self._noted():
            live = [
                entry for entry in payer.channels() if entry.status is not ChannelStatus.FINALIZED
            ]
            has_left = not live
            for entry in live:
                with self._noted():
                    if entry.status is ChannelStatus.OPEN:
                        self._close(payer, entry)
                    elif entry.status is ChannelStatus.CLOSING:
                        payer.withdraw(entry.channel_id)
                        self._note(withdrawn=to_hex(entry.channel_id))
                    else:  # An open that the node lost takes its nonce until it is sent again.
                        channel = entry.channel
                        payer.wallet.open_unless_usable(
                            channel.payee, channel.token, entry.deposit, entry.url
                        )
        return has_left

    # --- notes -------------------------------------------------------------------------------

    def _note_answer(self, response: httpx2.Response) -> None:
        """Each one, also those that the client itself deals with."""
        if has_problem(response):
            read_small(response)
        presented = response.request.headers.get("Authorization", "").startswith("Payment ")
        code = answer_of(response, str(response.url)).code
        self._note(status=response.status_code, code=code, presented=presented)

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Go on after what the payer raises."""
        try:
            yield
        except ChannelPayError as error:
            self._note(trouble=error.code)

    def _note(self, **members: Any) -> None:
        os.write(self._journal, json.dumps(members).encode() + b"\n")


def main() -> None:
    """Live until the order to leave. Whoever started this is gone when its input ends before."""
    leaving = Event()

    def obey() -> None:
        while order := sys.stdin.readline().strip():
            if order == LEAVE:
                leaving.set()
        os._exit(1)

    Thread(target=obey, daemon=True).start()
    Customer(Settings(**json.loads(sys.argv[1])), leaving).live()


if __name__ == "__main__":
    main()
