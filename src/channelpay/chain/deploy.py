"""Deterministic deployment: the same contract has the same address on every chain.

Where the deployer of :mod:`channelpay.chain.create2` is missing, its well-known presigned
transaction puts it there: nobody has the key of that transaction's sender, so it can create nothing
else.
"""

from __future__ import annotations

from dataclasses import dataclass

from channelpay.chain.artifacts import test_token
from channelpay.chain.connection import Connection, NodeRefused, checksum
from channelpay.chain.create2 import DEPLOYER, SALT, Creation, payment_channels_creation
from channelpay.chain.preparation import (
    fee_market,
    gas_estimate,
    require_balance,
    with_margin,
)
from channelpay.chain.sender import Sender
from channelpay.chain.types import ContractCall, TransactionReceipt, Trial, Tried
from channelpay.errors import ConfigError, NotGenuine
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import GRACE_SECONDS_CANONICAL, Address

_DEPLOYER_SENDER = Address(bytes.fromhex("3fab184622dc19b6109349b94811493bf2a45362"))
_DEPLOYER_COST_WEI = 100_000 * 100 * 10**9
_CREATION_GAS = 21_000 + 32_000
"""Of a transaction and of CREATE2."""
_GAS_PER_INIT_BYTE = 19
"""16 as calldata, and 3 to hash and run it: measured."""
_GAS_PER_CODE_BYTE = 200
_DEPLOYER_TRANSACTION = bytes.fromhex(
    "f8a58085174876e800830186a08080b853604580600e600039806000f350fe7fffffffffffffffffffffffffff"
    "ffffffffffffffffffffffffffffffffffffe03601600081602082378035828234f58015156039578182fd5b80"
    "82525050506014600cf31ba02222222222222222222222222222222222222222222222222222222222222222a0"
    "2222222222222222222222222222222222222222222222222222222222222222"
)


@dataclass(frozen=True, slots=True)
class Deployed:
    """A contract that is there now; ``receipt`` of the transaction if this call created it."""

    address: Address
    receipt: TransactionReceipt | None

    @property
    def already_there(self) -> bool:
        return self.receipt is None


def deploy(sender: Sender, *, grace_seconds: int = GRACE_SECONDS_CANONICAL) -> Deployed:
    """Deploy PaymentChannels with this grace period, unless it is there already.

    Raises :class:`ConfigError` for a grace period under ten minutes, and what :meth:`Sender.send`
    raises.
    """
    return create(sender, payment_channels_creation(grace_seconds))


def deploy_test_token(sender: Sender) -> Deployed:
    """Deploy the test token, unless it is there already. For local chains: anyone may mint it."""
    artifact = test_token()
    return create(sender, Creation(artifact, artifact.bytecode))


def create(sender: Sender, creation: Creation) -> Deployed:
    """Deploy a contract, unless it is there already. Raises :class:`NotGenuine` if the node then
    shows other code at its address, and what :meth:`Sender.send` raises.
    """
    if is_there(sender.connection, creation):
        return Deployed(creation.address, None)
    _ensure_deployer(sender)
    receipt = sender.send(ContractCall(DEPLOYER, SALT + creation.init_code))
    if not is_there(sender.connection, creation):
        raise _other_code(creation, "there is none")
    return Deployed(creation.address, receipt)


def try_create(connection: Connection, creation: Creation, account: Address) -> list[Tried]:
    """What :func:`create` would send from ``account``, use and cost, where the contract is missing.
    Nothing is signed or sent; raises what it raises before that.
    """
    market, missing_wei = fee_market(connection), deployer_cost_wei(connection)
    call, price_wei = ContractCall(DEPLOYER, SALT + creation.init_code), market.price_wei
    if missing_wei is None:
        tried = [Tried("deploy", Trial(gas_estimate(connection, call, account), price_wei))]
    else:
        funding = ContractCall(_DEPLOYER_SENDER, value_wei=missing_wei)
        tried = [
            Tried("fundDeployer", Trial(gas_estimate(connection, funding, account), price_wei)),
            Tried("deploy", Trial(_creation_gas(creation), price_wei), was_tried=False),
        ]
    gas_max = with_margin(sum(one.trial.gas for one in tried), call)
    cost_max_wei = (missing_wei or 0) + gas_max * market.usual.max_fee_wei
    require_balance(account, connection.balance_wei(account), cost_max_wei)
    return tried


def _creation_gas(creation: Creation) -> int:
    """What cannot be tried, since the deployer is missing: by the sizes, which is nearly all."""
    code = creation.artifact.deployed_bytecode
    made_of = _GAS_PER_INIT_BYTE * len(creation.init_code)
    return _CREATION_GAS + made_of + _GAS_PER_CODE_BYTE * len(code)


def is_there(connection: Connection, creation: Creation) -> bool:
    """Whether the contract is deployed. Raises :class:`NotGenuine` for other code."""
    code = connection.code(creation.address)
    if not code:
        return False
    difference = creation.artifact.difference(code)
    if difference:
        raise _other_code(creation, difference)
    return True


def _other_code(creation: Creation, difference: str) -> NotGenuine:
    return NotGenuine(
        f"the code at {checksum(creation.address)} is not {creation.artifact.name}: {difference}",
        hint="Ask another node of this chain: no other code can be at this address.",
    )


def deployer_cost_wei(connection: Connection) -> int | None:
    """What has to be paid to put the deployer there, beside gas; None if it is there."""
    if connection.code(DEPLOYER):
        return None
    return max(0, _DEPLOYER_COST_WEI - connection.balance_wei(_DEPLOYER_SENDER))


def _ensure_deployer(sender: Sender) -> None:
    connection = sender.connection
    missing_wei = deployer_cost_wei(connection)
    if missing_wei is None:
        return
    if missing_wei:
        sender.send(ContractCall(_DEPLOYER_SENDER, value_wei=missing_wei))
    try:
        connection.send_raw_transaction(_DEPLOYER_TRANSACTION)
    except NodeRefused as error:
        raise ConfigError(
            f"the chain lacks the deterministic deployer and refuses to create it: {error.detail}",
            hint="Ask the chain's operators for the deployer at " + checksum(DEPLOYER) + ".",
        ) from error
    sender.wait(keccak256(_DEPLOYER_TRANSACTION), ContractCall(DEPLOYER))
