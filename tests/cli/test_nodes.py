"""``--rpc`` and CHANNELPAY_RPC take one node or several."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from channelpay.cli.common import node_option


@click.command()
@node_option()
def optional(rpc: str | None) -> None:
    click.echo(repr(rpc))


@click.command()
@node_option(required=True)
def required(rpc: str) -> None:
    click.echo(repr(rpc))


@pytest.mark.parametrize("command", [optional, required])
@pytest.mark.parametrize(
    ("arguments", "environment", "nodes"),
    [
        (["--rpc", "http://a"], None, "http://a"),
        (["--rpc", "http://a", "--rpc", "http://b,http://c"], None, "http://a,http://b,http://c"),
        ([], "http://a,http://b", "http://a,http://b"),
        (["--rpc", "http://a"], "http://b", "http://a"),
    ],
)
def test_nodes_may_be_repeated_or_have_commas_between_them(
    command: click.Command, arguments: list[str], environment: str | None, nodes: str
) -> None:
    result = CliRunner().invoke(command, arguments, env={"CHANNELPAY_RPC": environment})
    assert result.output == f"{nodes!r}\n"


@pytest.mark.parametrize("environment", [None, ""])
def test_no_node_is_none_or_a_mistake(environment: str | None) -> None:
    env = {"CHANNELPAY_RPC": environment}
    assert CliRunner().invoke(optional, [], env=env).output == "None\n"
    result = CliRunner().invoke(required, [], env=env)
    assert (result.exit_code, "--rpc" in result.output) == (2, True)
