"""What is measured on: channels that the books know, their vouchers, and the requests with them.

Nothing of it touches a chain. The channels stand in the books as if their opens had been seen long
ago, so that a measurement is of paid requests alone.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from itertools import cycle, islice

from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import (
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
from channelpay.protocol.wire import Challenge, Credential, Source, VoucherPayload
from channelpay.store import ChainView, Store

PRICE_TEXT = "0.000001"
PRICE = 10**12
"""One millionth of an ether, in wei."""
DEPOSIT = 10**12 * PRICE
PATH = "/article"
_CLIENT_HEADERS = (
    "Host: 127.0.0.1\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n"
    "Connection: keep-alive\r\nUser-Agent: channelpay-bench\r\n"
)
PLAIN_REQUEST = f"GET {PATH} HTTP/1.1\r\n{_CLIENT_HEADERS}\r\n".encode()


@dataclass(frozen=True, slots=True)
class Payer:
    """One channel, the key that signs its vouchers, and how its credentials name the payer."""

    channel: Channel
    channel_id: ChannelId
    signer: VoucherSigner
    source: Source

    def voucher(self, cumulative: int) -> Voucher:
        return self.signer.sign(self.channel_id, cumulative)


def payers_of(deployment: Deployment, payee: Address, count: int) -> list[Payer]:
    """A group of so many payers: always the same keys and channels, and those of no other group."""
    return [_payer(deployment, payee, f"{number} of {count}") for number in range(count)]


def _payer(deployment: Deployment, payee: Address, name: str) -> Payer:
    signer = VoucherSigner(deployment, keccak256(f"bench payer {name}".encode()))
    salt = keccak256(f"bench salt {name}".encode())
    channel = Channel(signer.address, payee, NATIVE, ZERO_ADDRESS, salt)
    source = Source(deployment.chain_id, signer.address)
    return Payer(channel, channel.id(deployment), signer, source)


def enter(store: Store, payers: list[Payer]) -> None:
    """Have the books know the channels of these payers."""
    view = ChainView(ChannelState(ChannelStatus.OPEN, DEPOSIT), 1)
    added = [store.add_channel(one.channel_id, one.channel, view) for one in payers]
    for future in added:
        future.result()


class PaidRequests:
    """An endless supply of requests, each with the next voucher of one of the payers in turn."""

    def __init__(self, payers: list[Payer], challenge: Challenge) -> None:
        self._challenge = challenge
        self._order = cycle(payers)
        self._paid = {one.channel_id: 0 for one in payers}

    def take(self, count: int) -> list[bytes]:
        """The next requests, as they go over the wire."""
        return [self._request(one) for one in islice(self._order, count)]

    def _request(self, one: Payer) -> bytes:
        self._paid[one.channel_id] += PRICE
        payload = VoucherPayload(one.voucher(self._paid[one.channel_id]))
        credential = Credential(self._challenge, payload, one.source).to_header()
        return (
            f"GET {PATH} HTTP/1.1\r\n{_CLIENT_HEADERS}"
            f"Authorization: {credential}\r\nIdempotency-Key: {uuid.uuid4()}\r\n\r\n"
        ).encode()
