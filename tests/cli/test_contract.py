"""``channelpay contract`` on both chains: deployed once, verified whatever was put in its place."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from eth_utils.crypto import keccak

from channelpay.chain import artifacts
from channelpay.chain.connection import connect
from channelpay.chain.create2 import DEPLOYER, SALT, predicted_address
from channelpay.chain.deploy import deploy, deploy_test_token
from channelpay.chain.sender import Sender
from channelpay.chain.types import ContractCall
from channelpay.cli.output import Output
from channelpay.protocol.eip712 import domain_separator
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import Deployment
from channelpay.testing import DevChain
from tests.cli.conftest import PASSWORD, Run
from tests.support.chains import CHAINS, Json, fake_node, sender_of

FACTORY = "revenue-splitter-factory"
DAY = (86_400).to_bytes(32, "big")


@pytest.fixture(scope="module", params=CHAINS)
def empty_chain(request: pytest.FixtureRequest) -> Iterator[DevChain]:
    with CHAINS[request.param]() as chain:
        yield chain


@pytest.fixture
def chain(
    run: Run, empty_chain: DevChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DevChain]:
    """A chain without the contract, the settings that name it, and an account with ether."""
    (tmp_path / "secret").write_text(empty_chain.accounts[0].private_key.hex())
    (tmp_path / "secret").chmod(0o600)
    assert run("account", "import", "dev", "--secret-file", tmp_path / "secret").exit_code == 0
    monkeypatch.setenv("CHANNELPAY_RPC", empty_chain.rpc_url)
    snapshot = empty_chain.snapshot()
    yield empty_chain
    empty_chain.revert(snapshot)


@pytest.fixture
def sender(chain: DevChain) -> Sender:
    return sender_of(connect(chain.rpc_url), chain.accounts[1])


def printed(run: Run, *arguments: object) -> dict[str, Any]:
    result = run("contract", *arguments)
    assert result.exit_code == 0, result.output
    members: dict[str, Any] = json.loads(result.stdout)
    return members


def refusal(run: Run, *arguments: object) -> dict[str, Any]:
    """The problem that the command ends with; notes may come before it."""
    result = run("contract", *arguments)
    assert (result.exit_code != 0, result.stdout) == (True, "")
    problem: dict[str, Any] = json.loads(result.stderr.splitlines()[-1])
    assert problem["hint"]
    return problem | {"exitCode": result.exit_code}


def sent(chain: DevChain) -> int:
    """How many transactions the account has sent."""
    return connect(chain.rpc_url).next_nonce(chain.accounts[0].address)


# --- deploy --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["payment-channels", FACTORY])
def test_deploying_twice_is_one_address_and_sends_once(
    run: Run, chain: DevChain, name: str
) -> None:
    first = printed(run, "deploy", name)
    sent_first = sent(chain)
    second = printed(run, "deploy", name)
    assert (first["alreadyThere"], second["alreadyThere"]) == (False, True)
    assert first["address"] == second["address"] == printed(run, "address", name)["address"]
    assert sent(chain) == sent_first > 0


def test_deploy_says_what_it_cost(run: Run, chain: DevChain) -> None:
    members = printed(run, "deploy")
    receipt = connect(chain.rpc_url).receipt(bytes.fromhex(members["txHash"][2:]))
    assert receipt is not None
    assert (members["gasUsed"], members["feeWei"]) == (receipt.gas_used, str(receipt.fee_wei))
    assert (members["name"], members["chainId"]) == ("PaymentChannels", 31337)


@pytest.mark.parametrize("name", ["payment-channels", FACTORY])
def test_a_dry_run_says_what_a_deployment_would_cost_without_a_password(
    run: Run, chain: DevChain, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the deployer is missing, the creation cannot be tried: then by its size."""
    missing = not connect(chain.rpc_url).code(DEPLOYER)
    with monkeypatch.context() as patch:
        patch.delenv("CHANNELPAY_PASSWORD")
        done = run("contract", "deploy", name, "--dry-run")
    told = json.loads(done.stdout)
    assert (done.exit_code, sent(chain)) == (10, 0)

    gas = printed(run, "deploy", name)["gasUsed"]

    expected = {"fundDeployer": True, "deploy": False} if missing else {"deploy": True}
    assert {one["purpose"]: one["tried"] for one in told["transactions"]} == expected
    assert gas <= told["transactions"][-1]["gas"] <= 1.1 * gas


