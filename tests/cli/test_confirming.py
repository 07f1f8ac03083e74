"""``--confirmations``: what an open or a top-up needs, by amounts, on every command that has it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from channelpay.cli.serving import Serving
from channelpay.errors import ConfigError, InputError
from channelpay.payee.acceptance import Confirmations
from channelpay.payee.terms import ETHER, Token
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import NATIVE, Address
from channelpay.testing.furnished import FurnishedChain
from tests.cli.conftest import Run
from tests.cli.test_payee import Publisher, owed, publisher
from tests.payee.shop import DEPOSIT, PRICE, OpenChannel

__all__ = ["owed", "publisher"]

COIN = Token(Address(b"\x11" * 20), "COIN", 6)
NAME = to_hex(COIN.address)


Asked = Callable[..., Confirmations]


@pytest.fixture
def asked(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What a site makes of its options, in ether and COIN."""

    def confirmations(*given_options: str) -> Confirmations:
        options = [word for one in given_options for word in ("--confirmations", one)]
        given: list[Serving] = []
        monkeypatch.setattr(
            "channelpay.cli.site.serve_paid", lambda _output, serving, *_: given.append(serving)
        )
        place = ("--token", "eth", "--token", NAME, "--price", "1", "--rpc", "http://x")
        done = run("site", tmp_path, *place, *options)
        if done.exit_code:
            raise ValueError(done.output)
        return given[0].confirmations.in_tokens([ETHER, COIN])

    return confirmations


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), Confirmations(1)),
        (("4",), Confirmations(4)),
        (("0.1:3",), Confirmations(1, {NATIVE: [(10**17, 3)]})),
        (("eth=2:12", "2", "0.1:3"), Confirmations(2, {NATIVE: [(10**17, 3), (2 * 10**18, 12)]})),
        (
            (f"{NAME}=100:6", "eth=1:9"),
            Confirmations(1, {NATIVE: [(10**18, 9)], COIN.address: [(10**8, 6)]}),
        ),
    ],
)
def test_amounts_say_how_many_confirmations_they_need(
    asked: Asked, given: tuple[str, ...], expected: Confirmations
) -> None:
    assert asked(*given) == expected


@pytest.mark.parametrize("given", [("x",), ("1", "2"), ("0.1:",), (":3",), ("a=b=1:3",), ("-1",)])
def test_what_is_no_rule_is_an_error_of_usage(
    run: Run, tmp_path: Path, given: tuple[str, ...]
) -> None:
    options = [word for one in given for word in ("--confirmations", one)]

    done = run("site", tmp_path, "--token", "eth", "--price", "1", "--rpc", "http://x", *options)

    assert (done.exit_code, json.loads(done.stderr)["code"]) == (2, "invalid-input")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (("5", "0.1:3"), ConfigError),  # a larger amount would need less
        (("0",), ConfigError),
        (("0.1:2000",), ConfigError),
        (("1:2", "eth=1:3"), ConfigError),
        (("0.1.1:3",), InputError),
        ((f"0x{'22' * 20}=1:3",), InputError),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(
    asked: Asked, given: tuple[str, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        asked(*given)


@pytest.mark.parametrize("command", [("run", "--once"), ("settle", "--all")])
def test_a_large_top_up_counts_in_the_books_once_it_is_as_deep_as_its_amount_asks_for(
    publisher: Publisher,
    owed: list[OpenChannel],
    dev_chain: FurnishedChain,
    command: tuple[str, str],
) -> None:
    channel = owed[0]
    name = to_hex(channel.id)
    # From twice the deposit on, in units of the token, which has 6 decimals.
    step = f"{to_hex(dev_chain.token)}={2 * DEPOSIT / 10**6}:3"
    publisher.payer.top_up(channel, DEPOSIT + PRICE)

    publisher.do(*command, "--confirmations", step)
    too_early = publisher.listed()[name]["deposit"]
    dev_chain.chain.mine(2)
    publisher.do(*command, "--confirmations", step)

    deep_enough = publisher.listed()[name]["deposit"]
    assert (too_early, deep_enough) == (str(DEPOSIT), str(2 * DEPOSIT + PRICE))
