"""What a test of a program that pays or gets paid needs: local chains with funded accounts, a fake
chain and a fake clock, channels to pay over, and strategies for hypothesis
(:mod:`channelpay.testing.strategies`).

The names below are imported at their first use: pytest loads :mod:`channelpay.testing.plugin` in
every project of an environment, and those that never pay should not wait for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from channelpay.testing.accounts import DevAccount, dev_accounts
    from channelpay.testing.channels import ChannelFactory, OpenedChannel
    from channelpay.testing.clock import FakeClock
    from channelpay.testing.devchain import (
        DevChain,
        anvil_chain,
        embedded_chain,
        embedded_chain_process,
    )
    from channelpay.testing.fake import FakeChain, fake_chain
    from channelpay.testing.furnished import FurnishedChain, furnish
    from channelpay.testing.sites import PaidSite, serving_site

__all__ = [
    "ChannelFactory",
    "DevAccount",
    "DevChain",
    "FakeChain",
    "FakeClock",
    "FurnishedChain",
    "OpenedChannel",
    "PaidSite",
    "anvil_chain",
    "dev_accounts",
    "embedded_chain",
    "embedded_chain_process",
    "fake_chain",
    "furnish",
    "serving_site",
]

_HOMES = {
    "ChannelFactory": "channels",
    "DevAccount": "accounts",
    "DevChain": "devchain",
    "FakeChain": "fake",
    "FakeClock": "clock",
    "FurnishedChain": "furnished",
    "OpenedChannel": "channels",
    "PaidSite": "sites",
    "anvil_chain": "devchain",
    "dev_accounts": "accounts",
    "embedded_chain": "devchain",
    "embedded_chain_process": "devchain",
    "fake_chain": "fake",
    "furnish": "furnished",
    "serving_site": "sites",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
