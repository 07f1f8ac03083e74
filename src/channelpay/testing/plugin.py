"""The pytest plugin: a chain, a payer, a payee and a paid site, each one fixture.

pytest imports this module in every project of an environment that has channelpay, so it imports
nothing but pytest; a fixture imports what it needs when it is used. ``docs/testing.md`` shows how
to use them. A project that has a fixture of one of these names keeps its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from channelpay.payee import Payee, PriceRule
    from channelpay.payee.asgi import App
    from channelpay.payer.client import Payer
    from channelpay.testing.channels import ChannelFactory
    from channelpay.testing.devchain import DevChain
    from channelpay.testing.furnished import FurnishedChain
    from channelpay.testing.sites import PaidSite

CHAINS = ("embedded", "anvil", "fake")
BOOKS = "payee.sqlite3"


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--channelpay-chain``, and the setting ``channelpay_chain`` in the configuration file."""
    parser.getgroup("channelpay").addoption(
        "--channelpay-chain",
        choices=CHAINS,
        help="what channelpay_chain is: embedded (py-evm, the default), anvil, or the fake chain",
    )
    parser.addini("channelpay_chain", "embedded, anvil or fake", default="embedded")


@pytest.fixture(scope="session")
def channelpay_whole_chain(request: pytest.FixtureRequest) -> Iterator[FurnishedChain]:
    """The chain of the whole run; a test takes ``channelpay_chain``, which is put back after it."""
    from channelpay.testing.furnished import furnish

    config = request.config
    kind = config.getoption("--channelpay-chain") or str(config.getini("channelpay_chain"))
    if kind not in CHAINS:
        raise pytest.UsageError(f"channelpay_chain is one of {', '.join(CHAINS)}, not {kind}")
    with _start(kind)() as chain:
        yield furnish(chain)


@pytest.fixture
def channelpay_chain(channelpay_whole_chain: FurnishedChain) -> Iterator[FurnishedChain]:
    """A local chain with the contract, a test token and ten accounts that hold ether and tokens.

    Each test finds it as it was at the start.
    """
    snapshot = channelpay_whole_chain.chain.snapshot()
    yield channelpay_whole_chain
    channelpay_whole_chain.chain.revert(snapshot)


@pytest.fixture
def channel_factory(channelpay_chain: FurnishedChain) -> ChannelFactory:
    """Opens channels on the chain: ``channel_factory(deposit)``."""
    from channelpay.testing.channels import ChannelFactory

    return ChannelFactory(channelpay_chain)


@pytest.fixture
def payer(channelpay_chain: FurnishedChain, tmp_path: Path) -> Iterator[Payer]:
    """Account 1 as a payer with empty books, which may open channels and pay up to one ether, or a
    hundred tokens, for a request. ``payer.allow(Limits(…))`` sets other limits.
    """
    from channelpay.payer.client import Payer
    from channelpay.payer.limits import Limits
    from channelpay.protocol.types import NATIVE
    from channelpay.testing.channels import DEPOSIT, PAYER

    chain = channelpay_chain
    tokens = 100 * 10**chain.token_decimals
    limits = [
        Limits(NATIVE, price_max=DEPOSIT, deposit_max=10 * DEPOSIT, deposit=DEPOSIT),
        Limits(chain.token, price_max=tokens, deposit_max=10 * tokens, deposit=tokens),
    ]
    account = chain.accounts[PAYER]
    books = tmp_path / "payer.sqlite3"
    made = Payer(account.private_key, chain.rpc_url, books, limits=limits, contract=chain.contract)
    yield made
    made.close()


@pytest.fixture
def channelpay_prices() -> list[PriceRule]:
    """What the payee charges: 0.001 ETH for every page. Override it with a fixture of your own."""
    from channelpay.payee import PriceRule

    return [PriceRule("/**", "0.001")]


@pytest.fixture
def payee(
    channelpay_chain: FurnishedChain, channelpay_prices: list[PriceRule], tmp_path: Path
) -> Iterator[Payee]:
    """Account 2 as a payee that takes ether and the test token, with empty books."""
    from eth_account import Account

    from channelpay.payee import Payee
    from channelpay.protocol.text import to_hex
    from channelpay.testing.channels import PAYEE

    chain = channelpay_chain
    made = Payee.create(
        rpc=chain.rpc_url,
        account=Account.from_key(chain.accounts[PAYEE].private_key),
        token=["eth", to_hex(chain.token)],
        prices=channelpay_prices,
        store=_books_url(tmp_path),
        contract=to_hex(chain.contract),
    )
    yield made
    made.close()


@pytest.fixture
def paid_site(payee: Payee, tmp_path: Path) -> Iterator[Callable[..., PaidSite]]:
    """Serves an ASGI application behind the payee's prices, over HTTP on a port of its own:
    ``paid_site(app)``. Without one, every page says its path.
    """
    from channelpay.payee import PaymentMiddleware
    from channelpay.testing.sites import PaidSite, serving_site, welcome

    with ExitStack() as sites:

        def serve(app: App = welcome) -> PaidSite:
            url = sites.enter_context(serving_site(PaymentMiddleware(app, payee)))
            return PaidSite(url, _books_url(tmp_path))

        yield serve


def _books_url(folder: Path) -> str:
    return f"sqlite:///{folder / BOOKS}"


def _start(kind: str) -> Callable[[], AbstractContextManager[DevChain]]:
    if kind == "fake":
        from channelpay.testing.fake import fake_chain

        return fake_chain
    from channelpay.testing.devchain import anvil_chain, embedded_chain

    return anvil_chain if kind == "anvil" else embedded_chain
