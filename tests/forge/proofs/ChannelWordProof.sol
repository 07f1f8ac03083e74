// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ChannelWord, ChannelWordLib} from "../../../contracts/libraries/ChannelWord.sol";
import {Reference} from "../support/Reference.sol";

/// @notice For all values of all fields.
contract ChannelWordProof {
    function check_everyFieldLiesWhereTheDesignSays(uint96 deposit, uint96 settled, uint32 time, uint32 epoch) external pure {
        ChannelWord word =
            ChannelWordLib.opened(deposit, epoch).withSettled(settled).withCloseRequestedAt(time);
        _is(word, deposit, settled, time, epoch);
    }

    function check_everyFieldReadsBackAsWritten(uint96 deposit, uint96 settled, uint32 time, uint32 epoch) external pure {
        ChannelWord word = ChannelWord.wrap(uint256(Reference.word(deposit, settled, time, epoch)));
        assert(word.deposit() == deposit);
        assert(word.settled() == settled);
        assert(word.closeRequestedAt() == time);
        assert(word.epoch() == epoch);
    }

    function check_writingTheDepositTouchesNothingElse(uint256 any, uint96 deposit) external pure {
        ChannelWord word = ChannelWord.wrap(any);
        _is(word.withDeposit(deposit), deposit, word.settled(), word.closeRequestedAt(), word.epoch());
    }

    function check_writingTheSettledAmountTouchesNothingElse(uint256 any, uint96 settled) external pure {
        ChannelWord word = ChannelWord.wrap(any);
        _is(word.withSettled(settled), word.deposit(), settled, word.closeRequestedAt(), word.epoch());
    }

    function check_writingTheTimeTouchesNothingElse(uint256 any, uint32 time) external pure {
        ChannelWord word = ChannelWord.wrap(any);
        _is(word.withCloseRequestedAt(time), word.deposit(), word.settled(), time, word.epoch());
    }

    function check_theFourFieldsAreTheWholeWord(uint256 any) external pure {
        ChannelWord word = ChannelWord.wrap(any);
        _is(word, word.deposit(), word.settled(), word.closeRequestedAt(), word.epoch());
    }

    function check_liveMeansUsedThisEpochAndNotFinalized(uint256 any, uint32 epoch) external pure {
        ChannelWord word = ChannelWord.wrap(any);
        bool expected = any != 0 && uint32(any) == epoch && uint32(any >> 32) != Reference.FINALIZED;
        assert(word.isLive(epoch) == expected);
        assert(word.isUnused() == (any == 0));
        assert(word.isFinalized() == (uint32(any >> 32) == Reference.FINALIZED));
    }

    function _is(ChannelWord word, uint256 deposit, uint256 settled, uint256 time, uint256 epoch) private pure {
        assert(bytes32(ChannelWord.unwrap(word)) == Reference.word(deposit, settled, time, epoch));
    }
}
