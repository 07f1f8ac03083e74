"""The chain as whoever drives it sees it: blocks every second, reorganisations, fees and time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from channelpay.errors import NetworkError
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Address
from channelpay.testing.rpc_client import rpc_call

BLOCK_SECONDS = 1
FEE_FACTOR = 10
FEE_WEI_MIN = 10**9
"""The base fee of a chain on which next to nothing happens falls to next to nothing."""


@dataclass(frozen=True, slots=True)
class Elements:
    """An anvil. No block before ``genesis`` is ever taken back."""

    rpc_url: str
    genesis: int

    def head(self) -> int:
        return int(self._do("eth_blockNumber"), 16)

    def block(self, number: int, *, full: bool = False) -> Any:
        return self._do("eth_getBlockByNumber", hex(number), full)

    def begin(self) -> None:
        """A block every second from here on, and none for each transaction."""
        self._do("evm_setAutomine", False)
        self._do("evm_setIntervalMining", BLOCK_SECONDS)

    def raise_base_fee(self) -> None:
        """Tenfold at once; it falls by an eighth with each block that is empty."""
        fee_wei = int(self.block(self.head())["baseFeePerGas"], 16)
        self._do("anvil_setNextBlockBaseFeePerGas", hex(FEE_FACTOR * max(fee_wei, FEE_WEI_MIN)))

    def jump(self, seconds: int) -> None:
        self._do("evm_increaseTime", seconds)

    def reorganise(self, depth: int, lost: Collection[Address] = ()) -> int:
        """Take the last blocks back, and mine as many others. Their transactions wait for a block
        again, as with any node, but for those of the ``lost`` accounts. Returns how many did.
        """
        # A block in between would be taken back with its transactions unknown.
        self._do("evm_setIntervalMining", 0)
        head = self.head()
        depth = min(depth, head - self.genesis)
        undone = [
            transaction
            for number in range(head - depth + 1, head + 1)
            for transaction in self.block(number, full=True)["transactions"]
        ]
        raw = [self._do("eth_getRawTransactionByHash", one["hash"]) for one in undone]
        if depth:
            self._do("anvil_reorg", depth, [])
        left_out = {to_hex(account) for account in lost}
        for transaction, one in zip(undone, raw, strict=True):
            if transaction["from"].lower() not in left_out:
                self._send_again(one)
        self._do("evm_setIntervalMining", BLOCK_SECONDS)
        return len(undone)

    def _send_again(self, raw: Any) -> None:
        try:
            self._do("eth_sendRawTransaction", raw)
        except NetworkError as error:
            # Its sender was faster.
            if "already" not in str(error) and "nonce too low" not in str(error):
                raise

    def fees_wei(self, account: Address) -> int:
        """What the gas of all transactions of this account has cost it since the beginning."""
        own, total = to_hex(account), 0
        for number in range(self.genesis + 1, self.head() + 1):
            for transaction in self.block(number, full=True)["transactions"]:
                if transaction["from"].lower() == own:
                    receipt: Any = self._do("eth_getTransactionReceipt", transaction["hash"])
                    price = int(receipt["effectiveGasPrice"], 16)
                    total += int(receipt["gasUsed"], 16) * price
        return total

    def _do(self, method: str, *parameters: object) -> Any:
        return rpc_call(self.rpc_url, method, *parameters)
