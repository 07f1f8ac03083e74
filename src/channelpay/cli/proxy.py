"""``channelpay proxy``: a paid site in front of a server in any language."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from channelpay.cli.common import pass_output
from channelpay.cli.output import Output, json_option
from channelpay.cli.passwords import read_secret_file
from channelpay.cli.serving import Serving, serve_paid, serving_options
from channelpay.errors import ConfigError

if TYPE_CHECKING:
    from channelpay.payee.asgi import App
    from channelpay.payee.payee import Payee


@click.command(
    epilog="Example: channelpay proxy --upstream http://127.0.0.1:3000 --prices prices.toml "
    "--token eth --account shop --rpc http://127.0.0.1:8545"
)
@click.option("--upstream", required=True, metavar="URL", help="The server that answers.")
@click.option(
    "--upstream-timeout",
    type=click.FloatRange(min=0.1),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long it may be silent.",
)
@click.option(
    "--upstream-connections",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Connections to it, of each worker.",
)
@click.option(
    "--upstream-secret-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Holds a secret that signs what goes to it.",
)
@click.option(
    "--health-path",
    "health_paths",
    multiple=True,
    metavar="PATH",
    help="A health check of the upstream, which is free to read.",
)
@click.option(
    "--trust-forwarded",
    is_flag=True,
    help="Believe the X-Forwarded headers of the proxy in front, which all requests must come by:"
    " they tell one client from another.",
)
@serving_options
@json_option
@pass_output
def proxy(  # noqa: PLR0913  each is one option
    output: Output,
    /,
    *,
    serving: Serving,
    upstream: str,
    upstream_timeout: float,
    upstream_connections: int,
    upstream_secret_file: Path | None,
    health_paths: tuple[str, ...],
    trust_forwarded: bool,
) -> None:
    """Pass requests that are paid for, or free, on to the server at --upstream.

    It reads who paid in ChannelPay headers, which clients cannot send. It runs until Ctrl-C or
    SIGTERM. On a pipe it prints one line of JSON, once it can be asked.
    """
    from channelpay.payee.proxy import Proxy
    from channelpay.payee.upstream import Upstream

    secret = None
    if upstream_secret_file is not None:
        secret = read_secret_file(upstream_secret_file).encode()

    server = Upstream(
        upstream,
        timeout_seconds=upstream_timeout,
        connections_max=upstream_connections,
        secret=secret,
        trusts_forwarded=trust_forwarded,
    )

    def application(payee: Payee) -> App:
        _check_units(payee)
        return Proxy(
            server,
            payee,
            free_paths=health_paths,
            trusts_forwarded=trust_forwarded,
            checks=payee.checks,
        )

    serve_paid(
        output,
        serving,
        "Paid proxy",
        application,
        facts={"upstream": upstream},
        believes_local_proxies=False,
    )


def _check_units(payee: Payee) -> None:
    """Only an application that runs with the payee can count units."""
    for rule, prices in payee.prices.summary():
        if prices and rule.unit != "request":
            raise ConfigError(
                f"the price of {rule.path} is per {rule.unit}, which a proxy cannot count",
                hint="Price it per request.",
            )
