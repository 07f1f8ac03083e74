"""Receipts that a site signs: with the payee's key, or with one that the payee authorised, so that
a site can give them that runs without the payee's key.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from channelpay.errors import ConfigError, InputError, InvalidSignature
from channelpay.payee.request import Request
from channelpay.payee.verifier import Paid
from channelpay.private_files import open_private, write_private
from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.parse import parse_bytes32, parse_json_object
from channelpay.protocol.receipts import (
    ASKING_HEADER,
    SIGNED,
    ReceiptKey,
    ReceiptSigner,
    SignedReceipt,
)
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import Address, Deployment

_FILE_BYTES_MAX = 4096
_ASKING = ASKING_HEADER.lower().encode()


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


def signed_receipt(
    signer: ReceiptSigner, deployment: Deployment, paid: Paid
) -> SignedReceipt | None:
    """The receipt of a paid request; None where nothing was sold, or its cost is not known before
    the response ends.
    """
    payment, payment_id = paid.accepted.payment, paid.accepted.payment_id
    if payment is None or payment_id is None or (paid.quote.metered and not paid.quote.up_to):
        return None
    record = paid.record
    receipt = SignedReceipt(
        deployment,
        record.channel,
        payment_id,
        payment.price,
        record.spent,
        payment.resource,
        payment.time,
    )
    return signer.sign(receipt)
