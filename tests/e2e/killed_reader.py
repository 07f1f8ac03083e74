"""A program that reads one page and is killed on the way, as by a power cut.

``READER_KEY=0x… python killed_reader.py POINT CLIENT …``: at ``signed`` before the request with the
voucher leaves, at ``sent`` when the site has answered it and nobody has looked at the answer, at
``never`` not at all. CLIENT is ``httpx``, ``requests`` or ``get`` with BOOKS, URL and KEY; or
``command`` with the arguments of ``channelpay``.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from typing import Any

import httpx2
import requests
from requests.adapters import HTTPAdapter

import channelpay
from channelpay import NATIVE, ChannelPayAdapter, ChannelPayAuth, Limits, Payer

PAGE_WEI = 10**15
# A channel holds two pages, and no more: whoever signs for a third one is refused.
LIMITS = Limits(NATIVE, price_max=PAGE_WEI, deposit=2 * PAGE_WEI, deposit_max=2 * PAGE_WEI)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killing(send: Callable[..., Any], point: str) -> Callable[..., Any]:
    """A way to send that ends the program at this point of a paid request."""

    def send_or_die(self: Any, request: Any, *arguments: Any, **named: Any) -> Any:
        pays = "Authorization" in request.headers
        if pays and point == "signed":
            die()
        answer = send(self, request, *arguments, **named)
        if pays and point == "sent":
            die()
        return answer

    return send_or_die


def main(point: str, client: str, *arguments: str) -> None:
    httpx2.HTTPTransport.handle_request = killing(  # type: ignore[method-assign]
        httpx2.HTTPTransport.handle_request, point
    )
    HTTPAdapter.send = killing(HTTPAdapter.send, point)  # type: ignore[method-assign]
    if client == "command":
        from channelpay.cli import main as run

        sys.argv = ["channelpay", *arguments]
        run()
    books, url, key = arguments
    secret = bytes.fromhex(os.environ["READER_KEY"][2:])
    with closing(Payer(secret, os.environ["CHANNELPAY_RPC"], books, limits=[LIMITS])) as payer:
        sys.stdout.write(fetched(payer, client, url, key))


def fetched(payer: Payer, client: str, url: str, key: str) -> str:
    if client == "get":
        return channelpay.get(url, payer, idempotency_key=key).text
    headers = {"Idempotency-Key": key}
    if client == "requests":
        with requests.Session() as session:
            session.mount("http://", ChannelPayAdapter(payer))
            return session.get(url, headers=headers, timeout=30).text
    with httpx2.Client(auth=ChannelPayAuth(payer), timeout=30) as session:
        return session.get(url, headers=headers).raise_for_status().text


if __name__ == "__main__":
    main(*sys.argv[1:])
