"""Networks and tokens by name: where their data is from, and who takes the names."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from channelpay.cli.networks import LOCAL, WELL_KNOWN, Network
from channelpay.payee.server import Place, Service
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.testing.furnished import FurnishedChain
from tests.cli.conftest import Run

VIEM = Path(__file__).parents[2] / "node_modules" / "viem"
FILES = {
    "ethereum": "mainnet",
    "base-sepolia": "baseSepolia",
}
"""Networks that viem calls otherwise."""
PUBLIC = [network for network in WELL_KNOWN.values() if network.name != LOCAL]
USDC = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"


@pytest.mark.parametrize("network", PUBLIC, ids=lambda network: network.name)
def test_a_well_known_network_is_as_the_source_says(network: Network) -> None:
    file = FILES.get(network.name, network.name)
    chain = (VIEM / "chains" / "definitions" / f"{file}.ts").read_text()

    assert re.search(
        rf"^  id: {network.chain_id:_},|^  id: {network.chain_id},", chain, re.MULTILINE
    )
    assert all(f"'{url}'" in chain for url in network.rpc)
    assert f"url: '{network.explorer}'" in chain
    for symbol, address in network.tokens.items():
        token = (VIEM / "tokens" / "definitions" / f"{symbol}.ts").read_text()
        assert f"    {network.chain_id}: '{address}'," in token


def test_the_test_token_of_the_local_network_is_that_of_the_dev_chain(
    dev_chain: FurnishedChain,
) -> None:
    local = WELL_KNOWN[LOCAL]

    assert local.chain_id == dev_chain.deployment.chain_id
    assert local.tokens == {"tusd": checksum_address(dev_chain.token)}


def test_networks_are_listed_with_the_chosen_one_and_without_keys(run: Run, home: Path) -> None:
    home.mkdir()
    (home / "config.toml").write_text(
        'network = "mine"\n[networks.mine]\nchain_id = 5\nrpc = "https://n.example/v2/secret"\n'
    )

    done = run("networks")

    listed = {one["name"]: one for one in json.loads(done.stdout)}
    assert listed.keys() == {*WELL_KNOWN, "mine"}
    assert [name for name, one in listed.items() if one["chosen"]] == ["mine"]
    assert listed["mine"]["nodes"] == ["n.example"]
    assert listed["base"]["tokens"]["usdc"] == USDC
    assert "secret" not in done.output


def test_a_site_takes_tokens_by_their_names(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(
        "channelpay.cli.site.serve_paid",
        lambda _output, serving, *_, **__: asked.append(serving.token),
    )
    options = ("--token", "usdc", "--token", "ETH", "--price", "usdc=0.01", "--price", "eth=1")

    assert run("--network", "base", "site", tmp_path, *options).exit_code == 0
    unknown = run("--network", "local", "site", tmp_path, *options)

    assert asked == [(USDC.lower(), "eth")]
    assert unknown.exit_code == 2


def test_a_price_in_a_token_by_its_symbol_is_served(
    run: Run, tmp_path: Path, dev_chain: FurnishedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_only(service: Service, *_: object, **__: object) -> None:
        with service(Place(0, announces=True)):
            pass

    monkeypatch.setattr("channelpay.payee.server.serve", make_only)
    payee = to_hex(dev_chain.chain.accounts[1].address)

    done = run(
        *("--network", "local", "site", tmp_path, "--rpc", dev_chain.chain.rpc_url, "--port", "0"),
        *("--contract", to_hex(dev_chain.contract), "--payee", payee, "--token", "tusd"),
        *("--price", "tusd=0.5", "--risk-total", "tusd=100", "--settle-value", "tusd=10"),
    )

    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)["prices"]
    assert shown[0]["amounts"] == {to_hex(dev_chain.token): "500000"}
