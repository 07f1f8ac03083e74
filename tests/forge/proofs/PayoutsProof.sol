// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Payouts} from "../../../contracts/Payouts.sol";
import {Payout} from "../../../contracts/interfaces/IPayouts.sol";
import {Vm} from "../support/Vm.sol";
import {LedgerToken} from "./LaneProof.sol";

/// @notice What a round of two rows does, for every count of rounds, round, amount, value and balance.
/// @dev The gas that is left is any number: a round may be refused for it, so that each check says what success means.
contract PayoutsProof {
    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    address private constant SENDER = address(0xA11CE);
    address private constant STRANGER = address(0x57A6);
    address private constant ANNA = address(0xA22A);
    address private constant BERT = address(0xBE27);

    Payouts private payouts;
    LedgerToken private token;

    function setUp() public {
        payouts = new Payouts();
        token = new LedgerToken();
    }

    function check_aRoundOfATokenPaysEachRowOrSkipsItAlone(
        uint256 counted,
        uint256 round,
        uint128 held,
        uint96 first,
        uint96 second,
        uint128 value
    ) external {
        _counted(counted);
        vm.deal(SENDER, value);
        token.mint(SENDER, held);

        bool success = _pay(address(token), round, first, second, value);
        assert(!success || (round == counted && value == 0));
        uint256 toAnna = success && first <= held ? first : 0;
        uint256 toBert = success && second <= held - toAnna ? second : 0;
        assert(token.balanceOf(ANNA) == toAnna);
        assert(token.balanceOf(BERT) == toBert);
        assert(token.balanceOf(SENDER) == held - toAnna - toBert);
        _counts(counted, success);
    }

    function check_aRoundOfEtherPaysExactlyWhatCame(
        uint256 counted,
        uint256 round,
        uint96 first,
        uint96 second,
        uint128 value
    ) external {
        _counted(counted);
        vm.deal(SENDER, value);

        bool success = _pay(address(0), round, first, second, value);
        assert(!success || (round == counted && value == uint256(first) + second));
        assert(ANNA.balance == (success ? first : 0));
        assert(BERT.balance == (success ? second : 0));
        assert(SENDER.balance == (success ? 0 : value));
        assert(address(payouts).balance == 0);
        _counts(counted, success);
    }

    /* INTERNAL */

    /// @dev As if the sender, and somebody else, had paid rounds before.
    function _counted(uint256 count) private {
        vm.store(address(payouts), keccak256(abi.encode(SENDER, 0)), bytes32(count));
        vm.store(address(payouts), keccak256(abi.encode(STRANGER, 0)), bytes32(count));
    }

    function _pay(address token_, uint256 round, uint96 first, uint96 second, uint256 value)
        private
        returns (bool success)
    {
        Payout[] memory rows = new Payout[](2);
        (rows[0], rows[1]) = (Payout(ANNA, first), Payout(BERT, second));
        vm.prank(SENDER);
        (success,) = address(payouts).call{value: value}(abi.encodeCall(payouts.pay, (token_, round, rows)));
    }

    /// @dev The sender's rounds, and those of nobody else.
    function _counts(uint256 before, bool success) private view {
        assert(payouts.rounds(SENDER) == (success ? before + 1 : before));
        assert(payouts.rounds(STRANGER) == before);
    }
}
