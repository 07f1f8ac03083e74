"""Proof that whoever shows a voucher has the key that signed it.

A voucher is good for whoever holds it, and one that was settled stands on the chain for everybody
to read. So nothing is sold for it any more unless such a proof comes with it, or a higher voucher.
"""

from __future__ import annotations

from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import ChannelId

HEADER = "Payment-Proof"
"""The signature of a voucher of 0 for :func:`proof_place`: 65 bytes in hex, with 0x."""


def proof_place(channel_id: ChannelId, challenge_id: str) -> ChannelId:
    """What the proof is signed for: no channel has this id, since ids are hashes of something else.
    It goes with one challenge, and is worth nothing when that has expired.
    """
    text = b"channelpay voucher proof" + channel_id + challenge_id.encode()
    return ChannelId(keccak256(text))
