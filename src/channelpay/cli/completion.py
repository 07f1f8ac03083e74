"""``channelpay completion``: what makes a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_VARIABLE = "_CHANNELPAY_COMPLETE"


@click.command(epilog="Example: echo 'eval \"$(channelpay completion bash)\"' >> ~/.bashrc")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete channelpay's commands and options.

    In fish: channelpay completion fish > ~/.config/fish/completions/channelpay.fish
    """
    made = get_completion_class(shell)
    assert made is not None  # click has all of the choices
    click.echo(made(context.find_root().command, {}, "channelpay", _VARIABLE).source())
