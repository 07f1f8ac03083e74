// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {VoucherRow} from "../interfaces/IPaymentChannels.sol";

/// @title VoucherRows
/// @notice Reads a row of a batch in calldata without checking each word.
/// @dev A dirty address hashes to a lane that cannot exist and a dirty amount exceeds every deposit: such a row is skipped
/// as any other that pays nothing.
library VoucherRows {
    /// @dev `index` must be below the length.
    function rowAt(VoucherRow[] calldata rows, uint256 index) internal pure returns (VoucherRow calldata row) {
        assembly ("memory-safe") {
            row := add(rows.offset, mul(index, 0xc0))
        }
    }

    function payerOf(VoucherRow calldata row) internal pure returns (address payer) {
        assembly ("memory-safe") {
            payer := calldataload(add(row, 0x20))
        }
    }

    function signerOf(VoucherRow calldata row) internal pure returns (address signer) {
        assembly ("memory-safe") {
            signer := calldataload(add(row, 0x40))
            signer := or(signer, mul(iszero(signer), calldataload(add(row, 0x20))))
        }
    }

    function amountOf(VoucherRow calldata row) internal pure returns (uint256 cumulativeAmount) {
        assembly ("memory-safe") {
            cumulativeAmount := calldataload(add(row, 0x60))
        }
    }

    /// @notice The three parts of the row's short signature.
    function signature(VoucherRow calldata row) internal pure returns (uint256 r, uint256 s, uint256 v) {
        assembly ("memory-safe") {
            r := calldataload(add(row, 0x80))
            let vs := calldataload(add(row, 0xa0))
            v := add(27, shr(255, vs))
            s := shr(1, shl(1, vs))
        }
    }
}
