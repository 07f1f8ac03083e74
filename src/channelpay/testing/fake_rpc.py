"""The Ethereum JSON-RPC methods of the fake chain."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from channelpay.protocol.types import Address
from channelpay.testing import rpc_parameters as parse
from channelpay.testing.execution import CHAIN_ID, GAS_LIMIT, TIP_WEI, UnknownBlock
from channelpay.testing.fake import Block, FakeChain
from channelpay.testing.fake_abi import Event
from channelpay.testing.fake_transaction import SignedTransaction
from channelpay.testing.rpc_server import Json

CLIENT_VERSION = "channelpay-fake"
MINE_MAX = 10_000
FEE_HISTORY_MAX = 1024
_BLOOM_BYTES = 256


class FakeRpcMethods:
    """What each method answers. Parameters come positionally, as JSON values."""

    def __init__(self, chain: FakeChain) -> None:
        self._chain = chain
        self.table: dict[str, Callable[..., Json]] = {
            "anvil_mine": self.anvil_mine,
            "eth_accounts": list,
            "eth_blockNumber": lambda: hex(chain.height),
            "eth_call": self.call,
            "eth_chainId": lambda: hex(CHAIN_ID),
            "eth_estimateGas": self.estimate_gas,
            "eth_feeHistory": self.fee_history,
            "eth_gasPrice": lambda: hex(chain.head.next_base_fee_wei + TIP_WEI),
            "eth_getBalance": self.get_balance,
            "eth_getBlockByHash": self.get_block_by_hash,
            "eth_getBlockByNumber": self.get_block_by_number,
            "eth_getCode": self.get_code,
            "eth_getLogs": self.get_logs,
            "eth_getTransactionByHash": self.get_transaction_by_hash,
            "eth_getTransactionCount": self.get_transaction_count,
            "eth_getTransactionReceipt": self.get_transaction_receipt,
            "eth_maxPriorityFeePerGas": lambda: hex(TIP_WEI),
            "eth_sendRawTransaction": self.send_raw_transaction,
            "eth_syncing": lambda: False,
            "evm_increaseTime": self.increase_time,
            "evm_mine": self.evm_mine,
            "evm_revert": self.revert,
            "evm_setAutomine": self.set_automine,
            "evm_setNextBlockTimestamp": self.set_next_block_timestamp,
            "evm_snapshot": lambda: hex(chain.snapshot()),
            "net_listening": lambda: True,
            "net_version": lambda: str(CHAIN_ID),
            "web3_clientVersion": lambda: CLIENT_VERSION,
        }

    def get_balance(self, account: object, block: object = "latest") -> Json:
        return hex(self._block(block).world.balance(_address(account)))

    def get_code(self, account: object, block: object = "latest") -> Json:
        return _data(self._block(block).world.code(_address(account)))

    def get_transaction_count(self, account: object, block: object = "latest") -> Json:
        address = _address(account)
        if block == "pending":
            return hex(self._chain.next_nonce(address))
        return hex(self._block(block).world.nonces.get(address, 0))

    def call(self, message: object, block: object = "latest") -> Json:
        return _data(self._chain.call(parse.call_message(message), self._block(block)))

    def estimate_gas(self, message: object, block: object = "latest") -> Json:
        return hex(self._chain.estimate_gas(parse.call_message(message), self._block(block)))

    def send_raw_transaction(self, raw_transaction: object) -> Json:
        return _data(self._chain.submit(parse.data(raw_transaction)))

    def get_block_by_number(self, block: object, full_transactions: object = False) -> Json:
        full = parse.boolean(full_transactions)
        try:
            return _block_json(self._block(block), full_transactions=full)
        except UnknownBlock:
            return None

    def get_block_by_hash(self, block_hash: object, full_transactions: object = False) -> Json:
        full = parse.boolean(full_transactions)
        try:
            found = self._chain.block_of_hash(parse.data(block_hash, size=32))
        except UnknownBlock:
            return None
        return _block_json(found, full_transactions=full)

    def get_transaction_by_hash(self, transaction_hash: object) -> Json:
        wanted = parse.data(transaction_hash, size=32)
        place = self._chain.place_of(wanted)
        if place is not None:
            return _transaction_json(*place)
        waiting = [one for one in self._chain.waiting if one.hash == wanted]
        if not waiting:
            return None
        return _fields_json(waiting[0], self._chain.head.next_base_fee_wei) | _NOWHERE

    def get_transaction_receipt(self, transaction_hash: object) -> Json:
        place = self._chain.place_of(parse.data(transaction_hash, size=32))
        return None if place is None else _receipt_json(*place)

    def get_logs(self, filter_fields: object) -> Json:
        wanted = parse.log_filter(filter_fields)
        first, last = self._number(wanted.first), self._number(wanted.last)
        blocks = map(self._chain.block_at, range(first, min(last, self._chain.height) + 1))
        return [
            _log_json(block, index, log_index, event)
            for block in blocks
            for index, log_index, event in _logs_of(block)
            if wanted.matches(event.address, list(event.topics))
        ]

    def fee_history(self, count: object, newest: object, percentiles: object = None) -> Json:
        wanted = parse.quantity(count)
        if not 1 <= wanted <= FEE_HISTORY_MAX:
            raise parse.InvalidParameters(f"block count must be 1 to {FEE_HISTORY_MAX}")
        last = self._block(newest)
        first = max(0, last.number + 1 - wanted)
        blocks = [self._chain.block_at(number) for number in range(first, last.number + 1)]
        fees = [*(block.base_fee_wei for block in blocks), last.next_base_fee_wei]
        history: dict[str, Json] = {
            "oldestBlock": hex(first),
            "baseFeePerGas": [*map(hex, fees)],
            "gasUsedRatio": [block.gas_used / GAS_LIMIT for block in blocks],
        }
        if isinstance(percentiles, list) and percentiles:
            tips: list[Json] = [hex(TIP_WEI)] * len(percentiles)
            history["reward"] = [tips] * len(blocks)
        return history

    def evm_mine(self, options: object = None) -> Json:
        """Mine one block, ``{"blocks": n}`` blocks, or one block at a timestamp."""
        if isinstance(options, dict):
            self.anvil_mine(options.get("blocks", 1))
            return "0x0"
        if options is not None:
            self.set_next_block_timestamp(options)
        self._chain.mine()
        return "0x0"

    def anvil_mine(self, blocks: object = 1, interval: object = 0) -> Json:
        """``blocks`` blocks, each ``interval`` seconds later than the clock says."""
        count, seconds = parse.quantity(blocks), parse.quantity(interval)
        if count > MINE_MAX:
            raise parse.InvalidParameters(f"at most {MINE_MAX} blocks at once")
        for _ in range(count):
            self._chain.increase_time(seconds)
            self._chain.mine()
        return None

    def set_automine(self, enabled: object) -> Json:
        """Whether each transaction is mined at once."""
        if parse.boolean(enabled):
            self._chain.release_transactions()
        else:
            self._chain.hold_transactions()
        return None

    def increase_time(self, seconds: object) -> Json:
        return hex(self._chain.increase_time(parse.quantity(seconds)))

    def set_next_block_timestamp(self, timestamp: object) -> Json:
        try:
            self._chain.set_next_timestamp(parse.quantity(timestamp))
        except ValueError as error:
            raise parse.InvalidParameters(str(error)) from error
        return None

    def revert(self, snapshot: object) -> Json:
        return self._chain.revert(parse.quantity(snapshot))

    def _block(self, block: object) -> Block:
        reference = parse.block_reference(block)
        if reference.block_hash is not None:
            return self._chain.block_of_hash(reference.block_hash)
        return self._chain.block_at(self._number(reference))

    def _number(self, reference: parse.BlockReference) -> int:
        if reference.block_hash is not None:
            return self._chain.block_of_hash(reference.block_hash).number
        if reference.number is not None:
            return reference.number
        return 0 if reference.tag == "earliest" else self._chain.height


_NOWHERE: dict[str, Json] = {"blockHash": None, "blockNumber": None, "transactionIndex": None}


def _block_json(block: Block, *, full_transactions: bool) -> dict[str, Json]:
    transactions: list[Json] = [
        _transaction_json(block, index) if full_transactions else _data(mined.transaction.hash)
        for index, mined in enumerate(block.mined)
    ]
    members: dict[str, Json] = {
        "number": hex(block.number),
        "hash": _data(block.hash),
        "parentHash": _data(block.parent_hash),
        "timestamp": hex(block.timestamp),
        "baseFeePerGas": hex(block.base_fee_wei),
        "gasLimit": hex(GAS_LIMIT),
        "gasUsed": hex(block.gas_used),
        "transactions": transactions,
        "uncles": [],
        "withdrawals": [],
    }
    return members | _EMPTY_FIELDS


_EMPTY_FIELDS: dict[str, Json] = {
    "difficulty": "0x0",
    "extraData": "0x",
    "logsBloom": "0x" + "00" * _BLOOM_BYTES,
    "miner": "0x" + "00" * 20,
    "mixHash": "0x" + "00" * 32,
    "nonce": "0x" + "00" * 8,
    "receiptsRoot": "0x" + "00" * 32,
    "sha3Uncles": "0x" + "00" * 32,
    "size": "0x0",
    "stateRoot": "0x" + "00" * 32,
    "transactionsRoot": "0x" + "00" * 32,
}


def _transaction_json(block: Block, index: int) -> dict[str, Json]:
    fields = _fields_json(block.mined[index].transaction, block.base_fee_wei)
    return fields | _place_json(block, index)


def _fields_json(transaction: SignedTransaction, base_fee_wei: int) -> dict[str, Json]:
    return {
        "hash": _data(transaction.hash),
        "type": "0x2",
        "chainId": hex(transaction.chain_id),
        "nonce": hex(transaction.nonce),
        "from": _data(transaction.sender),
        "to": _data(transaction.to) if transaction.to else None,
        "value": hex(transaction.value),
        "gas": hex(transaction.gas),
        "gasPrice": hex(transaction.gas_price_wei(base_fee_wei)),
        "maxFeePerGas": hex(transaction.max_fee_wei),
        "maxPriorityFeePerGas": hex(transaction.tip_wei),
        "input": _data(transaction.data),
        "accessList": [],
        "v": hex(transaction.parity),
        "yParity": hex(transaction.parity),
        "r": hex(transaction.r),
        "s": hex(transaction.s),
    }


def _receipt_json(block: Block, index: int) -> dict[str, Json]:
    mined = block.mined[index]
    transaction = mined.transaction
    logs: list[Json] = [
        _log_json(block, at, log_index, event)
        for at, log_index, event in _logs_of(block)
        if at == index
    ]
    members: dict[str, Json] = {
        "type": "0x2",
        "status": hex(int(mined.succeeded)),
        "from": _data(transaction.sender),
        "to": _data(transaction.to) if transaction.to else None,
        "contractAddress": None,
        "cumulativeGasUsed": hex(sum(one.gas_used for one in block.mined[: index + 1])),
        "gasUsed": hex(mined.gas_used),
        "effectiveGasPrice": hex(transaction.gas_price_wei(block.base_fee_wei)),
        "logs": logs,
        "logsBloom": _EMPTY_FIELDS["logsBloom"],
        "transactionHash": _data(transaction.hash),
    }
    return members | _place_json(block, index)


def _log_json(block: Block, index: int, log_index: int, event: Event) -> dict[str, Json]:
    topics: list[Json] = [_data(topic) for topic in event.topics]
    members: dict[str, Json] = {
        "address": _data(event.address),
        "topics": topics,
        "data": _data(event.data),
        "logIndex": hex(log_index),
        "transactionHash": _data(block.mined[index].transaction.hash),
        "removed": False,
    }
    return members | _place_json(block, index)


def _logs_of(block: Block) -> Iterator[tuple[int, int, Event]]:
    """Every event of a block with its transaction's index and its own index in the block."""
    log_index = 0
    for index, mined in enumerate(block.mined):
        for event in mined.events:
            yield index, log_index, event
            log_index += 1


def _place_json(block: Block, index: int) -> dict[str, Json]:
    return {
        "blockHash": _data(block.hash),
        "blockNumber": hex(block.number),
        "transactionIndex": hex(index),
    }


def _address(value: object) -> Address:
    return Address(parse.address(value))


def _data(value: bytes) -> str:
    return "0x" + value.hex()
