"""``channelpay backup``: a copy of the payer's books."""

from __future__ import annotations

from pathlib import Path

import click

from channelpay.cli.common import BOOKS, home, pass_output
from channelpay.cli.output import Output, facts_table, json_option


@click.command(epilog="Example: channelpay backup /mnt/backup/payer-monday.sqlite3")
@click.argument("to", metavar="TO", type=click.Path(path_type=Path))
@json_option
@pass_output
def backup(output: Output, to: Path) -> None:
    """Copy the books of your channels into the new file TO, as they are at this moment.

    Programs may pay meanwhile. The copy is checked, and on the disk when the command ends. Keys are
    not in it: keep a copy of CHANNELPAY_HOME/keystore as well. The books of a site are copied by
    'channelpay payee backup'.
    """
    from channelpay.payer.backup import back_up

    back_up(home() / BOOKS, to)
    members = {"backup": str(to), "bytes": to.stat().st_size}
    output.show(members, lambda: facts_table({"Backup": str(to), "Bytes": str(members["bytes"])}))
