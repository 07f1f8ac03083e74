"""The main key signs transactions alone, wherever it is; vouchers are signed by session keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from eth_account import Account

from channelpay.chain.contract import PaymentChannelsContract
from channelpay.errors import ConfigError, InputError, WalletRefused
from channelpay.payer.client import Payer
from channelpay.payer.session_keys import SessionKeys
from channelpay.protocol.eip712 import VoucherHasher
from channelpay.protocol.types import (
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelStatus,
    Deployment,
)
from channelpay.testing import embedded_chain
from channelpay.testing.furnished import FurnishedChain, furnish

if TYPE_CHECKING:
    from tests.support.ledger_device import FakeLedger

ETHER = 10**18
SEED = b"\x5e" * 32
PATH = "m/44'/60'/0'/0/1"
"""Of the dev chain's second account."""


class Elsewhere:
    """A signer that gives its address and signatures, and never its key."""

    def __init__(self, secret: bytes) -> None:
        self._account = Account.from_key(secret)
        self.address = self._account.address
        self.signed: list[dict[str, Any]] = []

    def sign_transaction(self, transaction_dict: dict[str, Any], /) -> Any:
        self.signed.append(transaction_dict)
        return self._account.sign_transaction(transaction_dict)


@pytest.fixture(scope="module")
def whole_chain() -> Iterator[FurnishedChain]:
    """One kind of chain is enough here."""
    with embedded_chain() as chain:
        yield furnish(chain)


@pytest.fixture
def new_payer(furnished: FurnishedChain, tmp_path: Path) -> Iterator[Callable[..., Payer]]:
    payers: list[Payer] = []

    def make(account: Any, session_keys: SessionKeys | None) -> Payer:
        payer = Payer(
            account,
            furnished.chain.rpc_url,
            tmp_path / "payer.sqlite3",
            contract=furnished.deployment.contract,
            session_keys=session_keys,
        )
        payers.append(payer)
        return payer

    yield make
    for payer in payers:
        payer.close()


@pytest.fixture
def payee(furnished: FurnishedChain) -> Address:
    return furnished.chain.accounts[2].address


@pytest.fixture
def signer(furnished: FurnishedChain) -> Elsewhere:
    return Elsewhere(furnished.chain.accounts[1].private_key)


def test_a_key_elsewhere_signs_transactions_and_never_vouchers(
    new_payer: Callable[..., Payer],
    signer: Elsewhere,
    payee: Address,
    furnished: FurnishedChain,
) -> None:
    payer = new_payer(signer, SessionKeys(SEED))
    entry = payer.open_channel(payee, ETHER)
    vouchers = [payer.state.reserve(entry.channel_id, 5, payer._sign).voucher for _ in range(3)]

    assert len(signer.signed) == 1
    assert entry.channel.payer == payer.address != entry.channel.authorized_signer
    for voucher in vouchers:
        VoucherHasher(furnished.deployment).check(voucher, entry.channel.authorized_signer)


def test_a_key_elsewhere_needs_session_keys_of_its_own(
    new_payer: Callable[..., Payer], signer: Elsewhere
) -> None:
    with pytest.raises(ConfigError, match="sign vouchers"):
        new_payer(signer, None)


def test_a_channel_that_the_main_key_signs_for_pays_only_where_that_key_is() -> None:
    deployment = Deployment(31337, Address(b"\x11" * 20))
    channel = Channel(Address(b"\x22" * 20), Address(b"\x33" * 20), NATIVE, ZERO_ADDRESS, bytes(32))
    apart = SessionKeys(SEED)

    assert not apart.can_sign(deployment, channel)
    with pytest.raises(ConfigError, match="not here"):
        apart.signer_of(deployment, channel)
    assert SessionKeys.of_account(SEED).can_sign(deployment, channel)


def test_without_the_session_secret_the_main_key_takes_the_deposit_back(
    new_payer: Callable[..., Payer],
    signer: Elsewhere,
    payee: Address,
    furnished: FurnishedChain,
    contract: PaymentChannelsContract,
) -> None:
    entry = new_payer(signer, SessionKeys(SEED)).open_channel(payee, ETHER)
    heir = new_payer(signer, SessionKeys(b"\x5f" * 32))

    with pytest.raises(ConfigError, match="not here"):
        heir.state.reserve(entry.channel_id, 5, heir._sign)
    heir.request_close(entry.channel_id)
    furnished.advance(furnished.grace_seconds + 1)
    heir.withdraw(entry.channel_id)

    assert contract.state(entry.channel).status is ChannelStatus.FINALIZED
    again = heir.open_channel(payee, ETHER)
    assert again.channel.lane != entry.channel.lane
    assert heir.state.reserve(again.channel_id, 5, heir._sign).voucher.cumulative_amount == 5


