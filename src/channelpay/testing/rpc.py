"""The Ethereum JSON-RPC methods of the embedded chain."""

from __future__ import annotations

from collections.abc import Callable

from eth.abc import BlockHeaderAPI
from eth_typing import Address as EvmAddress

from channelpay.testing import rpc_format as write
from channelpay.testing import rpc_parameters as parse
from channelpay.testing.evm import EmbeddedChain, MinedBlock, base_fee_wei
from channelpay.testing.execution import CHAIN_ID, TIP_WEI, UnknownBlock
from channelpay.testing.rpc_server import Json

CLIENT_VERSION = "channelpay-dev/py-evm"
MINE_MAX = 10_000
FEE_HISTORY_MAX = 1024


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
