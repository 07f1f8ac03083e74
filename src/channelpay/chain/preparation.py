"""What both senders do with a transaction: try it, price it, sign it, explain why it failed."""

from __future__ import annotations

from channelpay.chain.connection import Connection, checksum
from channelpay.chain.fees import FeeMarket, Fees
from channelpay.chain.types import ContractCall, TransactionReceipt, TransactionSigner
from channelpay.errors import BudgetExceeded, ChainReverted, InsufficientFunds, NetworkError
from channelpay.protocol.types import Address

GAS_MARGIN_PERCENT = 20
"""Added to the node's estimate: the state may move before the transaction is mined."""


def gas_limit(connection: Connection, call: ContractCall, sender: Address) -> int:
    """The gas to send along, after a trial that costs nothing. Raises what :func:`gas_estimate`
    raises.
    """
    return with_margin(gas_estimate(connection, call, sender), call)


def gas_estimate(connection: Connection, call: ContractCall, sender: Address) -> int:
    """The gas that a call uses now, by a trial that costs nothing.

    Raises :class:`ChainReverted` if the contract would refuse the call, :class:`InsufficientFunds`
    if the account does not have the value that goes with it, :class:`BudgetExceeded` if it needs
    more gas than the call may.
    """
    require_balance(sender, connection.balance_wei(sender), call.value_wei)
    connection.call(call, sender)
    return connection.estimate_gas(call, sender)


def with_margin(estimate: int, call: ContractCall) -> int:
    """The gas to send along with a call that uses so much now."""
    needed = estimate * (100 + GAS_MARGIN_PERCENT) // 100 + call.gas_reserve
    if call.gas_max is not None and needed > call.gas_max:
        raise BudgetExceeded(f"it needs {needed} gas, over the limit of {call.gas_max}")
    return needed


def fee_market(connection: Connection) -> FeeMarket:
    return FeeMarket(connection.next_base_fee_wei(), connection.suggested_tip_wei())


def require_balance(account: Address, balance_wei: int, needed_wei: int) -> None:
    if balance_wei < needed_wei:
        raise InsufficientFunds(
            f"{checksum(account)} has {balance_wei} wei and needs {needed_wei} wei",
            account=checksum(account),
        )


def sign(
    account: TransactionSigner,
    chain_id: int,
    nonce: int,
    call: ContractCall,
    gas: int,
    fees: Fees,
) -> tuple[bytes, bytes]:
    """The signed transaction: its hash (32 bytes) and what a node takes."""
    signed = account.sign_transaction(
        {
            "type": 2,
            "chainId": chain_id,
            "nonce": nonce,
            "to": checksum(call.to),
            "value": call.value_wei,
            "data": call.data,
            "gas": gas,
            "maxFeePerGas": fees.max_fee_wei,
            "maxPriorityFeePerGas": fees.tip_wei,
        }
    )
    return bytes(signed.hash), bytes(signed.raw_transaction)


def failure_of(
    connection: Connection, call: ContractCall, sender: Address, receipt: TransactionReceipt
) -> ChainReverted:
    """Why a mined transaction failed, found by running the call again in its block."""
    transaction_hash = "0x" + receipt.transaction_hash.hex()
    try:
        connection.call(call, sender, block=receipt.block_number)
    except ChainReverted as error:
        return ChainReverted(
            error.detail, error=error.error, hint=error.hint, txHash=transaction_hash
        )
    except (NetworkError, InsufficientFunds):
        pass
    return ChainReverted(
        "the transaction was mined but failed; it passed when tried before",
        hint="Another transaction came first. Look at the channel's state and try again.",
        txHash=transaction_hash,
    )
