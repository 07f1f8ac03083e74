"""What the chain says about signed funding: which kinds a token takes, and whether a signature was
used.
"""

from __future__ import annotations

from contextlib import suppress

from channelpay.chain.connection import Connection, checksum
from channelpay.chain.contract import Erc20, function_entry
from channelpay.errors import ChainReverted, InvalidSignature, NotFound
from channelpay.protocol.funding import (
    PERMIT2,
    Authorization,
    FundingMethod,
    SignedAuthorization,
    TokenDomain,
    TransferAuthorization,
    signer_of,
)
from channelpay.protocol.types import NATIVE, Address

TEXT_MAX = 100
"""A longer name or version is not asked for a signature."""
_USUAL_VERSIONS = ("1", "2")
"""Some tokens have a version in their domain, and no function that tells it."""
_WORD_BITS = 256
_NOT_THERE = (ChainReverted, NotFound)


def token_domain(connection: Connection, token: Address) -> TokenDomain | None:
    """The domain of a token with EIP-3009; None for one without it, or whose domain is not made
    from its name and version.
    """
    contract = connection.contract(token, _TOKEN_ABI)
    try:
        connection.view(contract, "authorizationState", checksum(NATIVE), bytes(32))
        separator = bytes(connection.view(contract, "DOMAIN_SEPARATOR"))
        name = str(connection.view(contract, "name"))
    except _NOT_THERE:
        return None
    versions = list(_USUAL_VERSIONS)
    with suppress(*_NOT_THERE):
        versions.insert(0, str(connection.view(contract, "version")))
    domains = (TokenDomain(name, text, connection.chain_id, token) for text in versions)
    fitting = (one for one in domains if max(len(one.name), len(one.version)) <= TEXT_MAX)
    return next((one for one in fitting if one.separator == separator), None)


def funding_methods(connection: Connection, token: Address) -> tuple[FundingMethod, ...]:
    """The kinds of signed funding that a token takes on this chain, the cheaper one first."""
    if token == NATIVE:
        return ()
    by_token = (FundingMethod.EIP3009,) if token_domain(connection, token) is not None else ()
    return (*by_token, FundingMethod.PERMIT2) if connection.code(PERMIT2) else by_token


def permit2_allowance(connection: Connection, token: Address, owner: Address) -> int:
    """What Permit2 may take (base units); most who use it let it take any amount."""
    return Erc20(connection, token).allowance(owner, PERMIT2)


def is_used(connection: Connection, authorization: Authorization, token: Address) -> bool:
    """Whether an authorization was used, or revoked: it can never be used again."""
    payer = checksum(authorization.payer)
    if isinstance(authorization, TransferAuthorization):
        contract = connection.contract(token, _TOKEN_ABI)
        return bool(connection.view(contract, "authorizationState", payer, authorization.nonce))
    contract = connection.contract(PERMIT2, _PERMIT2_ABI)
    place, bit = divmod(authorization.nonce, _WORD_BITS)
    return bool(int(connection.view(contract, "nonceBitmap", payer, place)) >> bit & 1)


def check_signature(connection: Connection, signed: SignedAuthorization, digest: bytes) -> None:
    """Raise :class:`InvalidSignature` where a key signed and it is not the payer's. What a contract
    wallet takes for its signature, only a trial of the call can tell.
    """
    payer = signed.authorization.payer
    try:
        if signer_of(digest, signed.signature) == payer:
            return
    except InvalidSignature:
        pass
    if not connection.code(payer):
        raise InvalidSignature(
            "the authorization is not signed by its payer",
            hint="Sign it for this token, contract, channel, amount and chain.",
        )


_TOKEN_ABI = (
    function_entry("authorizationState", ["address", "bytes32"], "bool"),
    function_entry("DOMAIN_SEPARATOR", [], "bytes32"),
    function_entry("name", [], "string"),
    function_entry("version", [], "string"),
)
_PERMIT2_ABI = (function_entry("nonceBitmap", ["address", "uint256"], "uint256"),)
