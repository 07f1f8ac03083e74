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
    function tryPush(address token, address to, uint256 amount, uint256 gasLimit) internal returns (bool) {
        if (token != address(0)) return _call(token, gasLimit, abi.encodeWithSelector(0xa9059cbb, to, amount));
        bool success;
        assembly ("memory-safe") {
            success := call(gasLimit, to, amount, 0, 0, 0, 0)
        }
        return success;
    }

    /// @notice Pulls exactly `amount` from `from` into this contract; false if the token refuses or moves another amount.
    function tryPull(address token, address from, uint256 amount) internal returns (bool) {
        uint256 before = _balance(token);
        bool moved = _call(token, gasleft(), abi.encodeWithSelector(0x23b872dd, from, address(this), amount));
        return moved && _balance(token) == before + amount;
    }

    /// @dev True if the call succeeded and returned nothing, or true (tokens of both kinds exist).
    function _call(address token, uint256 gasLimit, bytes memory data) private returns (bool success) {
        assembly ("memory-safe") {
            success := call(gasLimit, token, 0, add(data, 0x20), mload(data), 0, 0x20)
            success := and(success, or(iszero(returndatasize()), and(gt(returndatasize(), 0x1f), eq(mload(0), 1))))
        }
    }

    function _balance(address token) private view returns (uint256 amount) {
        bytes memory data = abi.encodeWithSelector(0x70a08231, address(this));
        assembly ("memory-safe") {
            let success := staticcall(gas(), token, add(data, 0x20), mload(data), 0, 0x20)
            if and(success, gt(returndatasize(), 0x1f)) { amount := mload(0) }
        }
    }
}
