"""A chain in this process with the contract as it ships, and the people who use it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from warnings import catch_warnings, simplefilter

import pytest
from eth_account import Account as EthAccount
from eth_typing import Address as EvmAddress

from channelpay.chain import artifacts
from channelpay.protocol.eip712 import VoucherSigner, sign_close_authorization
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import (
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelId,
    ChannelState,
    ChannelStatus,
    Deployment,
)
from channelpay.testing.accounts import DevAccount, dev_accounts
from channelpay.testing.evm import EmbeddedChain, base_fee_wei
from channelpay.testing.execution import CHAIN_ID, CallMessage, ExecutionFailed, ExecutionReverted
from scripts import build_contracts
from tests.contracts.abi import Abi, Event

GRACE_SECONDS = 600
START = 1_800_000_000
"""The chain's first timestamp, Unix seconds."""
TOKENS_MINTED = 2**100
"""What payer and stranger hold of each token, in base units; more than any deposit."""
UNLIMITED = 2**256 - 1
GAS = 3_000_000
BATCH_GAS = 15_000_000
TRANSFER_TOPIC = int.from_bytes(keccak256(b"Transfer(address,address,uint256)"), "big")
MOCKS = [f"contracts/mocks/{name}.sol" for name in ("HostileTokens", "HostileWallets", "TestToken")]


class Reverted(Exception):
    """A transaction or call ended in an error of the contract."""

    def __init__(self, name: str, values: tuple[Any, ...] = ()) -> None:
        super().__init__(f"{name}{values}")
        self.name = name
        self.values = values


@contextmanager
def reverts(name: str, *values: object) -> Iterator[None]:
    """Expect exactly this error with exactly these values."""
    with pytest.raises(Reverted) as caught:
        yield
    assert (caught.value.name, caught.value.values) == (name, values)


@dataclass(frozen=True, slots=True)
class Wallet:
    """A contract wallet, driven by an account that pays the gas."""

    address: Address
    driver: DevAccount


Sender = DevAccount | Wallet


@dataclass(frozen=True, slots=True)
class Receipt:
    """A transaction that succeeded; ``events`` are those of the contract alone, ``transfers`` how
    many ERC-20 transfers tokens logged.
    """

    gas_used: int
    timestamp: int
    events: tuple[Event, ...]
    transfers: int = 0


Row = tuple[bytes, bytes, bytes, int, bytes, bytes]
"""The contract's struct ``VoucherRow``."""


@dataclass(frozen=True, slots=True)
class Contract:
    """A contract at an address."""

    address: Address
    abi: Abi


@dataclass(frozen=True, slots=True)
class Mock:
    """A compiled contract of ``contracts/mocks``."""

    abi: Abi
    bytecode: bytes


@cache
def mocks() -> dict[str, Mock]:
    """All of ``contracts/mocks`` by name, compiled once per test run."""
    sources = build_contracts.read_sources()
    output = build_contracts.compile_sources(
        {path: sources[path] for path in MOCKS},
        dict.fromkeys(MOCKS, build_contracts.CODE_OUTPUTS),
    )
    return {
        name: Mock(Abi(contract["abi"]), bytes.fromhex(contract["evm"]["bytecode"]["object"]))
        for path in MOCKS
        for name, contract in output["contracts"][path].items()
    }


