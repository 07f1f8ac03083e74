"""anvil with its blocks, fees and pool in hand, and what has to hold of a sender in the end."""

from __future__ import annotations

from eth_account import Account

from channelpay.chain.connection import checksum, connect
from channelpay.chain.contract import PaymentChannelsContract
from channelpay.chain.fees import FeePolicy
from channelpay.chain.outgoing import TransactionSender
from channelpay.protocol.transactions import Outbox, TransactionStatus
from channelpay.protocol.types import Address
from channelpay.testing import DevChain
from channelpay.testing.clock import FakeClock
from channelpay.testing.furnished import furnish
from channelpay.testing.rpc_client import rpc_call
from tests.chain.mortal import PATIENCE_SECONDS, RECEIVER

STRANGER = Address(b"\x55" * 20)
POLICY = FeePolicy(replace_after_seconds=PATIENCE_SECONDS)


class Anvil:
    """anvil, with its blocks, fees and pool in hand."""

    def __init__(self, chain: DevChain) -> None:
        self.chain = chain
        self.connection = connect(chain.rpc_url)
        self.accounts = chain.accounts

    def furnished_contract(self) -> PaymentChannelsContract:
        self.automine(True)
        furnished = furnish(self.chain)
        self.automine(False)
        return PaymentChannelsContract(self.connection, furnished.deployment)

    def rpc(self, method: str, *parameters: object) -> object:
        return rpc_call(self.chain.rpc_url, method, *parameters)

    def automine(self, on: bool) -> None:
        self.rpc("evm_setAutomine", on)

    def mine(self, base_fee_wei: int | None = None) -> None:
        if base_fee_wei is not None:
            self.rpc("anvil_setNextBlockBaseFeePerGas", hex(base_fee_wei))
        self.rpc("evm_mine")

    def forget_pool(self) -> None:
        self.rpc("anvil_dropAllTransactions")

    def fund(self, account: bytes, amount_wei: int) -> None:
        self.rpc("anvil_setBalance", "0x" + account.hex(), hex(amount_wei))

    def reorganise(self, depth: int) -> None:
        """Put as many empty blocks in the place of the last ``depth`` ones."""
        self.rpc("anvil_reorg", depth, [])

    def send_as_another_program(self, account: bytes, nonce: int) -> None:
        fields = {"from": "0x" + account.hex(), "to": checksum(STRANGER), "value": "0x1"}
        self.rpc("eth_sendTransaction", fields | {"nonce": hex(nonce)})

    def received(self) -> int:
        return self.connection.balance_wei(RECEIVER)


def sender_of(
    anvil: Anvil, store: Outbox, clock: FakeClock, policy: FeePolicy = POLICY
) -> TransactionSender:
    account = Account.from_key(anvil.accounts[0].private_key)
    return TransactionSender(anvil.connection, account, store, policy, clock)


def end_all(anvil: Anvil, store: Outbox, clock: FakeClock) -> None:
    """What a healthy sender does with what others left, on a chain that mines."""
    sender = sender_of(anvil, store, clock)
    for _ in range(12):
        anvil.mine()
        sender.step()
        if not store.pending(31337, sender.address):
            return
        clock.advance(PATIENCE_SECONDS)
    raise AssertionError(f"still pending: {store.pending(31337, sender.address)}")


def check_books(anvil: Anvil, store: Outbox) -> None:
    """No gap, and each journaled payment made once."""
    journaled = sorted(store.transactions(1000), key=lambda one: one.nonce)
    assert [one.nonce for one in journaled] == list(range(len(journaled)))
    assert anvil.connection.used_nonces(anvil.accounts[0].address) == len(journaled)
    assert {one.status for one in journaled} <= {TransactionStatus.CONFIRMED}
    assert anvil.received() == sum(one.value_wei for one in journaled)
