"""Where the contract is on every chain: its CREATE2 address, computed without asking a node.

The deployer is the one that most chains already carry
(github.com/Arachnid/deterministic-deployment-proxy).
"""

from __future__ import annotations

from dataclasses import dataclass

from channelpay.chain.artifacts import (
    Artifact,
    payment_channels,
    payouts,
    revenue_splitter_factory,
)
from channelpay.errors import ConfigError
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import (
    GRACE_SECONDS_CANONICAL,
    GRACE_SECONDS_MAX,
    GRACE_SECONDS_MIN,
    Address,
)

DEPLOYER = Address(bytes.fromhex("4e59b44847b379578588920ca78fbf26c0b4956c"))
SALT = bytes(32)


@dataclass(frozen=True, slots=True)
class Creation:
    """An ownerless contract before it is there. ``init_code`` is what the deployer runs: bytecode
    and constructor arguments.
    """

    artifact: Artifact
    init_code: bytes

    @property
    def init_code_hash(self) -> bytes:
        """32 bytes."""
        return keccak256(self.init_code)

    @property
    def address(self) -> Address:
        """Where the deployer puts it (EIP-1014)."""
        return Address(keccak256(b"\xff" + DEPLOYER + SALT + self.init_code_hash)[12:])


def predicted_address(grace_seconds: int = GRACE_SECONDS_CANONICAL) -> Address:
    """Where the contract with this grace period is, or will be."""
    return payment_channels_creation(grace_seconds).address


def payment_channels_creation(grace_seconds: int = GRACE_SECONDS_CANONICAL) -> Creation:
    """The contract with this grace period; :class:`ConfigError` for one under ten minutes or over
    thirty days.
    """
    if not GRACE_SECONDS_MIN <= grace_seconds <= GRACE_SECONDS_MAX:
        raise ConfigError(
            f"a grace period of {grace_seconds} s is too short or too long",
            hint=f"Choose one of {GRACE_SECONDS_MIN} to {GRACE_SECONDS_MAX} s.",
        )
    artifact = payment_channels()
    return Creation(artifact, artifact.bytecode + grace_seconds.to_bytes(32, "big"))


def revenue_splitter_factory_creation() -> Creation:
    """The factory of payees that are groups."""
    artifact = revenue_splitter_factory()
    return Creation(artifact, artifact.bytecode)


def payouts_creation() -> Creation:
    """The contract that pays many receivers in one transaction."""
    artifact = payouts()
    return Creation(artifact, artifact.bytecode)
