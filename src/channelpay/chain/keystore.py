"""The accounts of a home directory: one file each, encrypted with the account's password.

``<home>/keystore/<name>.json`` has mode 0600 in a folder of mode 0700. For a key, it is a Web3
Secret Storage (V3) file, as Ethereum wallets read and write it. For an account of a hardware wallet
it names the place of the key there, and has one secret of its own, from which session keys come:

    {"address": "…", "ledger": {"path": "m/44'/60'/0'/0/0"}, "session": {a V3 file}}

One whose transactions another wallet sends, a smart-contract wallet say, has that secret alone:

    {"address": "…", "session": {a V3 file}}

A file that others may use is refused. No function here prints, logs or puts a secret into an error.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount

from channelpay.errors import ChannelPayError, ConfigError, InputError, NotFound
from channelpay.private_files import open_private, sync, write_private
from channelpay.protocol.parse import parse_address
from channelpay.protocol.text import checksum_address
from channelpay.protocol.types import Address

FOLDER = "keystore"
FILE_BYTES_MAX = 64 * 1024
DEFAULT_PATH = "m/44'/60'/0'/0/0"
"""Of the first Ethereum account that a mnemonic or a hardware wallet has (BIP-44)."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
_SECRET = re.compile(r"(?:0x)?[0-9a-fA-F]{64}\Z")
_PATH = re.compile(r"m(?:/[0-9]{1,10}'?){1,10}\Z")
_PATH_NUMBER_MAX = 2**31 - 1
_VERSION = 3
_WORK_MAX = {"c": 10_000_000, "n": 2**22, "r": 64, "p": 16, "dklen": 64}
"""Of a key derivation: the usual is c = 2**18 … 10**6 or n = 2**18, r = 8, p = 1, dklen = 32."""
_SCRYPT_BLOCKS_MAX = 2**23
"""Each takes 128 bytes of memory: 1 GiB."""

Account.enable_unaudited_hdwallet_features()


@dataclass(frozen=True, slots=True)
class StoredAccount:
    """An account of the keystore. ``ledger_path`` is where a Ledger has its key (BIP-32);
    ``is_outside`` says that another wallet sends its transactions. Else the key is in the file.
    """

    name: str
    address: Address
    path: Path
    ledger_path: str | None = None
    is_outside: bool = False

    @property
    def has_key(self) -> bool:
        return self.ledger_path is None and not self.is_outside


def create(home: Path, name: str, password: str) -> Address:
    """A new account with a random key. Raises :class:`InputError` for a bad or taken name."""
    return _store(home, name, Account.create(), password)


def import_key(
    home: Path, name: str, secret_or_mnemonic: str, password: str, path: str | None = None
) -> Address:
    """Store a key given as 64 hex digits, or the account at ``path`` (default:
    :data:`DEFAULT_PATH`) of a BIP-39 mnemonic.
    """
    return _store(home, name, _account_from(secret_or_mnemonic.strip(), path), password)


def add_ledger(home: Path, name: str, address: Address, path: str, password: str) -> None:
    """An account of which a Ledger has the key, at ``path``, with a new secret for its session
    keys.
    """
    fields = {
        "address": address.hex(),
        "ledger": {"path": parse_path(path)},
        "session": _encrypted(Account.create(), password),
    }
    _write(home, name, fields)


def add_outside(home: Path, name: str, address: Address, password: str) -> None:
    """An account whose transactions another wallet sends; a new secret for its session keys."""
    session = _encrypted(Account.create(), password)
    _write(home, name, {"address": address.hex(), "session": session})


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
    """The account with its key, ready to sign. Raises :class:`NotFound`, :class:`InputError` if
    the password is wrong, or :class:`ConfigError` if another wallet has the key.
    """
    stored = find(home, name_or_address)
    if not stored.has_key:
        place = "another wallet" if stored.is_outside else "a Ledger"
        raise ConfigError(
            f"the key of account {stored.name} is in {place}, and this needs one in a file",
            hint="Name another account. This one opens channels and pays.",
        )
    account = _local(Account.from_key(_decrypted(stored, _read(stored.path), password)))
    if account.address.lower() != "0x" + stored.address.hex():
        raise ConfigError(f"{stored.path} names another address than its key has")
    return account


def load_session_secret(home: Path, name: str, password: str) -> bytes:
    """The secret (32 bytes) of the session keys of an account without a key. Raises what
    :func:`load` raises.
    """
    stored = find(home, name)
    session = _read(stored.path).get("session")
    if not isinstance(session, dict):
        raise _no_keyfile(stored.path)
    return _decrypted(stored, session, password)


def encrypted_text(stored: StoredAccount) -> str:
    """What the file of an account holds."""
    return json.dumps(_read(stored.path))


