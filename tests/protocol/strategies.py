"""Hypothesis strategies for the nouns of the protocol."""

from __future__ import annotations

from hypothesis import strategies as st

from channelpay.protocol.types import (
    AMOUNT_MAX,
    NATIVE,
    Address,
    Channel,
    ChannelId,
    Deployment,
    Voucher,
)
from channelpay.protocol.wire import (
    Challenge,
    ClosePayload,
    Credential,
    OpenPayload,
    Payload,
    Receipt,
    SessionRequest,
    Source,
    TopUpPayload,
    VoucherPayload,
)

CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
SECONDS_OF_YEAR_9999 = 253_402_300_799

bytes32 = st.binary(min_size=32, max_size=32)
addresses = st.binary(min_size=20, max_size=20).map(Address)
channel_ids = bytes32.map(ChannelId)
amounts = st.integers(0, AMOUNT_MAX) | st.sampled_from([0, 1, 2**96 - 1, 2**96, AMOUNT_MAX])
chain_ids = st.integers(1, 2**53 - 1)
seconds = st.integers(0, SECONDS_OF_YEAR_9999)
secrets = st.integers(1, CURVE_ORDER - 1).map(lambda number: number.to_bytes(32, "big"))
text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)
header_text = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=60
)
tokens = addresses | st.just(NATIVE)

deployments = st.builds(Deployment, chain_ids, addresses)
channels = st.builds(Channel, addresses, addresses, tokens, addresses | st.just(NATIVE), bytes32)
vouchers = st.builds(Voucher, channel_ids, amounts, st.binary(min_size=65, max_size=65))

requests = st.builds(
    SessionRequest,
    amount=amounts,
    currency=tokens,
    recipient=addresses,
    deployment=deployments,
    unit_type=text,
    suggested_deposit=st.none() | amounts,
    description=st.none() | text,
    min_voucher_delta=amounts,
)
challenges = st.builds(
    Challenge,
    id=header_text,
    realm=header_text,
    method=st.sampled_from(["evm", "tempo"]),
    intent=st.sampled_from(["session", "charge"]),
    request=header_text,
    expires=st.none() | st.just("2026-01-31T12:00:00Z"),
    description=st.none() | header_text,
    opaque=st.none() | header_text,
    digest=st.none() | header_text,
)
payloads: st.SearchStrategy[Payload] = st.one_of(
    st.builds(OpenPayload, bytes32, bytes32, addresses | st.just(NATIVE), vouchers),
    st.builds(TopUpPayload, channel_ids, bytes32, amounts),
    st.builds(VoucherPayload, vouchers),
    st.builds(ClosePayload, vouchers),
)
credentials = st.builds(Credential, challenges, payloads, st.builds(Source, chain_ids, addresses))
receipts = st.builds(
    Receipt,
    channel_id=channel_ids,
    chain_id=chain_ids,
    challenge_id=text,
    accepted=amounts,
    spent=amounts,
    timestamp=seconds.map(float),
    transaction_hash=st.none() | bytes32,
)
