"""Receipts that a site signs: with the payee's key, or with one that the payee authorised, so that
a site can give them that runs without the payee's key. One comes with an answer, or is asked for
later with the key of the channel that paid.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2s
from operator import itemgetter
from pathlib import Path

from channelpay.errors import (
    ConfigError,
    InputError,
    InvalidSignature,
    PaymentRefused,
    ReceiptNotFound,
    ReceiptNotYet,
)
from channelpay.payee.register import Register
from channelpay.payee.request import Request
from channelpay.payee.selling.desk import Attempts, Sells
from channelpay.payee.verifier import Paid
from channelpay.private_files import open_private, write_private
from channelpay.protocol.eip712 import VoucherHasher, VoucherSigner
from channelpay.protocol.entries import Entries, EntryKey, EntryState
from channelpay.protocol.parse import parse_bytes32, parse_json_object
from channelpay.protocol.receipts import (
    ASKING_HEADER,
    SIGNED,
    ReceiptKey,
    ReceiptSigner,
    SignedReceipt,
    receipt_place,
)
from channelpay.protocol.rules import KEYED_RETRY_WINDOW_MS, ChannelRecord, Sale, Terms
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import Address, Channel, ChannelId, Deployment, Voucher
from channelpay.store import Accepted, Store, StoredPayment

_FILE_BYTES_MAX = 4096
_ASKING = ASKING_HEADER.lower().encode()
_METERED = "metered"
"""The kind of the entries that name the metered responses of a channel which are under way."""
_METERED_MAX = 200
"""So many of a channel are told apart from those that have ended."""


def make_receipt_key(
    path: Path, deployment: Deployment, payee_secret: bytes, valid_until: int
) -> ReceiptKey:
    """A new key that signs receipts until ``valid_until`` (Unix seconds), in a new file of mode
    0600. Raises :class:`~channelpay.errors.ConfigError` if the file cannot be made.
    """
    secret = secrets.token_bytes(32)
    address = VoucherSigner(deployment, secret).address
    key = ReceiptKey.made(deployment, payee_secret, address, valid_until)
    text = json.dumps({"secret": to_hex(secret), "key": key.members()})
    try:
        write_private(path, f"{text}\n".encode())
    except OSError as error:
        raise ConfigError(f"{path} cannot be made: {error.strerror}") from error
    return key


def read_receipt_key(path: Path, deployment: Deployment, payee: Address) -> ReceiptSigner:
    """What :func:`make_receipt_key` wrote, for this payee. Raises
    :class:`~channelpay.errors.ConfigError`.
    """
    try:
        with open_private(path) as file:
            members = parse_json_object(file.read(_FILE_BYTES_MAX), "receipt key")
        secret = parse_bytes32(members.get("secret"), "secret")
        key = ReceiptKey.parse(members.get("key"))
        signed_by = key.payee(deployment)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (InputError, InvalidSignature) as error:
        raise ConfigError(f"{path} is no receipt key: {error.detail}") from error
    if signed_by != payee or VoucherSigner(deployment, secret).address != key.address:
        raise ConfigError(
            f"{path} is no key for receipts of {checksum_address(payee)} on this chain",
            hint="Make one with: channelpay receipt key FILE",
        )
    return ReceiptSigner(secret, key)


def wants_signed(request: Request) -> bool:
    """Whether a request asks for a signed receipt, too. Every paid request is looked at."""
    for name, value in request.headers:
        if len(name) == len(_ASKING) and name.lower() == _ASKING:
            return SIGNED in (one.strip() for one in value.decode("latin-1").lower().split(","))
    return False


@dataclass(frozen=True, slots=True)
class _Metered:
    """One request for a metered response: since when (Unix ms) it is under way stands beside the
    others of its channel in the entry ``place``. The first for a payment is sold under it.
    """

    place: EntryKey
    name: str
    since: int

    @property
    def keys(self) -> tuple[EntryKey, ...]:
        return (self.place,)

    def sell(self, price: int, record: ChannelRecord, entries: Entries) -> Sale:  # noqa: ARG002
        """See :meth:`channelpay.protocol.rules.Terms.sell`."""
        return Sale(price, entries=self.begun(entries))

    def begun(self, entries: Entries) -> Entries:
        others = _under_way(entries.get(self.place), self.since)
        newest = sorted(others.items(), key=itemgetter(1))[1 - _METERED_MAX :]
        return {self.place: {**dict(newest), self.name: self.since}}

    def ended(self, entries: Entries) -> Entries:
        others = _under_way(entries.get(self.place), self.since)
        others.pop(self.name, None)
        return {self.place: others}


class Receipts:
    """Signs what the books say of a sale. For one event loop; ``now`` gives Unix seconds.

    A metered response is final once it has ended. Those under way are named in the books, since
    any process may be asked. One whose process was killed has ended when its Idempotency-Key has.
    """

    def __init__(
        self,
        signer: ReceiptSigner,
        register: Register,
        deployment: Deployment,
        now: Callable[[], float],
    ) -> None:
        self._signer = signer
        self._register = register
        self._deployment = deployment
        self._hasher = VoucherHasher(deployment)
        self._now = now
        self._attempts = Attempts("questions for receipts that are not there")

    def sells(self, key: str) -> Sells:
        """What a metered response is sold under: it has no receipt before its :meth:`end`."""

        async def sell(channel: Channel) -> Terms:
            return self._metered(channel.id(self._deployment), key, 1)

        return sell

    def begin(self, accepted: Accepted) -> None:
        """Another request for a metered response that was sold already is served."""
        if accepted.attempt > 1 and (metered := self._metered_of(accepted)) is not None:
            self._register.note(metered.keys, metered.begun)

    def end(self, accepted: Accepted) -> None:
        """A metered response has ended, and charges no more."""
        if (metered := self._metered_of(accepted)) is not None:
            self._register.note(metered.keys, metered.ended)

    def of_answer(self, paid: Paid) -> SignedReceipt | None:
        """What comes with the answer; None where nothing was sold, or its cost is not known before
        the response ends.
        """
        payment, payment_id = paid.accepted.payment, paid.accepted.payment_id
        if payment is None or payment_id is None or (paid.quote.metered and not paid.quote.up_to):
            return None
        sold = StoredPayment(payment_id, payment)
        return self._signed(paid.record.channel, paid.record.spent, sold)

    async def asked(self, channel_id: ChannelId, key: str, proof: bytes) -> SignedReceipt:
        """What the channel bought with this Idempotency-Key, as the books have it now. The channel
        may be closed. ``proof`` is by the key of its vouchers, for no voucher proves who asks: the
        contract shows the last one to everybody.

        Raises :class:`ReceiptNotFound`, also for strangers, :class:`ReceiptNotYet` and
        :class:`TooManyAttempts`.
        """
        record = await self._register.read(lambda store: store.record(channel_id))
        if record is None or not self._is_proven(record.channel, channel_id, key, proof):
            raise ReceiptNotFound
        payer = record.channel.payer
        self._attempts.require_room(payer, self._now())

        def look(store: Store) -> tuple[EntryState | None, StoredPayment | None, int]:
            # In this order: a response that has ended by the first look is final at the second.
            state, found = store.entry(_place(channel_id)), store.payment(channel_id, key)
            return state, found, (store.record(channel_id) or record).spent

        state, found, spent = await self._register.read(look)
        if found is None:
            self._attempts.note(payer, self._now())
            raise ReceiptNotFound
        if any(name.startswith(_name(key, "")) for name in _under_way(state, self._now_ms())):
            raise ReceiptNotYet
        return self._signed(record.channel, spent, found)

    def _is_proven(self, channel: Channel, channel_id: ChannelId, key: str, proof: bytes) -> bool:
        try:
            self._hasher.check(Voucher(receipt_place(channel_id, key), 0, proof), channel.signer)
        except PaymentRefused:
            return False
        return True

    def _signed(self, channel: Channel, spent: int, sold: StoredPayment) -> SignedReceipt:
        payment = sold.payment
        receipt = SignedReceipt(
            self._deployment,
            channel,
            sold.payment_id,
            payment.price - payment.sold.refunded,
            spent,
            payment.resource,
            payment.time,
        )
        return self._signer.sign(receipt)

    def _metered_of(self, accepted: Accepted) -> _Metered | None:
        """None without an Idempotency-Key: then nobody can ask."""
        payment = accepted.payment
        if payment is None or payment.idempotency_key is None:
            return None
        return self._metered(payment.channel_id, payment.idempotency_key, accepted.attempt)

    def _metered(self, channel_id: ChannelId, key: str, attempt: int) -> _Metered:
        return _Metered(_place(channel_id), _name(key, str(attempt)), self._now_ms())

    def _now_ms(self) -> int:
        return int(self._now() * 1000)


def _place(channel_id: ChannelId) -> EntryKey:
    return EntryKey(_METERED, channel_id)


def _name(key: str, attempt: str) -> str:
    return f"{blake2s(key.encode(), digest_size=8).hexdigest()}.{attempt}"


def _under_way(state: EntryState | None, now: int) -> dict[str, int]:
    """Since when the requests that an entry names are under way."""
    items = () if state is None else state.items()
    oldest = now - KEYED_RETRY_WINDOW_MS
    return {name: since for name, since in items if isinstance(since, int) and since > oldest}
