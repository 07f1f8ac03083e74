// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPayouts, Payout} from "./interfaces/IPayouts.sol";

/// @title Payouts
/// @notice See IPayouts.
contract Payouts is IPayouts {
    /* CONSTANTS */

    /// @dev What one row may burn. Ample for a contract wallet and for any token, a bound for a hostile one.
    uint256 private constant ROW_GAS = 200_000;

    /// @dev Gas to have before a row, so that the 63/64 rule and the cost of the call itself leave ROW_GAS to it.
    uint256 private constant ROW_GAS_NEEDED = 220_000;

    /* STORAGE */

    /// @inheritdoc IPayouts
    mapping(address sender => uint256) public rounds;

    /* ACTIONS */

    /// @inheritdoc IPayouts
    function pay(address token, uint256 round, Payout[] calldata payouts) external payable {
        require(round == rounds[msg.sender], WrongRound(rounds[msg.sender]));
        require(token == address(0) || token.code.length != 0, NoToken(token));
        rounds[msg.sender] = round + 1;

        uint256 total = 0;
        uint256 skipped = 0;
        for (uint256 i = 0; i < payouts.length; ++i) {
            (address receiver, uint256 amount) = (payouts[i].receiver, payouts[i].amount);
            total += amount;
            // Native currency is checked before it leaves: what is here belongs to this call alone.
            require(token != address(0) || total <= msg.value, WrongValue(total));
            require(gasleft() >= ROW_GAS_NEEDED, NotEnoughGas());
            bool paid = token == address(0) ? _tryPush(receiver, amount) : _tryMove(token, receiver, amount);
            if (!paid) skipped += amount;
            emit PaidOut(msg.sender, round, receiver, token, amount, paid);
        }
        uint256 expected = token == address(0) ? total : 0;
        require(msg.value == expected, WrongValue(expected));
        if (token == address(0) && skipped != 0) _refund(skipped);
    }

    /* INTERNAL */

    function _tryPush(address receiver, uint256 amount) private returns (bool success) {
        uint256 gasLimit = ROW_GAS;
        assembly ("memory-safe") {
            success := call(gasLimit, receiver, amount, 0, 0, 0, 0)
        }
    }

    /// @dev Never reverts, whatever the token does; return data is never copied beyond one word.
    function _tryMove(address token, address receiver, uint256 amount) private returns (bool success) {
        uint256 gasLimit = ROW_GAS;
        assembly ("memory-safe") {
            let data := mload(0x40)
            mstore(data, shl(224, 0x23b872dd)) // transferFrom(address,address,uint256)
            mstore(add(data, 0x04), caller())
            mstore(add(data, 0x24), receiver)
            mstore(add(data, 0x44), amount)
            success := call(gasLimit, token, 0, data, 0x64, 0, 0x20)
            success := and(success, or(iszero(returndatasize()), and(gt(returndatasize(), 0x1f), eq(mload(0), 1))))
        }
    }

    function _refund(uint256 amount) private {
        bool success;
        assembly ("memory-safe") {
            success := call(gas(), caller(), amount, 0, 0, 0, 0)
        }
        require(success, RefundFailed(amount));
    }
}