def delete(stored: StoredAccount) -> None:
    """Remove an account's file for good. Copies of it stay where they are."""
    try:
        stored.path.unlink()
        sync(stored.path.parent)
    except OSError as error:
        raise ConfigError(f"{stored.path} cannot be removed: {error.strerror}") from error


def parse_path(text: str) -> str:
    """A derivation path (BIP-32), written ``m/44'/60'/0'/0/0``. Raises :class:`InputError`."""
    numbers = re.findall("[0-9]+", text)
    if not _PATH.match(text) or any(int(one) > _PATH_NUMBER_MAX for one in numbers):
        raise InputError(f"a derivation path is written like {DEFAULT_PATH}")
    return text


# --- what a file holds ---------------------------------------------------------------------------


def _decrypted(stored: StoredAccount, keyfile: dict[str, Any], password: str) -> bytes:
    _require_bearable(stored.path, keyfile)
    try:
        return bytes(Account.decrypt(keyfile, password))
    except ValueError:
        raise InputError(
            f"the password does not open account {stored.name}", hint="Check the password."
        ) from None
    except ChannelPayError:
        raise
    except Exception:  # noqa: BLE001 - eth-keyfile checks little of what it reads
        raise _no_keyfile(stored.path) from None


def _require_bearable(path: Path, keyfile: dict[str, Any]) -> None:
    """It has to be of the one known version, and to open with bearable work."""
    crypto = keyfile.get("crypto", keyfile.get("Crypto"))
    work = crypto.get("kdfparams") if isinstance(crypto, dict) else None
    if keyfile.get("version") != _VERSION or not isinstance(work, dict):
        raise _no_keyfile(path)
    for name, maximum in _WORK_MAX.items():
        number = work.get(name, 1)
        if not isinstance(number, int) or not 0 < number <= maximum:
            raise _no_keyfile(path)
    if work.get("n", 1) * work.get("r", 1) > _SCRYPT_BLOCKS_MAX:
        raise _no_keyfile(path)


def _no_keyfile(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} is not a keystore file that can be opened",
        hint="Import the account again: channelpay account import NAME",
    )


def _account_from(secret_or_mnemonic: str, path: str | None) -> LocalAccount:
    is_key = _SECRET.match(secret_or_mnemonic) is not None
    if is_key and path is not None:
        raise InputError("a derivation path goes with a mnemonic, and this is a key")
    derivation = DEFAULT_PATH if path is None else parse_path(path)
    # No cause is kept: the library's messages repeat words of the mnemonic.
    try:
        if is_key:
            return _local(Account.from_key(secret_or_mnemonic))
        if " " in secret_or_mnemonic:
            words = " ".join(secret_or_mnemonic.split())
            return _local(Account.from_mnemonic(words, account_path=derivation))
    except Exception:  # noqa: BLE001 - eth-account raises its own and eth-utils' errors alike
        raise InputError("the secret is not a valid private key or mnemonic") from None
    raise InputError("a secret is 64 hex digits, or the words of a mnemonic")


def _local(account: LocalAccount) -> LocalAccount:
    """eth-account's factories are declared to return anything."""
    return account


def _encrypted(account: LocalAccount, password: str) -> dict[str, Any]:
    if not password:
        raise InputError("the password is empty")
    fields: dict[str, Any] = Account.encrypt(account.key, password)
    return fields


# --- files ---------------------------------------------------------------------------------------


def _store(home: Path, name: str, account: LocalAccount, password: str) -> Address:
    _write(home, name, _encrypted(account, password))
    return parse_address(account.address, "address")


def _write(home: Path, name: str, fields: dict[str, Any]) -> None:
    if not _NAME.match(name):
        raise InputError(
            "an account name has 1 to 64 letters, digits, '-' and '_'; the first is no sign"
        )
    path = _folder(home) / f"{name}.json"
    try:
        write_private(path, json.dumps(fields).encode())
    except FileExistsError:
        raise InputError(
            f"there is an account {name} already", hint="Choose another name."
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def _folder(home: Path) -> Path:
    try:
        for folder in (home, home / FOLDER):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{home} cannot be used: {error.strerror}") from error
    return home / FOLDER


def _stored(path: Path) -> StoredAccount:
    fields = _read(path)
    address = str(fields.get("address", "")).removeprefix("0x")
    try:
        ledger = fields.get("ledger")
        ledger_path = parse_path(str(ledger.get("path"))) if isinstance(ledger, dict) else None
        is_outside = ledger_path is None and "session" in fields
        place = parse_address("0x" + address)
        return StoredAccount(path.stem, place, path, ledger_path, is_outside)
    except InputError:
        raise ConfigError(f"{path} is not a keystore file: it has no address") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        with open_private(path) as file:
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
