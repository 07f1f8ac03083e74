"""EIP-712 vouchers: digest, sign, recover. Own code since it runs once per micropayment. Beside
them the close authorization, which a payee signs once at the end of a channel.

``docs/decisions/0003-strict-recover.md`` says why the first voucher of a signer is checked by
recovering its key, and the others by verifying against it.
"""

from __future__ import annotations

from typing import Any

from coincurve import PrivateKey, PublicKey
from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT

from channelpay.errors import (
    InvalidSignature,
    MalleableSignature,
    SignerMismatch,
    WrongRecoveryId,
)
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import Address, ChannelId, Deployment, Voucher, abi_word

DOMAIN_NAME = "EVM Payment Channel"
DOMAIN_VERSION = "1"
SIGNATURE_BYTES = 65
KEYS_MAX = 100_000
"""Parsed keys that a checker keeps, 0.2 kB each; the oldest makes room for a new one."""

DOMAIN_TYPEHASH = keccak256(
    b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
VOUCHER_TYPEHASH = keccak256(b"Voucher(bytes32 channelId,uint128 cumulativeAmount)")
CLOSE_AUTHORIZATION_TYPEHASH = keccak256(
    b"CloseAuthorization(bytes32 channelId,uint128 cumulativeAmount)"
)

_HALF_ORDER = bytes.fromhex("7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0")
_V_OFFSET = 27
_VS = (27, 28)
_CONTEXT = GLOBAL_CONTEXT.ctx


def domain_separator(deployment: Deployment) -> bytes:
    """The 32-byte EIP-712 domain separator of one contract on one chain."""
    return keccak256(
        DOMAIN_TYPEHASH
        + keccak256(DOMAIN_NAME.encode())
        + keccak256(DOMAIN_VERSION.encode())
        + deployment.chain_id.to_bytes(32, "big")
        + abi_word(deployment.contract)
    )


def address_of(public_key: bytes) -> Address:
    """The address of an uncompressed public key given as 64 bytes ``x || y``."""
    return Address(keccak256(public_key)[12:])


def close_authorization_digest(
    deployment: Deployment, channel_id: ChannelId, cumulative_amount: int
) -> bytes:
    """The 32 bytes that a payee signs to let anyone close the channel with this amount."""
    struct = CLOSE_AUTHORIZATION_TYPEHASH + channel_id + cumulative_amount.to_bytes(32, "big")
    return keccak256(b"\x19\x01" + domain_separator(deployment) + keccak256(struct))


def sign_close_authorization(
    deployment: Deployment, secret: bytes, channel_id: ChannelId, cumulative_amount: int
) -> bytes:
    """A payee's close authorization: 65 bytes ``r || s || v``, by its key (32 bytes)."""
    digest = close_authorization_digest(deployment, channel_id, cumulative_amount)
    return sign_digest(secret, digest)


def sign_digest(secret: bytes, digest: bytes) -> bytes:
    """65 bytes ``r || s || v`` over 32, by a key (32 bytes)."""
    return _sign(PrivateKey(secret), digest)


class VoucherSigner:
    """Signs the vouchers of one deployment with one key (32 bytes). The key is never printed."""

    def __init__(self, deployment: Deployment, secret: bytes) -> None:
        self._key = PrivateKey(secret)
        self._hasher = VoucherHasher(deployment)
        self.address: Address = address_of(self._key.public_key.format(compressed=False)[1:])

    def sign(self, channel_id: ChannelId, cumulative_amount: int) -> Voucher:
        """A voucher for ``cumulative_amount`` base units (0 to 2**128 - 1)."""
        digest = self._hasher.digest(channel_id, cumulative_amount)
        return Voucher(channel_id, cumulative_amount, _sign(self._key, digest))

    def __repr__(self) -> str:
        return f"VoucherSigner(0x{self.address.hex()})"


class VoucherHasher:
    """Digests and signers of the vouchers of one deployment, with the domain hashed once."""

    def __init__(self, deployment: Deployment) -> None:
        self._prefix = b"\x19\x01" + domain_separator(deployment)

    def digest(self, channel_id: ChannelId, cumulative_amount: int) -> bytes:
        """The 32 bytes that a voucher signs."""
        struct = VOUCHER_TYPEHASH + channel_id + cumulative_amount.to_bytes(32, "big")
        return keccak256(self._prefix + keccak256(struct))

    def check(self, voucher: Voucher, signer: Address) -> None:
        """Accept exactly what the contract accepts: 65 bytes, low s, v 27 or 28, signed by
        ``signer``.

        Raises :class:`WrongRecoveryId`, :class:`MalleableSignature`, :class:`InvalidSignature`,
        :class:`SignerMismatch`.
        """
        recovered = self.recover(voucher)
        if recovered == signer:
            return
        if self._signer_with_other_v(voucher) == signer:
            raise WrongRecoveryId("v is the other one of 27 and 28")
        raise SignerMismatch(f"signed by 0x{recovered.hex()}, not by 0x{signer.hex()}")

    def recover(self, voucher: Voucher) -> Address:
        """The address whose key signed this voucher in this domain."""
        return address_of(self.recover_key(voucher).format(compressed=False)[1:])

    def recover_key(self, voucher: Voucher) -> PublicKey:
        """The key that signed this voucher in this domain."""
        signature = voucher.signature
        if len(signature) != SIGNATURE_BYTES:
            raise InvalidSignature(f"a signature has 65 bytes, not {len(signature)}")
        v = signature[64]
        if v not in _VS:
            raise WrongRecoveryId(f"v is {v}")
        if signature[32:64] > _HALF_ORDER:
            raise MalleableSignature
        digest = self.digest(voucher.channel_id, voucher.cumulative_amount)
        try:
            return PublicKey.from_signature_and_message(
                signature[:64] + bytes([v - _V_OFFSET]), digest, hasher=None
            )
        except Exception as error:  # coincurve raises bare Exception and ValueError alike
            raise InvalidSignature("no key can have made this signature") from error

    def with_right_v(self, voucher: Voucher, signer: Address) -> Voucher:
        """The voucher with the ``v`` that the contract takes. A plain verification does not see it.

        Raises what :meth:`check` raises if ``signer`` did not sign the voucher.
        """
        if self._signer_with_other_v(voucher) == signer:
            return self.with_other_v(voucher)
        self.check(voucher, signer)
        return voucher

    @staticmethod
    def with_other_v(voucher: Voucher) -> Voucher:
        """The voucher with 28 for 27, or the other way round."""
        flipped = voucher.signature[:64] + bytes([sum(_VS) - voucher.signature[64]])
        return Voucher(voucher.channel_id, voucher.cumulative_amount, flipped)

    def _signer_with_other_v(self, voucher: Voucher) -> Address | None:
        try:
            return self.recover(self.with_other_v(voucher))
        except InvalidSignature:
            return None


class VoucherChecker:
    """Checks vouchers at the cost of a plain verification, against the keys of signers that were
    recovered once. For one thread.

    A verification takes the wrong one of the two values of ``v`` as well as the right one: what is
    settled has to pass :meth:`VoucherHasher.with_right_v` first.
    """

    def __init__(self, hasher: VoucherHasher) -> None:
        self._hasher = hasher
        self._keys: dict[Address, Any] = {}

    def check(self, voucher: Voucher, signer: Address) -> None:
        """Accept a voucher of 65 bytes with low s and v 27 or 28, signed by ``signer``.

        Raises what :meth:`VoucherHasher.check` raises.
        """
        key = self._keys.get(signer)
        if key is None:
            self._learn(voucher, signer)
        elif not self._is_signed_with(key, voucher):
            self._hasher.check(voucher, signer)

    def _is_signed_with(self, key: Any, voucher: Voucher) -> bool:
        signature = voucher.signature
        if len(signature) != SIGNATURE_BYTES or signature[64] not in _VS:
            return False
        digest = self._hasher.digest(voucher.channel_id, voucher.cumulative_amount)
        parsed = ffi.new("secp256k1_ecdsa_signature *")
        # Both refuse what is out of range, and the second a high s.
        return bool(
            lib.secp256k1_ecdsa_signature_parse_compact(_CONTEXT, parsed, signature)
            and lib.secp256k1_ecdsa_verify(_CONTEXT, parsed, digest, key)
        )

    def _learn(self, voucher: Voucher, signer: Address) -> None:
        self._hasher.check(voucher, signer)
        if len(self._keys) >= KEYS_MAX:
            del self._keys[next(iter(self._keys))]
        self._keys[signer] = self._hasher.recover_key(voucher).public_key


def _sign(key: PrivateKey, digest: bytes) -> bytes:
    signature = key.sign_recoverable(digest, hasher=None)
    return signature[:64] + bytes([signature[64] + _V_OFFSET])
