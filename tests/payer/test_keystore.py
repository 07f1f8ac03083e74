"""The keystore: private files, safe names, clear errors, and no secret anywhere else."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from channelpay.chain import keystore
from channelpay.errors import ChannelPayError, ConfigError, InputError, NotFound
from channelpay.protocol.text import to_hex
from channelpay.testing.accounts import MNEMONIC, dev_accounts

SECRET = "0x" + "4a" * 32
ADDRESS = Account.from_key(SECRET).address


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rounds of key derivation: the tests are not about its cost."""
    encrypt = Account.encrypt
    monkeypatch.setattr(
        Account, "encrypt", lambda key, password: encrypt(key, password, "pbkdf2", 10)
    )


def test_what_was_imported_comes_back(tmp_path: Path) -> None:
    address = keystore.import_key(tmp_path, "main", SECRET, "pass")
    assert to_hex(address) == ADDRESS.lower()
    for name in ("main", ADDRESS, ADDRESS.lower()):
        account = keystore.load(tmp_path, name, "pass")
        assert (account.address, to_hex(account.key)) == (ADDRESS, SECRET)


def test_a_mnemonic_gives_its_first_account(tmp_path: Path) -> None:
    address = keystore.import_key(tmp_path, "dev", f"  {MNEMONIC}\n", "pass")
    assert address == dev_accounts()[0].address


def test_a_created_account_is_new_each_time(tmp_path: Path) -> None:
    first, second = (keystore.create(tmp_path, name, "pass") for name in ("a", "b"))
    assert first != second
    listed = keystore.list_accounts(tmp_path)
    assert [(account.name, account.address) for account in listed] == [("a", first), ("b", second)]


def test_file_and_folders_are_private(tmp_path: Path) -> None:
    home = tmp_path / "home"
    keystore.create(home, "main", "pass")
    (path,) = (home / "keystore").iterdir()
    assert [stat.S_IMODE(p.stat().st_mode) for p in (path, path.parent, home)] == [
        0o600,
        0o700,
        0o700,
    ]


def test_the_file_is_a_standard_one_without_the_secret(tmp_path: Path) -> None:
    keystore.import_key(tmp_path, "main", SECRET, "pass")
    text = (tmp_path / "keystore" / "main.json").read_text()
    assert json.loads(text)["version"] == 3
    assert "4a" * 32 not in text
    assert to_hex(Account.decrypt(text, "pass")) == SECRET


@pytest.mark.parametrize(
    "name", ["", "../main", "a/b", ".main", "-main", "a b", "a" * 65, "ä", "main\n", "a.json"]
)
def test_a_name_that_is_no_plain_word_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="account name"):
        keystore.create(tmp_path, name, "pass")
    assert not (tmp_path / "keystore").exists()


def test_an_account_is_never_overwritten(tmp_path: Path) -> None:
    address = keystore.create(tmp_path, "main", "pass")
    with pytest.raises(InputError, match="already"):
        keystore.create(tmp_path, "main", "pass")
    assert keystore.find(tmp_path, "main").address == address


def test_a_refused_account_leaves_no_draft(tmp_path: Path) -> None:
    keystore.create(tmp_path, "main", "pass")
    with pytest.raises(InputError, match="already"):
        keystore.create(tmp_path, "main", "pass")
    assert [path.name for path in (tmp_path / "keystore").iterdir()] == ["main.json"]


def test_a_wrong_password_is_said_and_nothing_else(tmp_path: Path) -> None:
    keystore.import_key(tmp_path, "main", SECRET, "pass")
    with pytest.raises(InputError, match="password does not open") as error:
        keystore.load(tmp_path, "main", "guess-42")
    assert "guess-42" not in str(error.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    keystore.import_key(tmp_path, "main", SECRET, "pass")
    (tmp_path / "keystore" / "main.json").chmod(mode)
    with pytest.raises(ConfigError, match="others may use"):
        keystore.load(tmp_path, "main", "pass")


@pytest.mark.parametrize(
    "secret",
    ["0x1234", "zz" * 32, "00" * 32, "ff" * 32, "test test test", "hunter2", ""],
)
def test_a_secret_that_is_none_is_refused_without_repeating_it(tmp_path: Path, secret: str) -> None:
    with pytest.raises(InputError) as error:
        keystore.import_key(tmp_path, "main", secret, "pass")
    chain: BaseException | None = error.value
    assert not secret or secret not in str(chain)
    assert error.value.__suppress_context__ or error.value.__context__ is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"address": "12"}', "\xff"])
def test_a_file_that_is_no_keystore_is_named(tmp_path: Path, content: str) -> None:
    keystore.import_key(tmp_path, "main", SECRET, "pass")
    path = tmp_path / "keystore" / "main.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"main\.json"):
        keystore.list_accounts(tmp_path)


def test_a_file_with_another_accounts_address_is_refused(tmp_path: Path) -> None:
    keystore.import_key(tmp_path, "main", SECRET, "pass")
    path = tmp_path / "keystore" / "main.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(fields | {"address": "12" * 20}))
    with pytest.raises(ConfigError, match="another address"):
        keystore.load(tmp_path, "main", "pass")


def test_an_account_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        keystore.load(tmp_path, "nobody", "pass")


def test_an_empty_password_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ChannelPayError, match="empty"):
        keystore.create(tmp_path, "main", "")


@pytest.mark.parametrize(
    "change",
    [
        {"version": 9},
        {"crypto": []},
        {"kdf": "x"},
        {"prf": 5},
        {"salt": None},
        {"c": -1},
        {"c": 10**30},
        {"c": 10**9},
        {"dklen": 10**30},
        {"dklen": "z"},
        {"n": 2**40, "r": 8},
        {"n": 2**22, "r": 64},
    ],
    ids=str,
)
def test_a_hostile_key_file_is_an_error_of_ours(tmp_path: Path, change: dict[str, Any]) -> None:
    keystore.import_key(tmp_path, "main", SECRET, "pass")
    path = tmp_path / "keystore" / "main.json"
    fields = json.loads(path.read_text())
    for name, value in change.items():
        outer = fields if name in fields else fields["crypto"]
        (outer if name in outer else outer["kdfparams"])[name] = value
    path.write_text(json.dumps(fields))
    with pytest.raises((ConfigError, InputError)):
        keystore.load(tmp_path, "main", "pass")


def test_a_key_file_that_is_a_folder_or_too_deep_is_an_error_of_ours(tmp_path: Path) -> None:
    keystore.import_key(tmp_path, "main", SECRET, "pass")
    path = tmp_path / "keystore" / "main.json"
    path.write_text("[" * 40_000)
    with pytest.raises(ConfigError, match=r"main\.json"):
        keystore.list_accounts(tmp_path)
    path.unlink()
    path.mkdir(mode=0o700)
    with pytest.raises(ConfigError, match=r"main\.json"):
        keystore.list_accounts(tmp_path)


def test_a_home_that_is_no_folder_is_an_error_of_ours(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        keystore.create(home, "main", "pass")
