"""The settings file, ``config.toml`` in ``CHANNELPAY_HOME``: which network and which account are
meant where a command does not say, and what may be spent.

What is given on the command line counts first, then the environment, then the file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from channelpay.cli.common import home
from channelpay.cli.limits import BudgetSettings, TokenBudget
from channelpay.cli.networks import WELL_KNOWN, Network
from channelpay.errors import ChannelPayError, ConfigError
from channelpay.payer.origins import origin_of
from channelpay.protocol.parse import parse_address
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Address

CONFIG = "config.toml"
CONFIG_BYTES_MAX = 64 * 1024
RPC_MAX = 8
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_SYMBOL = re.compile(r"[a-z0-9][a-z0-9.]{0,15}")
_URL = re.compile(r"https?://[^\s/?#]+[^\s]*")
_AMOUNT = re.compile(r"[0-9]{1,30}(\.[0-9]{1,30})?( [A-Za-z0-9.]{1,16})?")
_MEMBERS = ("network", "account", "networks", "budget")
_NETWORK_MEMBERS = ("chain_id", "rpc", "contract", "confirmations", "explorer", "tokens")
_LISTS = ("contracts", "payees", "origins")
_LIMITS = tuple(one.name for one in fields(TokenBudget))
_NEEDED = ("request", "origin_day", "day")


@dataclass(frozen=True, slots=True)
class Config:
    """What the file says. ``networks`` has those that are well known, too."""

    network: str | None = None
    account: str | None = None
    networks: Mapping[str, Network] = field(default_factory=lambda: WELL_KNOWN)
    budget: BudgetSettings = field(default_factory=BudgetSettings)

    def named(self, name: str) -> Network:
        """Raises :class:`ConfigError` for a network that nobody described."""
        found = self.networks.get(name)
        if found is None:
            raise ConfigError(
                f"there is no network {name[:40]!r}",
                hint=f"Known are {', '.join(self.networks)}; describe others in {CONFIG}.",
            )
        return found


def config_path() -> Path:
    return home() / CONFIG


def read_config(path: Path) -> Config:
    """The file's settings, or the defaults where there is no file. Raises :class:`ConfigError`."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Config()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > CONFIG_BYTES_MAX:
        raise ConfigError(f"{path} is larger than {CONFIG_BYTES_MAX} bytes")
    try:
        return _config(tomllib.loads(data.decode()))
    except ChannelPayError as error:
        raise ConfigError(f"{path}: {error.detail}", hint=error.hint) from error
    except (ValueError, RecursionError) as error:  # also for numbers that are too long
        raise ConfigError(f"{path} is not TOML: {error}") from error


def read_settings() -> Config:
    """What ``config.toml`` says now."""
    path = config_path()
    return _read_once(path, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=1)
def _read_once(path: Path, _stamp: int) -> Config:
    return read_config(path)


def _config(members: Mapping[str, Any]) -> Config:
    _refuse_unknown(members, _MEMBERS, "the file")
    networks = dict(WELL_KNOWN)
    for name, described in _table(members, "networks").items():
        networks[name] = _network(name, described, networks.get(name))
    budget = _budget(_table(members, "budget"), networks)
    config = Config(_text(members, "network"), _text(members, "account"), networks, budget)
    if config.network is not None:
        config.named(config.network)
    return config


def _network(name: str, members: object, known: Network | None) -> Network:
    """What is said of a well-known network replaces what is known of it."""
    place = f"networks.{name}"
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{place}: a network's name has small letters, digits and hyphens")
    if not isinstance(members, dict):
        raise ConfigError(f"{place} is not a table")
    _refuse_unknown(members, _NETWORK_MEMBERS, place)
    if known is None and ("chain_id" not in members or "rpc" not in members):
        raise ConfigError(f"{place} needs chain_id and rpc")
    return Network(
        name,
        _number(members, "chain_id", place, known.chain_id if known else 0),
        _rpc(members, place) or (known.rpc if known else ()),
        _contract(members, place) or (known.contract if known else None),
        _number(members, "confirmations", place, known.confirmations if known else 1),
        _explorer(members, place) or (known.explorer if known else None),
        {**(known.tokens if known else {}), **_tokens(members, place)},
    )


