// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPayouts, Payout} from "../../../contracts/interfaces/IPayouts.sol";
import {BlacklistToken} from "../../../contracts/mocks/HostileTokens.sol";
import {
    GasBurningWallet,
    ReturnBombWallet,
    RevertBombWallet,
    RevertingWallet
} from "../../../contracts/mocks/HostileWallets.sol";
import {ForgeTest} from "./ForgeTest.sol";
import {PlanningWallet} from "./PlanningWallet.sol";

/// @notice The contract that pays many, people who send its rounds, and receivers that take money, refuse it, or call back.
abstract contract PayoutsTest is ForgeTest {
    uint256 internal constant RECEIVERS = 8;
    uint256 internal constant ROWS_MAX = 6;

    IPayouts internal payouts;
    BlacklistToken internal blacklist;
    PlanningWallet internal reentrant;
    address[RECEIVERS] internal receivers;

    function setUp() public virtual override {
        super.setUp();
        payouts = IPayouts(deploy("Payouts", ""));
        blacklist = new BlacklistToken();
        reentrant = new PlanningWallet();
        receivers = [
            vm.addr(1),
            vm.addr(2),
            vm.addr(3),
            address(new ReturnBombWallet()),
            address(reentrant),
            address(new RevertingWallet()),
            address(new GasBurningWallet()),
            address(new RevertBombWallet())
        ];
        blacklist.list(receivers[1], true);
        address[2] memory senders = [payer, stranger];
        for (uint256 i = 0; i < senders.length; ++i) {
            blacklist.mint(senders[i], 2 ** 120);
            vm.prank(senders[i]);
            token.approve(address(payouts), type(uint256).max);
            vm.prank(senders[i]);
            blacklist.approve(address(payouts), type(uint256).max);
        }
    }

    /// @dev Native currency, a plain token, or one that turns a receiver away.
    function money(uint256 seed) internal view returns (address) {
        address[3] memory kinds = [NATIVE, address(token), address(blacklist)];
        return kinds[seed % 3];
    }

    /// @dev Whether a row has to be paid: the wallet that calls back takes its money first.
    function takes(address token_, address receiver) internal view returns (bool) {
        if (token_ == address(blacklist)) return !blacklist.listed(receiver);
        if (token_ != NATIVE) return true;
        for (uint256 i = 5; i < RECEIVERS; ++i) {
            if (receiver == receivers[i]) return false;
        }
        return true;
    }

    /// @dev Up to six rows, of receivers that may come twice.
    function rowsOf(uint256 die) internal view returns (Payout[] memory rows) {
        rows = new Payout[](die % (ROWS_MAX + 1));
        for (uint256 i = 0; i < rows.length; ++i) {
            uint256 roll = uint256(keccak256(abi.encode(die, i)));
            rows[i] = Payout(receivers[roll % RECEIVERS], uint96((roll >> 8) % 2 ** (1 + (roll >> 128) % 96)));
        }
    }

    function sumOf(Payout[] memory rows) internal pure returns (uint256 sum) {
        for (uint256 i = 0; i < rows.length; ++i) {
            sum += rows[i].amount;
        }
    }

    /// @dev What a round costs its sender: all that its receivers take.
    function paidBy(address token_, Payout[] memory rows) internal view returns (uint256 sum) {
        for (uint256 i = 0; i < rows.length; ++i) {
            if (takes(token_, rows[i].receiver)) sum += rows[i].amount;
        }
    }
}
