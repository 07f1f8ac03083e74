"""``channelpay networks``: what ``--network`` and ``--token`` know by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from channelpay.cli.common import chosen_network, pass_output
from channelpay.cli.networks import Network
from channelpay.cli.output import Output, json_option

if TYPE_CHECKING:
    from rich.table import Table


@click.command(epilog="Example: channelpay networks")
@json_option
@pass_output
@click.pass_context
def networks(context: click.Context, output: Output) -> None:
    """List the networks that are known by name, and their tokens.

    Those of your settings file are among them. Of a node only its host is shown.
    """
    from channelpay.cli.config import read_settings

    found, chosen = list(read_settings().networks.values()), chosen_network(context)
    members = [{**_members(one), "chosen": one == chosen} for one in found]
    output.show(members, lambda: _table(found, chosen))


def _members(network: Network) -> dict[str, object]:
    return {
        "name": network.name,
        "chainId": network.chain_id,
        "nodes": [urlsplit(url).hostname for url in network.rpc],
        "contract": network.contract,
        "confirmations": network.confirmations,
        "explorer": network.explorer,
        "tokens": dict(network.tokens),
    }


def _table(networks: Sequence[Network], chosen: Network | None) -> Table:
    from rich.table import Table

    caption = "No network is chosen." if chosen is None else f"Chosen: {chosen.name}"
    table = Table("Name", "Chain id", "Confirmations", "Tokens", "Explorer", caption=caption)
    for one in networks:
        table.add_row(
            one.name,
            str(one.chain_id),
            str(one.confirmations),
            ", ".join(["eth", *one.tokens]),
            one.explorer or "",
        )
    return table
