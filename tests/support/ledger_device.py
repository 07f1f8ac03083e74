"""A Ledger with its Ethereum app, as a program sees it: APDUs go in, answers and status words come
out (ISO 7816-4, and the app's own ``doc/ethapp.adoc``). It reads what it is sent, and signs that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import rlp  # type: ignore[import-untyped]
from coincurve import PrivateKey
from eth_account.hdaccount import key_from_seed, seed_from_mnemonic
from ledgerblue.commException import CommException

from channelpay.protocol.eip712 import address_of
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.text import checksum_address
from channelpay.protocol.types import Address
from channelpay.testing.accounts import MNEMONIC

APP_NOT_OPEN = 0x6D02
DECLINED = 0x6985
INVALID_DATA = 0x6A80
WRONG_CLASS, WRONG_INSTRUCTION, WRONG_PARAMETERS, WRONG_LENGTH = 0x6E00, 0x6D00, 0x6B00, 0x6700
_CLASS, _GET_ADDRESS, _SIGN_TRANSACTION = 0xE0, 0x02, 0x04
_FIRST, _MORE = 0x00, 0x80
_HARDENED = 0x80000000
_TYPE_2_FIELDS = 9
"""Of an unsigned transaction (EIP-1559)."""


@dataclass(frozen=True)
class Shown:
    """What the device showed before it was confirmed."""

    chain_id: int
    to: Address
    value_wei: int
    data: bytes


@dataclass
class FakeLedger:
    """With the keys of a mnemonic. ``refusal`` is the status word of what is not confirmed; without
    ``blind`` signing, data is refused.
    """

    mnemonic: str = MNEMONIC
    refusal: int | None = None
    blind: bool = True
    app_is_open: bool = True
    shown: list[Shown] = field(default_factory=list)
    opened: int = 0
    closed: int = 0
    _pending: bytes = b""

    def exchange(self, apdu: bytes) -> bytes:
        """Answer one command, or raise its status word as ledgerblue does."""
        command, first, second, size, data = apdu[1], apdu[2], apdu[3], apdu[4], bytes(apdu[5:])
        if not self.app_is_open:
            raise _status(APP_NOT_OPEN)
        if apdu[0] != _CLASS:
            raise _status(WRONG_CLASS)
        if size != len(data):
            raise _status(WRONG_LENGTH)
        if second != 0:
            raise _status(WRONG_PARAMETERS)
        if command == _GET_ADDRESS and first == 0:
            return self._address(data)
        if command == _SIGN_TRANSACTION and first in {_FIRST, _MORE}:
            return self._collect(data, is_first=first == _FIRST)
        raise _status(WRONG_INSTRUCTION)

    def close(self) -> None:
        self.closed += 1

    def key(self, path: str) -> PrivateKey:
        return PrivateKey(key_from_seed(seed_from_mnemonic(self.mnemonic, ""), path))

    def _address(self, data: bytes) -> bytes:
        path, rest = _path_from(data)
        if rest:
            raise _status(INVALID_DATA)
        public_key = self.key(path).public_key.format(compressed=False)
        text = checksum_address(address_of(public_key[1:])).removeprefix("0x").encode()
        return bytes([len(public_key)]) + public_key + bytes([len(text)]) + text

    def _collect(self, data: bytes, *, is_first: bool) -> bytes:
        """Nothing is answered until the transaction is whole."""
        if is_first == bool(self._pending):
            raise _status(WRONG_PARAMETERS)
        self._pending += data
        path, payload = _path_from(self._pending)
        if payload[0] != 2:
            raise _status(INVALID_DATA)
        try:
            fields = rlp.decode(payload[1:])
        except rlp.DecodingError:
            return b""
        self._pending = b""
        return self._sign(path, payload, fields)

    def _sign(self, path: str, payload: bytes, fields: list[Any]) -> bytes:
        if len(fields) != _TYPE_2_FIELDS or (fields[7] and not self.blind):
            raise _status(INVALID_DATA)
        chain_id, _, _, _, _, to, value, data, _ = fields
        self.shown.append(Shown(_number(chain_id), Address(to), _number(value), data))
        if self.refusal is not None:
            raise _status(self.refusal)
        signature = self.key(path).sign_recoverable(keccak256(payload), hasher=None)
        return signature[64:] + signature[:64]


def _path_from(data: bytes) -> tuple[str, bytes]:
    """A derivation path, and what comes after it."""
    end = 1 + 4 * data[0]
    numbers = [int.from_bytes(data[at : at + 4], "big") for at in range(1, end, 4)]
    parts = (f"{n - _HARDENED}'" if n >= _HARDENED else f"{n}" for n in numbers)
    return "/".join(("m", *parts)), data[end:]


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _status(word: int) -> CommException:
    return CommException(f"Invalid status {word:04x}", word)
