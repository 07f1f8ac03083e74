"""What a chain says of signed funding, and the calls that carry it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eth_account import Account

from channelpay.chain.connection import Connection
from channelpay.chain.contract import PaymentChannelsContract
from channelpay.chain.funding import (
    check_signature,
    funding_methods,
    is_used,
    token_domain,
)
from channelpay.chain.preparation import gas_limit
from channelpay.errors import BudgetExceeded, InvalidSignature
from channelpay.protocol.funding import (
    FundingMethod,
    SignedAuthorization,
    TokenDomain,
    TransferAuthorization,
    open_authorization,
    top_up_authorization,
)
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import NATIVE, ZERO_ADDRESS, Channel
from channelpay.testing.furnished import FurnishedChain
from tests.support.chains import sender_of

DEPOSIT = 10**6
FOREVER = 2**64
OPEN = (
    "openWithAuthorization(address,address,uint128,bytes32,address,address,uint256,uint256,bytes32,"
)


@pytest.fixture
def channel(furnished: FurnishedChain) -> Channel:
    payer, payee = (furnished.accounts[index].address for index in (1, 2))
    return Channel(payer, payee, furnished.token, ZERO_ADDRESS, b"\x01" * 32)


@pytest.fixture
def signed(
    furnished: FurnishedChain, connection: Connection, channel: Channel
) -> SignedAuthorization:
    """The first account's open of one token."""
    authorization = open_authorization(
        FundingMethod.EIP3009, furnished.deployment, channel, DEPOSIT, FOREVER
    )
    return _signed(furnished, connection, authorization)


def test_a_token_with_eip_3009_tells_its_domain(
    furnished: FurnishedChain, connection: Connection
) -> None:
    domain = TokenDomain("Test Dollar", "1", furnished.chain.chain_id, furnished.token)

    assert token_domain(connection, furnished.token) == domain
    assert funding_methods(connection, furnished.token) == (FundingMethod.EIP3009,)


def test_what_is_no_such_token_takes_no_signature(
    furnished: FurnishedChain, connection: Connection
) -> None:
    for token in (NATIVE, furnished.contract, furnished.accounts[0].address):
        assert token_domain(connection, token) is None
        assert funding_methods(connection, token) == ()


def test_a_signed_open_and_top_up_are_taken_once(
    furnished: FurnishedChain,
    connection: Connection,
    contract: PaymentChannelsContract,
    channel: Channel,
    signed: SignedAuthorization,
) -> None:
    salt = b"\x02" * 32
    facts = (FundingMethod.EIP3009, furnished.deployment, channel, DEPOSIT, FOREVER)
    more = _signed(furnished, connection, top_up_authorization(*facts, salt))
    stranger = sender_of(connection, furnished.accounts[3])

    for one, call in (
        (signed, contract.open_signed(channel, signed)),
        (more, contract.top_up_signed(channel, more, salt)),
    ):
        assert not is_used(connection, one.authorization, furnished.token)
        stranger.send(call)
        assert is_used(connection, one.authorization, furnished.token)

    assert contract.state(channel).deposit == 2 * DEPOSIT


def test_a_signature_in_another_form_goes_in_one_piece(
    contract: PaymentChannelsContract, channel: Channel, signed: SignedAuthorization
) -> None:
    """As a contract wallet makes it; a key's goes in parts, which every token takes."""
    wallets = replace(signed, signature=bytes(96))

    of_key, of_wallet = (contract.open_signed(channel, one) for one in (signed, wallets))

    assert of_key.data[:4] == keccak256(f"{OPEN}uint8,bytes32,bytes32)".encode())[:4]
    assert of_wallet.data[:4] == keccak256(f"{OPEN}bytes)".encode())[:4]


def test_a_key_that_is_not_the_payers_is_found_without_a_trial(
    furnished: FurnishedChain, connection: Connection, channel: Channel, signed: SignedAuthorization
) -> None:
    deployment, token = furnished.deployment, furnished.token
    domain = token_domain(connection, token)
    assert isinstance(signed.authorization, TransferAuthorization)
    assert domain is not None
    digest = signed.authorization.digest(domain)
    strangers = replace(channel, payer=furnished.accounts[4].address)
    authorization = open_authorization(
        FundingMethod.EIP3009, deployment, strangers, DEPOSIT, FOREVER
    )

    check_signature(connection, signed, digest)
    with pytest.raises(InvalidSignature):
        check_signature(connection, replace(signed, authorization=authorization), digest)


def test_a_contract_wallets_signature_is_left_to_the_trial(
    furnished: FurnishedChain, connection: Connection, signed: SignedAuthorization
) -> None:
    assert isinstance(signed.authorization, TransferAuthorization)
    of_wallet = replace(signed.authorization, payer=furnished.contract)

    check_signature(connection, SignedAuthorization(of_wallet, bytes(96)), bytes(32))


def test_a_call_that_needs_more_gas_than_it_may_is_not_sent(
    furnished: FurnishedChain,
    connection: Connection,
    contract: PaymentChannelsContract,
    channel: Channel,
    signed: SignedAuthorization,
) -> None:
    call = replace(contract.open_signed(channel, signed), gas_max=50_000)

    with pytest.raises(BudgetExceeded, match="limit of 50000"):
        gas_limit(connection, call, furnished.accounts[3].address)


def _signed(
    furnished: FurnishedChain, connection: Connection, authorization: object
) -> SignedAuthorization:
    assert isinstance(authorization, TransferAuthorization)
    domain = token_domain(connection, furnished.token)
    assert domain is not None
    typed = authorization.typed(domain)
    account = Account.from_key(furnished.accounts[1].private_key)
    signature = account.sign_typed_data(typed.domain, typed.types, typed.message).signature
    return SignedAuthorization(authorization, bytes(signature))
