"""What is asked before a key leaves the keystore."""

from __future__ import annotations

import sys

import click

from channelpay.errors import Declined, InputError


def require_name(name: str, purpose: str, *, is_agreed: bool) -> None:
    """Have the account's name typed at the terminal. Elsewhere ``--yes`` has to stand for it: no
    script loses or shows a key because nobody was asked.

    Raises :class:`Declined`, or :class:`InputError` where nobody can be asked.
    """
    if is_agreed:
        return
    if not sys.stdin.isatty():
        raise InputError(
            f"{purpose}, and nobody is there to agree",
            hint="Nothing was done. Add --yes if you agree.",
        )
    asked = f"{purpose}. Type {name} to go on"
    if click.prompt(asked, default="", show_default=False, err=True) != name:
        raise Declined("nothing was done")
