"""Requests that a pass covers, beside those that a voucher pays for at the same site."""

from __future__ import annotations

import time
import uuid
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path

from channelpay.payee.payee import REALM
from channelpay.payee.selling.desk import SELLING
from channelpay.protocol.entries import Entries
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.passes import SCHEME, Length, PassTerms, Sealer, Token, pass_key
from channelpay.protocol.wire import ChallengeIssuer
from channelpay.store import Store, open_store
from scripts.bench.core import RAW_VERIFY, raw_calls, seconds_per_call
from scripts.bench.database import sqlite_url
from scripts.bench.figures import Ratio, Table, Target
from scripts.bench.load import Replay
from scripts.bench.paid import BUSY, CHANNELS, COLUMNS, Lab, Server, enter_payers, figures_of, site
from scripts.bench.scene import PATH, PLAIN_REQUEST, payers_of
from scripts.bench.site import CHALLENGE_SECRET, PAYEE

HOST = "127.0.0.1"
REACH = 2.0
USES = 10**6
_KINDS = {"for a time": 0, "with uses": USES}


def measure(lab: Lab, directory: Path) -> None:
    """One worker on SQLite: paid by vouchers, by a pass for a time, by one that counts."""
    directory.mkdir()
    url = sqlite_url(directory / "books.sqlite3")
    enter_payers(lab, url)
    with closing(open_store(url)) as store:
        tokens = {name: _entered(lab, store, name, uses) for name, uses in _KINDS.items()}
    with site(lab, url, 1, {}) as server:
        for passes in tokens.values():
            lab.sample(server, _replay(server, passes, 2 * BUSY))
        lab.load(server, BUSY, CHANNELS[-1])
        rounds = [_round(lab, server, tokens) for _ in range(lab.extent.rounds)]
    names = ("paid", *tokens)
    rows = tuple((name, *figures_of(name, rounds)) for name in names)
    note = f"SQLite, one worker, {BUSY} in flight, {CHANNELS[-1]} channels with one pass each."
    columns = ("covered by a pass", *COLUMNS)
    lab.findings.tables.append(Table("Requests with a pass", note, columns, rows))
    for name in tokens:
        ratio = Ratio.of(one[f"{name} rate"] / one["paid rate"] for one in rounds)
        title = f"request with a pass {name} / paid by voucher, {BUSY} in flight"
        lab.findings.targets.append(Target(title, ratio, REACH))


def _round(lab: Lab, server: Server, tokens: dict[str, list[Token]]) -> dict[str, float]:
    taken = {"verify": seconds_per_call(raw_calls()[RAW_VERIFY])}
    paid = lab.load(server, BUSY, CHANNELS[-1])
    taken |= {f"paid {figure}": value for figure, value in paid.items()}
    for name, passes in tokens.items():
        replay = _replay(server, passes, lab.extent.of(BUSY))
        figures = lab.sample(server, replay)
        taken |= {f"{name} {figure}": value for figure, value in figures.items()}
    return taken


def _replay(server: Server, passes: list[Token], count: int) -> Replay:
    """Requests with tokens that were written just now."""
    sealer = Sealer(ChallengeIssuer(CHALLENGE_SECRET, REALM).derived(SELLING))
    now = _now()
    texts = [
        sealer.seal(Token(one.pass_id, one.line, one.serial, now, one.until), HOST)
        for one in passes
    ]
    requests = tuple(_request(text) for text in islice(cycle(texts), count))
    return Replay(server.endpoint, requests, BUSY, "Payment-Pass")


def _request(token: str) -> bytes:
    named = f"Authorization: {SCHEME} {token}\r\nIdempotency-Key: {uuid.uuid4()}\r\n\r\n"
    return PLAIN_REQUEST[:-2] + named.encode()


def _entered(lab: Lab, store: Store, name: str, uses: int) -> list[Token]:
    """One pass for each channel."""
    return [
        _enter(store, payer.channel_id, keccak256(f"{name} {number}".encode())[:16], uses)
        for number, payer in enumerate(payers_of(lab.place.deployment, PAYEE, CHANNELS[-1]))
    ]


def _enter(store: Store, channel_id: bytes, pass_id: bytes, uses: int) -> Token:
    record = next(one for one in store.records() if one.channel_id == channel_id)
    length = Length(hours=0 if uses else 24)
    terms = PassTerms(pass_id, "bench", "bench", (PATH,), length, uses, 0, HOST, _now())
    made = terms.made(0, record)
    key = pass_key(pass_id)

    def add(_: Entries) -> Entries:
        return {key: made.to_state()}

    store.change_entries((key,), add).result()
    return made.current(pass_id)


def _now() -> int:
    return int(time.time() * 1000)
