"""Hypothesis strategies for the nouns of the protocol. Needs hypothesis, which is no dependency.

All that a strategy draws is well-formed: what a parser accepts and what the contract can hold.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.types import (
    AMOUNT_MAX,
    DEPOSIT_MAX,
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelId,
    ChannelState,
    ChannelStatus,
    Deployment,
    Voucher,
)
from channelpay.testing.accounts import account_of

CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_CHAIN_ID_MAX = 2**53 - 1
_TIME_MAX = 2**32 - 2
_SIGNATURE_BYTES = 65
_EDGES = (0, 1, DEPOSIT_MAX, DEPOSIT_MAX + 1, AMOUNT_MAX)


@dataclass(frozen=True, slots=True)
class SignedVoucher:
    """A voucher that is good, with all that makes it so. ``secret`` is the key (32 bytes) of the
    channel's signer.
    """

    deployment: Deployment
    channel: Channel
    voucher: Voucher
    secret: bytes = field(repr=False)


def bytes32() -> SearchStrategy[bytes]:
    """Any 32 bytes: a salt, a transaction's hash."""
    return st.binary(min_size=32, max_size=32)


def addresses() -> SearchStrategy[Address]:
    """Any 20 bytes, the zero address among them."""
    return st.binary(min_size=20, max_size=20).map(Address)


def tokens() -> SearchStrategy[Address]:
    """The chain's own currency, or any token."""
    return addresses() | st.just(NATIVE)


def amounts(most: int = AMOUNT_MAX) -> SearchStrategy[int]:
    """Base units from 0 to ``most``, often at an edge."""
    edges = [edge for edge in _EDGES if edge < most]
    return st.integers(0, most) | st.sampled_from([*edges, most])


def chain_ids() -> SearchStrategy[int]:
    """What JSON can carry exactly."""
    return st.integers(1, _CHAIN_ID_MAX)


def secrets() -> SearchStrategy[bytes]:
    """Private keys (32 bytes)."""
    return st.integers(1, CURVE_ORDER - 1).map(lambda number: number.to_bytes(32, "big"))


def deployments() -> SearchStrategy[Deployment]:
    return st.builds(Deployment, chain_ids(), addresses())


def channel_ids() -> SearchStrategy[ChannelId]:
    return bytes32().map(ChannelId)


def channels(
    *,
    payer: SearchStrategy[Address] | None = None,
    payee: SearchStrategy[Address] | None = None,
    token: SearchStrategy[Address] | None = None,
    authorized_signer: SearchStrategy[Address] | None = None,
) -> SearchStrategy[Channel]:
    """Descriptions of channels; give a strategy for what must not be just anything."""
    return st.builds(
        Channel,
        addresses() if payer is None else payer,
        addresses() if payee is None else payee,
        tokens() if token is None else token,
        addresses() | st.just(ZERO_ADDRESS) if authorized_signer is None else authorized_signer,
        bytes32(),
    )


@st.composite
def channel_states(draw: st.DrawFn) -> ChannelState:
    """What the contract may say of a channel: never more settled than deposited."""
    status = draw(st.sampled_from(ChannelStatus))
    if status is ChannelStatus.ABSENT:
        return ChannelState(status)
    deposit = draw(st.integers(1, DEPOSIT_MAX))
    requested_at = draw(st.integers(1, _TIME_MAX)) if status is ChannelStatus.CLOSING else 0
    return ChannelState(status, deposit, draw(st.integers(0, deposit)), requested_at)


def vouchers() -> SearchStrategy[Voucher]:
    """Vouchers of the right form, whose signature is just any 65 bytes."""
    signatures = st.binary(min_size=_SIGNATURE_BYTES, max_size=_SIGNATURE_BYTES)
    return st.builds(Voucher, channel_ids(), amounts(), signatures)


@st.composite
def signed_vouchers(
    draw: st.DrawFn,
    *,
    deployment: SearchStrategy[Deployment] | None = None,
    payee: SearchStrategy[Address] | None = None,
    token: SearchStrategy[Address] | None = None,
    amount: SearchStrategy[int] | None = None,
) -> SignedVoucher:
    """Vouchers that verify, by the payer's own key or by an authorized signer's."""
    where, secret = draw(deployments() if deployment is None else deployment), draw(secrets())
    signer = st.just(account_of(secret).address)
    parties = {"payer": signer, "authorized_signer": st.just(ZERO_ADDRESS)}
    if draw(st.booleans()):
        parties = {"authorized_signer": signer}
    channel = draw(channels(payee=payee, token=token, **parties))
    cumulative = draw(amounts() if amount is None else amount)
    voucher = VoucherSigner(where, secret).sign(channel.id(where), cumulative)
    return SignedVoucher(where, channel, voucher, secret)
