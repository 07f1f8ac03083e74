// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Channel, VoucherRow} from "../interfaces/IPaymentChannels.sol";
import {ChannelWord} from "./ChannelWord.sol";

/// @notice The one storage slot of a lane. It lies at the hash of the description with the epoch shifted out of its salt.
struct Lane {
    ChannelWord word;
}

/// @title Identity
/// @notice A channel's id and its lane. Both hash payer, payee, token, salt and authorized signer; the id adds contract and
/// chain, the lane drops the epoch, which is the low 32 bits of the salt.
library Identity {
    function epochOf(bytes32 salt) internal pure returns (uint256) {
        return uint32(uint256(salt));
    }

    function identify(address payer, address payee, address token, bytes32 salt, address authorizedSigner)
        internal
        view
        returns (bytes32 id, Lane storage lane)
    {
        assembly ("memory-safe") {
            let words := mload(0x40)
            mstore(words, payer)
            mstore(add(words, 0x20), payee)
            mstore(add(words, 0x40), token)
            mstore(add(words, 0x60), salt)
            mstore(add(words, 0x80), authorizedSigner)
            mstore(add(words, 0xa0), address())
            mstore(add(words, 0xc0), chainid())
            id := keccak256(words, 0xe0)
            mstore(add(words, 0x60), shr(32, salt))
            lane.slot := keccak256(words, 0xa0)
        }
    }

    /// @dev Takes the words as they come: a dirty address hashes to a lane that cannot have been opened.
    function identify(Channel calldata channel) internal view returns (bytes32 id, Lane storage lane) {
        assembly ("memory-safe") {
            let words := mload(0x40)
            let salt := calldataload(add(channel, 0x80))
            calldatacopy(words, channel, 0x60)
            mstore(add(words, 0x60), salt)
            mstore(add(words, 0x80), calldataload(add(channel, 0x60)))
            mstore(add(words, 0xa0), address())
            mstore(add(words, 0xc0), chainid())
            id := keccak256(words, 0xe0)
            mstore(add(words, 0x60), shr(32, salt))
            lane.slot := keccak256(words, 0xa0)
        }
    }

    /// @notice Memory with the words that the channels of a batch share, for `identifyRow`.
    function prepare(address payee, address token) internal view returns (uint256 words) {
        assembly ("memory-safe") {
            words := mload(0x40)
            mstore(0x40, add(words, 0xe0))
            mstore(add(words, 0x20), payee)
            mstore(add(words, 0x40), token)
            mstore(add(words, 0xa0), address())
            mstore(add(words, 0xc0), chainid())
        }
    }

    /// @dev As for a description, dirty words are harmless.
    function identifyRow(uint256 words, VoucherRow calldata row) internal pure returns (bytes32 id, Lane storage lane) {
        assembly ("memory-safe") {
            let salt := calldataload(row)
            mstore(words, calldataload(add(row, 0x20)))
            mstore(add(words, 0x60), salt)
            mstore(add(words, 0x80), calldataload(add(row, 0x40)))
            id := keccak256(words, 0xe0)
            mstore(add(words, 0x60), shr(32, salt))
            lane.slot := keccak256(words, 0xa0)
        }
    }
}
