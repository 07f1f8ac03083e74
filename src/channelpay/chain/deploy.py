"""Deterministic deployment: the same contract has the same address on every chain.

Where the deployer of :mod:`channelpay.chain.create2` is missing, its well-known presigned
transaction puts it there: nobody has the key of that transaction's sender, so it can create nothing
else.
"""

from __future__ import annotations

from dataclasses import dataclass

from channelpay.chain.artifacts import Artifact, payment_channels, test_token
from channelpay.chain.connection import NodeRefused, checksum
from channelpay.chain.create2 import DEPLOYER, SALT, create2_address, creation_code
from channelpay.chain.sender import Sender
from channelpay.chain.types import ContractCall
from channelpay.errors import ChainReverted, ConfigError
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import GRACE_SECONDS_CANONICAL, Address

_DEPLOYER_SENDER = Address(bytes.fromhex("3fab184622dc19b6109349b94811493bf2a45362"))
_DEPLOYER_COST_WEI = 100_000 * 100 * 10**9
_DEPLOYER_TRANSACTION = bytes.fromhex(
    "f8a58085174876e800830186a08080b853604580600e600039806000f350fe7fffffffffffffffffffffffffff"
    "ffffffffffffffffffffffffffffffffffffe03601600081602082378035828234f58015156039578182fd5b80"
    "82525050506014600cf31ba02222222222222222222222222222222222222222222222222222222222222222a0"
    "2222222222222222222222222222222222222222222222222222222222222222"
)


@dataclass(frozen=True, slots=True)
class Deployed:
    """A contract that is there now; ``transaction_hash`` (32 bytes) if this call created it."""

    address: Address
    transaction_hash: bytes | None

    @property
    def already_there(self) -> bool:
        return self.transaction_hash is None


def deploy(sender: Sender, *, grace_seconds: int = GRACE_SECONDS_CANONICAL) -> Deployed:
    """Deploy PaymentChannels with this grace period, unless it is there already.

    Raises :class:`ConfigError` for a grace period under ten minutes, and what :meth:`Sender.send`
    raises.
    """
    return _deploy(sender, payment_channels(), creation_code(grace_seconds))


def deploy_test_token(sender: Sender) -> Deployed:
    """Deploy the test token, unless it is there already. For local chains: anyone may mint it."""
    artifact = test_token()
    return _deploy(sender, artifact, artifact.bytecode)


def _deploy(sender: Sender, artifact: Artifact, code_to_run: bytes) -> Deployed:
    address = create2_address(code_to_run)
    code = sender.connection.code(address)
    transaction_hash = None
    if not code:
        _ensure_deployer(sender)
        transaction_hash = sender.send(ContractCall(DEPLOYER, SALT + code_to_run)).transaction_hash
        code = sender.connection.code(address)
    if not artifact.is_code(code):
        raise ChainReverted(f"the code at {checksum(address)} is not {artifact.name}")
    return Deployed(address, transaction_hash)


def _ensure_deployer(sender: Sender) -> None:
    connection = sender.connection
    if connection.code(DEPLOYER):
        return
    missing_wei = _DEPLOYER_COST_WEI - connection.balance_wei(_DEPLOYER_SENDER)
    if missing_wei > 0:
        sender.send(ContractCall(_DEPLOYER_SENDER, value_wei=missing_wei))
    try:
        connection.send_raw_transaction(_DEPLOYER_TRANSACTION)
    except NodeRefused as error:
        raise ConfigError(
            f"the chain lacks the deterministic deployer and refuses to create it: {error.detail}",
            hint="Ask the chain's operators for the deployer at " + checksum(DEPLOYER) + ".",
        ) from error
    sender.wait(keccak256(_DEPLOYER_TRANSACTION), ContractCall(DEPLOYER))
