"""What the tutorials and the how-to pages tell a reader to do, done: in their order, in a fresh
home and folder. What they show is what is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from channelpay.protocol.text import to_hex
from channelpay.testing import embedded_chain, furnish
from channelpay.testing.furnished import FurnishedChain
from tests.docs.blocks import Block, blocks_of, granted
from tests.docs.terminal import Done, Terminal, terminal

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
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
    "recovery.md": 1,
    "stores.md": 1,
    "tutorials/index.md": 1,
    "tutorials/test-your-site.md": 1,
}
"""How many blocks of each page no test can run; each says why where it stands."""
STANDS_FOR = {
    "/mnt/backup/": "$HOME/",
    "21000000": "0",
    "CHANNEL": "$(channelpay channel list --json | sed -E 's/.*nelId[^x]*(0x[0-9a-f]+).*/\\1/')",
    "https://rpc.example/v1/KEY": "$CHANNELPAY_RPC",
    "YOUR_ADDRESS": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
}
"""What a reader has to put in."""
_LONG_HEX = re.compile(r"0x[0-9a-fA-F]{8,}(?:…[0-9a-fA-F]+)?")
_RULE = re.compile(r"[─━═]+")


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
        if taken.startswith("after "):
            _follow(opened, blocks_of(DOCS / taken.removeprefix("after ")))
        _follow(opened, blocks_of(DOCS / page))


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


def _follow(opened: Terminal, blocks: list[Block]) -> None:
    done = Done(0, "")
    for block in blocks:
        if block.is_file:
            opened.save(str(block.title), block.text)
        elif block.is_output:
            assert re.search(_pattern(block.text), _comparable(done.output), re.DOTALL), done.output
        elif block.is_typed and not block.reason_not_to_run:
            done = _type(opened, block)


def _type(opened: Terminal, block: Block) -> Done:
    typed = (opened.folder / block.typed_file).read_text() if block.typed_file else None
    commands = block.text
    for word, meaning in STANDS_FOR.items():
        escaped = meaning.replace("\\", r"\\")
        commands = re.sub(rf"(?<![A-Z_]){word}(?![A-Z_])", escaped, commands)
    if block.stays:
        done = opened.start(commands, typed)
        assert done.code is None, done.output
    else:
        done = opened.run(commands, typed)
        assert done.code == block.exit_code, f"{block.text}\n{done.output}"
    return done


def _pattern(shown: str) -> str:
    parts = re.split(r" ?(?<!0x)… ?", _comparable(shown))
    return ".*?".join(map(re.escape, parts))


def _comparable(output: str) -> str:
    """Without what differs from run to run: ids, and how wide a table is for them."""
    without_ids = _LONG_HEX.sub("0x…", output)
    return " ".join(_RULE.sub("─", without_ids).split())


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