def _refuse_unknown(members: Mapping[str, Any], known: tuple[str, ...], place: str) -> None:
    for name in members:
        if name not in known:
            raise ConfigError(
                f"{place} does not know {name[:40]!r}", hint=f"It takes {', '.join(known)}."
            )


def _table(members: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = members.get(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{name} is not a table")
    return table


def _text(members: Mapping[str, Any], name: str) -> str | None:
    text = members.get(name)
    if text is not None and not isinstance(text, str):
        raise ConfigError(f"{name} is not a text")
    return text


def _number(members: Mapping[str, Any], name: str, place: str, default: int) -> int:
    number = members.get(name, default)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number < 2**53:
        raise ConfigError(f"{place}: {name} is not a whole number above 0")
    return number


def _rpc(members: Mapping[str, Any], place: str) -> tuple[str, ...]:
    urls = members.get("rpc", [])
    several = [urls] if isinstance(urls, str) else urls
    fits = isinstance(several, list) and len(several) <= RPC_MAX
    if not fits or not all(isinstance(url, str) and _URL.fullmatch(url) for url in several):
        # Not repeated: a URL may hold a key.
        raise ConfigError(f"{place}: rpc is not a list of up to {RPC_MAX} http or https URLs")
    return tuple(several)


def _contract(members: Mapping[str, Any], place: str) -> str | None:
    contract = members.get("contract")
    if contract is not None:
        parse_address(contract, f"{place}: contract")
    return contract


def _explorer(members: Mapping[str, Any], place: str) -> str | None:
    explorer = members.get("explorer")
    if explorer is None:
        return None
    if not isinstance(explorer, str) or not _URL.fullmatch(explorer):
        raise ConfigError(f"{place}: explorer is not a URL")
    return explorer.rstrip("/")


def _tokens(members: Mapping[str, Any], place: str) -> dict[str, str]:
    tokens = _table(members, "tokens")
    for symbol, address in tokens.items():
        if not _SYMBOL.fullmatch(symbol) or symbol == "eth":
            raise ConfigError(f"{place}: a token's name has up to 16 small letters and digits")
        parse_address(address, f"{place}: {symbol}")
    return dict(tokens)


# --- the budget ----------------------------------------------------------------------------------


def _budget(members: Mapping[str, Any], networks: Mapping[str, Network]) -> BudgetSettings:
    named = {"eth", *(symbol for network in networks.values() for symbol in network.tokens)}
    tokens = {}
    for name, limits in members.items():
        if name not in _LISTS:
            token = _token_name(name, named)
            if token in tokens:
                raise ConfigError(f"budget names {token} twice")
            tokens[token] = _token_budget(f"budget.{name}", limits)
    contracts, payees, origins = (_listed(members, name) for name in _LISTS)
    return BudgetSettings(
        tokens,
        _addresses(contracts, "contracts") or frozenset(),
        _addresses(payees, "payees"),
        None if origins is None else frozenset(origin_of(one) for one in origins),
    )


def _token_name(name: str, named: set[str]) -> str:
    """A token as the sections are known by: its name, or its address in small letters."""
    if name in named:
        return name
    if not name.startswith("0x"):
        raise ConfigError(
            f"budget does not know {name[:40]!r}",
            hint=f"It takes {', '.join(_LISTS)}, and a table for each token: {', '.join(named)} or"
            " an address.",
        )
    return to_hex(parse_address(name, "budget"))


def _token_budget(place: str, members: object) -> TokenBudget:
    if not isinstance(members, dict):
        raise ConfigError(f"{place} is not a table")
    _refuse_unknown(members, _LIMITS, place)
    for name in _NEEDED:
        if name not in members:
            raise ConfigError(f"{place} needs {', '.join(_NEEDED)}", hint=f"There is no {name}.")
    for name, text in members.items():
        if not isinstance(text, str) or not _AMOUNT.fullmatch(text):
            raise ConfigError(
                f"{place}: {name} is not an amount", hint='Write it with quotes, say "0.001".'
            )
    return TokenBudget(**members)


def _listed(members: Mapping[str, Any], name: str) -> list[str] | None:
    texts = members.get(name)
    if texts is None:
        return None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"budget: {name} is not a list of texts")
    return texts


def _addresses(texts: list[str] | None, name: str) -> frozenset[Address] | None:
    return (
        None if texts is None else frozenset(parse_address(one, f"budget: {name}") for one in texts)
    )
