"""The chain as whoever drives it sees it: blocks every second, reorganisations, fees and time."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from channelpay.errors import NetworkError
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Address
from channelpay.testing.rpc_client import rpc_call

BLOCK_SECONDS = 1
UNDER_WAY_SECONDS = 0.2
"""A block that takes longer is not expected."""
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
        """Take the last blocks back, and mine as many others with the same transactions, but for
        the last ones of the ``lost`` accounts: nobody else has built on those. Returns how many
        transactions were taken back.
        """
        head = self._stand_still()
        depth = min(depth, head - self.genesis)
        undone = [
            (transaction, number - (head - depth + 1))
            for number in range(head - depth + 1, head + 1)
            for transaction in self.block(number, full=True)["transactions"]
        ]
        left_out = {to_hex(account) for account in lost}
        kept = list(undone)
        while kept and kept[-1][0]["from"].lower() in left_out:
            kept.pop()
        pairs = [[self._do("eth_getRawTransactionByHash", one["hash"]), at] for one, at in kept]
        if depth:
            self._do("anvil_reorg", depth, pairs)
        for (transaction, _), (raw, _) in zip(kept, pairs, strict=True):
            # The new block may be too dear for it. Any other node would let it wait.
            if self._do("eth_getTransactionByHash", transaction["hash"]) is None:
                self._let_wait(raw)
        self._do("evm_setIntervalMining", BLOCK_SECONDS)
        return len(undone)

    def _let_wait(self, raw: str) -> None:
        try:
            self._do("eth_sendRawTransaction", raw)
        except NetworkError:  # Not even for a block that is cheaper.
            self._do("anvil_setNextBlockBaseFeePerGas", hex(1))
            self._do("eth_sendRawTransaction", raw)

    def _stand_still(self) -> int:
        """Mine no more; the last block. One that is under way must come before it is asked for: it
        would be taken back with its transactions unknown.
        """
        self._do("evm_setIntervalMining", 0)
        head = self.head()
        time.sleep(UNDER_WAY_SECONDS)
        while self.head() != head:
            head = self.head()
            time.sleep(UNDER_WAY_SECONDS)
        return head

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
