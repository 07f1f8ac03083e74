"""The few JSON-RPC calls that a test makes of its own chain, without any library in between."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

from channelpay.errors import NetworkError

TIMEOUT_SECONDS = 30.0


def rpc_call(rpc_url: str, method: str, *params: object) -> object:
    """The result of one call; raises :class:`NetworkError` for anything else."""
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    try:
        answer = json.loads(post(rpc_url, json.dumps(request).encode()))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NetworkError(f"no answer from {rpc_url}: {error}") from error
    if "error" in answer:
        raise NetworkError(f"{method}: {answer['error'].get('message')}")
    return answer["result"]


def post(rpc_url: str, body: bytes) -> bytes:
    """The body of the answer to a JSON body."""
    parts = urlsplit(rpc_url)
    connection = http.client.HTTPConnection(
        parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS
    )
    try:
        connection.request("POST", "/", body, {"Content-Type": "application/json"})
        return connection.getresponse().read()
    finally:
        connection.close()
