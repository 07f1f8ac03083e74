"""The command line. One module per noun; each is imported when its command is used."""

from __future__ import annotations

from channelpay.cli.root import cli


def main() -> None:
    """The ``channelpay`` program."""
    cli()
