"""Where a request goes: origins, and whether a credential may go there."""

from __future__ import annotations

import uuid
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from channelpay.errors import ConfigError, InputError
from channelpay.protocol.passes import PLACE

_DEFAULT_PORTS = {"http": 80, "https": 443}


def origin_of(url: str) -> str:
    """``scheme://host:port``, always with the port (RFC 6454). Raises :class:`InputError`."""
    parts = _parts(url)
    host = parts.hostname or ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{_port(parts)}"


def check_transport(url: str, *, allow_plain_http: bool) -> None:
    """Refuse to send a credential unencrypted, except to this machine itself
    (draft-httpauth-payment-00, Transport Security). Raises :class:`ConfigError`.
    """
    parts = _parts(url)
    if parts.scheme == "https" or allow_plain_http or is_loopback(parts.hostname or ""):
        return
    raise ConfigError(
        f"{origin_of(url)} asks for a payment over plain http",
        hint="Use https, or allow plain http explicitly. Nothing was signed.",
    )


def is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def following_key(key: str, url: str) -> str:
    """The Idempotency-Key of what a redirect leads to, where the redirect had ``key``."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{key} {url}"))


def is_counter(url: str) -> bool:
    """Whether something else than a page is sold there: what it costs says nothing of others."""
    return _parts(url).path.startswith(PLACE)


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _port(parts)
    except ValueError:
        raise InputError(f"{url[:200]!r} is not a URL") from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise InputError(f"{url[:200]!r} is not an http or https URL")
    return parts


def _port(parts: SplitResult) -> int:
    return parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
