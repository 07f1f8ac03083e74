"""What a payer's transactions would use and cost, tried without signing or sending anything."""

from __future__ import annotations

from collections.abc import Sequence

from channelpay.chain.types import ContractCall, Trial, Tried
from channelpay.errors import InsufficientFunds
from channelpay.payer.records import PayerChannel
from channelpay.payer.wallet import Wallet
from channelpay.protocol.text import checksum_address, format_amount
from channelpay.protocol.types import Address

OPEN_GAS = 68_700
TOP_UP_GAS = 51_300
"""Measured with a plain token (``docs/gas.json``): what takes tokens cannot be tried before their
approval is mined.
"""


def try_open(wallet: Wallet, planned: PayerChannel) -> Sequence[Tried]:
    """The open of a channel that :meth:`~channelpay.payer.wallet.Wallet.plan` made.

    Raises what sending it would raise; so do the others.
    """
    call = wallet.contract_at(planned.deployment).open(planned.channel, planned.deposit)
    untried = Tried("open", Trial(OPEN_GAS, 0), was_tried=False)
    return _try_funding(wallet, planned.channel.token, planned.deposit, call, untried)


def try_top_up(wallet: Wallet, entry: PayerChannel, amount: int) -> Sequence[Tried]:
    call = wallet.contract_at(entry.deployment).top_up(entry.channel, amount)
    untried = Tried("topUp", Trial(TOP_UP_GAS, 0), was_tried=False)
    return _try_funding(wallet, entry.channel.token, amount, call, untried)


def try_request_close(wallet: Wallet, entry: PayerChannel) -> Sequence[Tried]:
    call = wallet.contract_at(entry.deployment).request_close(entry.channel)
    return [Tried("requestClose", wallet.trial(call))]


def try_withdraw(wallet: Wallet, entry: PayerChannel) -> Sequence[Tried]:
    call = wallet.contract_at(entry.deployment).withdraw(entry.channel)
    return [Tried("withdraw", wallet.trial(call))]


def _try_funding(
    wallet: Wallet, token: Address, amount: int, call: ContractCall, untried: Tried
) -> Sequence[Tried]:
    approval = wallet.approval(token, amount)
    if approval is None:
        return [Tried(untried.purpose, wallet.trial(call))]
    _require_tokens(wallet, token, amount)
    approving = wallet.trial(approval)
    following = Trial(untried.trial.gas, approving.price_wei)
    return [
        Tried("approve", approving),
        Tried(untried.purpose, following, was_tried=False),
    ]


def _require_tokens(wallet: Wallet, token: Address, amount: int) -> None:
    held, described = wallet.balance(token), wallet.token(token)
    if held < amount:
        has, needs = (
            format_amount(one, described.decimals, described.symbol) for one in (held, amount)
        )
        account = checksum_address(wallet.payer)
        raise InsufficientFunds(f"{account} has {has} and needs {needs}", account=account)
