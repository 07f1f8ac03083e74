"""Hypothesis strategies for what goes over the wire, made of the public ones."""

from __future__ import annotations

from hypothesis import strategies as st

from channelpay.protocol.notes import PriceNote
from channelpay.protocol.types import NATIVE
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
from channelpay.testing import strategies as public

CURVE_ORDER = public.CURVE_ORDER
SECONDS_OF_YEAR_9999 = 253_402_300_799

bytes32 = public.bytes32()
addresses = public.addresses()
channel_ids = public.channel_ids()
amounts = public.amounts()
chain_ids = public.chain_ids()
seconds = st.integers(0, SECONDS_OF_YEAR_9999)
secrets = public.secrets()
text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)
header_text = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=60
)
tokens = public.tokens()

deployments = public.deployments()
channels = public.channels()
vouchers = public.vouchers()

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
labels = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
price_notes = st.builds(
    PriceNote,
    amounts,
    amounts,
    st.lists(st.tuples(labels, amounts.map(lambda amount: -amount)), max_size=3).map(tuple),
    credit=st.none(),
    points=st.none(),
) | st.builds(PriceNote, amounts, amounts, st.just(()), credit=amounts, points=amounts)
receipts = st.builds(
    Receipt,
    channel_id=channel_ids,
    chain_id=chain_ids,
    challenge_id=text,
    accepted=amounts,
    spent=amounts,
    timestamp=seconds.map(float),
    transaction_hash=st.none() | bytes32,
    price=st.none() | price_notes,
)
