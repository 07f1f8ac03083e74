"""Whatever a client sends, the paid endpoint answers it soon, in the form that it promises, without
a fault of its own; and the books change for genuine vouchers only.

`make fuzz` sends a million mutated headers; `make test` about a thousand.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from channelpay.chain.types import TransactionReceipt
from channelpay.errors import ChainReverted, ChannelPayError, InputError, TooFewConfirmations
from channelpay.observe import Observer
from channelpay.payee import Payee, PaymentMiddleware, PriceRule
from channelpay.payee.acceptance import Acceptance, Guard
from channelpay.payee.asgi import Message, Receive, Scope, Send
from channelpay.payee.chain_link import ChainLink
from channelpay.payee.closer import Closer
from channelpay.payee.prices import PriceTable
from channelpay.payee.request import Request
from channelpay.payee.terms import Terms, Token
from channelpay.payee.verifier import Verifier
from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.reader import CredentialReader, Reading
from channelpay.protocol.rules import ChannelRecord
from channelpay.protocol.types import (
    GRACE_SECONDS_CANONICAL,
    NATIVE,
    Address,
    Channel,
    ChannelId,
    ChannelState,
    ChannelStatus,
    Deployment,
    Voucher,
)
from channelpay.protocol.wire import (
    Challenge,
    ChallengeIssuer,
    ClosePayload,
    Credential,
    OpenPayload,
    Payload,
    Receipt,
    SignedTopUpPayload,
    Source,
    TopUpPayload,
    VoucherPayload,
    parse_challenges,
)
from channelpay.store import ChainView, MemoryStore
from tests.support.mutation import SCHEME, Rng, mutated

NOW = 1_800_000_000.0
PRICE = 10**16
DEPOSIT = 1000 * PRICE
ANSWER_SECONDS = 10
"""Far more than any answer takes, so that a busy machine is no hang."""
EXAMPLES = settings().max_examples
ROUNDS = max(1, EXAMPLES // 10)
"""A tenth as many as other properties have examples, each with so many headers that `make fuzz`
comes to a million.
"""
HEADERS = -(-EXAMPLES * 10 // 9)
ONE_BY_ONE = (Phase.explicit, Phase.reuse, Phase.generate)
"""No seed is simpler than another."""
DEPLOYMENT = Deployment(31337, Address(b"\x11" * 20))
SIGNER = VoucherSigner(DEPLOYMENT, bytes(range(1, 33)))
SOURCE = Source(DEPLOYMENT.chain_id, SIGNER.address)
TOKEN = Token(Address(b"\x44" * 20), "TUSD", 6)
TERMS = Terms(
    DEPLOYMENT, Address(b"\x22" * 20), (Token(NATIVE, "ETH", 18), TOKEN), {NATIVE: 10 * PRICE}
)
RULES = [
    PriceRule("/free/**", "0"),
    PriceRule("/words", "0.01", unit="word"),
    PriceRule("/both", {"eth": "0.01", "0x" + "44" * 20: "3"}),
    PriceRule("/**", "0.01", description="One page"),
]
STATUSES = {400, 402, 404, 409, 410, 431}
"""Of what is refused."""
Headers = list[tuple[bytes, bytes]]


def _channel(number: int, token: Address = NATIVE) -> Channel:
    return Channel(
        SIGNER.address, TERMS.payee, token, Address(bytes(20)), bytes(31) + bytes([number])
    )


class NoChain:
    """A node that has mined nothing."""

    def opened(self, *_: object) -> ChainView:
        raise TooFewConfirmations("the transaction is not mined yet")

    def topped_up(self, *_: object) -> ChainView:
        raise TooFewConfirmations("the transaction is not mined yet")


@dataclass
class ReluctantCloser:
    """Notes what it is to close channels with, and the contract refuses it."""

    vouchers: list[Voucher] = field(default_factory=list)

    def close(self, _: ChannelRecord, voucher: Voucher) -> TransactionReceipt:
        self.vouchers.append(voucher)
        raise ChainReverted("the contract refused")


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body", False):
        pass
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"7")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"content"})


@dataclass(frozen=True)
class Answer:
    """What came back: names of headers in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def value(self, name: str) -> str:
        (value,) = self.values(name)
        return value


