"""A network of sites: readers open one channel with it and buy on every member's site."""

from channelpay.payee.hub.member import join_hub

__all__ = ["join_hub"]
