// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Channel, IPaymentChannels} from "./IPaymentChannels.sol";

/// @notice One member of a group that shares its income.
/// @param account Who is paid.
/// @param basisPoints Its part of every unit, in 1/10,000.
struct Party {
    address account;
    uint16 basisPoints;
}

/// @title IRevenueSplitter
/// @notice A payee that is a group: 2 to 100 parties share whatever arrives, in native currency (`token` is zero) and
/// in any ERC-20. Parties and parts never change. Nothing is pushed when money arrives: each party is paid when
/// somebody calls `release` for it, so a party that cannot receive holds up nobody else.
/// @dev What holds for each token, `received` being balance plus all that was released: a party's released and
/// releasable units together are exactly floor(received * basisPoints / 10,000), in whatever order money comes and
/// goes. So all that is releasable never exceeds the balance, and what remains of the balance is less than one unit
/// per party; it is not lost, but shared as more arrives. A token whose balances change by themselves, or that takes
/// another amount from the sender than it is asked to, breaks this for itself alone. No owner, no fee, no upgrade, no
/// pause.
interface IRevenueSplitter {
    /* EVENTS */

    /// @notice The share of `account` was paid to `receiver`, which is the account itself unless it named another.
    event Released(address indexed token, address indexed account, address receiver, uint256 amount);

    /* ERRORS */

    /// @notice A group has 2 to 100 parties.
    error PartyCountOutOfRange(uint256 count);
    /// @notice A party is the zero address, has no part, or is listed before.
    error InvalidParty(address account, uint16 basisPoints);
    /// @notice The parts do not add up to 10,000.
    error PartsDoNotAddUp(uint256 basisPoints);
    /// @notice There is nothing to pay to this account, or it is no party.
    error NothingToRelease(address token, address account);
    /// @notice The token refused, or the receiver of native currency did; everything is as before.
    error ReleaseFailed(address token, address receiver, uint256 amount);
    /// @notice Native currency for the zero address would be lost.
    error InvalidReceiver(address receiver);
    /// @notice Only the operator may do this; nobody may if it is zero.
    error NotOperator(address operator);
    /// @notice Called from inside a payment of this contract, when its balance may lag behind its books.
    error Reentered();

    /* ACTIONS */

    /// @notice Takes native currency, at the least cost that there is.
    receive() external payable;

    /// @notice Pays a party all that is releasable to it. Anyone may send it; it pays only the party's account.
    /// @dev The payment may use all gas that is there: who sends it for a hostile account or token pays for what they
    /// burn.
    function release(address token, address account) external;

    /// @notice Pays the caller's own share to `receiver`, for a party whose account cannot receive.
    function releaseTo(address token, address receiver) external;

    /// @notice Closes a channel whose payee is this group, as IPaymentChannels.close says. Operator only.
    /// @dev The operator decides with which voucher a channel ends, so it is trusted to use the best one; one that
    /// closes with less gives the difference back to the payer. That is all it can do: it takes no money and holds up
    /// no release, and what a voucher promises stays open to `settle` by anyone until the channel closes. No value and
    /// no allowance goes to `channels`, so a hostile one gains nothing.
    function close(
        IPaymentChannels channels,
        Channel calldata channel,
        uint128 cumulativeAmount,
        bytes calldata signature
    ) external;

    /// @notice Fetches what `channels` keeps for this group because it could not be pushed. Anyone may send it.
    /// @dev The receiver is always this contract. No value and no allowance goes to `channels`, so a hostile one gains
    /// nothing.
    function claim(IPaymentChannels channels, address token) external;

    /* VIEWS */

    /// @notice What `release` would pay now, in base units.
    function releasable(address token, address account) external view returns (uint256);

    /// @notice The part of an account in 1/10,000; zero for whoever is no party.
    function basisPoints(address account) external view returns (uint16);

    /// @notice What an account was paid so far, in base units.
    function released(address token, address account) external view returns (uint256);

    /// @notice What all parties were paid so far, in base units.
    function totalReleased(address token) external view returns (uint256);

    /// @notice Who may close channels; zero for nobody.
    function operator() external view returns (address);
}

/// @title IRevenueSplitterFactory
/// @notice Creates splitters at addresses that depend on nothing but their parties, in their order, and their operator.
/// A group can be named as payee, and be paid, before it is created.
interface IRevenueSplitterFactory {
    /// @notice A splitter was created; the log carries its whole description.
    event SplitterCreated(address indexed splitter, address indexed operator, Party[] parties);

    /// @notice Creates the splitter of these parties, or returns the one that is there. Anyone may.
    function create(Party[] calldata parties, address operator) external returns (address splitter);

    /// @notice Where the splitter of these parties is or will be.
    /// @dev Refuses what `create` would refuse: money sent to such an address would be lost.
    function addressOf(Party[] calldata parties, address operator) external view returns (address);
}