class Booth:
    """A payee without a chain, its books in memory, and valid credentials of every action."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self.issuer = ChallengeIssuer(bytes(range(32)), "channelpay")
        self.store = MemoryStore()
        self.closer = ReluctantCloser()
        link, closer = cast(ChainLink, NoChain()), cast(Closer, self.closer)
        guard = Guard(Acceptance(), self.store, "followed", GRACE_SECONDS_CANONICAL, lambda: NOW)
        verifier = Verifier(
            TERMS, self.issuer, self.store, link, closer, lambda: NOW, Observer(), guard
        )
        table, resources = PriceTable(RULES, TERMS.tokens), ExitStack()
        resources.callback(verifier.close)
        observer = Observer()
        self.payee = Payee(TERMS, table, self.issuer, verifier, resources, observer, {})
        self._middleware = PaymentMiddleware(application, self.payee)
        self.genuine: set[tuple[ChannelId, int, bytes]] = set()
        self.corpus = [credential.to_header() for credential in self._credentials()]

    def ask(self, headers: Headers, *request: Any) -> Answer:
        """See :meth:`answer`."""
        return self._runner.run(self.answer(headers, *request))

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self._runner.run(work)

    async def answer(
        self,
        headers: Headers,
        method: str = "GET",
        path: str = "/page",
        query: bytes = b"",
        body: Sequence[bytes] = (b"",),
    ) -> Answer:
        """The whole answer to a request whose body comes in such pieces."""
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode("utf-8", "surrogatepass"),
            "query_string": query,
            "headers": headers,
            "scheme": "http",
            "client": ("192.0.2.1", 4711),
        }
        with deadline(ANSWER_SECONDS):
            return await self._answer(scope, body)

    def challenges(self, path: str) -> list[Challenge]:
        """One for each token; they expire an hour after NOW."""
        quote = self.payee.quote(Request("GET", path))
        assert quote is not None
        asked = [TERMS.request(price, quote) for price in quote.prices]
        return [self.issuer.issue(one, NOW + 3600) for one in asked]

    def books(self) -> object:
        """All that they hold. By the store's own verbs that would take longer than the request."""
        rows = self.store._rows
        return dict(rows.records), dict(rows.payments)

    def is_genuine(self, voucher: Voucher) -> bool:
        """Whether we signed it; ``v`` is checked before it goes on chain."""
        signed = voucher.channel_id, voucher.cumulative_amount, voucher.signature[:64]
        return signed in self.genuine

    def _credentials(self) -> Iterator[Credential]:
        challenges = [self.challenges(path)[0] for path in ("/page", "/words", "/both")]
        known, other = self._known(_channel(1)), self._known(_channel(2, TOKEN.address))
        unknown = _channel(3)
        for challenge in challenges:
            for payload in self._payloads(known, unknown):
                yield Credential(challenge, payload, SOURCE)
        yield Credential(challenges[0], VoucherPayload(self._sign(known, PRICE)))
        (_, in_token) = self.challenges("/both")
        yield Credential(in_token, VoucherPayload(self._sign(other, 3_000_000)))

    def _payloads(self, known: Channel, unknown: Channel) -> Iterator[Payload]:
        for cumulative in (PRICE, 2 * PRICE, DEPOSIT, DEPOSIT + 1):
            yield VoucherPayload(self._sign(known, cumulative))
        for channel in (known, unknown):
            voucher = self._sign(channel, PRICE)
            yield OpenPayload(b"\x07" * 32, channel.salt, channel.authorized_signer, voucher)
        yield TopUpPayload(known.id(DEPLOYMENT), b"\x08" * 32, PRICE)
        yield ClosePayload(self._sign(known, PRICE))

    def _known(self, channel: Channel) -> Channel:
        view = ChainView(ChannelState(ChannelStatus.OPEN, DEPOSIT), 1)
        self.store.add_channel(channel.id(DEPLOYMENT), channel, view).result()
        return channel

    def _sign(self, channel: Channel, cumulative: int) -> Voucher:
        voucher = SIGNER.sign(channel.id(DEPLOYMENT), cumulative)
        self.genuine.add((voucher.channel_id, cumulative, voucher.signature[:64]))
        return voucher

    async def _answer(self, scope: Scope, body: Sequence[bytes]) -> Answer:
        pieces = [
            {"type": "http.request", "body": piece, "more_body": number < len(body)}
            for number, piece in enumerate(body, 1)
        ]
        sent: list[Message] = []

        async def receive() -> Message:
            if not pieces:
                await asyncio.Event().wait()  # The client stays.
            return pieces.pop(0)

        async def send(message: Message) -> None:
            sent.append(message)

        await self._middleware(scope, receive, send)
        return _answer_of(sent)


