"""The embedded chain with its funded accounts, behind JSON-RPC."""

from __future__ import annotations

from channelpay.testing.accounts import deployer_account, dev_accounts
from channelpay.testing.evm import EmbeddedChain
from channelpay.testing.rpc import RpcMethods
from channelpay.testing.rpc_server import RpcServer


def embedded_rpc() -> RpcServer:
    """A fresh chain whose development accounts hold 10 000 ETH each."""
    funded = (*dev_accounts(), deployer_account())
    return RpcServer(RpcMethods(EmbeddedChain(account.address for account in funded)).table)
