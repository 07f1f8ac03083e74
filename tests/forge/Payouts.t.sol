// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPayouts, Payout} from "../../contracts/interfaces/IPayouts.sol";
import {PayoutsTest} from "./support/PayoutsTest.sol";
import {Vm} from "./support/Vm.sol";

contract PayoutsRoundsTest is PayoutsTest {
    function testFuzz_aRoundPaysEachReceiverOrSkipsItAlone(uint256 kind, uint256 die) external {
        address token_ = money(kind);
        Payout[] memory rows = rowsOf(die);
        uint256 before = balance(token_, payer);

        vm.recordLogs();
        _pay(token_, 0, rows, token_ == NATIVE ? sumOf(rows) : 0);
        _told(token_, rows, vm.getRecordedLogs());
        vm.assertEq(balance(token_, payer), before - paidBy(token_, rows));
        vm.assertEq(balance(token_, address(payouts)), 0);
        for (uint256 i = 0; i < RECEIVERS; ++i) {
            vm.assertEq(balance(token_, receivers[i]), _dueTo(token_, receivers[i], rows));
        }
    }

    function testFuzz_onlyTheNextRoundIsPaid(uint256 round, uint8 paid, uint256 die) external {
        Payout[] memory rows = rowsOf(die);
        for (uint256 i = 0; i < paid % 4; ++i) {
            _pay(address(token), i, rows, 0);
        }
        uint256 next = payouts.rounds(payer);
        vm.assertEq(next, paid % 4);
        vm.assume(round != next);

        vm.expectRevert(abi.encodeWithSelector(IPayouts.WrongRound.selector, next));
        _pay(address(token), round, rows, 0);
        vm.assertEq(payouts.rounds(payer), next);
    }

    function testFuzz_etherIsExactlyTheSumOfTheRows(uint96 value, uint256 die) external {
        Payout[] memory rows = rowsOf(die);
        vm.assume(value != sumOf(rows));

        vm.expectPartialRevert(IPayouts.WrongValue.selector);
        _pay(NATIVE, 0, rows, value);
    }

    function testFuzz_noEtherComesWithAToken(uint96 value, uint256 die) external {
        vm.assume(value != 0);

        vm.expectRevert(abi.encodeWithSelector(IPayouts.WrongValue.selector, 0));
        _pay(address(token), 0, rowsOf(die), value);
    }

    /// @dev The others' ether is in the contract while the wallet calls back, and none of it is spent.
    function testFuzz_whoCallsBackGetsNothingOfTheOthers(uint96 mine, uint96 others, uint96 asked) external {
        vm.assume(asked != 0);
        Payout[] memory stolen = new Payout[](1);
        stolen[0] = Payout(address(reentrant), asked);
        reentrant.plan(address(payouts), abi.encodeCall(payouts.pay, (NATIVE, 0, stolen)));
        Payout[] memory rows = new Payout[](2);
        rows[0] = Payout(address(reentrant), mine);
        rows[1] = Payout(receivers[0], others);

        _pay(NATIVE, 0, rows, sumOf(rows));
        vm.assertEq(address(reentrant).balance, mine);
        vm.assertEq(receivers[0].balance, others);
        vm.assertEq(payouts.rounds(address(reentrant)), 0);
    }

    /// @dev A round that is cut off, claims more rows than it has, or has dirty words, pays nobody.
    function testFuzz_aMalformedRoundPaysNobody(uint256 die, uint256 place, uint256 dirt) external {
        Payout[] memory rows = rowsOf(die);
        vm.assume(rows.length != 0);
        bytes memory data = abi.encodeCall(payouts.pay, (address(token), 0, rows));
        // selector, token, round, offset, length, then the rows: a receiver of 160 bits, an amount of 96
        uint256 word = place % (2 * rows.length);
        uint256 bits = word % 2 == 0 ? 160 : 96;
        bytes memory short = abi.encodePacked(data);
        bytes memory long = abi.encodePacked(data);
        assembly ("memory-safe") {
            mstore(short, sub(mload(short), add(1, mod(place, 64))))
            mstore(add(long, 0x84), add(mload(add(long, 0x84)), add(1, mod(place, 0xffff))))
            let at := add(add(data, 0xa4), mul(word, 0x20))
            mstore(at, or(mload(at), shl(bits, or(1, dirt))))
        }

        vm.assertFalse(_sends(short));
        vm.assertFalse(_sends(long));
        vm.assertFalse(_sends(data));
        vm.assertEq(payouts.rounds(payer), 0);
    }

    function _sends(bytes memory data) private returns (bool success) {
        vm.prank(payer);
        (success,) = address(payouts).call(data);
    }

    function _pay(address token_, uint256 round, Payout[] memory rows, uint256 value) private {
        vm.prank(payer);
        payouts.pay{value: value}(token_, round, rows);
    }

    /// @dev One log for each row, in their order, which says what became of it.
    function _told(address token_, Payout[] memory rows, Vm.Log[] memory logs) private view {
        uint256 row = 0;
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].emitter != address(payouts)) continue;
            Payout memory paid = rows[row++];
            vm.assertEq(logs[i].topics[0], IPayouts.PaidOut.selector);
            vm.assertEq(logs[i].topics[1], bytes32(uint256(uint160(payer))));
            vm.assertEq(logs[i].topics[2], bytes32(0));
            vm.assertEq(logs[i].topics[3], bytes32(uint256(uint160(paid.receiver))));
            vm.assertEq(logs[i].data, abi.encode(token_, uint256(paid.amount), takes(token_, paid.receiver)));
        }
        vm.assertEq(row, rows.length);
    }

    function _dueTo(address token_, address receiver, Payout[] memory rows) private view returns (uint256 due) {
        if (!takes(token_, receiver)) return 0;
        for (uint256 i = 0; i < rows.length; ++i) {
            if (rows[i].receiver == receiver) due += rows[i].amount;
        }
    }
}
