"""Proving to a payee that we have the key of a channel's vouchers, not only a voucher: see
:mod:`channelpay.protocol.proofs`.
"""

from __future__ import annotations

from dataclasses import replace

from channelpay.payer.offers import Terms
from channelpay.payer.records import PayerChannel
from channelpay.protocol.proofs import HEADER, proof_place
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import ChannelId
from channelpay.protocol.wire import Challenge


def proof_for(terms: Terms, entry: PayerChannel, challenge: Challenge) -> dict[str, str]:
    """The header that goes with a credential for the challenge. For the channel's own payee alone:
    another one could show it there.
    """
    return {HEADER: signed_for(terms, entry, proof_place(entry.channel_id, challenge.id))}


def signed_for(terms: Terms, entry: PayerChannel, place: ChannelId) -> str:
    """The signature that proves the key of a channel for a ``place`` that is no channel."""
    return to_hex(terms.sign(replace(entry, channel_id=place), 0).signature)
