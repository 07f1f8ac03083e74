"""``channelpay site``: any folder of files as a paid site, in processes of its own."""

from __future__ import annotations

from pathlib import Path

import click

from channelpay.cli.common import pass_output
from channelpay.cli.output import Output, json_option
from channelpay.cli.serving import Serving, serve_paid, serving_options


@click.command(
    epilog="Example: channelpay site docs --token eth --price 0.0001 --account shop "
    "--free '/README.md' --rpc http://127.0.0.1:8545"
)
@click.argument("directory", type=click.Path(path_type=Path))
@serving_options
@json_option
@pass_output
def site(output: Output, /, *, directory: Path, serving: Serving) -> None:
    """Serve the files of DIRECTORY for payment.

    Markdown is shown as pages, everything else as it is; dot files are not shown. It runs until
    Ctrl-C or SIGTERM. On a pipe it prints one line of JSON, once it can be asked.
    """
    from channelpay.payee.folder import Folder
    from channelpay.payee.site import PaidSite

    price_file = serving.price_file
    folder = Folder(directory, [serving.state, *([price_file] if price_file else [])])
    serve_paid(output, serving, "Paid site", lambda payee: PaidSite(folder, payee))
