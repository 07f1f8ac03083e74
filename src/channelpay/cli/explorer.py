"""Links to the block explorer of the network that the settings name, where it has one."""

from __future__ import annotations

import click

from channelpay.cli.common import chosen_network
from channelpay.protocol.text import checksum_address, to_hex


def transaction_link(transaction_hash: bytes, chain_id: int | None = None) -> str | None:
    """None as well where ``chain_id`` is another one than the network's."""
    return _link(f"tx/{to_hex(transaction_hash)}", chain_id)


def address_link(address: bytes, chain_id: int | None = None) -> str | None:
    """None as well where ``chain_id`` is another one than the network's."""
    return _link(f"address/{checksum_address(address)}", chain_id)


def link_members(link: str | None) -> dict[str, str]:
    """What programs read: nothing without a link."""
    return {} if link is None else {"explorerUrl": link}


def link_facts(link: str | None) -> dict[str, str]:
    """What people read: nothing without a link."""
    return {} if link is None else {"Explorer": link}


def _link(place: str, chain_id: int | None) -> str | None:
    network = chosen_network(click.get_current_context())
    if network is None or network.explorer is None:
        return None
    if chain_id is not None and chain_id != network.chain_id:
        return None
    return f"{network.explorer}/{place}"
