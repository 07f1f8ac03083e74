"""The program's frame: which commands there are, how errors end it, which exit code it has."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

import click

from channelpay.cli.output import INTERRUPTED, Output
from channelpay.errors import ChannelPayError, ConfigError, InputError

_EXCESS = re.compile(r"(Got unexpected extra arguments?) \(.*\)\Z", re.DOTALL)


class _Command(NamedTuple):
    module: str
    help: str


_COMMANDS = {
    "account": _Command(
        "channelpay.cli.account", "Keep keys: new, import, ledger, list, show, export, …"
    ),
    "backup": _Command("channelpay.cli.backup", "Copy the books of your channels."),
    "budget": _Command("channelpay.cli.budget", "What was spent today, and what is left."),
    "channel": _Command(
        "channelpay.cli.channel", "Payment channels: open, list, show, top-up, close, withdraw."
    ),
    "completion": _Command("channelpay.cli.completion", "Have a shell complete commands."),
    "contract": _Command(
        "channelpay.cli.contract", "The contract itself: deploy, verify, abi, address."
    ),
    "coupon": _Command(
        "channelpay.cli.coupon", "Codes worth something: issue, list, revoke; redeem, buy."
    ),
    "dev": _Command("channelpay.cli.dev", "Run a local chain to try everything on."),
    "doctor": _Command("channelpay.cli.doctor", "Find what would keep a payment from working."),
    "forget": _Command("channelpay.cli.forget", "Remove what is kept about finished channels."),
    "hub": _Command(
        "channelpay.cli.hub", "One channel for many sites: members, payouts, statements."
    ),
    "init": _Command("channelpay.cli.init", "Write a settings file to begin with."),
    "networks": _Command(
        "channelpay.cli.networks_shown", "The networks that --network knows, and their tokens."
    ),
    "offers": _Command("channelpay.cli.offers", "What a URL costs, and how it can cost less."),
    "pass": _Command("channelpay.cli.passes", "Passes to sites: buy, list, show, renew, refund."),
    "pay": _Command("channelpay.cli.pay", "Fetch URLs that cost something."),
    "payee": _Command(
        "channelpay.cli.payee", "Take what is owed to you: status, settle, close, run."
    ),
    "points": _Command("channelpay.cli.offers", "Loyalty points and credit at a site: show."),
    "proxy": _Command("channelpay.cli.proxy", "Put a price in front of a server in any language."),
    "recover": _Command(
        "channelpay.cli.recover", "Books that were lost, or restored: find channels."
    ),
    "receipt": _Command(
        "channelpay.cli.receipt", "Receipts that a payee signed: verify, list, show, key."
    ),
    "site": _Command("channelpay.cli.site", "Serve a folder of files for payment."),
    "split": _Command(
        "channelpay.cli.split", "Share income on chain: address, create, release, close."
    ),
    "statement": _Command(
        "channelpay.cli.statement", "What was bought in a period: of a payee, of a payer."
    ),
    "tab": _Command("channelpay.cli.tab", "Read first, pay later: show, pay, list, write-off."),
    "voucher": _Command("channelpay.cli.voucher", "Sign a voucher, check one, look into headers."),
    "watch": _Command(
        "channelpay.cli.watch", "Answer close requests for a payee, from exported vouchers."
    ),
}
_EXTRA_OF_MODULE = {
    "eth": "dev",
    "keyring": "keyring",
    "ledgerblue": "ledger",
    "ledgereth": "ledger",
    "markdown_it": "site",
    "prometheus_client": "metrics",
    "psycopg": "postgres",
    "starlette": "site",
    "uvicorn": "site",
}


class _Root(click.Group):
    """Imports a command's module when it is used, and turns every error into words and a code."""

    def list_commands(self, _: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, _: click.Context, cmd_name: str) -> click.Command | None:
        command = _COMMANDS.get(cmd_name)
        if command is None:
            return None
        # Python has a word of its own that is called pass.
        module = import_module(command.module)
        found: click.Command = getattr(module, "passes" if cmd_name == "pass" else cmd_name)
        return found

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _COMMANDS[name].help) for name in sorted(_COMMANDS)])

    def invoke(self, ctx: click.Context) -> Any:
        """Ctrl-C is told by :meth:`Output.interrupted` alone."""
        try:
            return super().invoke(ctx)
        except (EOFError, KeyboardInterrupt):
            raise click.Abort from None

    def main(  # type: ignore[override]  # this group has one way to end
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run the program to its end: always raises :class:`SystemExit`."""
        output = Output.of_process()
        # Also for errors that end it before its options are read.
        output.as_json |= "--json" in (sys.argv[1:] if args is None else args)
        extra |= {"standalone_mode": False, "obj": output}
        try:
            code = super().main(args, prog_name or "channelpay", **extra)
        except click.Abort:
            output.interrupted()
            sys.exit(INTERRUPTED)
        except click.ClickException as error:
            _end(output, _usage_error(error))
        except ModuleNotFoundError as error:
            _end(output, _missing(error))
        except ChannelPayError as error:
            _end(output, error)
        sys.exit(code if isinstance(code, int) else 0)


def _end(output: Output, error: ChannelPayError) -> NoReturn:
    output.error(error)
    sys.exit(error.exit_code)


def _usage_error(error: click.ClickException) -> InputError:
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"See: {context.command_path} --help" if context is not None else ""
    # What is one too many is not repeated: somebody may have typed a key there.
    return InputError(_EXCESS.sub(r"\1", error.format_message()), hint=hint)


def _missing(error: ModuleNotFoundError) -> ConfigError:
    name = (error.name or "").partition(".")[0]
    extra = _EXTRA_OF_MODULE.get(name)
    if extra is None:
        raise error
    return ConfigError(
        f"this command needs the module {name}",
        hint=f"Install it with: pip install 'channelpay[{extra}]'",
    )


@click.command(
    "channelpay",
    cls=_Root,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: channelpay pay https://example.org/page --max 0.001 --deposit 0.05",
)
@click.option(
    "--network",
    envvar="CHANNELPAY_NETWORK",
    metavar="NAME",
    help="A network: base, ethereum, … or one of your settings file (default: what that says).",
)
@click.version_option(package_name="channelpay", message="%(prog)s %(version)s")
def cli(network: str | None) -> None:
    """Micropayments over Ethereum payment channels."""
