"""The Ethereum JSON-RPC methods of the embedded chain, and the JSON-RPC 2.0 envelope of them."""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Callable
from typing import Any

from eth.abc import BlockHeaderAPI
from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_typing import Address as EvmAddress

from channelpay.testing import rpc_format as write
from channelpay.testing import rpc_parameters as parse
from channelpay.testing.evm import (
    CHAIN_ID,
    TIP_WEI,
    EmbeddedChain,
    ExecutionFailed,
    ExecutionReverted,
    MinedBlock,
    TransactionRejected,
    UnknownBlock,
    base_fee_wei,
)
from channelpay.testing.rpc_format import Json

CLIENT_VERSION = "channelpay-dev/py-evm"
BATCH_MAX = 100
MINE_MAX = 10_000
FEE_HISTORY_MAX = 1024

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


class RpcMethods:
    """What each method answers. Parameters come positionally, as JSON values."""

    def __init__(self, chain: EmbeddedChain) -> None:
        self._chain = chain
        self.table: dict[str, Callable[..., Json]] = {
            "anvil_mine": self.anvil_mine,
            "eth_accounts": self.accounts,
            "eth_blockNumber": lambda: write.quantity(chain.head.block.number),
            "eth_call": self.call,
            "eth_chainId": lambda: write.quantity(CHAIN_ID),
            "eth_estimateGas": self.estimate_gas,
            "eth_feeHistory": self.fee_history,
            "eth_gasPrice": lambda: write.quantity(chain.next_base_fee_wei + TIP_WEI),
            "eth_getBalance": self.get_balance,
            "eth_getBlockByHash": self.get_block_by_hash,
            "eth_getBlockByNumber": self.get_block_by_number,
            "eth_getCode": self.get_code,
            "eth_getLogs": self.get_logs,
            "eth_getStorageAt": self.get_storage_at,
            "eth_getTransactionByHash": self.get_transaction_by_hash,
            "eth_getTransactionCount": self.get_transaction_count,
            "eth_getTransactionReceipt": self.get_transaction_receipt,
            "eth_maxPriorityFeePerGas": lambda: write.quantity(TIP_WEI),
            "eth_sendRawTransaction": self.send_raw_transaction,
            "eth_syncing": lambda: False,
            "evm_increaseTime": self.increase_time,
            "evm_mine": self.evm_mine,
            "evm_revert": self.revert,
            "evm_setNextBlockTimestamp": self.set_next_block_timestamp,
            "evm_snapshot": lambda: write.quantity(chain.snapshot()),
            "net_listening": lambda: True,
            "net_version": lambda: str(CHAIN_ID),
            "web3_clientVersion": lambda: CLIENT_VERSION,
        }

    def accounts(self) -> Json:
        """None: the chain holds no keys and signs nothing."""
        return []

    def get_balance(self, account: object, block: object = "latest") -> Json:
        state = self._chain.state_at(self._header(block))
        return write.quantity(state.get_balance(EvmAddress(parse.address(account))))

    def get_code(self, account: object, block: object = "latest") -> Json:
        state = self._chain.state_at(self._header(block))
        return write.data(state.get_code(EvmAddress(parse.address(account))))

    def get_storage_at(self, account: object, slot: object, block: object = "latest") -> Json:
        state = self._chain.state_at(self._header(block))
        position = int.from_bytes(parse.data(slot), "big") if _is_word(slot) else None
        index = parse.quantity(slot) if position is None else position
        value = state.get_storage(EvmAddress(parse.address(account)), index)
        return write.data(value.to_bytes(32, "big"))

    def get_transaction_count(self, account: object, block: object = "latest") -> Json:
        state = self._chain.state_at(self._header(block))
        return write.quantity(state.get_nonce(EvmAddress(parse.address(account))))

    def call(self, message: object, block: object = "latest") -> Json:
        header = self._header(block)
        return write.data(self._chain.call(parse.call_message(message), header))

    def estimate_gas(self, message: object, block: object = "latest") -> Json:
        header = self._header(block)
        return write.quantity(self._chain.estimate_gas(parse.call_message(message), header))

    def send_raw_transaction(self, raw_transaction: object) -> Json:
        return write.data(self._chain.submit(parse.data(raw_transaction)))

    def get_block_by_number(self, block: object, full_transactions: object = False) -> Json:
        full = parse.boolean(full_transactions)
        if block == "pending":
            return write.pending_block_json(self._chain.pending_header())
        try:
            return write.block_json(self._block(block), full_transactions=full)
        except UnknownBlock:
            return None

    def get_block_by_hash(self, block_hash: object, full_transactions: object = False) -> Json:
        full = parse.boolean(full_transactions)
        try:
            mined = self._chain.block_of_hash(parse.data(block_hash, size=32))
        except UnknownBlock:
            return None
        return write.block_json(mined, full_transactions=full)

    def get_transaction_by_hash(self, transaction_hash: object) -> Json:
        place = self._chain.place_of(parse.data(transaction_hash, size=32))
        return None if place is None else write.transaction_json(*place)

    def get_transaction_receipt(self, transaction_hash: object) -> Json:
        place = self._chain.place_of(parse.data(transaction_hash, size=32))
        return None if place is None else write.receipt_json(*place)

    def get_logs(self, filter_fields: object) -> Json:
        wanted = parse.log_filter(filter_fields)
        head_number = self._chain.head.block.number
        first = self._number(wanted.first)
        last = min(self._number(wanted.last), head_number)
        return [
            write.log_json(mined, index, log_index, log)
            for mined in map(self._chain.block_at, range(first, last + 1))
            for index, log_index, log in write.logs_of(mined)
            if wanted.matches(log.address, write.topics_of(log))
        ]

    def fee_history(self, count: object, newest: object, percentiles: object = None) -> Json:
        wanted = parse.quantity(count)
        if not 1 <= wanted <= FEE_HISTORY_MAX:
            raise parse.InvalidParameters(f"block count must be 1 to {FEE_HISTORY_MAX}")
        last = self._block("latest" if newest == "pending" else newest).block.number
        first = max(0, last + 1 - wanted)
        blocks = [self._chain.block_at(number) for number in range(first, last + 1)]
        base_fees = [base_fee_wei(mined.header) for mined in blocks]
        history: dict[str, Json] = {
            "oldestBlock": write.quantity(first),
            "baseFeePerGas": [write.quantity(fee) for fee in [*base_fees, self._fee_after(last)]],
            "gasUsedRatio": [mined.header.gas_used / mined.header.gas_limit for mined in blocks],
        }
        if isinstance(percentiles, list) and percentiles:
            history["reward"] = [_rewards(mined, len(percentiles)) for mined in blocks]
        return history

    def evm_mine(self, options: object = None) -> Json:
        """Mine one block, ``{"blocks": n}`` blocks, or one block at a timestamp."""
        if isinstance(options, dict):
            self._mine(parse.quantity(options.get("blocks", 1)))
            return "0x0"
        if options is not None:
            self.set_next_block_timestamp(options)
        self._mine(1)
        return "0x0"

    def anvil_mine(self, blocks: object = 1, interval: object = 0) -> Json:
        """``blocks`` blocks, each ``interval`` seconds later than the clock says."""
        seconds = parse.quantity(interval)
        for _ in range(_bounded_count(blocks)):
            self._chain.increase_time(seconds)
            self._chain.mine_empty_block()
        return None

    def increase_time(self, seconds: object) -> Json:
        return write.quantity(self._chain.increase_time(parse.quantity(seconds)))

    def set_next_block_timestamp(self, timestamp: object) -> Json:
        try:
            self._chain.set_next_timestamp(parse.quantity(timestamp))
        except ValueError as error:
            raise parse.InvalidParameters(str(error)) from error
        return None

    def revert(self, snapshot: object) -> Json:
        return self._chain.revert(parse.quantity(snapshot))

    def _mine(self, count: int) -> None:
        for _ in range(_bounded_count(count)):
            self._chain.mine_empty_block()

    def _fee_after(self, number: int) -> int:
        if number == self._chain.head.block.number:
            return self._chain.next_base_fee_wei
        return base_fee_wei(self._chain.block_at(number + 1).header)

    def _header(self, block: object) -> BlockHeaderAPI:
        return self._chain.pending_header() if block == "pending" else self._block(block).header

    def _block(self, block: object) -> MinedBlock:
        reference = parse.block_reference(block)
        if reference.block_hash is not None:
            return self._chain.block_of_hash(reference.block_hash)
        return self._chain.block_at(self._number(reference))

    def _number(self, reference: parse.BlockReference) -> int:
        if reference.block_hash is not None:
            return self._chain.block_of_hash(reference.block_hash).block.number
        if reference.number is not None:
            return reference.number
        return 0 if reference.tag == "earliest" else self._chain.head.block.number


class RpcServer:
    """Answers JSON-RPC requests and batches, one at a time whatever the number of threads."""

    def __init__(self, chain: EmbeddedChain) -> None:
        self._methods = RpcMethods(chain).table
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
        raise RpcError(_REVERTED, _revert_message(error.data), write.data(error.data)) from error
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


def _rewards(mined: MinedBlock, count: int) -> list[Json]:
    """The tip at each percentile; a block holds one transaction at most, so it is one number."""
    tips = [
        write.effective_gas_price_wei(mined, transaction) - base_fee_wei(mined.header)
        for transaction in mined.block.transactions
    ]
    return [write.quantity(tips[0] if tips else 0)] * count


def _bounded_count(value: object) -> int:
    count = parse.quantity(value)
    if count > MINE_MAX:
        raise parse.InvalidParameters(f"at most {MINE_MAX} blocks at once")
    return count


def _is_word(value: object) -> bool:
    return isinstance(value, str) and len(value) == 66


def _failure(identifier: object, error: RpcError) -> dict[str, Json]:
    known = identifier if isinstance(identifier, int | str) else None
    return {"jsonrpc": "2.0", "id": known, "error": error.as_json()}


def _encoded(answer: Json) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode()
