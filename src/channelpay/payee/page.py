"""The 402 page for people: what a page costs, who is paid, and how. No scripts, nothing loaded."""

from __future__ import annotations

import shlex
from html import escape

from channelpay.payee.prices import Quote
from channelpay.payee.selling.offers import offers_of
from channelpay.payee.style import STYLE
from channelpay.payee.terms import Terms, Token
from channelpay.protocol.text import checksum_address
from channelpay.protocol.types import NATIVE

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>Payment required: {price}</title>
<style>{style}</style>
</head>
<body>
<main>
<p class="kicker">402 · Payment required</p>
<h1>This page costs <strong class="price">{price}</strong></h1>
{description}
{offers}<h2>Read it from the command line</h2>
<pre class="command"><code>channelpay pay {url}</code></pre>
<p>The payment goes over a payment channel: you lock a deposit once, sign a voucher for each page,
and get back what you did not spend when the channel is closed.{deposit}</p>
<h2>Who is paid, and how</h2>
<dl>
<dt>Price</dt><dd>{price}</dd>
<dt>Payee</dt><dd><code>{payee}</code></dd>
<dt>Token</dt><dd>{token}</dd>
<dt>Contract</dt><dd><code>{contract}</code></dd>
<dt>Chain id</dt><dd>{chain_id}</dd>
</dl>
</main>
</body>
</html>
"""


def payment_page(terms: Terms, quote: Quote, url: str) -> str:
    """A self-contained HTML document for a resource at ``url``."""
    return _PAGE.format(
        style=STYLE,
        price=escape(quote.format()),
        description=f"<p>{escape(quote.description)}</p>" if quote.description else "",
        offers=_offers(quote),
        url=escape(shlex.quote(url)),
        deposit=escape(_deposit(terms, quote)),
        payee=checksum_address(terms.payee),
        token="<br>".join(_token(price.token) for price in quote.prices),
        contract=checksum_address(terms.deployment.contract),
        chain_id=terms.deployment.chain_id,
    )


def _offers(quote: Quote) -> str:
    """The incentives, if there are any."""
    offers = offers_of(quote)[1:]
    if not offers:
        return ""
    items = (f"<li>{escape(one['label'])}: {escape(one['terms'])}.</li>" for one in offers)
    return "\n".join(["<h2>What comes with it</h2>", "<ul>", *items, "</ul>", ""])


def _deposit(terms: Terms, quote: Quote) -> str:
    deposits = [
        token.format(deposit)
        for token in (price.token for price in quote.prices)
        if (deposit := terms.suggested_deposits.get(token.address))
    ]
    return f" A deposit of {' or '.join(deposits)} is suggested." if deposits else ""


def _token(token: Token) -> str:
    address = "" if token.address == NATIVE else f" <code>{checksum_address(token.address)}</code>"
    return escape(token.symbol) + address
