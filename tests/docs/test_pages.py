"""What the pages of ``docs/`` say of the code is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from channelpay.cli.site import site
from channelpay.payee.amounts import Price
from channelpay.payee.prices import PriceFile, PriceTable
from channelpay.payee.request import Request
from channelpay.payee.terms import ETHER, Token
from channelpay.protocol.parse import parse_address

REPOSITORY = Path(__file__).parents[2]
TUSD = Token(parse_address("0x5FbDB2315678afecb367f032d93F642f64180aa3"), "TUSD", 6)
MILLIETHER = 10**15
CENT = 10**4


def example(page: str, language: str) -> str:
    """The one example of a page of ``docs/`` in a language."""
    text = (REPOSITORY / "docs" / page).read_text()
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return str(found)


@pytest.mark.parametrize(
    ("method", "path", "unit", "prices"),
    [
        ("GET", "/articles/drafts/one.md", None, ()),
        ("GET", "/articles/2026/one.md", "request", (Price(ETHER, MILLIETHER),)),
        (
            "POST",
            "/search",
            "request",
            (Price(ETHER, MILLIETHER // 2), Price(TUSD, 125 * CENT)),
        ),
        ("POST", "/v1/chat", "token", (Price(ETHER, MILLIETHER // 500),)),
        ("GET", "/search", None, ()),
        ("OPTIONS", "/articles/one.md", None, ()),
        ("GET", "/about.md", None, ()),
    ],
)
def test_the_price_file_of_the_page_means_what_it_says(
    tmp_path: Path, method: str, path: str, unit: str | None, prices: tuple[Price, ...]
) -> None:
    (tmp_path / "prices.toml").write_text(example("prices.md", "toml"))

    quote = PriceFile(tmp_path / "prices.toml", [ETHER, TUSD]).quote(Request(method, path))

    assert ((None, ()) if quote is None else (quote.unit, quote.prices)) == (unit, prices)


@pytest.mark.parametrize(
    ("path", "query", "headers", "price"),
    [
        ("/images/a.png", b"size=thumbnail", [], None),
        ("/images/a.png", b"size=small", [], Price(ETHER, MILLIETHER)),
        ("/images/a.png", b"size=thumbnail&size=huge", [], Price(ETHER, 5 * MILLIETHER)),
        ("/images/a.png", b"", [], Price(ETHER, 5 * MILLIETHER)),
        ("/reports/one", b"", [], Price(TUSD, 200 * CENT)),
        ("/reports/one", b"", [(b"x-plan", b"bulk")], Price(TUSD, 50 * CENT)),
        ("/about", b"", [], Price(ETHER, MILLIETHER // 10)),
    ],
)
def test_the_price_functions_of_the_page_price_what_they_say(
    path: str, query: bytes, headers: list[tuple[bytes, bytes]], price: Price | None
) -> None:
    names: dict[str, Any] = {}
    exec(example("prices.md", "python"), names)  # noqa: S102  the page is ours
    table = PriceTable(names["prices"], [ETHER, TUSD])

    quote = table.quote(Request("GET", path, query, headers))

    assert (None if quote is None else quote.prices) == (None if price is None else (price,))


def test_the_commands_of_the_price_page_name_options_that_there_are() -> None:
    lines = example("prices.md", "sh").replace("\\\n", " ").splitlines()

    for line in lines:
        program, command, *arguments = shlex.split(line)
        site.make_context("site", [*arguments, "--rpc", "http://127.0.0.1:8545"])

        assert (program, command) == ("channelpay", "site")
    assert len(lines) == 2


@pytest.mark.parametrize("kind", ["tutorials", "how-to", "explanation", "reference"])
def test_the_first_page_of_a_kind_leads_to_all_of_it(kind: str) -> None:
    folder = REPOSITORY / "docs" / kind
    links = set(re.findall(r"\]\(([^)#]+)", (folder / "index.md").read_text()))
    beside = {"how-to": ("frameworks", "prices", "proxy", "recovery", "settlement", "stores")}

    assert {page.name for page in folder.glob("*.md")} - {"index.md"} <= links
    assert {f"../{name}.md" for name in beside.get(kind, ())} <= links


def test_every_module_that_the_architecture_names_exists() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text()
    tree = text.partition("    src/channelpay/\n")[2].partition("    tests/ ")[0]
    package, missing = "", []
    for line in tree.splitlines():
        indent = len(line) - len(line.lstrip())
        names = re.split(r"\s{2,}", line.strip())[0].split(", ")
        if indent == 6:
            package = names[0].rstrip("/")
        modules = names if indent == 6 else [f"{package}/{name}" for name in names]
        missing += [name for name in modules if not _exists(name)]

    assert missing == []
    assert package == "cli"


def _exists(name: str) -> bool:
    path = REPOSITORY / "src" / "channelpay" / name
    return path.exists() or path.with_suffix(".py").is_file()