def test_a_dry_run_of_what_is_there_says_so_and_of_what_nobody_can_pay_too(
    run: Run, chain: DevChain
) -> None:
    assert run("account", "import", "poor", input="11" * 32).exit_code == 0
    poor = run("contract", "deploy", "--account", "poor", "--dry-run")
    printed(run, "deploy", "--account", "dev")
    again = run("contract", "deploy", "--dry-run")
    assert (poor.exit_code, poor.stdout) == (6, "")
    assert (again.exit_code, json.loads(again.stdout)["alreadyThere"]) == (10, True)


def test_what_is_there_needs_no_account(run: Run, sender: Sender, home: Path) -> None:
    deploy(sender)
    for file in (home / "keystore").iterdir():
        file.unlink()
    assert printed(run, "deploy")["alreadyThere"]


def test_the_address_is_printed_before_a_password_is_needed(
    run: Run, chain: DevChain, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("another")
    (tmp_path / "password").chmod(0o600)
    result = run("contract", "deploy", "--password-file", tmp_path / "password")
    first, *_, last = map(json.loads, result.stderr.splitlines())
    assert first == {"address": checksum_address(predicted_address())}
    assert "password" in last["detail"]
    assert (result.exit_code, sent(chain)) == (2, 0)


def test_a_missing_deployer_and_what_it_costs_are_said_before(run: Run, chain: DevChain) -> None:
    missing = not connect(chain.rpc_url).code(DEPLOYER)
    result = run("contract", "deploy")
    assert ('{"deployerCostWei": "10000000000000000"}' in result.stderr) == missing
    assert sent(chain) == (2 if missing else 1)


@pytest.mark.parametrize(
    "grace_period", ["599", "9m", "0d", "0", "-600", "1w", "soon", "", "1.5h", "9" * 10]
)
def test_a_wrong_grace_period_is_refused_before_the_chain_is_asked(
    run: Run, home: Path, grace_period: str
) -> None:
    nowhere = ("--rpc", "http://127.0.0.1:9")
    problem = refusal(run, "deploy", *nowhere, f"--grace-period={grace_period}")
    assert (problem["exitCode"], "--grace-period" in problem["detail"]) == (2, True)


def test_the_factory_has_no_grace_period(run: Run, home: Path) -> None:
    assert refusal(run, "deploy", FACTORY, "--grace-period", "1d")["exitCode"] == 2


def test_an_unreachable_node_is_a_network_error(run: Run, home: Path) -> None:
    for command in ("deploy", "verify"):
        assert refusal(run, command, "--rpc", "http://127.0.0.1:9")["exitCode"] == 3
        assert "--rpc" in refusal(run, command)["hint"]


def test_ctrl_c_while_it_is_deployed_loses_nothing(
    run: Run, chain: DevChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Sender, "wait", interrupted)
        result = run("contract", "deploy")
    assert (result.exit_code, "nothing is deployed twice" in result.stderr) == (130, True)
    printed(run, "deploy")
    assert printed(run, "verify")["genuine"]


def test_other_code_at_the_address_is_said_and_nothing_sent(run: Run, chain: DevChain) -> None:
    def with_other_code(method: str, _: list[Json], forward: Callable[[], Json]) -> Json:
        return "0x6001" if method == "eth_getCode" else forward()

    with fake_node(chain.rpc_url, with_other_code) as url:
        problem = refusal(run, "deploy", "--rpc", url)
    assert (problem["code"], problem["exitCode"], sent(chain)) == ("not-genuine", 5, 0)


def test_code_that_is_not_there_afterwards_is_an_error(run: Run, chain: DevChain) -> None:
    predicted = to_hex(predicted_address())

    def without_code(method: str, parameters: list[Json], forward: Callable[[], Json]) -> Json:
        hidden = method == "eth_getCode" and parameters[0].lower() == predicted
        return "0x" if hidden else forward()

    with fake_node(chain.rpc_url, without_code) as url:
        assert refusal(run, "deploy", "--rpc", url)["code"] == "not-genuine"


def test_no_secret_is_printed(run: Run, chain: DevChain) -> None:
    result = run("contract", "deploy")
    for secret in (PASSWORD, chain.accounts[0].private_key.hex()):
        assert secret not in result.output


# --- verify --------------------------------------------------------------------------------------


def test_the_canonical_contract_is_verified_without_an_address(run: Run, sender: Sender) -> None:
    address = deploy(sender).address
    assert printed(run, "verify") == {
        "name": "PaymentChannels",
        "address": checksum_address(address),
        "chainId": 31337,
        "genuine": True,
        "codeBytes": len(sender.connection.code(address)),
        "gracePeriodSeconds": 86_400,
        "domainSeparator": to_hex(domain_separator(Deployment(31337, address))),
        "predicted": True,
    }


def test_an_argument_the_option_or_the_environment_name_another_contract(
    run: Run, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = checksum_address(deploy(sender, grace_seconds=600).address)
    assert printed(run, "verify", address)["gracePeriodSeconds"] == 600
    assert printed(run, "verify", "--contract", address)["address"] == address
    monkeypatch.setenv("CHANNELPAY_CONTRACT", address)
    assert printed(run, "verify")["predicted"]


def test_a_genuine_contract_may_be_elsewhere(run: Run, sender: Sender) -> None:
    deploy(sender)
    init_code = artifacts.payment_channels().bytecode + DAY
    found = printed(run, "verify", created(sender, init_code, salt=bytes(31) + b"\1"))
    assert (found["genuine"], found["predicted"]) == (True, False)


def test_an_address_without_code_is_not_the_contract(run: Run, chain: DevChain) -> None:
    problem = refusal(run, "verify", checksum_address(chain.accounts[3].address))
    assert (problem["code"], problem["exitCode"]) == ("not-found", 5)
    assert "contract deploy" in problem["hint"]
    assert refusal(run, "verify")["code"] == "not-found"


def test_another_contract_is_not_the_contract(run: Run, sender: Sender) -> None:
    problem = refusal(run, "verify", checksum_address(deploy_test_token(sender).address))
    assert (problem["code"], problem["exitCode"]) == ("not-genuine", 5)
    assert "contract address" in problem["hint"]


def created(sender: Sender, init_code: bytes, salt: bytes = SALT) -> str:
    """Create a contract through the deployer, which must be there."""
    sender.send(ContractCall(DEPLOYER, salt + init_code))
    return checksum_address(keccak(b"\xff" + DEPLOYER + salt + keccak(init_code))[12:])


def planted(sender: Sender, code: bytes) -> str:
    """A contract with exactly this code, which no constructor has made."""
    return_what_follows = bytes.fromhex(f"61{len(code):04x}80600c6000396000f3")
    return created(sender, return_what_follows + code)


def with_word(code: bytes, places: list[int], value: int) -> bytes:
    changed = bytearray(code)
    for place in places:
        changed[place : place + 32] = value.to_bytes(32, "big")
    return bytes(changed)


@pytest.fixture
def genuine(sender: Sender) -> bytes:
    """The code of the canonical contract."""
    return sender.connection.code(deploy(sender).address)


@pytest.fixture
def grace_places(genuine: bytes) -> list[int]:
    """Where that code has the grace period."""
    ranges = artifacts.payment_channels().immutable_ranges
    (places,) = [[start for start, _ in one] for one in ranges if genuine[one[0][0] :][:32] == DAY]
    return places


def test_a_copy_of_the_code_is_not_the_contract(run: Run, sender: Sender, genuine: bytes) -> None:
    problem = refusal(run, "verify", planted(sender, genuine))
    assert (problem["code"], problem["exitCode"]) == ("not-genuine", 5)
    assert "another address or chain" in problem["detail"]


@pytest.mark.parametrize("seconds", [0, 599])
def test_a_short_grace_period_is_not_genuine(
    run: Run, sender: Sender, genuine: bytes, grace_places: list[int], seconds: int
) -> None:
    short = planted(sender, with_word(genuine, grace_places, seconds))
    assert f"grace period of {seconds} s" in refusal(run, "verify", short)["detail"]


def test_a_grace_period_that_only_the_getter_knows_is_not_genuine(
    run: Run, sender: Sender, genuine: bytes, grace_places: list[int]
) -> None:
    assert len(grace_places) > 1
    for place in grace_places:
        two_faced = planted(sender, with_word(genuine, [place], 600))
        assert "two values" in refusal(run, "verify", two_faced)["detail"]


def test_one_other_byte_is_not_the_contract(run: Run, sender: Sender, genuine: bytes) -> None:
    for place in (0, len(genuine) - 1):
        code = bytearray(genuine)
        code[place] ^= 1
        problem = refusal(run, "verify", planted(sender, bytes(code)))
        assert f"byte {place} differs" in problem["detail"]
    longer = refusal(run, "verify", planted(sender, genuine + b"\0"))
    assert f"{len(genuine) + 1} bytes" in longer["detail"]


# --- abi and address -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "artifact"),
    [
        ([], artifacts.payment_channels()),
        (["payment-channels"], artifacts.payment_channels()),
        (["revenue-splitter"], artifacts.revenue_splitter()),
        ([FACTORY], artifacts.revenue_splitter_factory()),
        (["test-token"], artifacts.test_token()),
    ],
)
def test_the_abi_is_the_artifacts(run: Run, name: list[str], artifact: artifacts.Artifact) -> None:
    result = run("contract", "abi", *name)
    assert json.loads(result.stdout) == list(artifact.abi)
    assert result.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ([], 86_400),
        (["--grace-period", "1d"], 86_400),
        (["--grace-period", "12h"], 43_200),
        (["--grace-period", "10m"], 600),
        (["--grace-period", "601s"], 601),
        (["--grace-period", "600"], 600),
    ],
)
def test_the_address_can_be_computed_from_what_is_printed(
    run: Run, options: list[str], seconds: int
) -> None:
    members = printed(run, "address", *options)
    deployer, salt, code_hash = (
        bytes.fromhex(members[name][2:]) for name in ("deployer", "salt", "initCodeHash")
    )
    code = artifacts.payment_channels().bytecode + seconds.to_bytes(32, "big")
    assert code_hash == keccak(code)
    address = keccak(b"\xff" + deployer + salt + code_hash)[12:]
    assert members["address"] == checksum_address(address)
    assert members["gracePeriodSeconds"] == seconds


def test_the_address_that_is_printed_is_the_one_of_the_deployment(run: Run, sender: Sender) -> None:
    for seconds in (86_400, 43_200):
        address = printed(run, "address", "--grace-period", seconds)["address"]
        assert address == checksum_address(deploy(sender, grace_seconds=seconds).address)


def test_a_person_gets_tables_with_whole_addresses_and_hashes(
    run: Run, chain: DevChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = printed(run, "address")
    monkeypatch.setattr(Output, "of_process", classmethod(lambda cls: cls(as_json=False)))
    for command in ("address", "deploy", "deploy", "verify"):
        assert members["address"] in values_of(run("contract", command, env={"COLUMNS": "60"}))
    shown = values_of(run("contract", "address", env={"COLUMNS": "60"}))
    assert members["initCodeHash"] in shown
    assert "1d" in shown


def values_of(result: Result) -> str:
    """The table's second column, with folded values put together."""
    lines = [line for line in result.stdout.splitlines() if "│" in line]
    return "".join(line.split("│")[2].strip() for line in lines)
