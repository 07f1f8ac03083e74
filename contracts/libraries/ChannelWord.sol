// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// @notice The one storage word of a lane: `deposit u96 | settled u96 | closeRequestedAt u32 | epoch u32`, high to low.
/// A word is zero only in a lane never used.
type ChannelWord is uint256;

using ChannelWordLib for ChannelWord global;

/// @title ChannelWordLib
/// @notice Reads and rewrites the fields of a channel's storage word. Callers pass values that fit their field.
library ChannelWordLib {
    /// @dev `closeRequestedAt` of a finalized channel; a close can be requested only before this second.
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

    /// @notice Whether the lane's channel of this epoch is open or closing.
    /// @dev In assembly for its one branch instead of three.
    function isLive(ChannelWord self, uint256 epoch_) internal pure returns (bool live) {
        assembly ("memory-safe") {
            let isOfEpoch := eq(and(self, 0xffffffff), epoch_)
            let isFinal := eq(and(shr(32, self), 0xffffffff), 0xffffffff)
            live := gt(isOfEpoch, or(isFinal, iszero(self)))
        }
    }

    /// @notice Whether the channel of this epoch is live and a voucher for this cumulative amount adds something within its
    /// deposit.
    function pays(ChannelWord self, uint256 epoch_, uint256 amount) internal pure returns (bool doesPay) {
        uint256 settled_ = self.settled();
        uint256 deposit_ = self.deposit();
        assembly ("memory-safe") {
            let isOfEpoch := eq(and(self, 0xffffffff), epoch_)
            let isFinal := eq(and(shr(32, self), 0xffffffff), 0xffffffff)
            let adds := gt(gt(amount, settled_), gt(amount, deposit_))
            doesPay := and(gt(isOfEpoch, isFinal), adds)
        }
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
