// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPayouts, Payout} from "../../contracts/interfaces/IPayouts.sol";
import {PayoutsTest} from "./support/PayoutsTest.sol";

/// @notice Sends rounds as two networks would, right and wrong ones, and says before each what has to come of it.
contract Paymaster is PayoutsTest {
    address[2] private _senders;
    mapping(address sender => uint256) public sent;
    mapping(address token => mapping(address account => int256)) public credited;
    uint256 public paid;
    uint256 public refused;
    uint256 public skipped;

    constructor() {
        setUp();
        _senders = [payer, stranger];
    }

    function contractUnderTest() external view returns (IPayouts) {
        return payouts;
    }

    function moneyOf(uint256 seed) external view returns (address) {
        return money(seed);
    }

    function receiverAt(uint256 number) external view returns (address) {
        return receivers[number % RECEIVERS];
    }

    /// @dev Mostly the next round with the right value; at times an old or a later one, or a wei more.
    function pay(uint256 who, uint256 kind, uint256 die, uint256 fault) external {
        address sender = _senders[who % 2];
        address token_ = money(kind);
        Payout[] memory rows = rowsOf(die);
        uint256 round = fault % 8 == 0 ? fault % 3 : sent[sender];
        uint256 value = (token_ == NATIVE ? sumOf(rows) : 0) + (fault % 8 == 1 ? 1 : 0);
        bool allowed = round == sent[sender] && fault % 8 != 1;

        vm.prank(sender);
        (bool success,) = address(payouts).call{value: value}(abi.encodeCall(payouts.pay, (token_, round, rows)));
        vm.assertTrue(success == allowed, "what a round does is known before");
        if (success) _book(sender, token_, rows);
        else refused += 1;
    }

    /// @dev To come back for money that it did not bring, in the round that is its next one or another.
    function planReentry(uint256 kind, uint256 die, uint256 round) external {
        reentrant.plan(address(payouts), abi.encodeCall(payouts.pay, (money(kind), round % 2, rowsOf(die))));
    }

    function _book(address sender, address token_, Payout[] memory rows) private {
        sent[sender] += 1;
        paid += 1;
        for (uint256 i = 0; i < rows.length; ++i) {
            if (!takes(token_, rows[i].receiver)) {
                skipped += 1;
                continue;
            }
            credited[token_][sender] -= int256(uint256(rows[i].amount));
            credited[token_][rows[i].receiver] += int256(uint256(rows[i].amount));
        }
    }
}

contract PayoutsInvariantsTest is PayoutsTest {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    Paymaster private paymaster;

    function setUp() public override {
        paymaster = new Paymaster();
        payouts = paymaster.contractUnderTest();
        (payer, stranger) = (vm.addr(PAYER_KEY), vm.addr(STRANGER_KEY));
    }

    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        bytes4[] memory actions = new bytes4[](2);
        (actions[0], actions[1]) = (paymaster.pay.selector, paymaster.planReentry.selector);
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(paymaster), actions);
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(paymaster);
    }

    function invariant_whatWasPaidIsWhatWasReceivedAndNothingStays() external view {
        for (uint256 kind = 0; kind < 3; ++kind) {
            address token_ = paymaster.moneyOf(kind);
            vm.assertEq(balance(token_, address(payouts)), 0, "nothing stays in the contract");
            _owns(token_, payer, 2 ** 120);
            _owns(token_, stranger, 2 ** 120);
            for (uint256 i = 0; i < RECEIVERS; ++i) {
                _owns(token_, paymaster.receiverAt(i), 0);
            }
        }
        vm.assertEq(payouts.rounds(payer), paymaster.sent(payer), "each round counts once");
        vm.assertEq(payouts.rounds(stranger), paymaster.sent(stranger), "each sender has its own count");
    }

    /// @dev A walk by a fixed die: rounds are paid, refused and skipped often.
    function test_roundsArePaidRefusedAndSkippedOften() external {
        for (uint256 i = 0; i < 200; ++i) {
            uint256 die = uint256(keccak256(abi.encode(i)));
            paymaster.planReentry(die >> 32, die >> 64, die);
            paymaster.pay(die, die >> 16, die >> 48, die >> 96);
        }
        vm.assertGe(paymaster.paid(), 100, "paid");
        vm.assertGe(paymaster.refused(), 10, "refused");
        vm.assertGe(paymaster.skipped(), 50, "skipped");
    }

    function _owns(address token_, address account, uint256 initial) private view {
        int256 owned = int256(initial) + paymaster.credited(token_, account);
        vm.assertEq(int256(balance(token_, account)), owned, "money of an account");
    }
}
