"""Accounts of which a Ledger has the key: it shows each transaction, and signs if its owner agrees.

ledgereth speaks to the device; it comes with the extra ``ledger``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from eth_account import Account

from channelpay.chain.types import SignedTransaction
from channelpay.errors import ConfigError, InputError, WalletRefused
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.parse import parse_address
from channelpay.protocol.text import checksum_address
from channelpay.protocol.types import Address

_ROOT = "m/"
_READY = "Connect the Ledger, unlock it, and open its Ethereum app; close other wallets."
_BLIND = "Contracts need “blind signing”: allow it in the settings of the Ledger's Ethereum app."


@dataclass(frozen=True, slots=True)
class _Signed:
    hash: bytes
    raw_transaction: bytes


class LedgerAccount:
    """One account of a Ledger. ``path`` is where its key is (``m/44'/60'/0'/0/0``).

    The device is opened for each signature, so that it may be unplugged in between. ``announce`` is
    called just before its owner has to confirm.
    """

    def __init__(self, address: Address, path: str, announce: Callable[[], None]) -> None:
        self._address = address
        self._path = path.removeprefix(_ROOT)
        self._announce = announce

    @property
    def address(self) -> str:
        return checksum_address(self._address)

    def sign_transaction(self, transaction_dict: dict[str, Any], /) -> SignedTransaction:
        """Raises :class:`WalletRefused` if its owner does not agree, and :class:`ConfigError` if
        there is no device that is ready, or one with other keys.
        """
        from ledgereth.transactions import create_transaction

        fields = transaction_dict
        with _device() as device:
            self._require_ours(device)
            self._announce()
            signed = create_transaction(
                destination=parse_address(fields["to"], "to"),
                amount=fields["value"],
                gas=fields["gas"],
                nonce=fields["nonce"],
                data=fields["data"],
                max_priority_fee_per_gas=fields["maxPriorityFeePerGas"],
                max_fee_per_gas=fields["maxFeePerGas"],
                chain_id=fields["chainId"],
                sender_path=self._path,
                dongle=device,
            )
        raw = bytes.fromhex(signed.raw_transaction().removeprefix("0x"))
        if Account.recover_transaction(raw) != self.address:
            raise WalletRefused("the Ledger gave a signature that is not one of this account")
        return _Signed(keccak256(raw), raw)

    def _require_ours(self, device: Any) -> None:
        found = _address_at(self._path, device)
        if found != self._address:
            raise ConfigError(
                f"the Ledger has {checksum_address(found)} at {_ROOT}{self._path}, not"
                f" {self.address}",
                hint="Connect the device that the account was made with.",
            )


def address_at(path: str) -> Address:
    """The address of a Ledger's account. Raises :class:`ConfigError` if there is no device that is
    ready, :class:`InputError` for a path that its Ethereum app does not use.
    """
    known = _known_path(path)
    with _device() as device:
        return _address_at(known, device)


def _address_at(path: str, device: Any) -> Address:
    from ledgereth.accounts import get_account_by_path

    return parse_address(get_account_by_path(path, device).address, "address")


def _known_path(path: str) -> str:
    """As ledgereth writes it."""
    from ledgereth.utils import is_bip32_path

    if not is_bip32_path(path.removeprefix(_ROOT)):
        raise InputError("a Ledger's path is m/44'/60'/A'/B/C or m/44'/60'/A'/B")
    return path.removeprefix(_ROOT)


@contextmanager
def _device() -> Iterator[Any]:
    """A connected Ledger; what it answers in words of ours."""
    from ledgerblue.comm import getDongle
    from ledgerblue.commException import CommException
    from ledgereth.exceptions import LedgerCancel, LedgerError, LedgerInvalid

    try:
        device = getDongle()
    except CommException:
        raise ConfigError("no Ledger was found", hint=_READY) from None
    try:
        yield device
    except LedgerCancel:
        raise WalletRefused("it was declined on the Ledger") from None
    except LedgerInvalid:
        raise WalletRefused("the Ledger does not sign this transaction", hint=_BLIND) from None
    except (LedgerError, CommException, OSError) as error:
        raise ConfigError(f"the Ledger is not ready: {error}", hint=_READY) from None
    finally:
        device.close()
