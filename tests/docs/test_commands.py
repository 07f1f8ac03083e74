"""What the tutorials and the how-to pages tell a reader to do, done: in their order, in a fresh
home and folder. What they show is what is shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from channelpay.protocol.text import to_hex
from channelpay.testing import embedded_chain, furnish
from channelpay.testing.furnished import FurnishedChain
from scripts.docs.blocks import DOCS, Block, blocks_of, granted, pages_before
from scripts.docs.follow import check_picture, check_shown, follow
from scripts.docs.terminal import Done, Terminal, terminal

FOLDERS = ("tutorials", "how-to")
BESIDE = ("nodes.md", "proxy.md", "recovery.md", "settlement.md", "stores.md", "testing.md")
"""How-to pages that are not in a folder of such pages."""
PAGES = [
    *(f"{name}/{p.name}" for name in FOLDERS for p in sorted((DOCS / name).glob("*.md"))),
    *BESIDE,
]
ACCOUNTS = ("reader", "publisher", "gas")
"""Who is in the keystore of a page that takes a chain for granted."""
NOT_RUN = {
    "how-to/accounts.md": 3,
    "recovery.md": 1,
    "stores.md": 1,
    "tutorials/index.md": 1,
    "tutorials/test-your-site.md": 1,
}
"""How many blocks of each page no test can run; each says why where it stands."""


@pytest.fixture
def chain() -> Iterator[FurnishedChain]:
    with embedded_chain() as chain:
        yield furnish(chain)


@pytest.mark.parametrize("page", PAGES)
def test_the_page_does_what_it_says(
    page: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    taken = granted(DOCS / page)
    on_a_chain = taken in {"chain", "channel"}
    variables = _variables(request.getfixturevalue("chain")) if on_a_chain else {}

    with terminal(tmp_path, variables, variables.get("CHANNELPAY_RPC")) as opened:
        if on_a_chain:
            _keep_accounts(opened)
        if taken == "channel":
            _open_a_channel(opened)
        for one in (*pages_before(DOCS / page), DOCS / page):
            _follow(opened, one)


@pytest.mark.parametrize("page", PAGES)
def test_few_blocks_are_not_run(page: str) -> None:
    reasons = [
        block.reason_not_to_run for block in blocks_of(DOCS / page) if block.mark[:2] == "no"
    ]

    assert all(reasons)
    assert len(reasons) == NOT_RUN.get(page, 0)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in BESIDE])
def test_a_program_of_a_page_is_a_file_to_run(page: str) -> None:
    languages = ("python", "js", "toml")
    blocks = [block for block in blocks_of(DOCS / page) if block.language in languages]

    assert all(block.is_file for block in blocks)


def test_there_are_pages() -> None:
    assert len(PAGES) >= 5


def _follow(opened: Terminal, page: Path) -> None:
    def check(block: Block, done: Done) -> None:
        if block.is_picture:
            check_picture(page.parent / block.text, done)
        else:
            check_shown(block, done)

    follow(opened, blocks_of(page), check)


def _variables(chain: FurnishedChain) -> dict[str, str]:
    keys = [to_hex(account.private_key) for account in chain.chain.accounts]
    return {
        "CHANNELPAY_RPC": chain.chain.rpc_url,
        "CHANNELPAY_PASSWORD": "for tests only",
        **{f"{name.upper()}_KEY": key for name, key in zip(ACCOUNTS, keys[1:], strict=False)},
    }


def _keep_accounts(opened: Terminal) -> None:
    for name in ACCOUNTS:
        _do(opened, f"echo ${name.upper()}_KEY | channelpay account import {name}")


def _open_a_channel(opened: Terminal) -> None:
    """The reader paid for a page, and the site is down since."""
    opened.save("pages/one.txt", "Worth it.\n")
    served = opened.start("channelpay site pages/ --token eth --price 0.001 --account publisher\n")
    assert served.code is None, served.output
    _do(opened, "export CHANNELPAY_ACCOUNT=reader")
    _do(opened, "channelpay pay http://127.0.0.1:8402/one.txt --max 0.001 --deposit 0.02")
    opened.end()


def _do(opened: Terminal, command: str) -> None:
    done = opened.run(f"{command}\n")
    assert done.code == 0, done.output
