"""The Ethereum nodes over JSON-RPC. No exception of web3 or its HTTP client leaves this package."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from eth_typing import ABI, ChecksumAddress
from hexbytes import HexBytes
from web3 import Web3
from web3.contract import Contract
from web3.exceptions import (
    BadFunctionCallOutput,
    BlockNotFound,
    ContractLogicError,
    TransactionNotFound,
    Web3Exception,
    Web3RPCError,
)
from web3.middleware import ExtraDataToPOAMiddleware
from web3.types import BlockIdentifier, FilterParams, LogReceipt, TxParams, Wei

from channelpay.chain.endpoints import Endpoints
from channelpay.chain.reverts import reverted
from channelpay.chain.types import Block, ContractCall, Log, TransactionReceipt
from channelpay.errors import (
    ChainReverted,
    InputError,
    InsufficientFunds,
    NetworkError,
    NotFound,
    WrongChain,
)
from channelpay.protocol.text import checksum_address
from channelpay.protocol.types import Address

_HEX = re.compile(r"0x((?:[0-9a-fA-F]{2})*)")


class NodeRefused(NetworkError):
    """The node answered with an error of its own; ``detail`` is its text."""

    code = "node-refused"
    title = "Refused by the Node"
    hint = "The node's message says why."


def connect(rpc: str | Sequence[str], *, expected_chain_id: int | None = None) -> Connection:
    """Connect to one node or several of the same chain, by their URLs, the best one first; one
    string may hold several, with commas in between.

    Nodes that do not answer, or serve another chain than expected (else than the first one that
    answers), are left out until they do. Raises :class:`NetworkError` if none answers,
    :class:`WrongChain` if none serves the chain, :class:`ConfigError` for what is not a URL.
    """
    given = [rpc] if isinstance(rpc, str) else rpc
    urls = tuple(dict.fromkeys(url.strip() for text in given for url in text.split(",")))
    return Connection(Endpoints(urls, expected_chain_id))


class Connection:
    """Typed reads of a chain, and its one write: a signed transaction. Made by :func:`connect`.

    Every method raises :class:`NetworkError` if no node answers, :class:`NodesDisagree` while they
    contradict each other, :class:`NodeRefused` if the answer is an error, and
    :class:`ChainReverted` if a contract refused the call. Addresses are 20 bytes, hashes 32.
    Threads may share a connection.
    """

    def __init__(self, endpoints: Endpoints) -> None:
        self._web3 = Web3(endpoints)
        # Chains with proof of authority put more into extraData than web3 accepts as it is.
        self._web3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)
        self.chain_id: int = endpoints.chain_id()

    def require_chain(self, chain_id: int) -> None:
        if self.chain_id != chain_id:
            raise WrongChain(f"the node serves chain {self.chain_id}, not chain {chain_id}")

    def block(self, number: int) -> Block | None:
        """A block by number, or nothing if the node does not have it."""
        return self._block(number)

    def latest_block(self) -> Block:
        latest = self._block("latest")
        if latest is None:
            raise NodeRefused("the node has no latest block")
        return latest

    def balance_wei(self, account: Address) -> int:
        with self._translated():
            return self._web3.eth.get_balance(checksum(account))

    def code(self, account: Address) -> bytes:
        with self._translated():
            return bytes(self._web3.eth.get_code(checksum(account)))

    def next_nonce(self, account: Address) -> int:
        """The account's transaction count, with those that wait in the node's pool."""
        with self._translated():
            return self._web3.eth.get_transaction_count(checksum(account), "pending")

    def used_nonces(self, account: Address, block: int | None = None) -> int:
        """How many of the account's nonces were used up by transactions in ``block`` (or the
        latest) and before it.
        """
        at: BlockIdentifier = "latest" if block is None else block
        with self._translated():
            return self._web3.eth.get_transaction_count(checksum(account), at)

    def next_base_fee_wei(self) -> int:
        """Base fee per gas of the next block."""
        with self._translated():
            return self._web3.eth.fee_history(1, "latest")["baseFeePerGas"][-1]

    def suggested_tip_wei(self) -> int:
        """Priority fee per gas that the node suggests."""
        with self._translated():
            return self._web3.eth.max_priority_fee

    def call(self, call: ContractCall, sender: Address, *, block: int | None = None) -> bytes:
        """What the call would return if ``sender`` sent it on top of ``block`` (or the latest)."""
        at: BlockIdentifier = "latest" if block is None else block
        with self._translated():
            return bytes(
                self._web3.eth.call(_parameters(call, sender), at, ccip_read_enabled=False)
            )

    def estimate_gas(self, call: ContractCall, sender: Address) -> int:
        with self._translated():
            return self._web3.eth.estimate_gas(_parameters(call, sender))

    def send_raw_transaction(self, raw_transaction: bytes) -> None:
        with self._translated():
            self._web3.eth.send_raw_transaction(raw_transaction)

    def has_transaction(self, transaction_hash: bytes) -> bool:
        """Whether the node knows the transaction, waiting or mined."""
        with self._translated():
            try:
                self._web3.eth.get_transaction(HexBytes(transaction_hash))
            except TransactionNotFound:
                return False
            return True

    def receipt(self, transaction_hash: bytes) -> TransactionReceipt | None:
        """The receipt of a mined transaction, or nothing if it is not (or no longer) mined."""
        with self._translated():
            try:
                fields = self._web3.eth.get_transaction_receipt(HexBytes(transaction_hash))
            except TransactionNotFound:
                return None
            return TransactionReceipt(
                transaction_hash=bytes(fields["transactionHash"]),
                succeeded=fields["status"] == 1,
                block_number=fields["blockNumber"],
                block_hash=bytes(fields["blockHash"]),
                gas_used=fields["gasUsed"],
                effective_gas_price_wei=fields["effectiveGasPrice"],
                logs=tuple(map(_log, fields["logs"])),
            )

    def logs(
        self,
        address: Address,
        topics: Sequence[Sequence[bytes] | None],
        first_block: int,
        last_block: int,
    ) -> tuple[Log, ...]:
        """Logs of one contract in a block range, both ends included; ``None`` is any topic."""
        parameters: FilterParams = {
            "address": checksum(address),
            "fromBlock": first_block,
            "toBlock": last_block,
            "topics": [None if some is None else list(map(HexBytes, some)) for some in topics],
        }
        with self._translated():
            return tuple(map(_log, self._web3.eth.get_logs(parameters)))

    def contract(self, address: Address, abi: Sequence[dict[str, Any]]) -> Contract:
        """web3's contract object, for this package only."""
        return self._web3.eth.contract(checksum(address), abi=cast(ABI, list(abi)))

    def view(
        self, contract: Contract, name: str, *arguments: object, block: int | None = None
    ) -> Any:
        """The decoded result of a view function at ``block`` (or the latest).

        Raises :class:`NotFound` where there is no such contract.
        """
        at: BlockIdentifier = "latest" if block is None else block
        with encoding(name):
            function = contract.get_function_by_name(name)(*arguments)
        with self._translated():
            try:
                return function.call(block_identifier=at, ccip_read_enabled=False)
            except BadFunctionCallOutput as error:
                raise NotFound(
                    f"no contract that answers {name}() at {contract.address} on chain "
                    f"{self.chain_id}",
                    hint="Check the address and the chain.",
                ) from error

    def _block(self, identifier: BlockIdentifier) -> Block | None:
        with self._translated():
            try:
                fields = self._web3.eth.get_block(identifier)
            except BlockNotFound:
                return None
            return Block(fields["number"], bytes(fields["hash"]), fields["timestamp"])

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn whatever web3 and its HTTP client raise into errors of ours."""
        try:
            yield
        except ContractLogicError as error:
            raise _revert_of(error) from error
        except Web3RPCError as error:
            raise _refusal_of(error) from error
        except (Web3Exception, ValueError, LookupError, TypeError, AttributeError) as error:
            raise NetworkError(f"the node's answer makes no sense: {error}") from error


@contextmanager
def encoding(name: str) -> Iterator[None]:
    """Turn what web3 raises for a value outside its ABI type into :class:`InputError`."""
    try:
        yield
    except (Web3Exception, ValueError, TypeError) as error:
        raise InputError(f"{name}() does not take these values: {error}") from error


def checksum(address: Address) -> ChecksumAddress:
    """The address as web3 wants it: mixed-case hex (EIP-55)."""
    return cast(ChecksumAddress, checksum_address(address))


def _parameters(call: ContractCall, sender: Address) -> TxParams:
    return {
        "from": checksum(sender),
        "to": checksum(call.to),
        "data": HexBytes(call.data),
        "value": Wei(call.value_wei),
    }


def _log(fields: LogReceipt) -> Log:
    return Log(
        address=Address(bytes.fromhex(fields["address"][2:])),
        topics=tuple(map(bytes, fields["topics"])),
        data=bytes(fields["data"]),
        block_number=fields["blockNumber"],
        block_hash=bytes(fields["blockHash"]),
        transaction_hash=bytes(fields["transactionHash"]),
        log_index=fields["logIndex"],
    )


def _revert_of(error: ContractLogicError) -> ChainReverted:
    found = _HEX.search(error.data) if isinstance(error.data, str) else None
    return reverted(bytes.fromhex(found[1]) if found else b"", message=error.message or "")


def _refusal_of(error: Web3RPCError) -> NodeRefused | InsufficientFunds:
    response = error.rpc_response or {}
    fields = response.get("error")
    message = str(fields.get("message", fields)) if isinstance(fields, dict) else str(error)
    if "insufficient funds" in message.lower():
        return InsufficientFunds(message)
    return NodeRefused(message)
