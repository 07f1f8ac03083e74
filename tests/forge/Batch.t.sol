// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Channel, IPaymentChannels, VoucherRow} from "../../contracts/interfaces/IPaymentChannels.sol";
import {ForgeTest} from "./support/ForgeTest.sol";
import {Reference} from "./support/Reference.sol";

contract BatchTest is ForgeTest {
    uint256 private constant CHANNELS = 5;
    uint128 private constant DEPOSIT = 1000;

    Channel[] private opened;

    function testFuzz_aBatchPaysTheSumOfItsGoodRows(bool native, bool closing, uint256 die) external {
        _openAll(native);
        (VoucherRow[] memory rows, bool[] memory good) = _rows(die);
        uint256 sum = 0;
        uint256 back = 0;
        for (uint256 i = 0; i < rows.length; ++i) {
            if (!good[i]) continue;
            sum += rows[i].cumulativeAmount;
            back += DEPOSIT - rows[i].cumulativeAmount;
        }
        uint256 before = balance(opened[0].token, payer);

        uint256 paid = closing ? _closeBatch(rows) : channels.settleBatch(payee, opened[0].token, rows);
        vm.assertEq(paid, sum);
        vm.assertEq(balance(opened[0].token, payee), sum);
        vm.assertEq(balance(opened[0].token, payer), closing ? before + back : before);
    }

    function testFuzz_eachRowDoesWhatACallOfItsOwnWould(bool closing, uint256 die) external {
        _openAll(true);
        (VoucherRow[] memory rows, bool[] memory good) = _rows(die);
        if (closing) _closeBatch(rows);
        else channels.settleBatch(payee, NATIVE, rows);
        for (uint256 i = 0; i < rows.length; ++i) {
            uint256 settled = good[i] ? rows[i].cumulativeAmount : 0;
            uint256 time = closing && good[i] ? Reference.FINALIZED : 0;
            bytes32 word = Reference.word(DEPOSIT, settled, time, uint32(i));
            vm.assertEq(vm.load(address(channels), Reference.lane(opened[i])), word);
        }
    }

    function testFuzz_aRowThatComesTwicePaysOnce(uint96 amount, bool closing) external {
        _openAll(true);
        uint128 promised = uint128(within(amount, 1, DEPOSIT));
        VoucherRow[] memory rows = new VoucherRow[](2);
        rows[0] = row(SESSION_KEY, opened[0], promised);
        rows[1] = rows[0];
        vm.expectEmit(address(channels));
        emit IPaymentChannels.RowSkipped(idOf(opened[0]));
        vm.assertEq(closing ? _closeBatch(rows) : channels.settleBatch(payee, NATIVE, rows), promised);
        vm.assertEq(payee.balance, promised);
    }

    function testFuzz_aBatchOfAnotherPayeeClosesNothing(address anyone, uint256 die) external {
        vm.assume(anyone != payee);
        _openAll(true);
        (VoucherRow[] memory rows,) = _rows(die);
        vm.prank(anyone);
        vm.assertEq(channels.closeBatch(NATIVE, rows), 0);
        vm.assertEq(address(channels).balance, CHANNELS * DEPOSIT);
    }

    function testFuzz_aRowWithoutAVoucherGivesTheRestBack(uint96 settled) external {
        _openAll(true);
        uint128 before = uint128(within(settled, 1, DEPOSIT));
        channels.settle(opened[0], before, voucher(SESSION_KEY, opened[0], before));
        VoucherRow[] memory rows = new VoucherRow[](1);
        rows[0] = VoucherRow(opened[0].salt, payer, session, 0, 0, 0);
        uint256 balanceBefore = payer.balance;
        vm.assertEq(_closeBatch(rows), 0);
        vm.assertEq(payer.balance, balanceBefore + DEPOSIT - before);
    }

    /// @dev The contract reads rows and descriptions without checking each word: whatever is dirty must count as unknown.
    function testFuzz_aRowWithADirtyWordIsSkipped(uint8 word, uint256 dirt, bool closing) external {
        _openAll(true);
        VoucherRow[] memory rows = new VoucherRow[](1);
        rows[0] = row(SESSION_KEY, opened[0], 1);
        bytes memory data = closing
            ? abi.encodeCall(channels.closeBatch, (NATIVE, rows))
            : abi.encodeCall(channels.settleBatch, (payee, NATIVE, rows));
        // selector, then two or three words, the length, and the row: salt, payer, signer, amount
        uint256 position = 4 + (closing ? 3 : 4) * 32 + (1 + word % 3) * 32;
        _soil(data, position, word % 3 == 2 ? 128 : 160, dirt);
        vm.prank(payee);
        (bool success,) = address(channels).call(data);
        vm.assertTrue(success);
        vm.assertEq(address(channels).balance, CHANNELS * DEPOSIT);
    }

    function testFuzz_aDescriptionWithADirtyWordIsUnknown(uint8 word, uint8 action, uint256 dirt) external {
        _openAll(true);
        Channel memory channel = opened[0];
        bytes memory signature = voucher(SESSION_KEY, channel, 1);
        bytes[5] memory calls = [
            abi.encodeCall(channels.settle, (channel, 1, signature)),
            abi.encodeCall(channels.close, (channel, 1, signature)),
            abi.encodeCall(channels.requestClose, (channel)),
            abi.encodeCall(channels.withdraw, (channel)),
            abi.encodeCall(channels.topUp, (channel, 1))
        ];
        bytes memory data = calls[action % 5];
        _soil(data, 4 + uint256(word % 4) * 32, 160, dirt);
        vm.prank(action % 5 == 1 ? payee : payer);
        (bool success,) = address(channels).call{value: action % 5 == 4 ? 1 : 0}(data);
        vm.assertFalse(success);
    }

    function _openAll(bool native) private {
        for (uint256 i = 0; i < CHANNELS; ++i) {
            opened.push(describe(currency(native), bytes32((i << 32) | i)));
            open(opened[i], DEPOSIT);
        }
    }

    /// @dev One row per channel; a die decides which are wrong, and in which way.
    function _rows(uint256 die) private view returns (VoucherRow[] memory rows, bool[] memory good) {
        rows = new VoucherRow[](CHANNELS);
        good = new bool[](CHANNELS);
        for (uint256 i = 0; i < CHANNELS; ++i) {
            uint256 roll = (die >> (i * 16)) % 65536;
            uint128 amount = uint128(1 + (roll >> 3) % DEPOSIT);
            uint256 fault = roll % 8;
            rows[i] = row(fault == 0 ? STRANGER_KEY : SESSION_KEY, opened[i], fault == 1 ? DEPOSIT + 1 : amount);
            if (fault == 2) rows[i].cumulativeAmount = amount + 1;
            if (fault == 3) rows[i].salt = bytes32(uint256(rows[i].salt) + 1);
            if (fault == 4) rows[i].vs = bytes32(uint256(rows[i].vs) ^ (1 << 255));
            good[i] = fault > 4;
        }
    }

    function _closeBatch(VoucherRow[] memory rows) private returns (uint256) {
        address token_ = opened[0].token;
        vm.prank(payee);
        return channels.closeBatch(token_, rows);
    }

    /// @dev Sets some of the bits that a clean word has at zero.
    function _soil(bytes memory data, uint256 position, uint256 bits, uint256 dirt) private pure {
        uint256 mask = (dirt >> bits) << bits;
        vm.assume(mask != 0);
        assembly ("memory-safe") {
            let place := add(add(data, 0x20), position)
            mstore(place, or(mload(place), mask))
        }
    }
}
