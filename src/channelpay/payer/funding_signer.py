"""What a payer signs instead of sending a transaction, chosen by the offer and by the chain."""

from __future__ import annotations

import secrets
from typing import Any, Protocol, runtime_checkable

from channelpay.chain.connection import Connection
from channelpay.chain.contract import Erc20
from channelpay.chain.funding import permit2_allowance, token_domain
from channelpay.chain.preparation import fee_market
from channelpay.errors import BudgetExceeded, ConfigError, InsufficientFunds
from channelpay.payer.gasless import GasChoice, Gasless
from channelpay.payer.records import PayerChannel
from channelpay.payer.signed_fundings import SignedFunding
from channelpay.protocol.carried import CarriedGas
from channelpay.protocol.funding import (
    SALT_BYTES,
    Authorization,
    FundingMethod,
    PermitTransfer,
    SignedAuthorization,
    TypedMessage,
    open_authorization,
    top_up_authorization,
)
from channelpay.protocol.types import NATIVE, Address

VALID_SECONDS = 600
"""How long a payee may use what is signed: time for a slow chain, and not for a change of mind."""
OWN_GAS = 150_000
"""What an approval and an open take, with some reserve."""


class SignedMessage(Protocol):
    """``signature`` is 65 bytes, or what a contract wallet takes for one."""

    @property
    def signature(self) -> bytes: ...


@runtime_checkable
class TypedDataSigner(Protocol):
    """An account that can sign EIP-712 typed data, as those of eth-account can."""

    def sign_typed_data(
        self, domain_data: dict[str, Any], message_types: dict[str, Any], message_data: Any
    ) -> SignedMessage: ...


class FundingSigner:
    """Chooses how the money comes, and signs for it, with one account (``address``) on one chain.

    Raises :class:`NetworkError` if the node fails.
    """

    def __init__(self, connection: Connection, account: object, address: Address) -> None:
        self._connection = connection
        self._account = account
        self._address = address

    def method(self, choice: GasChoice, token: Address, amount: int) -> FundingMethod | None:
        """By which method the payee is to carry the gas of an open or top-up of ``amount`` base
        units; None if the account pays its own.

        Raises :class:`InsufficientFunds` without so many tokens, :class:`BudgetExceeded` if the
        payee carries other amounts, :class:`ConfigError` if it offers nothing that is possible.
        """
        carried, gasless = choice.carried, choice.gasless
        if gasless is Gasless.NEVER:
            return None
        if gasless is Gasless.AUTO and (carried is None or token == NATIVE or self._has_gas()):
            return None
        if carried is None or token == NATIVE:
            raise ConfigError(
                "the site does not offer to carry the gas",
                hint="Pay it yourself (--gasless never), or try again later.",
            )
        self._require_tokens(token, amount)
        _require_carried(carried, amount)
        for method in carried.methods:
            if self._can_sign(method, token, amount):
                return method
        raise ConfigError(
            "the site would carry the gas, and the account cannot sign for this token",
            hint="Without EIP-3009, Permit2 needs an allowance of the token: approve it once.",
        )

    def open(self, method: FundingMethod, planned: PayerChannel) -> SignedFunding:
        """A planned channel's open, signed; its deposit is that of the plan."""
        deployment, channel = planned.deployment, planned.channel
        ends_at = self._ends_at()
        authorization = open_authorization(method, deployment, channel, planned.deposit, ends_at)
        return SignedFunding(self._signed(authorization, planned))

    def top_up(self, method: FundingMethod, entry: PayerChannel, amount: int) -> SignedFunding:
        """A channel's top-up, signed."""
        salt = secrets.token_bytes(SALT_BYTES)
        facts = (entry.deployment, entry.channel, amount, self._ends_at())
        authorization = top_up_authorization(method, *facts, salt)
        return SignedFunding(self._signed(authorization, entry), salt)

    def _signed(self, authorization: Authorization, entry: PayerChannel) -> SignedAuthorization:
        assert isinstance(self._account, TypedDataSigner)  # or no method is chosen
        typed = self._typed(authorization, entry)
        signed = self._account.sign_typed_data(typed.domain, typed.types, typed.message)
        return SignedAuthorization(authorization, bytes(signed.signature))

    def _typed(self, authorization: Authorization, entry: PayerChannel) -> TypedMessage:
        if isinstance(authorization, PermitTransfer):
            return authorization.typed(entry.deployment)
        domain = token_domain(self._connection, entry.channel.token)
        assert domain is not None  # or the method would not be this
        return authorization.typed(domain)

    def _ends_at(self) -> int:
        return self._connection.latest_block().timestamp + VALID_SECONDS

    def _has_gas(self) -> bool:
        price_wei = fee_market(self._connection).usual.max_fee_wei
        return self._connection.balance_wei(self._address) >= OWN_GAS * price_wei

    def _require_tokens(self, token: Address, amount: int) -> None:
        held = Erc20(self._connection, token).balance(self._address)
        if held < amount:
            raise InsufficientFunds(
                f"the account has {held} base units of the token, and {amount} are to be locked"
            )

    def _can_sign(self, method: FundingMethod, token: Address, amount: int) -> bool:
        if not isinstance(self._account, TypedDataSigner):
            return False
        if method is FundingMethod.PERMIT2:
            return permit2_allowance(self._connection, token, self._address) >= amount
        return token_domain(self._connection, token) is not None


def _require_carried(carried: CarriedGas, amount: int) -> None:
    if not carried.takes(amount):
        raise BudgetExceeded(
            f"the site carries the gas of {carried.deposit_min} to {carried.deposit_max} base"
            f" units, and {amount} are to be locked",
            hint="Lock more with --deposit, or send ether for gas to the account.",
        )
