"""The settings file: what it may say, and what counts before it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from channelpay.cli.config import CONFIG_BYTES_MAX, Config, read_config
from channelpay.cli.limits import DEFAULTS, TokenBudget, default_budget
from channelpay.cli.networks import WELL_KNOWN
from channelpay.errors import ConfigError
from channelpay.protocol.parse import parse_address
from channelpay.protocol.text import checksum_address
from channelpay.protocol.types import NATIVE
from channelpay.testing.furnished import FurnishedChain
from tests.cli.conftest import Run

BUDGET = 'request = "0.1"\norigin_day = "0.2 ETH"\nday = "0.3"\n'
SECRET_URL = "https://node.example/v2/secret-key"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


def test_without_a_file_the_well_known_networks_are_there(tmp_path: Path) -> None:
    assert read_config(tmp_path / "config.toml") == Config()
    assert Config().named("base").chain_id == 8453


def test_what_is_said_of_a_known_network_replaces_that_part_of_it(tmp_path: Path) -> None:
    text = f'network = "base"\n[networks.base]\nrpc = ["{SECRET_URL}"]\nconfirmations = 7\n'
    config = read_config(written(tmp_path, text))

    base = config.named("base")
    assert (base.rpc, base.confirmations) == ((SECRET_URL,), 7)
    assert (base.chain_id, base.tokens) == (8453, WELL_KNOWN["base"].tokens)


def test_a_network_of_ones_own_is_described(tmp_path: Path) -> None:
    text = '[networks.mine]\nchain_id = 5\nrpc = "http://127.0.0.1:1"\n'

    assert read_config(written(tmp_path, text)).named("mine").rpc == ("http://127.0.0.1:1",)


@pytest.mark.parametrize(
    "text",
    [
        "network = ",
        "network = 1",
        'network = "nowhere"',
        'colour = "red"',
        "networks = 1",
        "[networks.mine]\nchain_id = 5",
        '[networks.MINE]\nchain_id = 5\nrpc = "http://127.0.0.1:1"',
        "[networks.base]\nchain_id = 0",
        "[networks.base]\nchain_id = true",
        "[networks.base]\nconfirmations = 1.5",
        '[networks.base]\nrpc = "ftp://node.example"',
        "[networks.base]\nrpc = [1]",
        '[networks.base]\ncontract = "0x12"',
        '[networks.base]\nexplorer = "nowhere"',
        "[networks.base]\nspeed = 1",
        '[networks.base.tokens]\nusdc = "0x12"',
        '[networks.base.tokens]\neth = "0x0000000000000000000000000000000000000001"',
        "[networks]\nbase = 1",
        "budget = 1",
        "[budget]\nlimit = 1",
        '[budget]\npayees = "0x12"',
        '[budget]\npayees = ["0x12"]',
        "[budget]\ncontracts = [1]",
        '[budget]\norigins = ["site.example"]',
        f"[budget.dai]\n{BUDGET}",
        f"[budget.0x12]\n{BUDGET}",
        '[budget.eth]\nrequest = "1"\nday = "1"',
        f"[budget.eth]\n{BUDGET}total = 1.5",
        f"[budget.eth]\n{BUDGET}total = 1",
        f'[budget.eth]\n{BUDGET}total = "1e3"',
        f'[budget.eth]\n{BUDGET}total = "-1"',
        f'[budget.eth]\n{BUDGET}week = "1"',
        f"[budget.0x{20 * 'ab'}]\n{BUDGET}[budget.0x{20 * 'aB'}]\n{BUDGET}",
        f"network = {3000 * '['}{3000 * ']'}",
        f"network = {5000 * '9'}",
    ],
)
def test_what_makes_no_sense_is_refused_with_the_place(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)

    with pytest.raises(ConfigError) as raised:
        read_config(path)

    assert str(path) in raised.value.detail


def test_a_budget_is_by_name_or_address_of_a_token(tmp_path: Path) -> None:
    usdc = WELL_KNOWN["base"].tokens["usdc"]
    lists = f'payees = ["{usdc}"]\norigins = ["https://site.example"]'
    for name in ("usdc", usdc):
        text = f"[budget]\n{lists}\n[budget.{name}]\n{BUDGET}"
        budget = read_config(written(tmp_path, text)).budget
        expected = TokenBudget("0.1", "0.2 ETH", "0.3")
        assert budget.of(parse_address(usdc), WELL_KNOWN["base"]) == expected
        assert budget.of(NATIVE, WELL_KNOWN["base"]) is None
        assert budget.payees == frozenset({parse_address(usdc)})
        assert budget.origins == frozenset({"https://site.example:443"})


def test_without_a_budget_there_are_small_limits_for_well_known_money_alone() -> None:
    base = WELL_KNOWN["base"]
    assert default_budget(NATIVE, None) == DEFAULTS["eth"]
    assert default_budget(parse_address(base.tokens["usdc"]), base) == DEFAULTS["usdc"]
    assert default_budget(parse_address(base.tokens["usdc"]), None) is None


def test_a_url_is_never_repeated(tmp_path: Path) -> None:
    text = f'[networks.base]\nrpc = ["{SECRET_URL}", "no url secret-key"]\n'

    with pytest.raises(ConfigError) as raised:
        read_config(written(tmp_path, text))

    assert "secret-key" not in raised.value.detail + raised.value.hint


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        read_config(written(tmp_path, "#" * (CONFIG_BYTES_MAX + 1)))


@pytest.mark.parametrize("name", WELL_KNOWN)
def test_well_known_addresses_have_their_checksum(name: str) -> None:
    for address in WELL_KNOWN[name].tokens.values():
        assert checksum_address(parse_address(address)) == address


@pytest.mark.parametrize("name", WELL_KNOWN)
def test_init_writes_what_can_be_read(run: Run, home: Path, name: str) -> None:
    done = run("init", "--network", name)

    assert done.exit_code == 0
    assert json.loads(done.stdout)["network"] == name
    assert (home / "config.toml").stat().st_mode & 0o777 == 0o600
    assert read_config(home / "config.toml") == Config(network=name)


@pytest.mark.parametrize("name", WELL_KNOWN)
def test_what_init_shows_is_what_is_known(run: Run, home: Path, name: str) -> None:
    run("init", "--network", name)
    lines = (home / "config.toml").read_text().splitlines()
    start = lines.index(f"[networks.{name}]")
    told = [line.removeprefix("# ") for line in lines[start:] if "…" not in line]
    settled = "\n".join(line for line in told if "=" in line or line.startswith("["))

    assert f"chain_id = {WELL_KNOWN[name].chain_id}" in settled
    (home / "config.toml").write_text(f'network = "{name}"\n{settled}')
    assert tomllib.loads(settled)
    assert read_config(home / "config.toml") == Config(network=name)


def test_the_budget_that_init_shows_can_be_read(run: Run, home: Path) -> None:
    run("init")
    text = (home / "config.toml").read_text()
    shown = text[text.index("# [budget]") :].partition("\n\n")[0].splitlines()
    told = [line.removeprefix("# ") for line in shown if "…" not in line]
    (home / "config.toml").write_text("\n".join(told))

    limits = read_config(home / "config.toml").budget.tokens["eth"]
    assert limits.request == DEFAULTS["eth"].request


def test_init_leaves_a_file_alone(run: Run, home: Path) -> None:
    home.mkdir()
    (home / "config.toml").write_text("# mine\n")

    done = run("init")

    assert done.exit_code == 2
    assert (home / "config.toml").read_text() == "# mine\n"


def test_init_takes_the_network_that_was_named_before_it(run: Run, home: Path) -> None:
    assert run("--network", "base", "init").exit_code == 0

    assert read_config(home / "config.toml").network == "base"


def test_nobody_is_paid_on_another_chain_than_the_network(
    run: Run, tmp_path: Path, dev_chain: FurnishedChain
) -> None:
    payee = "0x" + dev_chain.chain.accounts[1].address.hex()
    contract = "0x" + dev_chain.deployment.contract.hex()
    place = ("--rpc", dev_chain.chain.rpc_url, "--contract", contract, "--port", "0")

    done = run(
        *("--network", "base", "site", tmp_path, "--token", "eth", "--price", "1"),
        *("--payee", payee, *place),
    )

    assert done.exit_code == 3
    assert "8453" in done.output


@pytest.mark.parametrize(
    ("options", "expected"),
    [((), 1), (("--network", "ethereum"), 3), (("--network", "polygon", "--confirmations", 2), 2)],
)
def test_a_site_asks_for_the_confirmations_of_its_network(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str | int, ...],
    expected: int,
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(
        "channelpay.cli.site.serve_paid",
        lambda _output, serving, *_, **__: asked.append(serving.confirmations.default),
    )
    before, after = options[:2], options[2:]

    done = run(
        *before, "site", tmp_path, "--token", "eth", "--price", "1", "--rpc", "http://x", *after
    )

    assert (asked, done.exit_code) == ([expected], 0), done.output