@dataclass
class World:
    """One chain. ``fees`` are what each account paid for gas, so that balances can leave it out."""

    chain: EmbeddedChain
    accounts: tuple[DevAccount, ...]
    fees: dict[bytes, int] = field(default_factory=dict)
    senders: dict[bytes, Sender] = field(default_factory=dict)
    contract: Contract = field(init=False)
    token: Contract = field(init=False)

    def __post_init__(self) -> None:
        self.senders.update((account.address, account) for account in self.accounts)
        self.contract = Contract(ZERO_ADDRESS, Abi(artifacts.payment_channels().abi))
        self.contract = self.deploy_channels(GRACE_SECONDS)
        self.token = self.deploy_token("TestToken")

    @property
    def payer(self) -> DevAccount:
        return self.accounts[0]

    @property
    def payee(self) -> DevAccount:
        return self.accounts[1]

    @property
    def stranger(self) -> DevAccount:
        return self.accounts[2]

    @property
    def session_key(self) -> DevAccount:
        """Signs vouchers and owns nothing."""
        return self.accounts[3]

    @property
    def deployment(self) -> Deployment:
        return Deployment(CHAIN_ID, self.contract.address)

    @property
    def timestamp(self) -> int:
        """The timestamp of the newest block."""
        return self.chain.head.header.timestamp

    # The chain

    @contextmanager
    def rolled_back(self) -> Iterator[None]:
        """Undo on leaving whatever happens inside."""
        snapshot, fees = self.chain.snapshot(), dict(self.fees)
        try:
            yield
        finally:
            assert self.chain.revert(snapshot)
            self.fees = fees

    def deploy(self, bytecode: bytes) -> Address:
        """Create a contract; returns its address."""
        nonce = self._nonce(self.accounts[9])
        self._transact(self.accounts[9], b"", bytecode, 0, GAS)
        return contract_address(self.accounts[9].address, nonce)

    def deploy_channels(self, grace_seconds: int) -> Contract:
        """The contract as it ships."""
        code = artifacts.payment_channels().bytecode + grace_seconds.to_bytes(32, "big")
        return Contract(self.deploy(code), self.contract.abi)

    def deploy_token(self, name: str) -> Contract:
        """A token of ``contracts/mocks``, of which payer and stranger hold much, all of it
        approved.
        """
        mock = mocks()[name]
        token = Contract(self.deploy(mock.bytecode), mock.abi)
        for account in (self.payer, self.stranger):
            self.fund(account, token)
        return token

    def deploy_wallet(self, name: str) -> Wallet:
        """A wallet of ``contracts/mocks``, driven by the stranger."""
        wallet = Wallet(self.deploy(mocks()[name].bytecode), self.stranger)
        self.senders[wallet.address] = wallet
        return wallet

    def configure(self, mock: Sender | Contract, kind: str, function: str, *values: object) -> None:
        """Call a setter of a mock whose contract is named ``kind``."""
        contract = Contract(mock.address, mocks()[kind].abi)
        self.send(self.stranger, contract, function, *values)

    def fund(self, holder: Sender, token: Contract) -> None:
        """Mint to ``holder`` and approve the contract without a limit."""
        self.send(self.stranger, token, "mint", holder.address, TOKENS_MINTED)
        self.send(holder, token, "approve", self.contract.address, UNLIMITED)

    def give_ether(self, wallet: Wallet, value: int) -> None:
        """Pay wei into a wallet through its one function that does not refuse them."""
        self._transact(self.stranger, wallet.address, _execute(ZERO_ADDRESS, 0, b""), value, GAS)

    def force_ether(self, value: int) -> None:
        """Give the contract wei that it cannot refuse: those of a contract that destroys itself."""
        bomb = b"\x73" + self.contract.address + b"\xff"  # PUSH20 address, SELFDESTRUCT
        with catch_warnings():
            simplefilter("ignore", DeprecationWarning)  # py-evm's, of the opcode
            self._transact(self.stranger, b"", bomb, value, GAS)

    def send(
        self,
        sender: Sender,
        contract: Contract,
        function: str,
        *arguments: object,
        value: int = 0,
        gas: int = GAS,
    ) -> Receipt:
        """Mine a call; raises :class:`Reverted`."""
        return self.send_data(
            sender, contract.address, contract.abi.encode(function, *arguments), value, gas
        )

    def send_data(
        self, sender: Sender, to: Address, data: bytes, value: int = 0, gas: int = GAS
    ) -> Receipt:
        """Mine a call with any data; a wallet passes it on."""
        if isinstance(sender, Wallet):
            data = _execute(to, value, data)
            return self._transact(sender.driver, sender.address, data, 0, gas)
        return self._transact(sender, to, data, value, gas)

    def read(self, contract: Contract, function: str, *arguments: object) -> Any:
        """The answer of a view."""
        return self.read_as(ZERO_ADDRESS, contract, function, *arguments)

    def read_as(
        self, sender: Address, contract: Contract, function: str, *arguments: object
    ) -> Any:
        """What a call would return, sent by ``sender``; raises :class:`Reverted`."""
        data = contract.abi.encode(function, *arguments)
        message = CallMessage(sender=sender, to=contract.address, data=data, gas=30_000_000)
        return contract.abi.decode_result(function, self._call(message, self._pending()))

    def next_block_at(self, timestamp: int) -> None:
        """Give the next block this timestamp."""
        self.chain.set_next_timestamp(timestamp)

    # The contract's functions

    def channel(
        self,
        token: Address = NATIVE,
        *,
        payer: Sender | None = None,
        payee: Sender | None = None,
        signer: DevAccount | None = None,
        salt: int = 0,
    ) -> Channel:
        """A description of payer's channel to payee, in epoch 0 of a lane unless ``salt`` says
        else.
        """
        return Channel(
            (payer or self.payer).address,
            (payee or self.payee).address,
            token,
            signer.address if signer else ZERO_ADDRESS,
            salt.to_bytes(32, "big"),
        )

    def open(
        self,
        channel: Channel,
        deposit: int,
        *,
        sender: Sender | None = None,
        value: int | None = None,
    ) -> Receipt:
        """``open``, with the right value unless told another."""
        return self.send(
            sender or self.senders[channel.payer],
            self.contract,
            "open",
            channel.payee,
            channel.token,
            deposit,
            channel.salt,
            channel.authorized_signer,
            value=_value(channel, deposit) if value is None else value,
        )

    def top_up(
        self,
        channel: Channel,
        amount: int,
        *,
        sender: Sender | None = None,
        value: int | None = None,
    ) -> Receipt:
        """``topUp`` by the payer unless told otherwise."""
        return self.send(
            sender or self.senders[channel.payer],
            self.contract,
            "topUp",
            as_struct(channel),
            amount,
            value=_value(channel, amount) if value is None else value,
        )

    def settle(
        self,
        channel: Channel,
        cumulative: int,
        signature: bytes | None = None,
        *,
        sender: Sender | None = None,
        gas: int = GAS,
    ) -> Receipt:
        """``settle`` by a stranger, with the right signature, unless told otherwise."""
        signature = self.sign(channel, cumulative) if signature is None else signature
        return self.send(
            sender or self.stranger,
            self.contract,
            "settle",
            as_struct(channel),
            cumulative,
            signature,
            gas=gas,
        )

    def close(
        self,
        channel: Channel,
        cumulative: int,
        signature: bytes | None = None,
        *,
        sender: Sender | None = None,
        gas: int = GAS,
    ) -> Receipt:
        """``close`` by the payee, with the right signature, unless told otherwise."""
        signature = self.sign(channel, cumulative) if signature is None else signature
        return self.send(
            sender or self.senders[channel.payee],
            self.contract,
            "close",
            as_struct(channel),
            cumulative,
            signature,
            gas=gas,
        )

    def close_with_authorization(
        self,
        channel: Channel,
        cumulative: int,
        voucher_signature: bytes | None = None,
        payee_signature: bytes | None = None,
        *,
        sender: Sender | None = None,
        gas: int = GAS,
    ) -> Receipt:
        """``closeWithAuthorization`` by a stranger, with the right signatures, unless told
        otherwise.
        """
        if voucher_signature is None:
            voucher_signature = self.sign(channel, cumulative)
        if payee_signature is None:
            payee_signature = self.sign_close(channel, cumulative)
        return self.send(
            sender or self.stranger,
            self.contract,
            "closeWithAuthorization",
            as_struct(channel),
            cumulative,
            voucher_signature,
            payee_signature,
            gas=gas,
        )

    def settle_batch(
        self,
        payee: Address,
        token: Address,
        rows: Iterable[Row],
        *,
        sender: Sender | None = None,
        gas: int = BATCH_GAS,
    ) -> Receipt:
        """``settleBatch`` by a stranger unless told otherwise."""
        sender = sender or self.stranger
        return self.send(sender, self.contract, "settleBatch", payee, token, list(rows), gas=gas)

    def close_batch(
        self,
        token: Address,
        rows: Iterable[Row],
        *,
        sender: Sender | None = None,
        gas: int = BATCH_GAS,
    ) -> Receipt:
        """``closeBatch`` by the payee unless told otherwise."""
        sender = sender or self.payee
        return self.send(sender, self.contract, "closeBatch", token, list(rows), gas=gas)

    def row(self, channel: Channel, cumulative: int, signature: bytes | None = None) -> Row:
        """A row of a batch, with the right signature unless told another."""
        signature = self.sign(channel, cumulative) if signature is None else signature
        description = (channel.salt, channel.payer, channel.authorized_signer)
        return *description, cumulative, signature[:32], short(signature)

    def request_close(self, channel: Channel, *, sender: Sender | None = None) -> Receipt:
        """``requestClose`` by the payer unless told otherwise."""
        sender = sender or self.senders[channel.payer]
        return self.send(sender, self.contract, "requestClose", as_struct(channel))

    def withdraw(
        self, channel: Channel, *, sender: Sender | None = None, gas: int = GAS
    ) -> Receipt:
        """``withdraw`` by the payer unless told otherwise."""
        sender = sender or self.senders[channel.payer]
        return self.send(sender, self.contract, "withdraw", as_struct(channel), gas=gas)

    def claim(self, sender: Sender, token: Address, receiver: Address) -> Receipt:
        """``claim`` of what is kept for ``sender``."""
        return self.send(sender, self.contract, "claim", token, receiver)

    def sign(self, channel: Channel, cumulative: int) -> bytes:
        """The signature of a voucher by the channel's signer."""
        signer = self.senders[channel.signer]
        assert isinstance(signer, DevAccount)
        return self.sign_as(signer, self.id(channel), cumulative)

    def sign_as(self, signer: DevAccount, channel_id: ChannelId, cumulative: int) -> bytes:
        """The signature of a voucher by any key."""
        return (
            VoucherSigner(self.deployment, signer.private_key)
            .sign(channel_id, cumulative)
            .signature
        )

    def sign_close(self, channel: Channel, cumulative: int) -> bytes:
        """The payee's close authorization."""
        payee = self.senders[channel.payee]
        assert isinstance(payee, DevAccount)
        return self.sign_close_as(payee, self.id(channel), cumulative)

    def sign_close_as(self, signer: DevAccount, channel_id: ChannelId, cumulative: int) -> bytes:
        """A close authorization by any key."""
        return sign_close_authorization(self.deployment, signer.private_key, channel_id, cumulative)

    def id(self, channel: Channel) -> ChannelId:
        """The channel's id as Python computes it."""
        return channel.id(self.deployment)

    def state(self, channel: Channel) -> ChannelState:
        """What the contract says of the channel."""
        return as_state(self.read(self.contract, "channelState", as_struct(channel)))

    def kept(self, token: Address, account: Address) -> int:
        """What the contract keeps for an account."""
        return int(self.read(self.contract, "keptShare", token, account))

    def balance(self, token: Address, account: Address) -> int:
        """In base units; of native currency, with what was paid for gas added back."""
        if token == NATIVE:
            state = self.chain.state_at(self.chain.head.header)
            return int(state.get_balance(EvmAddress(account))) + self.fees.get(account, 0)
        return int(self.read(Contract(token, self.token.abi), "balanceOf", account))

    @contextmanager
    def pays(self, token: Address, expected: Mapping[Any, int]) -> Iterator[None]:
        """Expect these changes of balances inside, in base units, by whoever has an address."""
        before = {one.address: self.balance(token, one.address) for one in expected}
        yield
        changes = {one: self.balance(token, one.address) - before[one.address] for one in expected}
        assert changes == expected

    # Details

    def _pending(self) -> Any:
        return self.chain.pending_header()

    def _nonce(self, account: DevAccount) -> int:
        state = self.chain.state_at(self.chain.head.header)
        return int(state.get_nonce(EvmAddress(account.address)))

    def _transact(
        self, sender: DevAccount, to: bytes, data: bytes, value: int, gas: int
    ) -> Receipt:
        header = self._pending()
        price = base_fee_wei(header)
        self.chain.submit(self._signed(sender, to, data, value, gas, price))
        block = self.chain.head
        receipt = block.receipts[0]
        gas_used = int(receipt.gas_used)
        self.fees[sender.address] = self.fees.get(sender.address, 0) + gas_used * price
        if receipt.state_root != b"\x01":
            self._call(CallMessage(sender.address, to, data, value, gas), header)
            raise AssertionError("the transaction failed, and the same call did not")
        events = tuple(
            self.contract.abi.decode_event(
                (topic.to_bytes(32, "big") for topic in log.topics), log.data
            )
            for log in receipt.logs
            if bytes(log.address) == self.contract.address
        )
        transfers = sum(log.topics[:1] == (TRANSFER_TOPIC,) for log in receipt.logs)
        return Receipt(gas_used, block.header.timestamp, events, transfers)

    def _signed(
        self, sender: DevAccount, to: bytes, data: bytes, value: int, gas: int, price: int
    ) -> bytes:
        transaction = {
            "chainId": CHAIN_ID,
            "data": data,
            "gas": gas,
            "maxFeePerGas": price,
            "maxPriorityFeePerGas": 0,
            "nonce": self._nonce(sender),
            "to": to,
            "type": 2,
            "value": value,
        }
        signed = EthAccount.from_key(sender.private_key).sign_transaction(transaction)
        return bytes(signed.raw_transaction)

    def _call(self, message: CallMessage, header: Any) -> bytes:
        try:
            return self.chain.call(message, header)
        except ExecutionReverted as error:
            raise Reverted(*self.contract.abi.decode_error(error.data)) from error
        except ExecutionFailed as error:
            raise Reverted(str(error)) from error


