"""Where the contract is on every chain: its CREATE2 address, computed without asking a node.

The deployer is the one that most chains already carry
(github.com/Arachnid/deterministic-deployment-proxy).
"""

from __future__ import annotations

from channelpay.chain.artifacts import payment_channels
from channelpay.errors import ConfigError
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import GRACE_SECONDS_CANONICAL, GRACE_SECONDS_MIN, Address

DEPLOYER = Address(bytes.fromhex("4e59b44847b379578588920ca78fbf26c0b4956c"))
SALT = bytes(32)


def predicted_address(grace_seconds: int = GRACE_SECONDS_CANONICAL) -> Address:
    """Where the contract with this grace period is, or will be."""
    return create2_address(creation_code(grace_seconds))


def creation_code(grace_seconds: int) -> bytes:
    """What deploys the contract. Raises :class:`ConfigError` for less than ten minutes."""
    if grace_seconds < GRACE_SECONDS_MIN:
        raise ConfigError(
            f"a grace period of {grace_seconds} s is too short",
            hint=f"The contract takes {GRACE_SECONDS_MIN} s and more.",
        )
    return payment_channels().bytecode + grace_seconds.to_bytes(32, "big")


def create2_address(code: bytes) -> Address:
    """Where the deployer puts a contract of this creation code."""
    return Address(keccak256(b"\xff" + DEPLOYER + SALT + keccak256(code))[12:])
