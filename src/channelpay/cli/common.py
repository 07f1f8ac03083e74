"""What several commands share: the home directory, accounts, passwords, the payer, amounts."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from channelpay.cli.output import Output
from channelpay.cli.passwords import password_of
from channelpay.errors import ConfigError, InputError, NotFound
from channelpay.protocol.parse import parse_address
from channelpay.protocol.text import format_amount, parse_human_amount, to_hex
from channelpay.protocol.types import (
    GRACE_SECONDS_MAX,
    GRACE_SECONDS_MIN,
    NATIVE,
    Address,
    ChannelId,
)

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

    from channelpay.chain.connection import Connection
    from channelpay.chain.keystore import StoredAccount
    from channelpay.chain.types import TransactionSigner
    from channelpay.cli.networks import Network
    from channelpay.payee.terms import Token as PayeeToken
    from channelpay.payer.budgets import Confirm
    from channelpay.payer.client import Payer
    from channelpay.payer.limits import Limits
    from channelpay.payer.observer import Observer
    from channelpay.payer.records import Token
    from channelpay.payer.session_keys import SessionKeys
    from channelpay.payer.state import PayerState
    from channelpay.payer.steps import Step

BOOKS = "payer.sqlite3"
SITE_BOOKS = "books.sqlite3"
SHORT_DIGITS = 8
PREFIX_DIGITS_MIN = 6
_DURATION = re.compile("(?P<number>[0-9]{1,9})(?P<unit>[dhms]?)")
_SECONDS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}

pass_output: Callable[[Callable[..., Any]], Callable[..., Any]] = click.make_pass_decorator(Output)


@dataclass(frozen=True, slots=True)
class Setting:
    """The options that most commands take, as they were given."""

    rpc: str | None
    contract: str | None
    account: str | None
    password_file: Path | None


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--rpc --contract --account --password-file``; the command gets them as ``setting``."""

    @rpc_option
    @contract_option
    @account_option
    @password_option
    @wraps(command)
    def with_setting(
        *args: Any,
        rpc: str | None,
        contract: str | None,
        account: str | None,
        password_file: Path | None,
        **options: Any,
    ) -> Any:
        setting = Setting(rpc, contract, account, password_file)
        return command(*args, setting=setting, **options)

    return with_setting