def new_world() -> World:
    """A fresh chain, its clock standing still but for the second that each block takes."""
    accounts = dev_accounts()
    return World(EmbeddedChain((one.address for one in accounts), now=lambda: START), accounts)


def as_struct(channel: Channel) -> tuple[bytes, ...]:
    """The contract's struct ``Channel``."""
    return (
        channel.payer,
        channel.payee,
        channel.token,
        channel.authorized_signer,
        channel.salt,
    )


def as_state(values: tuple[int, int, int, int]) -> ChannelState:
    """The contract's struct ``ChannelState``."""
    status, *amounts = values
    return ChannelState(list(ChannelStatus)[status], *amounts)


def short(signature: bytes) -> bytes:
    """The word ``vs`` of EIP-2098: s, with v - 27 in its highest bit."""
    s = int.from_bytes(signature[32:64], "big")
    return (s | (signature[64] - 27) << 255).to_bytes(32, "big")


def contract_address(creator: bytes, nonce: int) -> Address:
    """Where ``CREATE`` puts a contract; nonces up to 127 are one byte of RLP, zero is 0x80."""
    assert nonce < 128
    return Address(keccak256(b"\xd6\x94" + creator + bytes([nonce or 0x80]))[12:])


def _execute(target: bytes, value: int, data: bytes) -> bytes:
    return mocks()["MockWallet"].abi.encode("execute", target, value, data)


def _value(channel: Channel, amount: int) -> int:
    return amount if channel.token == NATIVE else 0
