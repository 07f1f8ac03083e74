"""The servers that are measured: one small application, bare and behind a payee."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from channelpay.chain.connection import connect
from channelpay.chain.contract import PaymentChannelsContract
from channelpay.chain.deploy import deploy
from channelpay.chain.sender import Sender
from channelpay.payee import Payee, PaymentMiddleware, PriceRule
from channelpay.payee.asgi import App, Receive, Scope, Send
from channelpay.payee.chain_link import ChainLink
from channelpay.payee.follower import Follower
from channelpay.payee.selling.incentives import Incentive
from channelpay.payee.server import Service, listen, serve
from channelpay.payee.terms import ETHER, Terms
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Address, Deployment
from channelpay.store import Store
from channelpay.testing.accounts import deployer_account
from channelpay.testing.devchain import DevChain, embedded_chain_process
from scripts.bench.scene import PATH, PRICE_TEXT

BODY = b"<p>An article.</p>"
PAYEE = Address(keccak256(b"bench payee")[:20])
CHALLENGE_SECRET = keccak256(b"bench challenge secret")
_HEADERS = [(b"content-type", b"text/html"), (b"content-length", str(len(BODY)).encode())]


@dataclass(frozen=True, slots=True)
class Place:
    """The chain that the payees watch. Nothing happens on it."""

    rpc_url: str
    deployment: Deployment


@contextmanager
def quiet_chain() -> Iterator[Place]:
    """A chain with the contract on it, in a process of its own."""
    with embedded_chain_process() as chain:
        yield Place(chain.rpc_url, _deployed(chain))


def _deployed(chain: DevChain) -> Deployment:
    from eth_account import Account

    connection = connect(chain.rpc_url, expected_chain_id=chain.chain_id)
    sender = Sender(connection, Account.from_key(deployer_account().private_key))
    return Deployment(chain.chain_id, deploy(sender).address)


async def hello(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001  as ASGI calls it
    """The application: a page of a few bytes."""
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": BODY})


def payee_of(place: Place, store: str, incentives: Sequence[Incentive] = ()) -> Payee:
    """The payee of a one-page site."""
    return Payee.create(
        rpc=place.rpc_url,
        contract=to_hex(place.deployment.contract),
        token="eth",  # noqa: S106  the currency
        payee=to_hex(PAYEE),
        prices=[PriceRule(PATH, PRICE_TEXT)],
        incentives=incentives,
        store=store,
        challenge_secret=CHALLENGE_SECRET,
        watches=False,
    )


def follow_once(place: Place, store: Store) -> None:
    """Have the books know how far the chain is. Nobody follows it after that: it knows nothing of
    the channels that are paid from.
    """
    contract = PaymentChannelsContract(connect(place.rpc_url), place.deployment)
    terms = Terms(place.deployment, PAYEE, (ETHER,))
    Follower(terms, ChainLink(contract), store).step()


def run_hello(pipe: Connection[Any, Any]) -> None:
    """The bare application; sends where it listens."""
    _run(pipe, lambda _: nullcontext(hello), workers=1)


def run_site(
    pipe: Connection[Any, Any],
    place: Place,
    store: str,
    workers: int,
    incentives: Sequence[Incentive],
) -> None:
    """The application behind a payee; sends where it listens."""
    _run(pipe, lambda _: _site(place, store, incentives), workers)


@contextmanager
def _site(place: Place, store: str, incentives: Sequence[Incentive]) -> Iterator[App]:
    with closing(payee_of(place, store, incentives)) as payee:
        yield PaymentMiddleware(hello, payee)


def _run(pipe: Connection[Any, Any], service: Service, workers: int) -> None:
    listening = listen("127.0.0.1", 0)
    pipe.send(listening.getsockname()[:2])
    serve(service, listening, workers)
