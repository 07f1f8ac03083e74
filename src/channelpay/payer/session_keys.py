"""Keys that sign vouchers, one for each lane of channels, so that the account's own key signs
transactions alone and no two payees see the same signer.

They come from one secret and what the contract's events tell of a channel: nothing is kept, and
whoever has that secret has them again. It is made from the account's key, where that is at hand;
with a hardware wallet it is one of its own.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from itertools import count

from channelpay.errors import ConfigError
from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import EPOCH_BYTES, ZERO_ADDRESS, Address, Channel, Deployment

SEED_LABEL = b"channelpay session keys, version 1"
CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Of secp256k1: a key is above zero and below it."""


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """The session keys of one account. ``seed`` is 32 bytes, as secret as the account's key.
    ``account_key`` is that key, where it is at hand.
    """

    seed: bytes = field(repr=False)
    account_key: bytes | None = field(default=None, repr=False)

    @classmethod
    def of_account(cls, secret: bytes) -> SessionKeys:
        """Those of an account whose key (32 bytes) is at hand."""
        return cls(hmac.digest(secret, SEED_LABEL, "sha256"), secret)

    def signer(self, deployment: Deployment, channel: Channel) -> VoucherSigner:
        """Signs the vouchers of this channel and of all others of its lane; ``channel``'s own
        ``authorized_signer`` does not matter.
        """
        return VoucherSigner(deployment, self._key(deployment, channel))

    def address(self, deployment: Deployment, channel: Channel) -> Address:
        """The ``authorized_signer`` of such a channel."""
        return self.signer(deployment, channel).address

    def can_sign(self, deployment: Deployment, channel: Channel) -> bool:
        """Whether we have the key of this channel: the account's own, or one of these."""
        if channel.authorized_signer == ZERO_ADDRESS:
            return self.account_key is not None
        return channel.authorized_signer == self.address(deployment, channel)

    def signer_of(self, deployment: Deployment, channel: Channel) -> VoucherSigner:
        """Signs the vouchers of this very channel. Raises :class:`ConfigError` if we do not have
        its key.
        """
        if not self.can_sign(deployment, channel):
            raise ConfigError(
                f"the vouchers of {to_hex(channel.id(deployment))} are signed by a key that is not"
                " here: another program's, or one that was lost",
                hint="Pay with the program that opened it, or take the deposit back: channelpay"
                " channel close --request",
            )
        if channel.authorized_signer == ZERO_ADDRESS and self.account_key is not None:
            return VoucherSigner(deployment, self.account_key)
        return self.signer(deployment, channel)

    def _key(self, deployment: Deployment, channel: Channel) -> bytes:
        parts = (
            deployment.chain_id.to_bytes(32, "big"),
            deployment.contract,
            channel.payee,
            channel.token,
            channel.salt[:-EPOCH_BYTES],
        )
        for attempt in count():
            text = b"".join(parts) + attempt.to_bytes(4, "big")
            key = hmac.digest(self.seed, text, "sha256")
            if 0 < int.from_bytes(key, "big") < CURVE_ORDER:
                return key
        raise AssertionError  # count() does not end
