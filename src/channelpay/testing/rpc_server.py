"""The JSON-RPC 2.0 envelope: requests and batches in, answers or errors out."""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError

from channelpay.testing import rpc_parameters as parse
from channelpay.testing.execution import (
    ExecutionFailed,
    ExecutionReverted,
    TransactionRejected,
    UnknownBlock,
)

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Methods = Mapping[str, Callable[..., Json]]

BATCH_MAX = 100

_NESTED_MAX = 5_000
_PARSE_ERROR = -32700
_INVALID_REQUEST = -32600
_METHOD_NOT_FOUND = -32601
_INVALID_PARAMS = -32602
_SERVER_ERROR = -32000
_INTERNAL_ERROR = -32603
_REVERTED = 3

_ERROR_SELECTOR = bytes.fromhex("08c379a0")


class RpcError(Exception):
    """An answer of the ``error`` kind; ``data`` is the revert data, where there is any."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data

    def as_json(self) -> dict[str, Json]:
        members: dict[str, Json] = {"code": self.code, "message": self.message}
        return members if self.data is None else members | {"data": self.data}


class RpcServer:
    """Answers JSON-RPC requests and batches, one at a time whatever the number of threads."""

    def __init__(self, methods: Methods) -> None:
        self._methods = methods
        self._lock = threading.Lock()

    @property
    def method_names(self) -> tuple[str, ...]:
        return tuple(self._methods)

    def answer(self, body: bytes) -> bytes:
        """The JSON answer to a JSON request; empty if it held only notifications."""
        # py-evm raises the interpreter's recursion limit so far that deep JSON overflows the stack.
        nested = body.count(b"[") + body.count(b"{")
        try:
            request = json.loads(body) if nested <= _NESTED_MAX else None
        except (ValueError, RecursionError):
            return _encoded(_failure(None, RpcError(_PARSE_ERROR, "parse error")))
        answer = self._answer_batch(request) if isinstance(request, list) else self._one(request)
        return b"" if answer is None else _encoded(answer)

    def _answer_batch(self, requests: list[object]) -> Json:
        if not 1 <= len(requests) <= BATCH_MAX:
            message = f"a batch holds 1 to {BATCH_MAX} requests"
            return _failure(None, RpcError(_INVALID_REQUEST, message))
        answers = [self._one(request) for request in requests]
        return [answer for answer in answers if answer is not None] or None

    def _one(self, request: object) -> Json:
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            return _failure(None, RpcError(_INVALID_REQUEST, "invalid request"))
        identifier = request.get("id")
        try:
            result = self._call(request["method"], request.get("params", []))
        except RpcError as error:
            answer = _failure(identifier, error)
        else:
            answer = {"jsonrpc": "2.0", "id": identifier, "result": result}
        return answer if "id" in request else None

    def _call(self, name: str, params: object) -> Json:
        method = self._methods.get(name)
        if method is None:
            raise RpcError(_METHOD_NOT_FOUND, f"the method {name} does not exist")
        if not isinstance(params, list):
            raise RpcError(_INVALID_PARAMS, "params must be a list")
        try:
            inspect.signature(method).bind(*params)
        except TypeError as error:
            raise RpcError(_INVALID_PARAMS, str(error)) from error
        with self._lock:
            return _translated(method, params)


def _translated(method: Callable[..., Json], params: list[Any]) -> Json:
    """The method's answer, with the chain's exceptions as JSON-RPC errors."""
    try:
        return method(*params)
    except parse.InvalidParameters as error:
        raise RpcError(_INVALID_PARAMS, f"invalid params: {error}") from error
    except ExecutionReverted as error:
        raise RpcError(_REVERTED, _revert_message(error.data), "0x" + error.data.hex()) from error
    except (ExecutionFailed, TransactionRejected, UnknownBlock) as error:
        raise RpcError(_SERVER_ERROR, str(error)) from error
    except Exception as error:  # a bug must not take the shared chain down
        raise RpcError(_INTERNAL_ERROR, f"internal error: {type(error).__name__}") from error


def _revert_message(revert_data: bytes) -> str:
    if revert_data[:4] != _ERROR_SELECTOR:
        return "execution reverted"
    try:
        (reason,) = decode(["string"], revert_data[4:])
    except DecodingError:
        return "execution reverted"
    return f"execution reverted: {reason}"


def _failure(identifier: object, error: RpcError) -> dict[str, Json]:
    known = identifier if isinstance(identifier, int | str) else None
    return {"jsonrpc": "2.0", "id": known, "error": error.as_json()}


def _encoded(answer: Json) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode()
