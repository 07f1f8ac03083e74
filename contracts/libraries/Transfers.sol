// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// @title Transfers
/// @notice Moves native currency and ERC-20 without trusting the other side: return data is never copied beyond one word.
library Transfers {
    /// @dev What a push may burn. Ample for a contract wallet and for any token, a bound for a hostile one.
    uint256 internal constant PUSH_GAS = 200_000;

    /// @dev Gas to have before a push, so that the 63/64 rule and the cost of the call itself leave PUSH_GAS to it.
    uint256 internal constant PUSH_GAS_NEEDED = 220_000;

    /// @notice Pushes `amount` to `to` with at most `gasLimit`. Never reverts, whatever the receiver or the token does.
    function tryPush(address token, address to, uint256 amount, uint256 gasLimit) internal returns (bool success) {
        if (token == address(0)) {
            assembly ("memory-safe") {
                success := call(gasLimit, to, amount, 0, 0, 0, 0)
            }
            return success;
        }
        assembly ("memory-safe") {
            let data := mload(0x40)
            mstore(data, shl(224, 0xa9059cbb)) // transfer(address,uint256)
            mstore(add(data, 0x04), to)
            mstore(add(data, 0x24), amount)
            success := call(gasLimit, token, 0, data, 0x44, 0, 0x20)
            success := and(success, or(iszero(returndatasize()), and(gt(returndatasize(), 0x1f), eq(mload(0), 1))))
        }
    }

    /// @notice Calls `puller`, which is to move exactly `amount` of `token` to this contract; false if it refuses or another
    /// amount arrives.
    function tryPull(address token, uint256 amount, address puller, bytes memory data) internal returns (bool) {
        uint256 expected = balance(token) + amount;
        return tryCall(puller, data) && balance(token) == expected;
    }

    /// @notice Calls with all gas; true if the call succeeded and returned nothing, or true (tokens of both kinds exist).
    function tryCall(address target, bytes memory data) internal returns (bool success) {
        assembly ("memory-safe") {
            success := call(gas(), target, 0, add(data, 0x20), mload(data), 0, 0x20)
            success := and(success, or(iszero(returndatasize()), and(gt(returndatasize(), 0x1f), eq(mload(0), 1))))
        }
    }

    /// @notice What this contract holds of an ERC-20; zero if the token does not say.
    function balance(address token) internal view returns (uint256 amount) {
        assembly ("memory-safe") {
            mstore(0, shl(224, 0x70a08231)) // balanceOf(address)
            mstore(0x04, address())
            let success := staticcall(gas(), token, 0, 0x24, 0, 0x20)
            if and(success, gt(returndatasize(), 0x1f)) { amount := mload(0) }
        }
    }
}
