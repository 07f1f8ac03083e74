"""A paid site and its readers, each a process of its own, on both development chains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from channelpay.protocol.text import to_hex
from channelpay.testing.furnished import FurnishedChain
from tests.e2e.programs import Workplace
from tests.e2e.world import ETH, TUSD, Currency, Person, Site, World
from tests.support.chains import *  # noqa: F403

PAGES = {
    "one.md": "# One\n\nThe first page.\n",
    "two.md": "# Two\n\nThe second page.\n",
    "deep/three.txt": "the third, as it is\n",
    "free.md": "# Free\n\nFor everybody.\n",
}


@pytest.fixture(params=["eth", "erc20"])
def currency(request: pytest.FixtureRequest, furnished: FurnishedChain) -> Currency:
    return ETH if request.param == "eth" else TUSD(furnished.token)


@pytest.fixture
def world(furnished: FurnishedChain, tmp_path: Path) -> World:
    return World(furnished, tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in PAGES.items():
        path = tmp_path / "pages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "pages"


@pytest.fixture
def reader(world: World) -> Person:
    return world.person("reader", 1)


@pytest.fixture
def publisher(world: World) -> Person:
    return world.person("publisher", 2)


@pytest.fixture
def workplace(world: World, tmp_path: Path) -> Workplace:
    """Where the publisher runs a program of its own, on a free port."""
    key = to_hex(world.chain.accounts[2].private_key)
    folder = tmp_path / "shop"
    folder.mkdir()
    variables = {"CHANNELPAY_RPC": world.rpc_url, "PUBLISHER_KEY": key, "PORT": "0"}
    return Workplace(folder, variables)


@pytest.fixture
def serve(publisher: Person, folder: Path) -> Iterator[Callable[[Currency], Site]]:
    """Starts the publisher's site, which ends with the test."""
    with ExitStack() as stack:

        def start(currency: Currency) -> Site:
            return stack.enter_context(publisher.serving(folder, currency))

        yield start
