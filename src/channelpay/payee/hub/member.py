"""A member's site: the ordinary middleware, with the network as whoever checks credentials.

The member needs no node, no books and no key of an account. It makes its own challenges, from a
secret that follows from its key, so that a 402 asks nobody; the network checks everything else.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from logging import getLogger
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httpx2

from channelpay.errors import ChannelPayError, ConfigError, InputError, NetworkError
from channelpay.observe import Observer
from channelpay.payee.acceptance import Acceptance, Guard
from channelpay.payee.hub.members import challenge_secret_of
from channelpay.payee.hub.wire import (
    RESOURCE_CHARACTERS_MAX,
    SaleRequest,
    error_of,
    parse_record,
    parse_terms,
)
from channelpay.payee.payee import REALM, Payee
from channelpay.payee.prices import PER_REQUEST, PriceFile, PriceRule, PriceTable, Quote
from channelpay.payee.register import Register
from channelpay.payee.terms import Terms
from channelpay.payee.threads import BoundedThreads
from channelpay.payee.verifier import Closed, Order, Paid, ToppedUp, Verified
from channelpay.protocol.parse import parse_amount, parse_bytes32, parse_text
from channelpay.protocol.patterns import Pattern
from channelpay.protocol.reader import CredentialReader
from channelpay.protocol.rules import Outcome, Payment
from channelpay.protocol.types import GRACE_SECONDS_CANONICAL
from channelpay.protocol.wire import ChallengeIssuer, SessionRequest
from channelpay.store import Accepted, MemoryStore

TIMEOUT_SECONDS = 10.0
SALES_AT_ONCE = 16
SALES_WAITING_MAX = 1_000
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_UNAUTHORIZED = 401
_log = getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HubAccepted(Accepted):
    """A charge in the network's books; ``sale`` is what it is given back with."""

    sale: str | None = None
    sale_id: str = ""


def join_hub(
    url: str,
    api_key: str,
    *,
    prices: Iterable[PriceRule] | Path,
    authors: Mapping[str, str] | None = None,
    referrer: str = "via",
    sales_log: Path | None = None,
    observer: Observer | None = None,
) -> Payee:
    """A payee for :class:`~channelpay.payee.asgi.PaymentMiddleware` that sells for the network at
    ``url``. ``api_key`` is what the network gave this member. ``authors`` maps path patterns to
    members who share what is sold there; ``referrer`` is the query parameter that names the member
    who brought the reader. In ``sales_log`` every sale is noted, to check statements with.

    Prices are per request. Raises :class:`~channelpay.errors.ConfigError` for others and for a key
    or URL that the network does not take, and :class:`~channelpay.errors.NetworkError`.
    """
    observer = observer or Observer()
    with ExitStack() as opened:
        hub = HubClient(url, api_key)
        opened.callback(hub.close)
        terms = parse_terms(hub.ask("GET", "/v1/terms"))
        table = _table(prices, terms)
        issuer = ChallengeIssuer(challenge_secret_of(api_key), REALM)
        credits_ = Credits(authors or {}, referrer)
        verifier = HubVerifier(hub, terms, issuer, credits_, SalesLog(sales_log), observer)
        opened.callback(verifier.close)
        observer.started(terms.tokens, MemoryStore())
        opened.callback(observer.stopped)
        checks = {"network": hub.check}
        return Payee(terms, table, issuer, verifier, opened.pop_all(), observer, checks)


def _table(prices: Iterable[PriceRule] | Path, terms: Terms) -> PriceTable | PriceFile:
    table: PriceTable | PriceFile
    if isinstance(prices, Path):
        table = PriceFile(prices, terms.tokens)
    else:
        table = PriceTable(prices, terms.tokens)
    for rule, _ in table.summary():
        if rule.unit != PER_REQUEST or rule.up_to:
            raise ConfigError(
                f"the price of {rule.path[:80]} is not for a request",
                hint="A network's member sells whole requests: leave unit and up_to out.",
            )
    return table


def _is_plain(quote: Quote) -> bool:
    """Whether a request costs its list price and nothing else is sold or owed with it: what
    incentives, passes and tabs need of the books is at the network.
    """
    beside = (quote.selling, quote.item, quote.credit)
    return not (quote.metered or quote.passes) and beside == (None, None, None)