def node_option(*, required: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--rpc``, which may be repeated: the command gets all URLs in one text, as
    :func:`channelpay.chain.connection.connect` takes them.
    """
    return click.option(
        "--rpc",
        envvar="CHANNELPAY_RPC",
        metavar="URL",
        multiple=True,
        callback=partial(_node_urls, required=required),
        help="An Ethereum node. Repeat it, or put commas between URLs, for several of one chain."
        " (Default: those of the network.)",
    )


def _node_urls(
    context: click.Context, parameter: click.Parameter, urls: tuple[str, ...], *, required: bool
) -> str | None:
    network = None if urls else chosen_network(context)
    named = urls if network is None else network.rpc
    if required and not named:
        raise click.MissingParameter(ctx=context, param=parameter)
    return ",".join(named) or None


def chosen_network(context: click.Context) -> Network | None:
    """The network of ``--network``, the environment or the settings file."""
    from channelpay.cli.config import read_settings

    settings = read_settings()
    name = context.find_root().params.get("network") or settings.network
    return None if name is None else settings.named(name)


rpc_option: Callable[[Callable[..., Any]], Callable[..., Any]] = node_option()


def contract_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--contract",
        envvar="CHANNELPAY_CONTRACT",
        metavar="ADDRESS",
        callback=_contract_text,
        help="The contract to trust (default: that of the network, or the canonical one).",
    )(command)


def _contract_text(
    context: click.Context, _parameter: click.Parameter, text: str | None
) -> str | None:
    network = None if text is not None else chosen_network(context)
    return text if network is None else network.contract


def account_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--account",
        envvar="CHANNELPAY_ACCOUNT",
        metavar="NAME",
        help="The account to use (default: the only one).",
    )(command)


def password_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--password-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Holds the password; else CHANNELPAY_PASSWORD, the keyring, or a prompt.",
    )(command)


def state_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--state``: the command gets the folder of a site's books."""
    return click.option(
        "--state",
        type=click.Path(path_type=Path),
        callback=lambda _ctx, _parameter, folder: folder or home() / "site",
        help="The folder of the books and the challenge secret (default: CHANNELPAY_HOME/site).",
    )(command)


def token_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--token``: the command gets the token's address."""
    return click.option(
        "--token",
        default="eth",
        show_default=True,
        metavar="eth|NAME|ADDRESS",
        callback=lambda _context, _parameter, text: token_address(text),
        help="The token of all amounts; a NAME is one of the network's.",
    )(command)


def grace_period(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """The seconds of a duration within what a payer accepts. An option's callback."""
    if text is None:
        return None
    seconds = parse_duration(text)
    if not GRACE_SECONDS_MIN <= seconds <= GRACE_SECONDS_MAX:
        shortest, longest = duration_text(GRACE_SECONDS_MIN), duration_text(GRACE_SECONDS_MAX)
        misfit = "short" if seconds < GRACE_SECONDS_MIN else "long"
        raise click.BadParameter(f"{text} is too {misfit}: choose {shortest} to {longest}")
    return seconds


def parse_duration(text: str) -> int:
    """The seconds of ``1d``, ``12h``, ``90m``, ``5400s`` or ``5400``. An option's type."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise click.BadParameter("a duration is written 1d, 12h, 90m, 5400s or 5400")
    return int(match["number"]) * _SECONDS[match["unit"] or "s"]


def duration_text(seconds: int) -> str:
    """In the largest unit that measures it exactly, as ``--grace-period`` takes it."""
    unit = next(unit for unit, size in _SECONDS.items() if seconds % size == 0)
    return f"{seconds // _SECONDS[unit]}{unit}"


def token_address(text: str) -> Address:
    """``eth``, an address, or a name of the network's. For an option's callback or a command."""
    name, network = text.lower(), chosen_network(click.get_current_context())
    known = {} if network is None else network.tokens
    return NATIVE if name == "eth" else parse_address(known.get(name, text), "token")


# --- home, accounts, passwords -----------------------------------------------------------------


def home() -> Path:
    """``CHANNELPAY_HOME``, private to its owner."""
    folder = Path(os.environ.get("CHANNELPAY_HOME") or Path.home() / ".channelpay")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be used: {error.strerror}",
            hint="Name a folder of your own with CHANNELPAY_HOME.",
        ) from error
    return folder


def chosen_account(name: str | None) -> StoredAccount:
    """The named account, that of the settings, or the only one. Raises :class:`NotFound` or
    :class:`ConfigError`.
    """
    from channelpay.chain import keystore

    if name is None:
        from channelpay.cli.config import read_settings

        name = read_settings().account
    if name is not None:
        return keystore.find(home(), name)
    accounts = keystore.list_accounts(home())
    if len(accounts) == 1:
        return accounts[0]
    if accounts:
        names = ", ".join(account.name for account in accounts)
        raise ConfigError(
            f"there are several accounts: {names}", hint="Name one with --account NAME."
        )
    raise ConfigError("there is no account yet", hint="Make one with: channelpay account new NAME")


@dataclass(frozen=True, slots=True)
class PayingAccount:
    """What signs transactions, and what signs vouchers."""

    signer: TransactionSigner
    session_keys: SessionKeys


def paying_account(setting: Setting, output: Output) -> PayingAccount:
    """The chosen account, which asks for the password. A Ledger is needed for transactions only."""
    from channelpay.chain import keystore
    from channelpay.payer.session_keys import SessionKeys

    stored = chosen_account(setting.account)
    password = password_of(stored, setting.password_file)
    if stored.has_key:
        account = keystore.load(home(), stored.name, password)
        return PayingAccount(account, SessionKeys.of_account(bytes(account.key)))
    keys = SessionKeys(keystore.load_session_secret(home(), stored.name, password))
    if stored.ledger_path is None:
        from channelpay.chain.outside import OutsideAccount

        return PayingAccount(OutsideAccount(stored.address), keys)
    from channelpay.chain.ledger import LedgerAccount

    def announce() -> None:
        output.note("Confirm it on the Ledger.", {"waitingFor": "ledger"})

    return PayingAccount(LedgerAccount(stored.address, stored.ledger_path, announce), keys)


def unlocked_account(setting: Setting) -> LocalAccount:
    """The chosen account with its key, which asks for the password."""
    from channelpay.chain import keystore

    stored = chosen_account(setting.account)
    return keystore.load(home(), stored.name, password_of(stored, setting.password_file))


# --- chain, contract, channels -----------------------------------------------------------------


class _Identified(Protocol):
    @property
    def channel_id(self) -> ChannelId: ...


AnyChannel = TypeVar("AnyChannel", bound=_Identified)


def named_channel(channels: Iterable[AnyChannel], name: str, listing: str) -> AnyChannel:
    """A channel by its id or the first digits of it. Raises :class:`NotFound`, which names the
    command ``listing``.
    """
    digits = name.lower().removeprefix("0x")
    if len(digits) < PREFIX_DIGITS_MIN:
        raise InputError(f"give at least {PREFIX_DIGITS_MIN} digits of the channel's id")
    found = [one for one in channels if one.channel_id.hex().startswith(digits)]
    if len(found) == 1:
        return found[0]
    what = "several channels begin" if found else "no channel begins"
    raise NotFound(f"{what} with 0x{digits[:64]}", hint=f"List them with: {listing}")


def connected(rpc: str | None) -> Connection:
    """The node that was named. Raises :class:`ConfigError` if none was."""
    if rpc is None:
        raise ConfigError(
            "no node is named",
            hint="Name an Ethereum node with --rpc or CHANNELPAY_RPC, or a network: channelpay init"
            " --network NAME.",
        )
    from channelpay.chain.connection import connect

    return connect(rpc, expected_chain_id=expected_chain_id())


def expected_chain_id() -> int | None:
    """That of the network, whatever node was named: a mistake must not move money elsewhere."""
    network = chosen_network(click.get_current_context())
    return None if network is None else network.chain_id


def contract_address(setting: Setting) -> Address | None:
    """The contract that was named, or None for the canonical one."""
    return None if setting.contract is None else parse_address(setting.contract, "contract")


# --- the payer ---------------------------------------------------------------------------------


@contextmanager
def open_payer(
    setting: Setting,
    output: Output,
    limits: tuple[Limits, ...] = (),
    confirm: Confirm | None = None,
    gasless: str = "auto",
) -> Iterator[Payer]:
    """The payer with its key, which asks for the password. It pays whom the settings file lists."""
    from channelpay.chain.sender import SendPolicy
    from channelpay.cli.config import read_settings
    from channelpay.payer.budgets import never
    from channelpay.payer.client import Payer
    from channelpay.payer.gasless import Gasless
    from channelpay.payer.offers import Allowed

    listed = read_settings().budget
    account = paying_account(setting, output)

    class _SpeakingPayer(Payer):
        """Says when a session waits for the chain."""

        def perform(self, step: Step) -> None:
            with output.waiting("Waiting for the chain", after_interrupt=LOOK_AT_CHANNELS):
                super().perform(step)

    payer = _SpeakingPayer(
        account.signer,
        setting.rpc,
        home() / BOOKS,
        session_keys=account.session_keys,
        limits=limits,
        chain_id=expected_chain_id(),
        contract=contract_address(setting),
        policy=SendPolicy(listener=output.told),
        allowed=Allowed(listed.contracts, listed.payees, listed.origins),
        confirm=confirm or never,
        gasless=Gasless(gasless),
    )
    try:
        yield payer
    finally:
        payer.close()


LOOK_AT_CHANNELS = "See what became of it with: channelpay channel list"


@contextmanager
def open_books() -> Iterator[PayerState]:
    from channelpay.payer.state import PayerState

    state = PayerState(home() / BOOKS)
    try:
        yield state
    finally:
        state.close()


def observer_of(setting: Setting, state: PayerState, payer: Address) -> Observer:
    """What reads the chain for ``payer`` without its key."""
    connection = connected(setting.rpc)
    from channelpay.payer.observer import Observer

    return Observer(connection, payer, state)


# --- amounts -----------------------------------------------------------------------------------


def parse_amount_of(text: str, token: Token, field: str) -> int:
    return parse_human_amount(text, token.decimals, field)


def format_amount_of(amount: int, token: Token | PayeeToken | None) -> str:
    """In human units; in base units if nothing is known of the token."""
    if token is None:
        return f"{amount} base units"
    return format_amount(amount, token.decimals, token.symbol)


def short(identifier: bytes) -> str:
    """The first digits of a long identifier: enough to name it in a command."""
    return to_hex(identifier)[: 2 + SHORT_DIGITS]
