"""Accounts whose transactions another wallet sends: a smart-contract wallet, or any other of which
there is no key here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from channelpay.chain.types import SignedTransaction
from channelpay.errors import ConfigError
from channelpay.protocol.text import checksum_address
from channelpay.protocol.types import Address


@dataclass(frozen=True, slots=True)
class OutsideAccount:
    """Such an account. It pays from channels that its wallet opened, and signs no transaction."""

    account: Address

    @property
    def address(self) -> str:
        return checksum_address(self.account)

    def sign_transaction(self, _: dict[str, Any], /) -> SignedTransaction:
        """Raises :class:`ConfigError`: there is no key."""
        raise self.refusal

    @property
    def refusal(self) -> ConfigError:
        return ConfigError(
            f"the transactions of {self.address} are sent by its own wallet",
            hint="What to send says: channelpay channel open, top-up, close --request, withdraw.",
        )
