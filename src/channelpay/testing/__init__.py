"""What a test of a program that pays or gets paid needs: local chains with funded accounts."""

from channelpay.testing.accounts import DevAccount, dev_accounts
from channelpay.testing.devchain import (
    DevChain,
    anvil_chain,
    embedded_chain,
    embedded_chain_process,
)

__all__ = [
    "DevAccount",
    "DevChain",
    "anvil_chain",
    "dev_accounts",
    "embedded_chain",
    "embedded_chain_process",
]
