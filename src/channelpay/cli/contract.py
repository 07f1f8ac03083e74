"""``channelpay contract``: deploy, verify, abi, address."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from channelpay.chain import artifacts
from channelpay.chain.create2 import (
    DEPLOYER,
    SALT,
    Creation,
    payment_channels_creation,
    payouts_creation,
    predicted_address,
    revenue_splitter_factory_creation,
)
from channelpay.cli.common import (
    Setting,
    account_option,
    chosen_account,
    connected,
    contract_address,
    contract_option,
    duration_text,
    grace_period,
    pass_output,
    password_option,
    paying_account,
    rpc_option,
)
from channelpay.cli.consent import DRY_RUN_PASSED, Consent, Preview, consent_options
from channelpay.cli.explorer import address_link, link_facts, link_members
from channelpay.cli.output import Output, facts_table, json_option
from channelpay.errors import InputError
from channelpay.protocol.eip712 import domain_separator
from channelpay.protocol.text import checksum_address, format_amount, to_hex
from channelpay.protocol.types import GRACE_SECONDS_CANONICAL, Deployment

if TYPE_CHECKING:
    from channelpay.chain.connection import Connection
    from channelpay.chain.types import TransactionReceipt

PAYMENT_CHANNELS = "payment-channels"
FACTORY = "revenue-splitter-factory"
PAYOUTS = "payouts"
_ARTIFACTS = {
    PAYMENT_CHANNELS: artifacts.payment_channels,
    "revenue-splitter": artifacts.revenue_splitter,
    FACTORY: artifacts.revenue_splitter_factory,
    PAYOUTS: artifacts.payouts,
    "test-token": artifacts.test_token,
}
_AGAIN = "Run the command again: nothing is deployed twice."
_ETHER_DECIMALS = 18


@click.group()
def contract() -> None:
    """The contract itself: deploy, verify, abi, address.

    It has no owner: whoever deploys it gets no power over it. Its address is the same on every
    chain.
    """


def _creation_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """NAME and ``--grace-period``, which :func:`_creation` understands."""
    named = click.argument(
        "name",
        type=click.Choice([PAYMENT_CHANNELS, FACTORY, PAYOUTS]),
        default=PAYMENT_CHANNELS,
        metavar="[NAME]",
    )
    lasting = click.option(
        "--grace-period",
        "grace_seconds",
        callback=grace_period,
        metavar="DURATION",
        help="From a close request to the earliest withdrawal (default: 1d). Another one is another"
        " address.",
    )
    return named(lasting(command))


@contract.command(
    epilog="Example: channelpay contract deploy --rpc http://127.0.0.1:8545 --account main"
)
@_creation_options
@consent_options
@rpc_option
@account_option
@password_option
@json_option
@pass_output
def deploy(
    output: Output,
    /,
    *,
    name: str,
    grace_seconds: int | None,
    consent: Consent,
    rpc: str | None,
    account: str | None,
    password_file: Path | None,
) -> int:
    """Put a contract on a chain, unless it is there already.

    NAME is payment-channels, if not given, revenue-splitter-factory or payouts.

    It goes through the deterministic deployer that most chains carry; where that is missing, it is
    put there first.
    """
    creation = _creation(name, grace_seconds)
    address = checksum_address(creation.address)
    output.note(f"{creation.artifact.name} belongs at {address}.", {"address": address})
    from channelpay.chain.deploy import is_there

    connection = connected(rpc)
    if is_there(connection, creation):
        _show_deployed(output, connection.chain_id, creation, None)
        return DRY_RUN_PASSED if consent.dry_run else 0
    setting = Setting(rpc, None, account, password_file)
    if not consent.given(output, lambda: _preview(connection, creation, setting)):
        return DRY_RUN_PASSED
    receipt = _deployed(output, connection, creation, setting)
    _show_deployed(output, connection.chain_id, creation, receipt)
    return 0


@contract.command(epilog="Example: channelpay contract verify --rpc http://127.0.0.1:8545")
@click.argument("address", required=False)
@rpc_option
@contract_option
@json_option
@pass_output
def verify(output: Output, address: str | None, rpc: str | None, contract: str | None) -> None:
    """Check that the code at ADDRESS is the contract of this package, byte for byte.

    Also that it was made for this address and chain, and that its grace period is ten minutes or
    more. Without ADDRESS it is the contract that --contract names, or the canonical one.
    """
    named = contract_address(Setting(rpc, address or contract, None, None))
    connection = connected(rpc)
    from channelpay.chain.contract import PaymentChannelsContract

    deployment = Deployment(connection.chain_id, named or predicted_address())
    found = PaymentChannelsContract(connection, deployment)
    found.require_genuine()
    _show_genuine(output, deployment, found.grace_period_seconds())


@contract.command(epilog="Example: channelpay contract abi > PaymentChannels.abi.json")
@click.argument(
    "name", type=click.Choice(list(_ARTIFACTS)), default=PAYMENT_CHANNELS, metavar="[NAME]"
)
@json_option
@pass_output
def abi(output: Output, name: str) -> None:
    """Print the ABI of a contract as JSON, for wallets, explorers and other languages.

    NAME is payment-channels, if not given, revenue-splitter, revenue-splitter-factory, payouts or
    test-token.
    """
    click.echo(json.dumps(_ARTIFACTS[name]().abi, indent=None if output.as_json else 2))


@contract.command(epilog="Example: channelpay contract address --grace-period 12h")
@_creation_options
@json_option
@pass_output
def address(output: Output, name: str, grace_seconds: int | None) -> None:
    """Say where a contract is on every chain, without asking a node.

    NAME is payment-channels, if not given, revenue-splitter-factory or payouts.

    The address is the last 20 bytes of keccak256(0xff ++ deployer ++ salt ++ init code hash), as
    EIP-1014 says. The init code is the bytecode; that of payment-channels is followed by the grace
    period in seconds as a word of 32 bytes.
    """
    creation = _creation(name, grace_seconds)
    place: dict[str, Any] = {
        "address": checksum_address(creation.address),
        "deployer": checksum_address(DEPLOYER),
        "salt": to_hex(SALT),
        "initCodeHash": to_hex(creation.init_code_hash),
    }
    shown = {
        "Contract": creation.artifact.name,
        "Address": place["address"],
        "Deployer": place["deployer"],
        "Salt": place["salt"],
        "Init code hash": place["initCodeHash"],
    }
    if name == PAYMENT_CHANNELS:
        place["gracePeriodSeconds"] = grace_seconds or GRACE_SECONDS_CANONICAL
        shown["Grace period"] = duration_text(place["gracePeriodSeconds"])
    link = address_link(creation.address)
    members = {"name": creation.artifact.name} | place | link_members(link)
    output.show(members, lambda: facts_table(shown | link_facts(link)))


# --- steps of the commands -----------------------------------------------------------------------


def _creation(name: str, grace_seconds: int | None) -> Creation:
    if name == PAYMENT_CHANNELS:
        return payment_channels_creation(grace_seconds or GRACE_SECONDS_CANONICAL)
    if grace_seconds is not None:
        raise InputError(f"{name} has no grace period", hint="Leave --grace-period out.")
    return payouts_creation() if name == PAYOUTS else revenue_splitter_factory_creation()


def _deployed(
    output: Output, connection: Connection, creation: Creation, setting: Setting
) -> TransactionReceipt | None:
    """Asks for the password."""
    from channelpay.chain.deploy import create, deployer_cost_wei
    from channelpay.chain.sender import Sender, SendPolicy

    cost_wei = deployer_cost_wei(connection)
    if cost_wei is not None:
        output.note(
            f"The chain lacks the deterministic deployer {checksum_address(DEPLOYER)}."
            f" To put it there costs {_ether(cost_wei)} more.",
            {"deployerCostWei": str(cost_wei)},
        )
    account = paying_account(setting, output).signer
    sender = Sender(connection, account, SendPolicy(listener=output.told))
    with output.waiting(f"Deploying {creation.artifact.name}", after_interrupt=_AGAIN):
        return create(sender, creation).receipt


def _preview(connection: Connection, creation: Creation, setting: Setting) -> Preview:
    """Of a contract that is missing; needs no password."""
    from channelpay.chain.deploy import deployer_cost_wei, try_create

    account = chosen_account(setting.account).address
    result = {
        "name": creation.artifact.name,
        "address": checksum_address(creation.address),
        "chainId": connection.chain_id,
        "account": checksum_address(account),
    }
    facts = {
        "Would": f"deploy {creation.artifact.name}",
        "Address": checksum_address(creation.address),
        "Chain id": str(connection.chain_id),
        "From": checksum_address(account),
    }
    missing_wei = deployer_cost_wei(connection)
    if missing_wei is not None:
        result["deployerCostWei"] = str(missing_wei)
        facts["Before"] = f"put the deterministic deployer there, for {_ether(missing_wei)} more"
    tried = try_create(connection, creation, account)
    return Preview("deploy", tried, result, facts, "Deploy it?")


# --- what is shown -------------------------------------------------------------------------------


def _show_deployed(
    output: Output, chain_id: int, creation: Creation, receipt: TransactionReceipt | None
) -> None:
    members: dict[str, Any] = {
        "name": creation.artifact.name,
        "address": checksum_address(creation.address),
        "chainId": chain_id,
        "alreadyThere": receipt is None,
    }
    shown = {
        "Contract": creation.artifact.name,
        "Address": members["address"],
        "Chain id": str(chain_id),
        "Code": "that of this package" + (", and was there already" if receipt is None else ""),
    }
    if receipt is not None:
        transaction_hash = to_hex(receipt.transaction_hash)
        members |= {
            "txHash": transaction_hash,
            "gasUsed": receipt.gas_used,
            "feeWei": str(receipt.fee_wei),
        }
        shown |= {
            "Transaction": transaction_hash,
            "Gas used": f"{receipt.gas_used:,}",
            "Gas fee": _ether(receipt.fee_wei),
        }
    link = address_link(creation.address, chain_id)
    output.show(members | link_members(link), lambda: facts_table(shown | link_facts(link)))


def _show_genuine(output: Output, deployment: Deployment, grace_seconds: int) -> None:
    artifact = artifacts.payment_channels()
    predicted = deployment.contract == predicted_address(grace_seconds)
    members = {
        "name": artifact.name,
        "address": checksum_address(deployment.contract),
        "chainId": deployment.chain_id,
        "genuine": True,
        "codeBytes": len(artifact.deployed_bytecode),
        "gracePeriodSeconds": grace_seconds,
        "domainSeparator": to_hex(domain_separator(deployment)),
        "predicted": predicted,
    }
    shown = {
        "Contract": f"{artifact.name}, genuine",
        "Address": checksum_address(deployment.contract),
        "Predicted": "yes, on every chain" if predicted else "no, deployed in another way",
        "Chain id": str(deployment.chain_id),
        "Code": f"that of this package, all {len(artifact.deployed_bytecode):,} bytes",
        "Grace period": duration_text(grace_seconds),
        "Domain separator": to_hex(domain_separator(deployment)),
    }
    link = address_link(deployment.contract, deployment.chain_id)
    output.show(members | link_members(link), lambda: facts_table(shown | link_facts(link)))


def _ether(amount_wei: int) -> str:
    return format_amount(amount_wei, _ETHER_DECIMALS, "ETH")
