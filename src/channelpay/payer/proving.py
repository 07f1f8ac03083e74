"""Proving to a payee that we have the key of a channel's vouchers, not only a voucher: see
:mod:`channelpay.protocol.proofs`.
"""

from __future__ import annotations

from dataclasses import replace

from channelpay.payer.offers import Terms
from channelpay.payer.records import PayerChannel
from channelpay.protocol.proofs import HEADER, proof_place
from channelpay.protocol.text import to_hex
from channelpay.protocol.wire import Challenge


def proof_for(terms: Terms, entry: PayerChannel, challenge: Challenge) -> dict[str, str]:
    """The header that goes with a credential for the challenge. For the channel's own payee alone:
    another one could show it there.
    """
    place = replace(entry, channel_id=proof_place(entry.channel_id, challenge.id))
    return {HEADER: to_hex(terms.sign(place, 0).signature)}