def _answer_of(sent: list[Message]) -> Answer:
    start, *parts = sent
    assert start["type"] == "http.response.start"
    assert [part["type"] for part in parts] == ["http.response.body"] * len(parts)
    assert [part.get("more_body", False) for part in parts] == [True] * (len(parts) - 1) + [False]
    headers = [(key.decode("ascii"), value.decode("ascii")) for key, value in start["headers"]]
    return Answer(start["status"], headers, b"".join(part.get("body", b"") for part in parts))


@contextmanager
def deadline(seconds: int) -> Iterator[None]:
    """Breaks off whatever takes longer, also what never gives the event loop a turn."""

    def give_up(*_: object) -> None:
        pytest.fail(f"no answer within {seconds} s")  # No handler of exceptions takes it.

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def booth() -> Iterator[Booth]:
    with asyncio.Runner() as runner:
        opened = Booth(runner)
        yield opened
        opened.payee.close()


def check_refusal(answer: Answer) -> None:
    """A problem in its form, or for a person the page that says what it costs."""
    assert answer.status in STATUSES
    assert answer.value("cache-control") == "no-store"
    assert answer.value("content-length") == str(len(answer.body))
    if answer.value("content-type") == "text/html; charset=utf-8":
        assert answer.status == 402
        assert answer.body.decode().startswith("<!doctype html>")
    else:
        assert answer.value("content-type") == "application/problem+json"
        check_problem(json.loads(answer.body), answer.status)
    offered = parse_challenges(answer.values("www-authenticate"))
    assert bool(offered) == (answer.status in (402, 410))


def check_problem(problem: dict[str, Any], status: int) -> None:
    assert problem["status"] == status
    for name in ("type", "title", "detail", "code"):
        assert isinstance(problem[name], str)
        assert problem[name]


def check(booth: Booth, before: object, headers: Headers, answer: Answer) -> None:
    """The rule of this page for one request and its answer."""
    is_free = answer.status == 200 and not answer.values("payment-receipt")
    if is_free and answer.body in (b"content", b""):  # A preflight's has none.
        assert booth.books() == before
        return
    if answer.status == 200:
        Receipt.parse(answer.value("payment-receipt"))
    else:
        check_refusal(answer)
    if answer.status == 200 or booth.books() != before:
        (header,) = [value for name, value in headers if name.lower() == b"authorization"]
        payload = Credential.parse(header.decode("latin-1")).payload
        assert not isinstance(payload, TopUpPayload | SignedTopUpPayload)
        assert booth.is_genuine(payload.voucher)
    assert all(map(booth.is_genuine, booth.closer.vouchers))
    booth.closer.vouchers.clear()


def test_the_corpus_is_of_valid_credentials_of_every_action(booth: Booth) -> None:
    statuses: dict[str, set[int]] = {}
    for header in booth.corpus:
        payload = Credential.parse(header).payload
        answer = booth.ask([(b"authorization", header.encode())], "GET", "/both")
        statuses.setdefault(type(payload).__name__, set()).add(answer.status)

    assert statuses == {
        "VoucherPayload": {200, 402},
        "OpenPayload": {200, 402},
        "TopUpPayload": {402},
        "ClosePayload": {409},
    }


@given(seed=st.integers(0, 2**64 - 1))
@settings(max_examples=ROUNDS, phases=ONE_BY_ONE)
def test_mutated_credentials_are_refused_in_form_or_are_genuine(booth: Booth, seed: int) -> None:
    booth.run(send_mutated(booth, Rng(seed)))


