"""The accounts of a home directory: one Web3 Secret Storage (V3) file each, as Ethereum wallets
read and write it.

``<home>/keystore/<name>.json`` has mode 0600 in a folder of mode 0700. A file that others may use
is refused. No function here prints, logs or puts a secret into an error.
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount

from channelpay.errors import ChannelPayError, ConfigError, InputError, NotFound
from channelpay.protocol.parse import parse_address
from channelpay.protocol.text import checksum_address
from channelpay.protocol.types import Address

FOLDER = "keystore"
FILE_BYTES_MAX = 64 * 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
_SECRET = re.compile(r"(?:0x)?[0-9a-fA-F]{64}\Z")
_VERSION = 3
_WORK_MAX = {"c": 10_000_000, "n": 2**22, "r": 64, "p": 16, "dklen": 64}
"""Of a key derivation: the usual is c = 2**18 … 10**6 or n = 2**18, r = 8, p = 1, dklen = 32."""
_SCRYPT_BLOCKS_MAX = 2**23
"""Each takes 128 bytes of memory: 1 GiB."""
_OTHERS = stat.S_IRWXG | stat.S_IRWXO

Account.enable_unaudited_hdwallet_features()


@dataclass(frozen=True, slots=True)
class StoredAccount:
    """An account of which the keystore holds the key."""

    name: str
    address: Address
    path: Path


def create(home: Path, name: str, password: str) -> Address:
    """A new account with a random key. Raises :class:`InputError` for a bad or taken name."""
    return _store(home, name, Account.create(), password)


def import_key(home: Path, name: str, secret_or_mnemonic: str, password: str) -> Address:
    """Store a key given as 64 hex digits, or the first account (``m/44'/60'/0'/0/0``) of a BIP-39
    mnemonic.
    """
    return _store(home, name, _account_from(secret_or_mnemonic.strip()), password)


def list_accounts(home: Path) -> list[StoredAccount]:
    """All accounts, by name."""
    paths = sorted((home / FOLDER).glob("*.json"))
    return [_stored(path) for path in paths if _NAME.match(path.stem)]


def find(home: Path, name_or_address: str) -> StoredAccount:
    """One account by its name or address. Raises :class:`NotFound`."""
    for account in list_accounts(home):
        if account.name == name_or_address or _is_address(name_or_address, account.address):
            return account
    raise NotFound(
        f"no account {name_or_address[:80]!r} in {home / FOLDER}",
        hint="List the accounts with: channelpay account list",
    )


def load(home: Path, name_or_address: str, password: str) -> LocalAccount:
    """The account with its key, ready to sign. Raises :class:`NotFound`, or :class:`InputError` if
    the password is wrong.
    """
    stored = find(home, name_or_address)
    try:
        key = Account.decrypt(_checked(stored.path), password)
    except ValueError:
        raise InputError(
            f"the password does not open account {stored.name}", hint="Check the password."
        ) from None
    except ChannelPayError:
        raise
    except Exception:  # noqa: BLE001 - eth-keyfile checks little of what it reads
        raise _no_keyfile(stored.path) from None
    account = _local(Account.from_key(key))
    if bytes.fromhex(account.address[2:]) != stored.address:
        raise ConfigError(f"{stored.path} names another address than its key has")
    return account


def _checked(path: Path) -> dict[str, Any]:
    """A key file of the one known version that can be opened with bearable work."""
    fields = _read(path)
    crypto = fields.get("crypto", fields.get("Crypto"))
    work = crypto.get("kdfparams") if isinstance(crypto, dict) else None
    if fields.get("version") != _VERSION or not isinstance(work, dict):
        raise _no_keyfile(path)
    for name, maximum in _WORK_MAX.items():
        number = work.get(name, 1)
        if not isinstance(number, int) or not 0 < number <= maximum:
            raise _no_keyfile(path)
    if work.get("n", 1) * work.get("r", 1) > _SCRYPT_BLOCKS_MAX:
        raise _no_keyfile(path)
    return fields


def _no_keyfile(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} is not a keystore file that can be opened",
        hint="Import the account again: channelpay account import NAME",
    )


def _account_from(secret_or_mnemonic: str) -> LocalAccount:
    # No cause is kept: the library's messages repeat words of the mnemonic.
    try:
        if _SECRET.match(secret_or_mnemonic):
            return _local(Account.from_key(secret_or_mnemonic))
        if " " in secret_or_mnemonic:
            return _local(Account.from_mnemonic(" ".join(secret_or_mnemonic.split())))
    except Exception:  # noqa: BLE001 - eth-account raises its own and eth-utils' errors alike
        raise InputError("the secret is not a valid private key or mnemonic") from None
    raise InputError("a secret is 64 hex digits, or the words of a mnemonic")


def _local(account: LocalAccount) -> LocalAccount:
    """eth-account's factories are declared to return anything."""
    return account


def _store(home: Path, name: str, account: LocalAccount, password: str) -> Address:
    if not _NAME.match(name):
        raise InputError(
            "an account name has 1 to 64 letters, digits, '-' and '_'; the first is no sign"
        )
    if not password:
        raise InputError("the password is empty")
    path = _folder(home) / f"{name}.json"
    address = Address(bytes.fromhex(account.address[2:]))
    _write(path, Account.encrypt(account.key, password))
    return address


def _folder(home: Path) -> Path:
    try:
        for folder in (home, home / FOLDER):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{home} cannot be used: {error.strerror}") from error
    return home / FOLDER


def _write(path: Path, keyfile: dict[str, Any]) -> None:
    """Whole or not at all, and never over another file: ``link`` refuses an existing name."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(keyfile, file)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        raise InputError(
            f"there is an account {path.stem} already", hint="Choose another name."
        ) from None
    finally:
        draft.unlink()
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stored(path: Path) -> StoredAccount:
    address = str(_read(path).get("address", "")).removeprefix("0x")
    try:
        return StoredAccount(path.stem, parse_address("0x" + address), path)
    except InputError:
        raise ConfigError(f"{path} is not a keystore file: it has no address") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & _OTHERS:
                raise ConfigError(
                    f"others may use {path} (mode {stat.S_IMODE(mode):04o})",
                    hint=f"Make it yours alone: chmod 600 {path}",
                )
            text = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError(f"{path} is not a keystore file") from None
    if not isinstance(fields, dict):
        raise ConfigError(f"{path} is not a keystore file")
    return fields


def _is_address(text: str, address: Address) -> bool:
    return text.lower() == checksum_address(address).lower()
