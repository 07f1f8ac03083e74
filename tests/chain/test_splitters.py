"""The splitter that follows from its shares: where it is, who it pays, who closes for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from eth_account import Account

from channelpay.chain.connection import Connection
from channelpay.chain.contract import PaymentChannelsContract
from channelpay.chain.create2 import revenue_splitter_factory_creation
from channelpay.chain.deploy import create
from channelpay.chain.sender import Sender
from channelpay.chain.splitters import Shares, SplitterContract, splitter_address
from channelpay.errors import ChainReverted, ConfigError
from channelpay.payee import Payee, PriceRule
from channelpay.payee.shares import read_shares
from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import NATIVE, ZERO_ADDRESS, Address, Channel, ChannelStatus
from channelpay.testing.furnished import FurnishedChain

AUTHOR, PUBLISHER = Address(b"\xa1" * 20), Address(b"\xa2" * 20)
FILE = f"""
operator = "{to_hex(AUTHOR)}"
[[share]]
account = "{to_hex(AUTHOR)}"
basis_points = 7500
[[share]]
account = "{to_hex(PUBLISHER)}"
basis_points = 2500
"""


def test_the_address_that_shares_give_is_the_one_that_the_factory_creates_at(
    furnished: FurnishedChain, connection: Connection, contract: PaymentChannelsContract
) -> None:
    payer, operator = (
        Sender(connection, Account.from_key(furnished.accounts[n].private_key)) for n in (1, 2)
    )
    splitter = SplitterContract(
        connection, Shares(((AUTHOR, 7_500), (PUBLISHER, 2_500)), operator.address)
    )
    channel = Channel(payer.address, splitter.address, NATIVE, ZERO_ADDRESS, bytes(32))
    payer.send(contract.open(channel, 1_000))
    signer = VoucherSigner(furnished.deployment, furnished.accounts[1].private_key)
    voucher = signer.sign(channel.id(furnished.deployment), 403)
    create(payer, revenue_splitter_factory_creation())
    assert not splitter.is_there()

    payer.send(splitter.create())
    close = splitter.close(furnished.contract, channel, 403, voucher.signature)
    with pytest.raises(ChainReverted):
        payer.send(close)
    operator.send(close)

    assert contract.state(channel).status is ChannelStatus.FINALIZED
    assert splitter.releasable(NATIVE) == [(AUTHOR, 302), (PUBLISHER, 100)]
    payer.send(splitter.release(NATIVE, PUBLISHER))
    assert connection.balance_wei(PUBLISHER) == 100


def test_a_site_with_shares_is_paid_at_their_splitter_alone(
    furnished: FurnishedChain, tmp_path: Path
) -> None:
    (tmp_path / "shares.toml").write_text(FILE)
    shares = read_shares(tmp_path / "shares.toml")
    settings = {
        "rpc": furnished.rpc_url,
        "contract": to_hex(furnished.contract),
        "token": "eth",
        "prices": [PriceRule("/**", "0.01")],
        "store": "memory:",
        "watches": False,
    }

    for payee in (None, checksum_address(splitter_address(shares))):
        made = Payee.create(**settings, payee=payee, shares=shares)  # type: ignore[arg-type]
        made.close()
        assert made.terms.payee == splitter_address(shares)
    with pytest.raises(ConfigError, match="not the splitter of these shares"):
        Payee.create(**settings, payee=to_hex(AUTHOR), shares=shares)  # type: ignore[arg-type]
    account = Account.from_key(furnished.accounts[2].private_key)
    with pytest.raises(ConfigError, match="no account is the payee"):
        Payee.create(**settings, account=account, shares=shares)  # type: ignore[arg-type]


def test_the_order_of_the_parties_and_the_operator_count() -> None:
    shares = Shares(((AUTHOR, 7_500), (PUBLISHER, 2_500)))

    others = [Shares(shares.parties[::-1]), Shares(shares.parties, AUTHOR)]

    assert len({splitter_address(one) for one in (shares, *others)}) == 3


@pytest.mark.parametrize(
    "parties",
    [
        ((AUTHOR, 10_000),),
        ((AUTHOR, 5_000), (PUBLISHER, 4_999)),
        ((AUTHOR, 5_000), (PUBLISHER, 5_001)),
        ((AUTHOR, 10_000), (PUBLISHER, 0)),
        ((AUTHOR, 5_000), (AUTHOR, 5_000)),
        ((AUTHOR, 5_000), (ZERO_ADDRESS, 5_000)),
    ],
)
def test_shares_that_do_not_add_up_have_no_address(
    parties: tuple[tuple[Address, int], ...],
) -> None:
    """Money sent there would be lost."""
    with pytest.raises(ConfigError):
        Shares(parties)


@pytest.mark.parametrize(
    ("wrong", "right", "named"),
    [
        ("basis_points = 2500", "basis_points = 2501", "add up to 10001"),
        ("basis_points = 2500", 'basis_points = "25 %"', "share 2, basis_points"),
        ("basis_points = 2500", "", "share 2 must have"),
        ("operator", "owner", "nothing else but operator"),
        (to_hex(PUBLISHER), "0x12", "share 2, account"),
        ("[[share]]", "[[share", "is not TOML"),
    ],
)
def test_a_wrong_file_is_told_with_its_key(
    tmp_path: Path, wrong: str, right: str, named: str
) -> None:
    (tmp_path / "shares.toml").write_text(FILE.replace(wrong, right))

    with pytest.raises(ConfigError, match=named):
        read_shares(tmp_path / "shares.toml")
