"""What the pages of ``docs/`` say of the code is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from channelpay.payee.prices import PriceTable, read_price_file
from channelpay.payee.terms import Token
from channelpay.protocol.types import NATIVE

REPOSITORY = Path(__file__).parents[2]
MILLIETHER = 10**15


@pytest.fixture
def prices(tmp_path: Path) -> PriceTable:
    """The price file that docs/prices.md shows."""
    text = (REPOSITORY / "docs" / "prices.md").read_text()
    (example,) = re.findall(r"^```toml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "prices.toml").write_text(example)
    return PriceTable(read_price_file(tmp_path / "prices.toml"), Token(NATIVE, "ETH", 18))


@pytest.mark.parametrize(
    ("method", "path", "asked"),
    [
        ("GET", "/articles/drafts/one.md", None),
        ("GET", "/articles/2026/one.md", MILLIETHER),
        ("POST", "/search", MILLIETHER // 2),
        ("GET", "/search", None),
        ("OPTIONS", "/articles/one.md", None),
        ("GET", "/about.md", None),
    ],
)
def test_the_price_file_of_the_page_means_what_it_says(
    prices: PriceTable, method: str, path: str, asked: int | None
) -> None:
    quote = prices.quote(method, path)

    assert (None if quote is None else quote.asked) == asked


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
