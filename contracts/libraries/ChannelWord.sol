// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// @notice The one storage word of a lane: `deposit u96 | settled u96 | closeRequestedAt u32 | epoch u32`, high to low.
/// A word is zero only in a lane never used.
type ChannelWord is uint256;

using ChannelWordLib for ChannelWord global;

/// @title ChannelWordLib
/// @notice Reads and rewrites the fields of a channel's storage word. Callers pass values that fit their field.
library ChannelWordLib {
    /// @dev `closeRequestedAt` of a finalized channel: never a real time before the year 2106.
    uint256 internal constant FINALIZED = type(uint32).max;

    uint256 private constant SETTLED_MASK = uint256(type(uint96).max) << 64;
    uint256 private constant TIME_MASK = uint256(type(uint32).max) << 32;

    function opened(uint256 deposit_, uint256 epoch_) internal pure returns (ChannelWord) {
        return ChannelWord.wrap((deposit_ << 160) | epoch_);
    }

    function deposit(ChannelWord self) internal pure returns (uint256) {
        return ChannelWord.unwrap(self) >> 160;
    }

    function settled(ChannelWord self) internal pure returns (uint256) {
        return uint96(ChannelWord.unwrap(self) >> 64);
    }

    function closeRequestedAt(ChannelWord self) internal pure returns (uint256) {
        return uint32(ChannelWord.unwrap(self) >> 32);
    }

    function epoch(ChannelWord self) internal pure returns (uint256) {
        return uint32(ChannelWord.unwrap(self));
    }

    function isUnused(ChannelWord self) internal pure returns (bool) {
        return ChannelWord.unwrap(self) == 0;
    }

    function isFinalized(ChannelWord self) internal pure returns (bool) {
        return self.closeRequestedAt() == FINALIZED;
    }

    function withDeposit(ChannelWord self, uint256 deposit_) internal pure returns (ChannelWord) {
        return ChannelWord.wrap((deposit_ << 160) | uint160(ChannelWord.unwrap(self)));
    }

    function withSettled(ChannelWord self, uint256 settled_) internal pure returns (ChannelWord) {
        return ChannelWord.wrap((ChannelWord.unwrap(self) & ~SETTLED_MASK) | (settled_ << 64));
    }

    function withCloseRequestedAt(ChannelWord self, uint256 time) internal pure returns (ChannelWord) {
        return ChannelWord.wrap((ChannelWord.unwrap(self) & ~TIME_MASK) | (time << 32));
    }
}
