// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ChannelWord, ChannelWordLib} from "../../contracts/libraries/ChannelWord.sol";
import {ForgeTest} from "./support/ForgeTest.sol";
import {Reference} from "./support/Reference.sol";

contract ChannelWordTest is ForgeTest {
    function setUp() public override {}

    function testFuzz_everyFieldLiesWhereTheDesignSays(uint96 deposit, uint96 settled, uint32 time, uint32 epoch)
        external
        pure
    {
        ChannelWord word =
            ChannelWordLib.opened(deposit, epoch).withSettled(settled).withCloseRequestedAt(time);
        vm.assertEq(bytes32(ChannelWord.unwrap(word)), Reference.word(deposit, settled, time, epoch));
    }

    function testFuzz_everyFieldReadsBackAsWritten(uint96 deposit, uint96 settled, uint32 time, uint32 epoch)
        external
        pure
    {
        ChannelWord word = _wrap(Reference.word(deposit, settled, time, epoch));
        vm.assertEq(word.deposit(), deposit);
        vm.assertEq(word.settled(), settled);
        vm.assertEq(word.closeRequestedAt(), time);
        vm.assertEq(word.epoch(), epoch);
    }

    function testFuzz_writingTheDepositTouchesNothingElse(uint256 any, uint96 deposit) external pure {
        ChannelWord before = ChannelWord.wrap(any);
        _compare(
            before.withDeposit(deposit), deposit, before.settled(), before.closeRequestedAt(), before.epoch()
        );
    }

    function testFuzz_writingTheSettledAmountTouchesNothingElse(uint256 any, uint96 settled) external pure {
        ChannelWord before = ChannelWord.wrap(any);
        _compare(
            before.withSettled(settled), before.deposit(), settled, before.closeRequestedAt(), before.epoch()
        );
    }

    function testFuzz_writingTheTimeTouchesNothingElse(uint256 any, uint32 time) external pure {
        ChannelWord before = ChannelWord.wrap(any);
        _compare(before.withCloseRequestedAt(time), before.deposit(), before.settled(), time, before.epoch());
    }

    function testFuzz_aWordOfAnOpenedLaneIsNeverZeroAgain(uint96 deposit, uint32 epoch, uint96 settled) external pure {
        vm.assume(deposit != 0);
        ChannelWord word = ChannelWordLib.opened(deposit, epoch);
        vm.assertFalse(word.isUnused());
        vm.assertFalse(word.withSettled(settled).withCloseRequestedAt(ChannelWordLib.FINALIZED).isUnused());
    }

    function testFuzz_onlyTheGreatestTimeMeansFinalized(uint256 any) external pure {
        vm.assertTrue(ChannelWord.wrap(any).isFinalized() == (uint32(any >> 32) == type(uint32).max));
    }

    function testFuzz_liveMeansThisEpochAndNotFinalized(uint96 deposit, uint96 settled, uint32 time, uint32 epoch, uint32 asked)
        external
        pure
    {
        ChannelWord word = _wrap(Reference.word(deposit, settled, time, epoch));
        bool used = deposit != 0 || settled != 0 || time != 0 || epoch != 0;
        vm.assertTrue(word.isLive(asked) == (used && epoch == asked && time != Reference.FINALIZED));
    }

    function _wrap(bytes32 word) private pure returns (ChannelWord) {
        return ChannelWord.wrap(uint256(word));
    }

    function _compare(ChannelWord word, uint256 deposit, uint256 settled, uint256 time, uint256 epoch) private pure {
        vm.assertEq(bytes32(ChannelWord.unwrap(word)), Reference.word(deposit, settled, time, epoch));
    }
}
