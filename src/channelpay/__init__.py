"""Micropayments over Ethereum payment channels."""