# --- a Ledger ------------------------------------------------------------------------------------


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FakeLedger:
    pytest.importorskip("ledgereth", reason="needs the extra 'ledger'")
    import ledgerblue.comm

    from tests.support.ledger_device import FakeLedger

    device = FakeLedger()

    def plug(*_: object) -> FakeLedger:
        device.opened += 1
        return device

    monkeypatch.setattr(ledgerblue.comm, "getDongle", plug)
    return device


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def ledger_payer(
    device: FakeLedger, asked: list[str], new_payer: Callable[..., Payer], furnished: FurnishedChain
) -> Payer:
    from channelpay.chain.ledger import LedgerAccount

    address = furnished.chain.accounts[1].address
    account = LedgerAccount(address, PATH, lambda: asked.append("confirm"))
    return new_payer(account, SessionKeys(SEED))


def test_a_ledger_confirms_each_transaction_of_a_channels_life_and_nothing_else(
    device: FakeLedger,
    asked: list[str],
    ledger_payer: Payer,
    payee: Address,
    furnished: FurnishedChain,
    contract: PaymentChannelsContract,
) -> None:
    entry = ledger_payer.open_channel(payee, ETHER)
    for _ in range(3):
        ledger_payer.state.reserve(entry.channel_id, 5, ledger_payer._sign)
    assert len(device.shown) == 1
    ledger_payer.top_up(entry.channel_id, ETHER)
    ledger_payer.request_close(entry.channel_id)
    furnished.advance(furnished.grace_seconds + 1)
    ledger_payer.withdraw(entry.channel_id)

    assert contract.state(entry.channel).status is ChannelStatus.FINALIZED
    assert {one.to for one in device.shown} == {furnished.deployment.contract}
    assert {one.chain_id for one in device.shown} == {furnished.deployment.chain_id}
    assert [one.value_wei for one in device.shown] == [ETHER, ETHER, 0, 0]
    assert len(asked) == 4
    assert device.opened == device.closed


@pytest.mark.parametrize("blind", [True, False], ids=["declined", "blind-signing-is-off"])
def test_what_a_ledger_declines_is_not_sent_and_leaves_nothing_behind(
    device: FakeLedger, ledger_payer: Payer, payee: Address, *, blind: bool
) -> None:
    device.refusal, device.blind = (0x6985, blind)

    with pytest.raises(WalletRefused) as refused:
        ledger_payer.open_channel(payee, ETHER)

    assert ("blind signing" in refused.value.hint) != blind
    assert ledger_payer.channels() == []
    device.refusal, device.blind = None, True
    assert ledger_payer.open_channel(payee, ETHER).status is ChannelStatus.OPEN


def test_a_ledger_that_is_not_ready_is_told_of(
    device: FakeLedger, ledger_payer: Payer, payee: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ledgerblue import comm
    from ledgerblue.commException import CommException

    device.app_is_open = False
    with pytest.raises(ConfigError, match="app not open") as error:
        ledger_payer.open_channel(payee, ETHER)
    assert "Ethereum app" in error.value.hint

    def nothing(*_: object) -> None:
        raise CommException("No dongle found")

    monkeypatch.setattr(comm, "getDongle", nothing)
    with pytest.raises(ConfigError, match="no Ledger"):
        ledger_payer.open_channel(payee, ETHER)
    assert ledger_payer.channels() == []


def test_another_ledger_is_not_asked_to_sign(
    device: FakeLedger, ledger_payer: Payer, payee: Address
) -> None:
    device.mnemonic = " ".join(["abandon"] * 11 + ["about"])

    with pytest.raises(ConfigError, match="the Ledger has"):
        ledger_payer.open_channel(payee, ETHER)
    assert device.shown == []


def test_a_path_that_the_app_does_not_use_is_refused(device: FakeLedger) -> None:
    from channelpay.chain.ledger import address_at

    with pytest.raises(InputError, match="path"):
        address_at("m/0'/1")
    assert device.opened == 0
