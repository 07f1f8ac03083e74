// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Channel} from "../interfaces/IPaymentChannels.sol";

/// @title Description
/// @notice Reads a channel's description in calldata without checking it once more at every read.
/// @dev For descriptions of channels known to be live: a word with dirty high bits hashes to a lane that cannot exist.
library Description {
    function payerOf(Channel calldata channel) internal pure returns (address payer) {
        assembly ("memory-safe") {
            payer := calldataload(channel)
        }
    }

    function payeeOf(Channel calldata channel) internal pure returns (address payee) {
        assembly ("memory-safe") {
            payee := calldataload(add(channel, 0x20))
        }
    }

    function tokenOf(Channel calldata channel) internal pure returns (address token) {
        assembly ("memory-safe") {
            token := calldataload(add(channel, 0x40))
        }
    }

    function signerOf(Channel calldata channel) internal pure returns (address signer) {
        assembly ("memory-safe") {
            signer := calldataload(add(channel, 0x60))
            signer := or(signer, mul(iszero(signer), calldataload(channel)))
        }
    }
}
