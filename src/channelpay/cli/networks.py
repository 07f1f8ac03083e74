"""Networks that are known without being told: chain ids, endpoints, explorers, stablecoins.

Chain ids, endpoints and explorers are those of viem 2.57.20 (npm), ``viem/chains``; the addresses
of tokens are those of its ``viem/tokens``. Public endpoints are for a first try: whoever takes
money names nodes of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Network:
    """One chain and how to reach it. ``contract`` is None for the canonical one; ``confirmations``
    are what an open or a top-up needs before it counts; ``tokens`` are addresses by symbol, in
    lower case.
    """

    name: str
    chain_id: int
    rpc: tuple[str, ...]
    contract: str | None = None
    confirmations: int = 1
    explorer: str | None = None
    tokens: Mapping[str, str] = field(default_factory=dict)


LOCAL = "local"
"""What ``channelpay dev`` serves."""

WELL_KNOWN: Mapping[str, Network] = {
    network.name: network
    for network in (
        Network(
            LOCAL,
            31337,
            ("http://127.0.0.1:8545",),
            tokens={"tusd": "0x89d1A73881F31FC133916b24F0Fc08e6602a02EB"},
        ),
        Network(
            "ethereum",
            1,
            ("https://ethereum.reth.rs/rpc",),
            confirmations=3,
            explorer="https://etherscan.io",
            tokens={
                "eurc": "0x1aBaEA1f7C830bD89Acc67eC4af516284b1bC33c",
                "usdc": "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48",
            },
        ),
        Network(
            "optimism",
            10,
            ("https://mainnet.optimism.io",),
            explorer="https://optimistic.etherscan.io",
            tokens={"usdc": "0x0b2C639c533813f4Aa9D7837CAf62653d097Ff85"},
        ),
        Network(
            "polygon",
            137,
            ("https://polygon.drpc.org",),
            confirmations=5,
            explorer="https://polygonscan.com",
            tokens={"usdc": "0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359"},
        ),
        Network(
            "base",
            8453,
            ("https://mainnet.base.org",),
            explorer="https://basescan.org",
            tokens={
                "eurc": "0x60a3E35Cc302bFA44Cb288Bc5a4F316Fdb1adb42",
                "usdc": "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913",
            },
        ),
        Network(
            "arbitrum",
            42161,
            ("https://arb1.arbitrum.io/rpc",),
            explorer="https://arbiscan.io",
            tokens={"usdc": "0xaf88d065e77c8cC2239327C5EDb3A432268e5831"},
        ),
        Network(
            "base-sepolia",
            84532,
            ("https://sepolia.base.org",),
            explorer="https://sepolia.basescan.org",
            tokens={
                "eurc": "0x808456652fdb597867f38412077A9182bf77359F",
                "usdc": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
            },
        ),
        Network(
            "sepolia",
            11155111,
            ("https://11155111.rpc.thirdweb.com",),
            explorer="https://sepolia.etherscan.io",
            tokens={
                "eurc": "0x08210F9170F89Ab7658F0B5E3fF39b0E03C594D4",
                "usdc": "0x1c7D4B196Cb0C7B01d743Fbc6116a902379C7238",
            },
        ),
    )
}
