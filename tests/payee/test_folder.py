"""What a site shows of a folder, and what never leaves it."""

from __future__ import annotations

from pathlib import Path

import pytest
from markdown_it.token import Token

from channelpay.errors import ConfigError
from channelpay.payee import folder as folder_module
from channelpay.payee import markdown
from channelpay.payee.folder import Folder
from channelpay.payee.markdown import markdown_page, markdown_title


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    for name in ("page.md", "docs/deep/other.md", ".env", ".git/config", "state/books", "p.toml"):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "site-2").mkdir()
    (tmp_path / "site-2" / "file").write_text("of a neighbour")
    return root


@pytest.fixture
def folder(root: Path) -> Folder:
    return Folder(root, [root / "state", root / "p.toml"])


@pytest.mark.parametrize("path", ["/page.md", "/docs/deep/other.md"])
def test_a_file_is_found_by_its_path(folder: Folder, root: Path, path: str) -> None:
    assert folder.find(path) == root / path[1:]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "page.md",
        "/nowhere.md",
        "/docs",
        "/docs/",
        "/page.md/",
        "//page.md",
        "/docs//deep/other.md",
        "/./page.md",
        "/docs/../page.md",
        "/../secret",
        "/../site-2/file",
        "/docs/../../secret",
        "/..\\secret",
        "/docs\\deep\\other.md",
        "/page.md\0",
        "/\0",
        "/.env",
        "/.git/config",
        "/state/books",
        "/p.toml",
        "/" + "a" * 5000,
        "/\udcff",
    ],
)
def test_no_detour_leads_to_a_file(folder: Folder, path: str) -> None:
    assert folder.find(path) is None


def test_a_link_out_of_the_folder_leads_nowhere(folder: Folder, root: Path) -> None:
    (root / "out").symlink_to(root.parent / "secret")
    (root / "up").symlink_to(root.parent)
    (root / "neighbour").symlink_to(root.parent / "site-2")
    (root / "absolute").symlink_to("/etc/passwd")

    for path in ("/out", "/up/secret", "/neighbour/file", "/absolute"):
        assert folder.find(path) is None


def test_a_link_does_not_show_what_is_hidden(folder: Folder, root: Path) -> None:
    (root / "environment").symlink_to(root / ".env")
    (root / "prices").symlink_to(root / "p.toml")
    (root / "books").symlink_to(root / "state")
    (root / "round").symlink_to(root / "round")

    for path in ("/environment", "/prices", "/books/books", "/round"):
        assert folder.find(path) is None


def test_a_link_within_the_folder_is_followed(folder: Folder, root: Path) -> None:
    (root / "latest.md").symlink_to(root / "page.md")

    assert folder.find("/latest.md") == root / "page.md"


def test_a_list_has_every_file_that_is_found_and_no_other(folder: Folder, root: Path) -> None:
    (root / "out").symlink_to(root.parent / "secret")

    assert list(folder.list()) == ["/page.md", "/docs/deep/other.md"]
    assert list(folder.list("/docs/")) == ["/docs/deep/other.md"]
    assert [folder.is_folder(path) for path in ("/", "/docs/", "/state/", "/docs")] == [
        True,
        True,
        False,
        False,
    ]


def test_a_list_looks_only_below_its_folder_and_only_as_far_as_it_lists(
    folder: Folder, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        (root / "docs" / f"{number}.md").write_text("x")
    find, looked_at = Folder.find, list[str]()

    def look(folder: Folder, path: str) -> Path | None:
        looked_at.append(path)
        return find(folder, path)

    monkeypatch.setattr(Folder, "find", look)
    monkeypatch.setattr(folder_module, "LISTED_MAX", 3)

    assert list(folder.list("/docs/")) == ["/docs/0.md", "/docs/1.md", "/docs/2.md"]
    assert looked_at == ["/docs/0.md", "/docs/1.md", "/docs/2.md"]


@pytest.mark.parametrize(
    "path", ["/linked/", "/.git/", "/state/", "//", "/../", "/docs/../", "/x/"]
)
def test_no_detour_leads_to_a_list(folder: Folder, root: Path, path: str) -> None:
    (root / "linked").symlink_to(root / "docs")

    assert list(folder.list(path)) == []


def test_a_folder_that_is_not_there_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Folder(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "[x](javascript:alert(1))",
        "[x](<javascript:alert(1)>)",
        '<img src=x onerror="alert(1)">',
        "![x](data:text/html;base64,PHNjcmlwdD4=)",
        "# <script>alert(1)</script>",
    ],
)
def test_markdown_carries_no_script(tmp_path: Path, text: str) -> None:
    file = tmp_path / "page.md"
    file.write_text(text)

    page = markdown_page(file)

    for piece in ("<script", "<img src=x", 'href="javascript:', 'src="data:text'):
        assert piece not in page


def test_a_markdown_page_has_its_heading_as_title_and_named_headings(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text("# One & `two`\n\n## What's next?\n\n## What's next?\n\n| a |\n|---|\n| b |\n")

    page = markdown_page(file)

    assert markdown_title(file) == "One & two"
    for piece in (
        "<title>One &amp; two</title>",
        'id="one--two"',
        'id="whats-next"',
        'id="whats-next-1"',
        "<td>b</td>",
    ):
        assert piece in page


def test_a_changed_file_is_shown_as_it_is_now(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text("before")
    markdown_page(file)

    file.write_text("after this")

    assert "after this" in markdown_page(file)


def test_a_title_is_read_once_for_each_version_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, parsed, read = tmp_path / "page.md", markdown._parsed, list[Path]()

    def parse(path: Path) -> list[Token]:
        read.append(path)
        return parsed(path)

    monkeypatch.setattr(markdown, "_parsed", parse)
    titles = []
    for text in ("# Before", "# After this"):
        file.write_text(text)
        titles += [markdown_title(file), markdown_title(file)]

    assert titles == ["Before", "Before", "After this", "After this"]
    assert read == [file, file]
