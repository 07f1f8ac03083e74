"""A development chain with the contract and a test token on it.

Every account holds tokens and allows the contract to take them, so that a channel in the token
costs the same two transactions as one in ether.
"""

from __future__ import annotations

from dataclasses import dataclass

from eth_account import Account

from channelpay.chain.artifacts import test_token
from channelpay.chain.connection import connect
from channelpay.chain.contract import Erc20, PaymentChannelsContract
from channelpay.chain.create2 import Creation
from channelpay.chain.deploy import deploy, deploy_test_token
from channelpay.chain.sender import Sender
from channelpay.chain.types import ContractCall
from channelpay.errors import ConfigError
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import GRACE_SECONDS_CANONICAL, Address, Deployment, abi_word
from channelpay.testing.accounts import TOKENS_EACH, DevAccount, deployer_account
from channelpay.testing.devchain import DevChain, dev_chain_at
from channelpay.testing.token import mint, permit_unlimited

ADDRESS_BYTES = 20
_APPROVAL = keccak256(b"Approval(address,address,uint256)")


@dataclass(frozen=True, slots=True)
class FurnishedChain:
    """What a payer and a payee need to know of the chain they test on."""

    chain: DevChain
    deployment: Deployment
    token: Address
    token_symbol: str
    token_decimals: int
    grace_seconds: int

    @property
    def rpc_url(self) -> str:
        return self.chain.rpc_url

    @property
    def accounts(self) -> tuple[DevAccount, ...]:
        """Ten, each with ether and tokens."""
        return self.chain.accounts

    @property
    def contract(self) -> Address:
        return self.deployment.contract

    def advance(self, seconds: int) -> None:
        """Let the chain's time pass, as its next block tells it."""
        self.chain.increase_time(seconds)


def furnished_at(rpc_url: str) -> FurnishedChain:
    """The furnished chain that runs at ``rpc_url``, whoever started it.

    The token has one address on all chains; the contract is who may spend the first account's.
    Raises :class:`~channelpay.errors.ConfigError` for any other chain.
    """
    chain = dev_chain_at(rpc_url)
    connection = connect(rpc_url, expected_chain_id=chain.chain_id)
    token = _token_address()
    topics = [[_APPROVAL], [abi_word(chain.accounts[0].address)]]
    logs = connection.logs(token, topics, 0, connection.latest_block().number)
    if not logs:
        raise ConfigError(
            "this development chain has neither the contract nor the test token on it",
            hint="Start one that has with: channelpay dev",
        )
    contract = Address(logs[0].topics[2][-ADDRESS_BYTES:])
    deployment = Deployment(chain.chain_id, contract)
    grace_seconds = PaymentChannelsContract(connection, deployment).grace_period_seconds()
    erc20 = Erc20(connection, token)
    return FurnishedChain(chain, deployment, token, erc20.symbol(), erc20.decimals(), grace_seconds)


def give(furnished: FurnishedChain, to: Address, ether_wei: int, tokens: int) -> None:
    """What a faucet does: ``ether_wei`` from the account that furnished the chain, and new tokens
    (base units). Raises :class:`~channelpay.errors.InsufficientFunds` when that account is empty.
    """
    connection = connect(furnished.rpc_url, expected_chain_id=furnished.deployment.chain_id)
    sender = Sender(connection, Account.from_key(deployer_account().private_key))
    if ether_wei:
        sender.send(ContractCall(to, value_wei=ether_wei))
    if tokens:
        sender.send(mint(connection, furnished.token, to, tokens))


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


def _token_address() -> Address:
    artifact = test_token()
    return Creation(artifact, artifact.bytecode).address
