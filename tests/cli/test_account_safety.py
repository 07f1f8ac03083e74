"""``channelpay account``: derivation paths, the keyring, export, delete, a Ledger, a node that is
down.
"""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from eth_account import Account

from channelpay.chain import keystore
from channelpay.cli.output import Output
from channelpay.payer.records import PayerChannel
from channelpay.payer.state import PayerState
from channelpay.protocol.text import checksum_address
from channelpay.protocol.types import (
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelState,
    ChannelStatus,
    Deployment,
)
from channelpay.testing.accounts import MNEMONIC, dev_accounts
from channelpay.testing.furnished import FurnishedChain
from tests.cli.conftest import PASSWORD, Run

if TYPE_CHECKING:
    from tests.support.ledger_device import FakeLedger

SECRET = "4a" * 32
NOBODY = "http://127.0.0.1:9"
DEPLOYMENT = Deployment(31337, Address(b"\x11" * 20))


@pytest.fixture
def main(run: Run) -> str:
    """The address of an account ``main``."""
    result = run("account", "import", "main", input=SECRET)
    address: str = json.loads(result.stdout)["address"]
    return address


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.touch(0o600)
    path.write_text(MNEMONIC)
    return path


# --- import --------------------------------------------------------------------------------------


def test_any_account_of_a_mnemonic_is_imported(run: Run, secret_file: Path) -> None:
    third = ("--path", "m/44'/60'/0'/0/2", "--secret-file", secret_file)
    result = run("account", "import", "third", *third)
    assert json.loads(result.stdout)["address"] == checksum_address(dev_accounts()[2].address)


@pytest.mark.parametrize("path", ["44'/60'/0'/0/2", "m", "m/x", "m/2147483648", "m/0/" + SECRET])
def test_what_is_no_path_is_refused_without_repeating_it(
    run: Run, home: Path, secret_file: Path, path: str
) -> None:
    result = run("account", "import", "main", "--path", path, "--secret-file", secret_file)
    assert result.exit_code == 2
    assert SECRET not in result.output
    assert not (home / "keystore").exists()


def test_a_path_and_a_key_contradict_each_other(run: Run) -> None:
    result = run("account", "import", "main", "--path", "m/44'/60'/0'/0/0", input=SECRET)
    assert (result.exit_code, "mnemonic" in result.stderr) == (2, True)


# --- export --------------------------------------------------------------------------------------


