"""A development chain with the contract and a test token on it.

Every account holds tokens and allows the contract to take them, so that a channel in the token
costs the same two transactions as one in ether.
"""

from __future__ import annotations

from dataclasses import dataclass

from eth_account import Account

from channelpay.chain.connection import connect
from channelpay.chain.contract import Erc20
from channelpay.chain.deploy import deploy, deploy_test_token
from channelpay.chain.sender import Sender
from channelpay.protocol.types import GRACE_SECONDS_CANONICAL, Address, Deployment
from channelpay.testing.accounts import TOKENS_EACH, deployer_account
from channelpay.testing.devchain import DevChain
from channelpay.testing.token import mint, permit_unlimited


@dataclass(frozen=True, slots=True)
class FurnishedChain:
    """What a payer and a payee need to know of the chain they test on."""

    chain: DevChain
    deployment: Deployment
    token: Address
    token_symbol: str
    token_decimals: int
    grace_seconds: int


def furnish(chain: DevChain, grace_seconds: int = GRACE_SECONDS_CANONICAL) -> FurnishedChain:
    """Deploy the contract and the test token; give each account one million tokens to pay with."""
    connection = connect(chain.rpc_url, expected_chain_id=chain.chain_id)
    sender = Sender(connection, Account.from_key(deployer_account().private_key))
    contract = deploy(sender, grace_seconds=grace_seconds).address
    token = deploy_test_token(sender).address
    erc20 = Erc20(connection, token)
    for account in chain.accounts:
        sender.send(mint(connection, token, account.address, TOKENS_EACH))
        sender.send(permit_unlimited(connection, token, account, contract))
    deployment = Deployment(chain.chain_id, contract)
    return FurnishedChain(chain, deployment, token, erc20.symbol(), erc20.decimals(), grace_seconds)
