"""QR codes in the terminal: an address to send money to, or a site to pay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from channelpay.cli.output import Output

QUIET_MODULES = 4
"""The margin that ISO/IEC 18004 asks for."""
_BLOCKS = {(True, True): "█", (True, False): "▀", (False, True): "▄", (False, False): " "}
"""By whether the upper and the lower module is light: two of them are one character."""


def qr_option(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--qr``."""
    return click.option("--qr", is_flag=True, help=f"Show a QR code of {what}, on a terminal.")


def show_qr(output: Output, text: str) -> None:
    """Print ``text`` as a QR code for people; programs get none."""
    if output.as_json:
        return
    from rich.console import Console
    from rich.text import Text

    console, rows = Console(), qr_rows(text)
    if console.width < len(rows[0]):
        click.echo(f"A QR code needs {len(rows[0])} columns; this terminal has fewer.", err=True)
        return
    for row in rows:
        console.print(Text(row, style="bright_white on black", no_wrap=True))


def qr_rows(text: str) -> list[str]:
    """Light modules are drawn and dark ones left out, as terminals with a dark background need it
    where there are no colours.
    """
    import segno

    code = segno.make(text, error="m", micro=False)
    light = [[not dark for dark in row] for row in code.matrix_iter(border=QUIET_MODULES)]
    light += [[False] * len(light[0])] * (len(light) % 2)
    return [
        "".join(_BLOCKS[pair] for pair in zip(upper, lower, strict=True))
        for upper, lower in zip(light[::2], light[1::2], strict=True)
    ]
