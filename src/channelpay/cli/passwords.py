"""Passwords of accounts: from a file, the environment, the system's keyring, or the terminal.

The keyring is that of the library ``keyring``, the extra of the same name: the desktop's, on most
systems. Whoever is logged in there can open what it remembers.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from channelpay.errors import ConfigError, InputError
from channelpay.private_files import open_private

if TYPE_CHECKING:
    from channelpay.chain.keystore import StoredAccount

PASSWORD_BYTES_MAX = 4096
SERVICE = "channelpay"


def password_of(stored: StoredAccount, file: Path | None) -> str:
    """The password of an account: from the file, else from ``CHANNELPAY_PASSWORD``, else from the
    keyring if it was remembered, else asked at the terminal.
    """
    if file is None and not os.environ.get("CHANNELPAY_PASSWORD"):
        password = remembered(stored)
        if password is not None:
            return password
    return read_password(file, f"Password of {stored.name}")


def read_password(file: Path | None, prompt: str, *, confirm: bool = False) -> str:
    """From the file, else from ``CHANNELPAY_PASSWORD``, else asked at the terminal."""
    if file is not None:
        return read_secret_file(file)
    given = os.environ.get("CHANNELPAY_PASSWORD")
    if given:
        return given
    answer: str = click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
    return answer


def read_secret_file(path: Path) -> str:
    """The first line of a file that only its owner may use."""
    try:
        with open_private(path) as file:
            return file.readline(PASSWORD_BYTES_MAX).decode().rstrip("\r\n")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text") from None


def remembered(stored: StoredAccount) -> str | None:
    """What the keyring knows. A system without one knows nothing."""
    if find_spec("keyring") is None:
        return None
    import keyring
    from keyring.errors import KeyringError

    try:
        found: str | None = keyring.get_password(SERVICE, _place(stored))
    except KeyringError:
        return None
    return found


def remember(stored: StoredAccount, password: str) -> None:
    """Raises :class:`ConfigError` if there is no keyring, or it refuses."""
    import keyring
    from keyring.errors import KeyringError

    try:
        keyring.set_password(SERVICE, _place(stored), password)
    except KeyringError as error:
        raise ConfigError(
            f"the keyring does not take it: {error}",
            hint="Put the password into a file instead: --password-file.",
        ) from None


def forget_password(stored: StoredAccount) -> None:
    """Nothing happens if the keyring does not know it. Raises :class:`ConfigError` if it knows it
    and does not let it go.
    """
    if remembered(stored) is None:
        return
    import keyring
    from keyring.errors import KeyringError

    try:
        keyring.delete_password(SERVICE, _place(stored))
    except KeyringError as error:
        raise ConfigError(
            f"the keyring keeps the password of {stored.name}: {error}",
            hint=f"Remove it there: the entry of {SERVICE} for {_place(stored)}.",
        ) from None


def _place(stored: StoredAccount) -> str:
    """Accounts of several homes may have the same name and even the same key."""
    return str(stored.path.absolute())
