"""``channelpay hub run``: the HTTP service that a network's members charge through.

The network checks every voucher itself and charges it in its own books; of a member it believes the
resource, the price, and who the author is. What it answers concerns this member alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from logging import getLogger
from typing import Any, NamedTuple

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from channelpay.errors import ChannelPayError, InputError, NetworkError
from channelpay.observe.health import Health
from channelpay.payee.amounts import Price
from channelpay.payee.asgi import Receive, Scope, Send
from channelpay.payee.checkout import RETRY_AFTER_SECONDS
from channelpay.payee.hub.members import (
    Member,
    challenge_secret_of,
    find_member,
    members_of,
    settings_of,
)
from channelpay.payee.hub.statements import Clerk
from channelpay.payee.hub.wire import (
    BODY_BYTES_MAX,
    RELEASE_MS,
    SaleRequest,
    SaleTicket,
    record_members,
    sale_id,
    terms_members,
    told,
)
from channelpay.payee.payee import REALM, Payee
from channelpay.payee.prices import Quote
from channelpay.payee.verifier import Closed, Order, Paid, ToppedUp, Verified
from channelpay.protocol.parse import parse_address, parse_json_object
from channelpay.protocol.reader import CredentialReader
from channelpay.protocol.rules import ChannelRecord, Outcome
from channelpay.protocol.splits import HubSettings, Splitting
from channelpay.protocol.text import to_hex
from channelpay.protocol.wire import ChallengeIssuer
from channelpay.store import Accepted, Store

KNOWN_SECONDS = 1.0
"""How long the members and their agreement are remembered."""
_BEARER = "bearer "
_log = getLogger(__name__)


class _Known(NamedTuple):
    members: list[Member]
    settings: HubSettings
    until: float


class _Caller(NamedTuple):
    """Whoever asks, and what checks the challenges of its site."""

    member: Member
    reader: CredentialReader


class HubService:
    """The ASGI application. ``payee`` is the network; ``store`` its books; ``secret`` makes the
    tickets of sales; ``clerk`` writes statements.
    """

    def __init__(self, payee: Payee, store: Store, secret: bytes, clerk: Clerk) -> None:
        self._payee = payee
        self._store = store
        self._secret = secret
        self._clerk = clerk
        self._readers: dict[bytes, CredentialReader] = {}
        self._known: _Known | None = None
        # A statement reads the whole ledger: one at a time.
        self._one_statement = CapacityLimiter(1)
        routes = [
            Route("/v1/terms", self._answering(self._terms)),
            Route("/v1/sales", self._answering(self._sale), methods=["POST"]),
            Route("/v1/releases", self._answering(self._release), methods=["POST"]),
            Route("/v1/statement", self._answering(self._statement)),
        ]
        self._application = Health(Starlette(routes=routes), payee.checks)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._application(scope, receive, send)

    def _answering(
        self, answer: Callable[[_Caller, Request], Awaitable[dict[str, Any]]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                caller = await self._caller(request)
                if caller is None:
                    return _problem(401, {"detail": "the key is no member's"})
                return JSONResponse(await answer(caller, request), headers=_no_store())
            except ChannelPayError as error:
                public = told(error)
                if public is not error:
                    _log.warning("a member was told of trouble: %s", error.detail)
                return _problem(public.status, public.as_problem())

        return endpoint

    async def _caller(self, request: Request) -> _Caller | None:
        header = request.headers.get("authorization", "")
        if not header.lower().startswith(_BEARER):
            return None
        api_key = header[len(_BEARER) :].strip()
        member = find_member((await self._current()).members, api_key)
        if member is None:
            return None
        reader = self._readers.get(member.key_hash)
        if reader is None:
            reader = CredentialReader(ChallengeIssuer(challenge_secret_of(api_key), REALM))
            self._readers[member.key_hash] = reader
        return _Caller(member, reader)

    async def _current(self) -> _Known:
        """Members and settings; what was changed holds within a second."""
        now = time.monotonic()
        if self._known is None or now > self._known.until:
            read = self._payee.register.read
            members, settings = await read(lambda books: (members_of(books), settings_of(books)))
            self._known = _Known(members, settings, now + KNOWN_SECONDS)
        return self._known

    # --- what members ask for ----------------------------------------------------------------

    async def _terms(self, _caller: _Caller, _request: Request) -> dict[str, Any]:
        return terms_members(self._payee.terms)

    async def _sale(self, caller: _Caller, request: Request) -> dict[str, Any]:
        sale = SaleRequest.parse(await _body_of(request))
        known = await self._current()
        # Named by the member: a key that bought something elsewhere buys and says nothing here.
        place, key = f"{caller.member.name}: ", sale.idempotency_key
        order = Order(
            place + sale.resource,
            Quote(self._prices(sale), charged=sale.charged),
            None if key is None else place + key,
            sale.client,
            terms=self._splitting(caller, sale, known),
            proof=sale.proof,
        )
        verified = await self._payee.verify(sale.credential, order, caller.reader)
        return self._sold(caller.member, verified)

    def _prices(self, sale: SaleRequest) -> tuple[Price, ...]:
        prices = []
        for address, amount in sale.prices.items():
            token = self._payee.terms.token(address)
            if token is None or not amount:
                raise InputError("a price is above 0, in a token of the network")
            prices.append(Price(token, amount))
        return tuple(prices)

    def _splitting(self, caller: _Caller, sale: SaleRequest, known: _Known) -> Splitting:
        token = caller.reader.read(sale.credential, time.time()).request.currency
        names = {member.name for member in known.members if not member.is_removed}
        if sale.author is not None and sale.author not in names:
            raise NetworkError(f"no member is the author {sale.author!r}")
        # Readers bring referrers along, mistyped ones as well.
        referrer = sale.referrer if sale.referrer in names else None
        return Splitting(
            known.settings.agreement,
            token,
            caller.member.name,
            sale.author,
            referrer,
            known.settings.caps.get(token, 0),
        )

    def _sold(self, member: Member, verified: Verified) -> dict[str, Any]:
        members: dict[str, Any] = {
            "challengeId": verified.challenge_id,
            "channel": record_members(verified.record),
        }
        match verified:
            case Paid(accepted=accepted):
                return {"status": "paid", **members, **self._ticket(member, accepted)}
            case ToppedUp():
                return {"status": "topped-up", **members}
            case Closed():
                sent = to_hex(verified.transaction_hash)
                return {"status": "closed", **members, "txHash": sent}

    def _ticket(self, member: Member, accepted: Accepted) -> dict[str, Any]:
        number, payment = accepted.payment_id, accepted.payment
        if number is None or payment is None:
            return {"sale": None}
        ticket = SaleTicket(number, accepted.attempt, payment.time, payment.channel_id)
        return {
            "sale": ticket.to_text(self._secret, member.name),
            "id": sale_id(self._secret, number, payment.time),
            "charged": str(accepted.charged),
        }

    async def _release(self, caller: _Caller, request: Request) -> dict[str, Any]:
        members = await _body_of(request)
        ticket = SaleTicket.parse(members.get("sale"), self._secret, caller.member.name)
        if time.time() * 1000 - ticket.time > RELEASE_MS:
            raise InputError("the sale is too long ago to be given back")
        register = self._payee.register
        record = await register.read(partial(_sold_on, ticket))
        if record is None:
            raise InputError("the books have no such sale")
        accepted = Accepted(record, ticket.payment_id, attempt=ticket.attempt)
        released = register.release(accepted)
        assert released is not None  # It has a payment.
        payment = await asyncio.wrap_future(released)
        return {"released": payment.outcome is Outcome.RELEASED}

    async def _statement(self, caller: _Caller, request: Request) -> dict[str, Any]:
        token = parse_address(request.query_params.get("token"), "token")
        written = partial(self._clerk.statement, self._store, caller.member, token)
        return await run_sync(written, limiter=self._one_statement)


def _sold_on(ticket: SaleTicket, books: Store) -> ChannelRecord | None:
    """The channel of a sale that is in the books."""
    stored = books.payment_numbered(ticket.payment_id)
    if stored is None or stored.payment.time != ticket.time:
        return None
    is_its_own = stored.payment.channel_id == ticket.channel_id
    return books.record(ticket.channel_id) if is_its_own else None


async def _body_of(request: Request) -> dict[str, Any]:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_BYTES_MAX:
            raise InputError(f"a request has at most {BODY_BYTES_MAX} bytes")
    return parse_json_object(body, "the request")


def _no_store() -> dict[str, str]:
    return {"cache-control": "no-store"}


def _problem(status: int, members: dict[str, Any]) -> Response:
    headers = _no_store()
    if status == 503:
        headers["retry-after"] = str(RETRY_AFTER_SECONDS)
    return JSONResponse(members, status, headers, media_type="application/problem+json")
