"""Blocks, transactions, receipts and logs as Ethereum JSON-RPC writes them."""

from __future__ import annotations

from collections.abc import Iterator

import rlp  # type: ignore[import-untyped]
from eth._utils.address import generate_contract_address
from eth.abc import BlockHeaderAPI, LogAPI, SignedTransactionAPI
from eth.vm.forks.berlin.transactions import TypedTransaction

from channelpay.testing.evm import MinedBlock, base_fee_wei
from channelpay.testing.rpc_server import Json

_EMPTY_BLOOM_BYTES = 256


def quantity(value: int) -> str:
    return hex(value)


def data(value: bytes) -> str:
    return "0x" + value.hex()


def block_json(mined: MinedBlock, *, full_transactions: bool) -> dict[str, Json]:
    transactions: list[Json] = [
        transaction_json(mined, index) if full_transactions else data(transaction.hash)
        for index, transaction in enumerate(mined.block.transactions)
    ]
    return _header_json(mined.header) | {
        "hash": data(mined.block.hash),
        "size": quantity(len(rlp.encode(mined.block))),
        "transactions": transactions,
        "uncles": [],
        "withdrawals": [],
    }


def pending_block_json(header: BlockHeaderAPI) -> dict[str, Json]:
    """The block that would come next: it has no hash yet and holds nothing."""
    nothing: dict[str, Json] = {"hash": None, "size": "0x0", "transactions": [], "uncles": []}
    return _header_json(header) | nothing | {"withdrawals": []}


def _header_json(header: BlockHeaderAPI) -> dict[str, Json]:
    return {
        "number": quantity(header.block_number),
        "parentHash": data(header.parent_hash),
        "nonce": data(header.nonce),
        "sha3Uncles": data(header.uncles_hash),
        "logsBloom": data(header.bloom.to_bytes(_EMPTY_BLOOM_BYTES, "big")),
        "transactionsRoot": data(header.transaction_root),
        "stateRoot": data(header.state_root),
        "receiptsRoot": data(header.receipt_root),
        "miner": data(header.coinbase),
        "difficulty": quantity(header.difficulty),
        "extraData": data(header.extra_data),
        "gasLimit": quantity(header.gas_limit),
        "gasUsed": quantity(header.gas_used),
        "timestamp": quantity(header.timestamp),
        "mixHash": data(header.mix_hash),
        "baseFeePerGas": quantity(base_fee_wei(header)),
    }


def transaction_json(mined: MinedBlock, index: int) -> dict[str, Json]:
    transaction = mined.block.transactions[index]
    return (
        {
            "hash": data(transaction.hash),
            "type": quantity(_type_of(transaction)),
            "nonce": quantity(transaction.nonce),
            "from": data(transaction.sender),
            "to": data(transaction.to) if transaction.to else None,
            "value": quantity(transaction.value),
            "gas": quantity(transaction.gas),
            "gasPrice": quantity(effective_gas_price_wei(mined, transaction)),
            "input": data(transaction.data),
            "r": quantity(transaction.r),
            "s": quantity(transaction.s),
        }
        | _place_json(mined, index)
        | _type_specific_json(transaction)
    )


def receipt_json(mined: MinedBlock, index: int) -> dict[str, Json]:
    transaction, receipt = mined.block.transactions[index], mined.receipts[index]
    gas_used_before = mined.receipts[index - 1].gas_used if index else 0
    logs: list[Json] = [
        log_json(mined, index, first_log_index(mined, index) + offset, log)
        for offset, log in enumerate(receipt.logs)
    ]
    return {
        "type": quantity(_type_of(transaction)),
        "status": quantity(int(receipt.state_root == b"\x01")),
        "from": data(transaction.sender),
        "to": data(transaction.to) if transaction.to else None,
        "contractAddress": None if transaction.to else data(_created_address(transaction)),
        "cumulativeGasUsed": quantity(receipt.gas_used),
        "gasUsed": quantity(receipt.gas_used - gas_used_before),
        "effectiveGasPrice": quantity(effective_gas_price_wei(mined, transaction)),
        "logs": logs,
        "logsBloom": data(receipt.bloom.to_bytes(_EMPTY_BLOOM_BYTES, "big")),
        "transactionHash": data(transaction.hash),
        "transactionIndex": quantity(index),
        "blockHash": data(mined.block.hash),
        "blockNumber": quantity(mined.block.number),
    }


def log_json(mined: MinedBlock, index: int, log_index: int, log: LogAPI) -> dict[str, Json]:
    place = _place_json(mined, index)
    return place | {
        "address": data(log.address),
        "topics": [data(topic) for topic in topics_of(log)],
        "data": data(log.data),
        "logIndex": quantity(log_index),
        "transactionHash": data(mined.block.transactions[index].hash),
        "removed": False,
    }


def logs_of(mined: MinedBlock) -> Iterator[tuple[int, int, LogAPI]]:
    """Every log of a block with its transaction's index and its own index in the block."""
    log_index = 0
    for index, receipt in enumerate(mined.receipts):
        for log in receipt.logs:
            yield index, log_index, log
            log_index += 1


def topics_of(log: LogAPI) -> list[bytes]:
    return [topic.to_bytes(32, "big") for topic in log.topics]


def first_log_index(mined: MinedBlock, index: int) -> int:
    return sum(len(receipt.logs) for receipt in mined.receipts[:index])


def effective_gas_price_wei(mined: MinedBlock, transaction: SignedTransactionAPI) -> int:
    base_fee = base_fee_wei(mined.header)
    return min(transaction.max_fee_per_gas, base_fee + transaction.max_priority_fee_per_gas)


def _place_json(mined: MinedBlock, index: int) -> dict[str, Json]:
    return {
        "blockHash": data(mined.block.hash),
        "blockNumber": quantity(mined.block.number),
        "transactionIndex": quantity(index),
    }


def _type_of(transaction: SignedTransactionAPI) -> int:
    return transaction.type_id or 0


def _type_specific_json(transaction: SignedTransactionAPI) -> dict[str, Json]:
    """What only some transaction types carry: signature parity, access list, fees."""
    if not isinstance(transaction, TypedTransaction):
        chain_id = transaction.chain_id
        v: int = transaction.v  # type: ignore[attr-defined]
        legacy: dict[str, Json] = {"v": quantity(v)}
        return legacy if chain_id is None else legacy | {"chainId": quantity(chain_id)}
    access_list: list[Json] = [
        {"address": data(address), "storageKeys": [data(key.to_bytes(32, "big")) for key in keys]}
        for address, keys in transaction.access_list
    ]
    common: dict[str, Json] = {
        "chainId": quantity(transaction.chain_id),
        "accessList": access_list,
        "v": quantity(transaction.y_parity),
        "yParity": quantity(transaction.y_parity),
    }
    return common | _fees_json(transaction)


def _fees_json(transaction: SignedTransactionAPI) -> dict[str, Json]:
    if _type_of(transaction) < 2:
        return {}
    return {
        "maxFeePerGas": quantity(transaction.max_fee_per_gas),
        "maxPriorityFeePerGas": quantity(transaction.max_priority_fee_per_gas),
    }


def _created_address(transaction: SignedTransactionAPI) -> bytes:
    return generate_contract_address(transaction.sender, transaction.nonce)
