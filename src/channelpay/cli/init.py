"""``channelpay init``: a settings file to begin with."""

from __future__ import annotations

import os
from pathlib import Path

import click

from channelpay.cli.common import pass_output
from channelpay.cli.config import Config, config_path
from channelpay.cli.limits import DEFAULTS
from channelpay.cli.networks import LOCAL, Network
from channelpay.cli.output import Output, facts_table, json_option
from channelpay.errors import ConfigError

_NEXT = "channelpay account new NAME"


@click.command(epilog="Example: channelpay init --network base")
@click.option(
    "--network",
    metavar="NAME",
    help=f"The network to use from now on (default on a pipe: {LOCAL}).",
)
@json_option
@pass_output
def init(output: Output, network: str | None) -> None:
    """Write a settings file with comments, once.

    A file that is there already stays as it is.
    """
    path = config_path()
    chosen = Config().named(network or _named_before() or _asked(output))
    _write_new(path, _text_for(chosen))
    members = {"config": str(path), "network": chosen.name, "next": _NEXT}
    shown = {"Settings": str(path), "Network": chosen.name, "Next": _NEXT}
    output.show(members, lambda: facts_table(shown))


def _named_before() -> str | None:
    """``channelpay --network NAME init``, or CHANNELPAY_NETWORK."""
    name: str | None = click.get_current_context().find_root().params.get("network")
    return name


def _asked(output: Output) -> str:
    if output.as_json:
        return LOCAL
    names = click.Choice(list(Config().networks))
    answer: str = click.prompt("Network", default=LOCAL, type=names, err=True)
    return answer


def _write_new(path: Path, text: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError(
            f"{path} is there already", hint="Edit it, or move it away and run this again."
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _text_for(network: Network) -> str:
    return f"""\
# Settings of channelpay. The command line and the environment (CHANNELPAY_NETWORK, _RPC, _CONTRACT,
# _ACCOUNT) count before this file. No secret belongs here but the key that a node's URL may hold.

# The network that is meant where a command does not say.
network = "{network.name}"

# The account that is meant, by its name in the keystore.
# account = "alice"

# What may be spent without asking, in units of a token; a name under [networks] or an address takes
# the place of eth. What goes beyond is asked for at a terminal, and refused in a program. Days are
# those of UTC. Where this says nothing of a token, small limits hold for ether and well-known
# stablecoins, and nothing is paid in others. Who to pay at all can be listed, too:
# [budget]
# payees = ["0x…"]
# origins = ["https://site.example"]
# contracts = ["0x…"]  # beside that of the network
# [budget.eth]
# request = "{DEFAULTS["eth"].request}"     # for one request
# origin_day = "{DEFAULTS["eth"].origin_day}"   # for all to one origin in a day
# day = "{DEFAULTS["eth"].day}"           # for all in a day
# total = "0.05"          # for ever
# metered = "0.0001"      # for one response whose price is by the unit (else request)
# deposit = "0.01"        # to open a channel with (else none is), and to top it up by
# channel = "0.03"        # to have in a channel at most (else it is not topped up)

# What is known of the network is shown below; take the # away to change it. The public node is for
# a first try. Name several of your own: they are compared, and one that fails is passed over.
[networks.{network.name}]
# chain_id = {network.chain_id}
# rpc = {_list(network.rpc)}
# confirmations = {network.confirmations}
{_commented("contract", network.contract, "0x…", "default: the canonical one")}\
{_commented("explorer", network.explorer, "https://…", "")}
# Tokens by name, for --token NAME.
[networks.{network.name}.tokens]
{"".join(f'# {name} = "{address}"{chr(10)}' for name, address in network.tokens.items())}\
"""


def _list(texts: tuple[str, ...]) -> str:
    return "[" + ", ".join(f'"{text}"' for text in texts) + "]"


def _commented(name: str, value: str | None, example: str, remark: str) -> str:
    note = f"  # {remark}" if remark else ""
    return f'# {name} = "{value or example}"{note}\n'
