"""Secrets, and the ways in which programs come to write them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha512
from urllib.parse import quote

from hypothesis import strategies as st

from channelpay.protocol.coupons import code_of
from channelpay.protocol.passes import Sealer, Token


@dataclass(frozen=True)
class Written:
    """A text that somebody logs, and what of it nobody may read."""

    text: str
    secret: tuple[str, ...]


def unescaped(text: str) -> str:
    """Without the strokes of however many quotings; what is secret is compared so."""
    return text.replace("\\", "")


def shown_parts(written: Written, line: str) -> list[str]:
    """What of the secret can be read in the line."""
    return [part for part in written.secret if part in unescaped(line)]


def _random_bytes(length: int) -> st.SearchStrategy[bytes]:
    """As random as keys and signatures are: no run of printable bytes is long."""
    return st.integers(0, 2**64).map(
        lambda seed: b"".join(
            sha512(bytes([block]) + seed.to_bytes(16, "big")).digest() for block in range(3)
        )[:length]
    )


PRIVATE_KEYS = _random_bytes(32)
SIGNATURES = _random_bytes(65)

_Writing = Callable[[bytes], str]
_WAYS_TO_WRITE_BYTES: tuple[_Writing, ...] = (
    lambda data: data.hex(),
    lambda data: data.hex().upper(),
    lambda data: "0x" + data.hex(),
    lambda data: "0X" + data.hex(),
    lambda data: hex(int.from_bytes(data, "big")),
    lambda data: str(int.from_bytes(data, "big")),
    repr,
    lambda data: repr(bytearray(data)),
    lambda data: str(list(data)),
    lambda data: json.dumps(list(data), separators=(",", ":")),
    lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="),
    lambda data: f"HexBytes('0x{data.hex()}')",
)


def _all_but_the_begin(text: str) -> tuple[str, ...]:
    """Twelve characters each, from where the digits end that name an id."""
    text = unescaped(text)
    return tuple(text[start : start + 12] for start in range(20, len(text) - 12))


WRITTEN_BYTES = st.builds(
    lambda data, way: Written(way(data), _all_but_the_begin(way(data))),
    PRIVATE_KEYS | SIGNATURES,
    st.sampled_from(_WAYS_TO_WRITE_BYTES),
)

_BEGIN, _END = "Zq7", "9vX"
_NO_SPACE = st.characters(codec="utf-8", exclude_categories=("Z", "C"))
PASSWORDS = st.text(_NO_SPACE, max_size=24).map(lambda text: _BEGIN + text + _END)
_KEYS_OF_PROVIDERS = st.text("abcdef0123456789ABCDEFGHIJ_-", min_size=24, max_size=40)

_IN_URLS: tuple[Callable[[str], str], ...] = (
    lambda word: f"postgresql://shop:{word}@db.example:5432/books",
    lambda word: f"postgresql://shop:{quote(word)}@db.example/books",
    lambda word: f"could not connect to postgres://{word}@db.example",
    lambda word: f"https://{word}@rpc.example/",
    lambda word: f"'https://user:{word}@rpc.example/v2?x=1', timeout=5",
    lambda word: f"https://rpc.example/?apikey={quote(word, safe='')}",
    lambda word: f"GET /page?a=1&token={quote(word, safe='')}&b=2 HTTP/1.1",
    lambda word: f"wss://rpc.example/ws?{quote(word, safe='')}",
    lambda word: f"https://rpc.example/path#{quote(word, safe='')}",
)
_AFTER_A_WORD: tuple[Callable[[str], str], ...] = (
    lambda word: f"password={word}",
    lambda word: f"host=db user=shop password='{word}' dbname=books",
    lambda word: f"PGPASSWORD={word}",
    lambda word: f"passphrase: {word} and more",
    lambda word: str({"user": "shop", "password": word}),
    lambda word: json.dumps({"apiKey": word}),
    lambda word: f"private key = {word}",
    lambda word: f"mnemonic: abandon ability {word} about",
    lambda word: f"CHANNELPAY_PASSWORD={word}",
    lambda word: f"Authorization: Digest username=shop, response={word}",
    lambda word: str([(b"authorization", b"Token " + word.encode())]),
    lambda word: str({"Authorization": f"Negotiate {word}"}),
    lambda word: f"Cookie: session={word}; theme=dark",
    lambda word: f"set-cookie: session={word}",
)


PASSWORDS_WRITTEN = st.builds(
    lambda word, way: Written(way(word), (_BEGIN, _END)),
    PASSWORDS,
    st.sampled_from(_IN_URLS + _AFTER_A_WORD),
)
KEYS_IN_PATHS = st.builds(
    lambda key, before: Written(f"POST https://rpc.example/{before}{key}", (key,)),
    _KEYS_OF_PROVIDERS,
    st.sampled_from(["", "v3/", "v2/a/"]),
)


def _credential(scheme: str, signature: bytes, pad: str) -> Written:
    members = {"challenge": {"id": pad}, "payload": {"signature": "0x" + signature.hex()}}
    token = base64.urlsafe_b64encode(json.dumps(members).encode()).decode().rstrip("=")
    return Written(f"{scheme} {token}", (token[20:40],))


CREDENTIALS = st.builds(
    _credential,
    st.sampled_from(["Payment", "payment", "PAYMENT", "Bearer", "Authorization: Payment", "got"]),
    SIGNATURES,
    st.text("abc", max_size=8),
)


def _shown_token(data: bytes, way: str) -> Written:
    token = Sealer(data).seal(Token(data[:16], 1, 2, 3, 4), "site.example")
    return Written(way.format(token), (token[10:30], token[40:60]))


PASSES = st.builds(
    _shown_token,
    PRIVATE_KEYS,
    st.sampled_from(["PaymentPass {}", "Payment-Pass: {};left=3", "got {}", "({})"]),
)
CODES = st.builds(
    lambda data, way: Written(way.format(code_of(data)), (code_of(data)[:11], code_of(data)[12:])),
    PRIVATE_KEYS,
    st.sampled_from(["Payment-Coupon: {}", "the code {} was redeemed", "'{}'"]),
)

SECRETS = WRITTEN_BYTES | PASSWORDS_WRITTEN | KEYS_IN_PATHS | CREDENTIALS | PASSES | CODES
