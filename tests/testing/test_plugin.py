"""The fixtures of the pytest plugin, each in a pytest process of its own as a stranger runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.testing.stranger import PLUGIN, passed, run_pytest

FAKE = ("--channelpay-chain", "fake")
HEAVY = ("channelpay.protocol", "coincurve", "eth", "eth_account", "httpx2", "hypothesis", "web3")


def test_importing_the_plugin_imports_nothing_of_weight() -> None:
    asking = f"import sys, {PLUGIN}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", asking], check=True, capture_output=True, text=True
    )
    loaded = done.stdout.split()

    assert [name for name in loaded if name.startswith("channelpay")] == [
        "channelpay",
        "channelpay.testing",
        PLUGIN,
    ]
    assert not set(HEAVY) & set(loaded)


ALL_FIXTURES = """
import httpx2
from channelpay import ChannelPayAuth, NATIVE, Limits

def test_channels_and_time(channelpay_chain, channel_factory):
    channel = channel_factory(1000)
    channel.settle(channel.sign(300))
    channel.top_up(50)
    assert (channel.state().deposit, channel.state().settled) == (1050, 300)
    channel.request_close()
    channelpay_chain.advance(channelpay_chain.grace_seconds)
    channel.withdraw()
    assert channel.state().status == "finalized"

def test_the_token(channelpay_chain, channel_factory):
    channel = channel_factory(1000, token=channelpay_chain.token)
    channel.close(channel.sign(1000))
    assert channel.state().settled == 1000

def test_a_site_is_paid_and_closes(paid_site, payer, payee):
    site = paid_site()
    with httpx2.Client(auth=ChannelPayAuth(payer)) as client:
        for _ in range(3):
            assert client.get(site.page("/a")).text == "This is /a\\n"
    assert site.spent() == 3 * 10**15
    (channel,) = payer.channels()
    payer.close_channel(channel.channel_id)
    (closed,) = payer.channels()
    assert (closed.status, closed.settled) == ("finalized", 3 * 10**15)
"""


@pytest.mark.parametrize("kind", ["embedded", "anvil", "fake"])
def test_the_fixtures_work_together_on_every_chain(tmp_path: Path, kind: str) -> None:
    anvil = Path(__file__).parents[2] / "node_modules"
    if kind == "anvil":
        (tmp_path / "node_modules").symlink_to(anvil)
    assert passed(run_pytest(tmp_path, "--channelpay-chain", kind, code=ALL_FIXTURES), 3)


TWO_TESTS = """
import pytest

@pytest.mark.parametrize("time", [1, 2])
def test_it(channelpay_chain, channel_factory, time):
    account = channelpay_chain.accounts[1].address
    assert channel_factory.connection.balance_wei(account) == 10_000 * 10**18
    channel_factory(1000)
"""


def test_every_test_finds_the_chain_as_it_was_at_the_start(tmp_path: Path) -> None:
    assert passed(run_pytest(tmp_path, code=TWO_TESTS), 2)


OWN_PRICES = """
import httpx2, pytest
from channelpay import PriceRule

@pytest.fixture
def channelpay_prices():
    return [PriceRule("/dear", "2")]

def test_it(paid_site):
    site = paid_site()
    assert httpx2.get(site.page("/free")).status_code == 200
    assert httpx2.get(site.page("/dear")).status_code == 402
"""


def test_a_project_has_its_own_prices(tmp_path: Path) -> None:
    assert passed(run_pytest(tmp_path, *FAKE, code=OWN_PRICES), 1)


def test_a_chain_that_there_is_not_is_refused(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "--channelpay-chain", "mainnet", code=TWO_TESTS)
    assert done.returncode == 4
    assert "invalid choice" in done.stderr


DYING_APP = """
import pytest
from channelpay.errors import ConfigError

async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no"})

def test_it(paid_site):
    with pytest.raises(ConfigError, match="did not start"):
        paid_site(app)
"""


def test_an_application_that_does_not_start_is_an_error_and_no_hang(tmp_path: Path) -> None:
    assert passed(run_pytest(tmp_path, *FAKE, code=DYING_APP), 1)