def test_an_exported_file_opens_in_other_wallets_and_is_private(
    run: Run, main: str, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.json"
    result = run("account", "export", "main", "--to", copy, "--yes")
    assert json.loads(result.stdout)["address"] == main
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert Account.decrypt(copy.read_text(), PASSWORD).hex() == SECRET
    assert SECRET not in result.output + copy.read_text()


def test_the_bare_key_goes_into_a_private_file_and_on_no_screen(
    run: Run, main: str, tmp_path: Path
) -> None:
    copy = tmp_path / "key"
    result = run("account", "export", "main", "--key", "--to", copy, "--yes")
    assert main in result.stdout
    assert copy.read_text() == f"0x{SECRET}\n"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert SECRET not in result.output


@pytest.mark.usefixtures("main")
def test_a_key_is_printed_only_if_that_is_said(run: Run) -> None:
    assert run("account", "export", "main", "--key", "--show", "--yes").stdout == f"0x{SECRET}\n"
    for options in (["--key", "--yes"], ["--key", "--show"], ["--key"]):
        result = run("account", "export", "main", *options)
        assert result.exit_code == 2
        assert SECRET not in result.output


@pytest.mark.usefixtures("main")
def test_an_export_never_goes_over_a_file(run: Run, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    assert run("account", "export", "main", "--to", taken, "--yes").exit_code == 2
    assert taken.read_text() == "mine"


# --- delete --------------------------------------------------------------------------------------


def with_channel(home: Path, address: str, status: ChannelStatus) -> None:
    payer = Address(bytes.fromhex(address[2:]))
    channel = Channel(payer, Address(b"\xee" * 20), NATIVE, ZERO_ADDRESS, bytes(32))
    state = PayerState(home / "payer.sqlite3")
    planned = PayerChannel.planned(DEPLOYMENT, channel, 100, None, 1)
    state.begin_open(planned)
    state.record_chain_state(planned.channel_id, ChannelState(status, 100))
    state.close()


@pytest.mark.parametrize(
    "status", [ChannelStatus.ABSENT, ChannelStatus.OPEN, ChannelStatus.CLOSING]
)
def test_an_account_with_money_in_channels_is_kept(
    run: Run, home: Path, main: str, status: ChannelStatus
) -> None:
    with_channel(home, main, status)
    result = run("account", "delete", "main", "--yes")
    assert (result.exit_code, "1 channel that" in result.stderr) == (2, True)
    assert [one.name for one in keystore.list_accounts(home)] == ["main"]
    assert run("account", "delete", "main", "--yes", "--lose-channels").exit_code == 0
    assert keystore.list_accounts(home) == []


def test_an_account_without_channels_is_deleted_whole(run: Run, home: Path, main: str) -> None:
    with_channel(home, main, ChannelStatus.FINALIZED)
    assert run("account", "delete", "main", "--yes").exit_code == 0
    assert [*(home / "keystore").iterdir()] == []


@pytest.mark.usefixtures("main")
def test_without_a_terminal_nothing_is_deleted_unless_agreed(run: Run, home: Path) -> None:
    result = run("account", "delete", "main", input="main\n")
    assert (result.exit_code, "--yes" in result.stderr) == (2, True)
    assert [one.name for one in keystore.list_accounts(home)] == ["main"]


@pytest.mark.parametrize(("typed", "is_deleted"), [("main", True), ("y", False), ("", False)])
@pytest.mark.usefixtures("main")
def test_at_a_terminal_the_name_has_to_be_typed(
    home: Path, typed: str, *, is_deleted: bool
) -> None:
    ours, theirs = pty.openpty()
    program = "from channelpay.cli.root import cli; cli(['account', 'delete', 'main'])"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=theirs, stdout=theirs, stderr=theirs
    ) as child:
        os.write(ours, f"{typed}\n".encode())
        child.wait(60)
    os.close(theirs)
    os.close(ours)
    assert (keystore.list_accounts(home) == []) == is_deleted


# --- the keyring ---------------------------------------------------------------------------------


@pytest.fixture
def keyring_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A keyring in a file, through the library's own interface for backends."""
    keyring = pytest.importorskip("keyring", reason="needs the extra 'keyring'")
    from tests.support.file_keyring import FileKeyring

    path = tmp_path / "keyring.json"
    before = keyring.get_keyring()
    keyring.set_keyring(FileKeyring(path))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "")
    yield path
    keyring.set_keyring(before)


