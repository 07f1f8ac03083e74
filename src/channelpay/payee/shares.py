"""A file that says who shares what a site earns. The payee is then the splitter of these shares."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from channelpay.chain.splitters import Shares
from channelpay.errors import ConfigError, InputError
from channelpay.protocol.parse import parse_address
from channelpay.protocol.types import ZERO_ADDRESS, Address

_KEYS = {"account", "basis_points"}


def read_shares(path: Path) -> Shares:
    """The shares of a TOML file.

    It looks like this::

        operator = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"  # optional: may close channels

        [[share]]
        account = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
        basis_points = 7000

        [[share]]
        account = "0x90F79bf6EB2c4f870365E785982E1f101E93b906"
        basis_points = 3000

    Raises :class:`~channelpay.errors.ConfigError`, which names the file and the key.
    """
    try:
        members = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    operator, rows = members.pop("operator", None), members.pop("share", None)
    if members or not isinstance(rows, list):
        raise ConfigError(f"{path} must hold [[share]] tables, and nothing else but operator")
    parties = tuple(_party(f"{path}, share {number}", row) for number, row in enumerate(rows, 1))
    named = ZERO_ADDRESS if operator is None else _address(operator, f"{path}, operator")
    try:
        return Shares(parties, named)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.detail}", hint=error.hint) from error


def _party(where: str, row: Any) -> tuple[Address, int]:
    if not isinstance(row, dict) or row.keys() != _KEYS:
        raise ConfigError(f"{where} must have account and basis_points")
    part = row["basis_points"]
    if type(part) is not int:
        raise ConfigError(f"{where}, basis_points: must be a whole number")
    return _address(row["account"], f"{where}, account"), part


def _address(text: object, where: str) -> Address:
    try:
        return parse_address(text, where)
    except InputError as error:
        raise ConfigError(error.detail) from error