class HubClient:
    """Asks a network, on any thread."""

    def __init__(self, url: str, api_key: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            raise ConfigError("the network's URL must begin with https: the key goes there")
        self._client = httpx2.Client(
            base_url=url.rstrip("/"),
            headers={"authorization": f"Bearer {api_key}"},
            timeout=TIMEOUT_SECONDS,
            trust_env=False,
        )

    def ask(self, method: str, path: str, members: Mapping[str, Any] | None = None) -> Any:
        """The JSON object of the answer. Raises what the network answers with."""
        try:
            answer = self._client.request(method, path, json=members)
            said = answer.json()
        except (httpx2.HTTPError, ValueError) as error:
            raise NetworkError("the network gave no answer") from error
        if answer.status_code == _UNAUTHORIZED:
            raise ConfigError("the network does not know the key of this member")
        if not isinstance(said, dict):
            raise NetworkError("the network's answer is no JSON object")
        if answer.is_error:
            raise error_of(said)
        return said

    def check(self) -> str | None:
        """For the site's readiness."""
        try:
            self.ask("GET", "/v1/terms")
        except ChannelPayError as error:
            return error.detail
        return None

    def close(self) -> None:
        self._client.close()


class Credits:
    """Who shares a sale beside the publisher: the author by the path, the referrer by the query."""

    def __init__(self, authors: Mapping[str, str], referrer: str) -> None:
        self._authors = [(Pattern(path), name) for path, name in authors.items()]
        self._referrer = referrer

    def of(self, resource: str) -> tuple[str | None, str | None]:
        """Author and referrer of a method and URL."""
        parts = urlsplit(resource.partition(" ")[2])
        path = unquote(parts.path)
        author = next((name for pattern, name in self._authors if pattern.matches(path)), None)
        named = parse_qs(parts.query).get(self._referrer, [])
        return author, named[0][:64] if len(named) == 1 else None


class SalesLog:
    """What a member notes of its sales, a line of JSON for each. A crash may lose the last ones."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = Lock()

    def sold(self, identity: str, resource: str, charged: int, sale: SaleRequest) -> None:
        shared = {"author": sale.author, "referrer": sale.referrer}
        self._note({"id": identity, "resource": resource, "charged": str(charged), **shared})

    def given_back(self, identity: str) -> None:
        self._note({"id": identity, "released": True})

    def _note(self, members: Mapping[str, Any]) -> None:
        if self._path is not None:
            line = json.dumps({**members, "time": int(time.time() * 1000)})
            with self._lock, self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def noted_sales(path: Path) -> list[dict[str, Any]]:
    """The sales in a log that were not given back. Raises
    :class:`~channelpay.errors.InputError`.
    """
    try:
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        back = {line["id"] for line in lines if line.get("released")}
        sales = [line for line in lines if line["id"] not in back]
        for one in sales:
            parse_amount(one["charged"], "charged")
        return sales
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no log of sales") from error


class HubRegister(Register):
    """Gives charges back in the network's books; there are none here."""

    def __init__(self, hub: HubClient, log: SalesLog, observer: Observer, guard: Guard) -> None:
        super().__init__(MemoryStore(), observer, guard)
        self._hub = hub
        self._log = log
        # Filled on the threads.
        self._owed_back: deque[HubAccepted] = deque()
        self._threads = BoundedThreads("channelpay-releases", 2, SALES_WAITING_MAX)

    def release(self, accepted: Accepted) -> Future[Payment] | None:
        """See :meth:`channelpay.payee.register.Register.release`. What the network did not hear is
        told again with the next one, for as long as it listens.
        """
        if not isinstance(accepted, HubAccepted) or accepted.sale is None:
            return None
        try:
            return self._threads.submit(partial(self._give_back_all, accepted))
        except NetworkError:
            self._owed_back.append(accepted)
            return None

    def close(self) -> None:
        self._threads.close()
        super().close()

    def _give_back_all(self, accepted: HubAccepted) -> Payment:
        released = self._give_back(accepted)
        for _ in range(len(self._owed_back)):
            with suppress(ChannelPayError):
                self._give_back(self._owed_back.popleft())
        return released

    def _give_back(self, accepted: HubAccepted) -> Payment:
        outcome = Outcome.CHARGED
        # Noted before: after a crash, what was given back must not count as missing.
        self._log.given_back(accepted.sale_id)
        try:
            said = self._hub.ask("POST", "/v1/releases", {"sale": accepted.sale})
        except InputError:
            _log.error("a charge could not be released, and stands")
        except ChannelPayError as error:
            _log.error("a charge cannot be released yet: %s", error.detail)
            self._owed_back.append(accepted)
            raise
        else:
            if said.get("released") is True:
                outcome = Outcome.RELEASED
        record = accepted.record
        return Payment(record.channel_id, 0, accepted.charged, "", 0, None, outcome)


class HubVerifier:
    """Has the network check credentials (:class:`~channelpay.payee.verifier.Checks`)."""

    def __init__(
        self,
        hub: HubClient,
        terms: Terms,
        issuer: ChallengeIssuer,
        credits_: Credits,
        log: SalesLog,
        observer: Observer,
    ) -> None:
        self.guard: Guard = Guard(Acceptance(), MemoryStore(), "network", GRACE_SECONDS_CANONICAL)
        self.register: Register = HubRegister(hub, log, observer, self.guard)
        self._hub = hub
        self._terms = terms
        self._reader = CredentialReader(issuer)
        self._credits = credits_
        self._log = log
        self._threads = BoundedThreads("channelpay-network", SALES_AT_ONCE, SALES_WAITING_MAX)

    async def verify(
        self, header: str, order: Order, reader: CredentialReader | None = None
    ) -> Verified:
        """See :meth:`channelpay.payee.verifier.Verifier.verify`."""
        if not _is_plain(order.quote):
            raise ConfigError("a member of a network sells whole requests at their list price")
        (reader or self._reader).read(header, time.time())
        resource = order.resource
        if order.read_body is not None and (body := await order.read_body()):
            resource = f"{resource} body={body}"
        if len(resource) > RESOURCE_CHARACTERS_MAX:
            raise InputError("the URL is too long")
        author, referrer = self._credits.of(order.resource)
        sale = SaleRequest(
            header,
            resource,
            {price.token.address: price.amount for price in order.quote.prices},
            order.quote.charged,
            order.idempotency_key,
            order.client,
            author,
            referrer,
            order.proof,
        )
        said = await self._threads.run(
            partial(self._hub.ask, "POST", "/v1/sales", sale.to_members())
        )
        return self._verified(said, order, sale)

    async def require_followed(self) -> None:
        """Whether the network follows the chain is told with each sale."""

    def with_gas(self, request: SessionRequest) -> SessionRequest:
        """A network's member offers to carry nobody's gas."""
        return request

    def close(self) -> None:
        self._threads.close()
        self.register.close()

    def _verified(self, said: Mapping[str, Any], order: Order, sale: SaleRequest) -> Verified:
        try:
            return self._parsed(said, order, sale)
        except (InputError, TypeError, AttributeError) as error:
            raise NetworkError("the network's answer cannot be read") from error

    def _parsed(self, said: Mapping[str, Any], order: Order, asked: SaleRequest) -> Verified:
        challenge_id = parse_text(said.get("challengeId"), "challengeId", 1024)
        record = parse_record(said.get("channel", {}), self._terms.payee)
        if said.get("status") == "topped-up":
            return ToppedUp(record, challenge_id)
        if said.get("status") == "closed":
            return Closed(record, challenge_id, parse_bytes32(said.get("txHash"), "txHash"))
        price = order.quote.price_in(record.channel.token) or 0
        if said.get("sale") is None:
            return Paid(Accepted(record, None), challenge_id, price, order.quote)
        charged = parse_amount(said.get("charged"), "charged")
        sale = parse_text(said.get("sale"), "sale", 256)
        identity = parse_text(said.get("id"), "id", 64)
        self._log.sold(identity, order.resource, charged, asked)
        accepted = HubAccepted(record, None, charged, charged > 0, sale=sale, sale_id=identity)
        return Paid(accepted, challenge_id, price, order.quote)
