// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Channel, ChannelState, Status} from "../../contracts/interfaces/IPaymentChannels.sol";
import {ForgeTest} from "./support/ForgeTest.sol";
import {Handler} from "./support/Handler.sol";
import {LaneRecord} from "./support/Ledger.sol";
import {Reference} from "./support/Reference.sol";

/// @notice What holds after every call. The rules for single steps (settled only grows, a voucher pays at most
/// once, an id lives once, a close splits the deposit) are checked by the Ledger as it reads each log.
contract InvariantsTest is ForgeTest {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    Handler private handler;

    function setUp() public override {
        handler = new Handler();
        channels = handler.contractUnderTest();
    }

    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(handler), _actions());
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// @dev One function, for forge would play the same calls once more for each other.
    function invariant_theBooksTheBalancesAndTheViewsAgree() external view {
        _theContractHoldsWhatItOwesAndWhatItWasGiven();
        _everybodyHasWhatTheLogsSay();
        _sharesAreKeptForThoseWhoCannotBePaidAlone();
        _logsAloneRebuildEveryWord();
        _stateIsThatOfTheEpochAskedFor();
    }

    /// @dev A walk by a fixed die: every action, also the rare ones, is refused at times and succeeds often.
    function test_everyActionOfTheHandlerSucceedsOften() external {
        bytes4[] memory actions = _actions();
        for (uint256 i = 0; i < 4000; ++i) {
            bytes32 die = keccak256(abi.encode(i));
            bytes4 action = actions[uint256(die) % actions.length];
            (bool success, bytes memory result) = address(handler).call(
                bytes.concat(action, _roll(die, 0), _roll(die, 1), _roll(die, 2), _roll(die, 3))
            );
            if (!success) {
                assembly ("memory-safe") {
                    revert(add(result, 0x20), mload(result))
                }
            }
        }
        _succeededOften();
    }

    function _theContractHoldsWhatItOwesAndWhatItWasGiven() private view {
        address[] memory tokens = handler.tokenList();
        for (uint256 i = 0; i < tokens.length; ++i) {
            uint256 owed = handler.locked(tokens[i]) + handler.keptInAll(tokens[i]);
            uint256 held = balance(tokens[i], address(channels));
            vm.assertEq(held, owed + handler.donated(tokens[i]), "solvency of a token");
            vm.assertEq(handler.paidIn(tokens[i]), handler.paidOut(tokens[i]) + owed, "conservation of a token");
        }
    }

    function _everybodyHasWhatTheLogsSay() private view {
        address[] memory tokens = handler.tokenList();
        address[] memory people = handler.peopleList();
        for (uint256 i = 0; i < tokens.length; ++i) {
            for (uint256 j = 0; j < people.length; ++j) {
                int256 owned = int256(balance(tokens[i], people[j]));
                vm.assertEq(owned, handler.expectedBalance(tokens[i], people[j]), "money of an account");
            }
        }
    }

    function _sharesAreKeptForThoseWhoCannotBePaidAlone() private view {
        address[] memory tokens = handler.tokenList();
        address[] memory people = handler.peopleList();
        for (uint256 i = 0; i < tokens.length; ++i) {
            for (uint256 j = 0; j < people.length; ++j) {
                uint256 share = channels.keptShare(tokens[i], people[j]);
                vm.assertEq(share, handler.kept(tokens[i], people[j]), "the kept share is what the logs say");
                vm.assertTrue(share == 0 || !handler.isEasyToPay(tokens[i], people[j]), "a push that had to succeed");
            }
        }
    }

    function _logsAloneRebuildEveryWord() private view {
        for (uint256 i = 0; i < handler.laneCount(); ++i) {
            LaneRecord memory lane = handler.lane(i);
            uint256 time = lane.finalized ? Reference.FINALIZED : lane.closeRequestedAt;
            bytes32 expected = Reference.word(lane.deposit, lane.settled, time, lane.epoch);
            bytes32 word = vm.load(address(channels), Reference.lane(lane.channel));
            vm.assertEq(word, lane.used ? expected : bytes32(0), "the word of a lane");
            vm.assertTrue(!lane.used || word != 0, "a used lane is never zero again");
            vm.assertTrue(lane.settled <= lane.deposit, "settled never passes the deposit");
        }
    }

    function _stateIsThatOfTheEpochAskedFor() private view {
        for (uint256 i = 0; i < handler.laneCount(); ++i) {
            LaneRecord memory lane = handler.lane(i);
            ChannelState memory state = channels.channelState(lane.channel);
            vm.assertTrue(state.status == _statusOf(lane), "the status of a channel");
            if (!lane.used) continue;
            vm.assertEq(state.deposit, lane.deposit, "the deposit of a channel");
            vm.assertEq(state.settled, lane.settled, "what a channel has settled");
            _isOver(lane);
        }
    }

    function _succeededOften() private view {
        string[16] memory names = [
            "open",
            "openSigned",
            "topUp",
            "topUpSigned",
            "settle",
            "replay",
            "settleBatch",
            "close",
            "closeSigned",
            "closeBatch",
            "requestClose",
            "withdraw",
            "claim",
            "pass",
            "donate",
            "planReentry"
        ];
        for (uint256 i = 0; i < names.length; ++i) {
            vm.assertGe(handler.succeeded(names[i]), 10, names[i]);
        }
        vm.assertEq(handler.succeeded("settleForged"), 0, "a forged voucher pays nothing");
        vm.assertGe(handler.reopened(), 10, "lanes opened again");
        vm.assertGe(handler.cancelled(), 10, "close requests taken back");
        vm.assertGe(handler.sharesKept(), 10, "shares kept");
        vm.assertGe(handler.rowsSkipped(), 10, "rows skipped");
    }

    function _actions() private view returns (bytes4[] memory actions) {
        actions = new bytes4[](18);
        actions[0] = handler.open.selector;
        actions[1] = handler.openSigned.selector;
        actions[2] = handler.topUp.selector;
        actions[3] = handler.topUpSigned.selector;
        actions[4] = handler.settle.selector;
        actions[5] = handler.replay.selector;
        actions[6] = handler.settleForged.selector;
        actions[7] = handler.settleBatch.selector;
        actions[8] = handler.close.selector;
        actions[9] = handler.closeSigned.selector;
        actions[10] = handler.closeBatch.selector;
        actions[11] = handler.requestClose.selector;
        actions[12] = handler.withdraw.selector;
        actions[13] = handler.claim.selector;
        actions[14] = handler.pass.selector;
        actions[15] = handler.changeMood.selector;
        actions[16] = handler.planReentry.selector;
        actions[17] = handler.donate.selector;
    }

    function _roll(bytes32 die, uint256 number) private pure returns (bytes32) {
        return keccak256(abi.encode(die, number));
    }

    function _statusOf(LaneRecord memory lane) private pure returns (Status) {
        if (!lane.used) return Status.Absent;
        if (lane.finalized) return Status.Finalized;
        return lane.closeRequestedAt == 0 ? Status.Open : Status.Closing;
    }

    function _isOver(LaneRecord memory lane) private view {
        if (lane.epoch == 0) return;
        Channel memory earlier = Reference.withEpoch(lane.channel, uint32(lane.epoch - 1));
        ChannelState memory state = channels.channelState(earlier);
        vm.assertTrue(state.status == Status.Finalized, "an earlier epoch is over");
        vm.assertEq(state.deposit + state.settled + state.closeRequestedAt, 0, "an earlier epoch holds nothing");
    }
}
