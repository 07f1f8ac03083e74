"""A path that could mean another resource to the upstream than to the prices is refused."""

from __future__ import annotations

import posixpath
import unicodedata
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelpay.errors import UnclearRequest
from channelpay.payee.plain_path import plain_path

PLAIN = {
    "/": "/",
    "/a/b.html": "/a/b.html",
    "/docs/": "/docs/",
    "/a%20b": "/a b",
    "/caf%C3%A9": "/café",
    "/%7Ejoe/.well-known/x..y/...z": "/~joe/.well-known/x..y/...z",
    "/wiki/Special:Random,(a)+b=c&d@e!$'*": "/wiki/Special:Random,(a)+b=c&d@e!$'*",
    "/Fate%EF%BC%8FZero": "/Fate／Zero",  # noqa: RUF001  a title with a wide slash
    "/[x]|{y}": "/[x]|{y}",
}
UNCLEAR = {
    "no slash at the beginning": ["", "*", "a", "http://site.example/a", "site.example:443"],
    "dot segments": ["/.", "/..", "/a/..", "/a/./b", "/a/../b", "/../etc/passwd"],
    "encoded dot segments": ["/%2e", "/%2E%2e/b", "/a/.%2e/b", "/a/%2e/b"],
    "dots and spaces, which Windows drops": ["/a/...", "/a/..%20/b", "/a/%20/b", "/a/.%20."],
    "empty segments": ["//", "//a", "/a//b", "/a//"],
    "encoded slashes": ["/a%2fb", "/a%2F", "/%2f%2e%2e"],
    "backslashes": ["/a\\b", "/a%5cb", "/a/..%5C..%5cb"],
    "parameters": ["/a;x", "/a;x=1/b", "/a/..;/b", "/a%3bx", "/a/.;/b", "/a/b;.html"],
    "where a path may end": ["/a%3fb", "/a%3Fb", "/a%23b", "/a#b"],
    "control characters": ["/a%00", "/a%00.html", "/a%0d%0ab", "/a%7f", "/%01", "/a%c2%85b"],
    "encoded twice": ["/a%252fb", "/%252e%252e/a", "/a%25", "/100%25", "/%25%32%46"],
    "broken escapes": ["/a%", "/a%2", "/a%zz", "/a%u002f", "/a%%32f"],
    "no UTF-8": ["/a%ff", "/%c0%ae%c0%ae/a", "/%c0%af", "/a%e2%82", "/%ed%a0%80"],
    "what is not for a URL": ["/a b", "/é", "/a\tb", "/a\x00"],
    "dots in other letters": [
        "/%EF%BC%8E%EF%BC%8E/a",  # fullwidth full stops
        "/%E2%80%A5/a",  # two dot leader
        "/a/%E2%80%A6",  # an ellipsis alone
        "/%EF%BC%8E%EF%BC%8E%EF%BC%8Fa",  # with a fullwidth slash
        "/a%EF%BC%BC..%EF%BC%BCb",  # with fullwidth backslashes
        "/.%E2%80%8B./a",  # a zero-width space between them
        "/.%EF%BB%BF/a",  # a byte order mark behind one
    ],
}


@pytest.mark.parametrize(("raw", "path"), PLAIN.items())
def test_a_plain_path_is_decoded_once(raw: str, path: str) -> None:
    assert plain_path(raw.encode()) == path


@pytest.mark.parametrize("raw", [raw for some in UNCLEAR.values() for raw in some])
def test_an_unclear_path_is_refused(raw: str) -> None:
    with pytest.raises(UnclearRequest):
        plain_path(raw.encode())


# What paths are attacked with, so that random ones meet.
PIECES = ["/", "%2f", "\\", "%5c", ".", "..", "%2e", ";", "%3b", "?", "#", "%", "%25", "%00"]
HOSTILE = st.lists(
    st.one_of(
        st.sampled_from([*PIECES, "a", "B", " ", "．", "／"]),  # noqa: RUF001
        st.characters(),
        st.integers(0, 255).map(lambda number: f"%{number:02x}"),
    )
).map("".join)


@given(HOSTILE)
def test_what_is_let_through_means_the_same_to_every_reader(text: str) -> None:
    raw = ("/" + text).encode("utf-8", "surrogatepass")
    try:
        path = plain_path(raw)
    except UnclearRequest:
        return
    sent = raw.decode("ascii")
    assert path == unquote(sent, errors="strict")
    # Decoded again, cut where parameters, query or fragment could begin, or tidied up: the same.
    assert unquote(path) == path
    assert not set(path) & set("\\;?#\0\r\n")
    assert path.count("/") == sent.count("/")
    without_last = path[:-1] if path.endswith("/") and path != "/" else path
    assert posixpath.normpath(without_last) == without_last
    segments = unicodedata.normalize("NFKC", path).replace("\\", "/").split("/")
    assert not {".", ".."} & set(segments)


@given(st.text(st.characters(categories=["L", "N"]), min_size=1))
def test_a_name_of_letters_is_let_through(name: str) -> None:
    assert plain_path(quote(f"/{name}").encode()) == f"/{name}"