@pytest.mark.usefixtures("main")
def test_a_remembered_password_is_not_asked(
    run: Run, keyring_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = ("account", "export", "main", "--key", "--show", "--yes")
    assert run("account", "remember", "main").exit_code == 0
    assert PASSWORD in keyring_file.read_text()
    monkeypatch.delenv("CHANNELPAY_PASSWORD")
    assert run(*export).stdout == f"0x{SECRET}\n"
    assert run("account", "remember", "main", "--undo").exit_code == 0
    assert PASSWORD not in keyring_file.read_text()
    asked = run(*export, input=f"{PASSWORD}\n")
    assert "Password of main" in asked.stderr


@pytest.mark.usefixtures("main")
def test_a_wrong_password_is_not_remembered(
    run: Run, keyring_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHANNELPAY_PASSWORD", "guess-42")
    assert run("account", "remember", "main").exit_code == 2
    assert not keyring_file.exists()


@pytest.mark.usefixtures("main")
def test_the_keyring_forgets_a_deleted_account(run: Run, keyring_file: Path) -> None:
    run("account", "remember", "main")
    run("account", "delete", "main", "--yes")
    assert PASSWORD not in keyring_file.read_text()


@pytest.mark.usefixtures("main")
def test_a_keyring_that_does_not_forget_is_named(
    run: Run, keyring_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("account", "remember", "main")
    monkeypatch.setattr("tests.support.file_keyring.FileKeyring.delete_password", refuse_to_delete)

    result = run("account", "remember", "main", "--undo")

    assert result.exit_code == 2
    assert "the keyring keeps the password of main" in result.stderr
    assert PASSWORD in keyring_file.read_text()


def refuse_to_delete(*_: str) -> None:
    from keyring.errors import PasswordDeleteError

    raise PasswordDeleteError("it is locked")


@pytest.mark.usefixtures("main")
def test_a_system_without_a_keyring_asks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = pytest.importorskip("keyring", reason="needs the extra 'keyring'")
    from keyring.backends import fail

    before = keyring.get_keyring()
    keyring.set_keyring(fail.Keyring())  # type: ignore[no-untyped-call, unused-ignore]
    try:
        assert run("account", "remember", "main").exit_code == 2
        monkeypatch.delenv("CHANNELPAY_PASSWORD")
        asked = run("account", "export", "main", "--key", "--show", "--yes", input=f"{PASSWORD}\n")
    finally:
        keyring.set_keyring(before)
    assert asked.exit_code == 0


# --- show ----------------------------------------------------------------------------------------


def test_an_account_is_shown_while_the_node_is_down(run: Run, main: str) -> None:
    result = run("account", "show", "main", "--rpc", NOBODY)
    members = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (members["address"], members["balance"]) == (main, None)
    assert json.loads(result.stderr.splitlines()[-1])["code"]


@pytest.mark.usefixtures("main")
def test_a_person_gets_the_address_as_a_qr_code(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Output, "of_process", classmethod(lambda cls: cls(as_json=False)))
    assert "█" in run("account", "show", "main", "--qr").stdout
    assert "█" not in run("account", "show", "main").stdout


# --- a Ledger ------------------------------------------------------------------------------------


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FakeLedger:
    pytest.importorskip("ledgereth", reason="needs the extra 'ledger'")
    import ledgerblue.comm

    from tests.support.ledger_device import FakeLedger

    device = FakeLedger()
    monkeypatch.setattr(ledgerblue.comm, "getDongle", lambda *_: device)
    return device


def test_a_ledgers_account_opens_channels_and_keeps_its_key(
    run: Run, home: Path, device: FakeLedger, dev_chain: FurnishedChain
) -> None:
    made = run("account", "ledger", "cold", "--path", "m/44'/60'/0'/0/1")
    address = checksum_address(dev_accounts()[1].address)
    assert json.loads(made.stdout) == {"name": "cold", "address": address}
    node = ("--rpc", dev_chain.rpc_url, "--contract", "0x" + dev_chain.contract.hex())
    payee = checksum_address(dev_accounts()[2].address)
    opened = run("channel", "open", payee, "--deposit", "1", "--yes", *node)
    assert opened.exit_code == 0, opened.output
    assert "Ledger" in opened.stderr or "ledger" in opened.stderr
    assert len(device.shown) == 1

    channel = json.loads(opened.stdout)["channelId"]
    signed = json.loads(run("voucher", "sign", channel, "0.5", "--yes", *node).stdout)
    assert signed["cumulativeAmount"] == str(5 * 10**17)
    assert len(device.shown) == 1
    text = (home / "keystore" / "cold.json").read_text()
    assert dev_accounts()[1].private_key.hex() not in text
    assert run("account", "export", "cold", "--key", "--show", "--yes").exit_code == 2


def test_the_file_of_a_ledgers_account_is_no_key_to_other_wallets(
    run: Run, home: Path, device: FakeLedger
) -> None:
    run("account", "ledger", "cold")
    with pytest.raises((KeyError, NotImplementedError)):
        Account.decrypt((home / "keystore" / "cold.json").read_text(), PASSWORD)
    assert json.loads(run("account", "show", "cold").stdout)["ledgerPath"] == "m/44'/60'/0'/0/0"
    assert device.shown == []
