"""The funded accounts of a development chain.

Their keys derive from a mnemonic that every Ethereum developer knows, the default of anvil and
Hardhat, so the accounts are the same on the embedded chain and on anvil. Anybody can spend what
they hold: they are for local chains only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

from coincurve import PrivateKey

from channelpay.protocol.eip712 import address_of
from channelpay.protocol.types import Address

MNEMONIC = "test test test test test test test test test test test junk"
ACCOUNT_COUNT = 10
FUNDED_COUNT = ACCOUNT_COUNT + 1
BALANCE_WEI = 10_000 * 10**18
"""What each account holds at the start."""
TOKENS_EACH = 1_000_000 * 10**6
"""Base units of the test token that each account gets where a chain is furnished with it."""


@dataclass(frozen=True, slots=True)
class DevAccount:
    """An address (20 bytes) and its private key (32 bytes, public knowledge)."""

    address: Address
    private_key: bytes = field(repr=False)


def dev_accounts() -> tuple[DevAccount, ...]:
    """The ten accounts ``m/44'/60'/0'/0/0`` to ``…/9`` of :data:`MNEMONIC`."""
    return _derived()[:ACCOUNT_COUNT]


def deployer_account() -> DevAccount:
    """An eleventh account, which furnishes the chain: the ten start with all their ether."""
    return _derived()[ACCOUNT_COUNT]


@cache
def _derived() -> tuple[DevAccount, ...]:
    # Takes half a second to import, which the process that only runs anvil need not wait for.
    from eth_account.hdaccount import key_from_seed, seed_from_mnemonic

    seed = seed_from_mnemonic(MNEMONIC, "")
    paths = (f"m/44'/60'/0'/0/{index}" for index in range(FUNDED_COUNT))
    return tuple(account_of(key_from_seed(seed, path)) for path in paths)


def account_of(private_key: bytes) -> DevAccount:
    public_key = PrivateKey(private_key).public_key.format(compressed=False)
    return DevAccount(address_of(public_key[1:]), private_key)