async def send_mutated(booth: Booth, rng: Rng) -> None:
    before = booth.books()
    for _ in range(HEADERS):
        headers = [(b"authorization", mutated(booth.corpus, rng).encode("latin-1"))]
        answer = await booth.answer(headers)
        check(booth, before, headers, answer)
        before = booth.books()


def heads(corpus: Sequence[str]) -> st.SearchStrategy[Headers]:
    """Headers that the payee looks at, and others, valid or not, none or several of each."""
    text = st.text(st.characters(max_codepoint=0xFF), max_size=40)
    seeds = st.integers(0, 2**64 - 1)
    credential = st.sampled_from(corpus) | seeds.map(lambda n: mutated(corpus, Rng(n)))
    values = {
        b"authorization": credential | text,
        b"Authorization": credential,
        b"idempotency-key": text | st.just("k" * 300) | st.just("key"),
        b"accept": st.sampled_from(["text/html", "*/*", "text/html;q=0", ",,;"]) | text,
        b"host": st.sampled_from(["shop.example", "", "[::1]:80"]) | text,
        b"content-type": text,
        b"content-length": text,
        b"x-forwarded-for": text,
    }
    lines = [st.tuples(st.just(name), value) for name, value in values.items()]
    encoded = st.one_of(lines).map(lambda line: (line[0], line[1].encode("latin-1")))
    return st.lists(encoded, max_size=5)


PATHS = st.sampled_from(
    [
        "/",
        "/page",
        "/words",
        "/both",
        "/free/a",
        "//page",
        "/page/",
        "/%2e%2e/page",
        "/free/../page",
    ]
) | st.text(st.characters(codec="utf-8"), max_size=60).map(lambda rest: "/" + rest)
METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "OPTIONS", "PATCH", "get", "PROPFIND"])


@given(
    data=st.data(),
    method=METHODS,
    path=PATHS | st.just("/" + "a" * 5000) | st.just("*"),
    query=st.binary(max_size=60),
    body=st.lists(st.binary(max_size=200), min_size=1, max_size=3),
)
def test_any_request_is_answered_in_form(
    booth: Booth, data: st.DataObject, method: str, path: str, query: bytes, body: list[bytes]
) -> None:
    headers = data.draw(heads(booth.corpus))
    before = booth.books()

    answer = booth.ask(headers, method, path, query, body)

    check(booth, before, headers, answer)


@given(seed=st.integers(0, 2**64 - 1))
@settings(max_examples=ROUNDS, phases=ONE_BY_ONE)
def test_a_mutated_credential_is_read_alike_by_both_readers(booth: Booth, seed: int) -> None:
    rng = Rng(seed)
    reader = CredentialReader(booth.issuer)
    for header in booth.corpus:
        reader.read(header, NOW)
    for _ in range(HEADERS // 10):
        header = mutated(booth.corpus, rng)

        with deadline(ANSWER_SECONDS):
            quick, careful = quickly(reader, header), carefully(booth.issuer, header)

        assert quick == careful


def quickly(reader: CredentialReader, header: str) -> Reading | type[ChannelPayError]:
    try:
        return reader.read(header, NOW)
    except ChannelPayError as error:
        return type(error)


def carefully(issuer: ChallengeIssuer, header: str) -> Reading | type[ChannelPayError]:
    try:
        one = Credential.parse(header)
        return Reading(one.challenge, issuer.check(one.challenge, NOW), one.payload, one.source)
    except ChannelPayError as error:
        return type(error)


@given(seed=st.integers(0, 2**64 - 1))
@settings(max_examples=ROUNDS, phases=ONE_BY_ONE)
def test_mutated_challenges_and_receipts_are_refused_by_our_own_errors(
    booth: Booth, seed: int
) -> None:
    rng = Rng(seed)
    challenges = [one.to_header() for one in booth.challenges("/both")]
    receipt = Receipt(ChannelId(b"\x01" * 32), 1, "id", 2, 1, NOW).to_header()
    for _ in range(HEADERS // 10):
        with deadline(ANSWER_SECONDS):
            parse_challenges([mutated(challenges, rng), mutated(booth.corpus, rng)])
            with suppress(InputError):
                Receipt.parse(mutated([SCHEME + receipt], rng).removeprefix(SCHEME))
