// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// @notice One row of a round.
/// @param receiver Who is paid.
/// @param amount In base units of the round's token.
struct Payout {
    address receiver;
    uint96 amount;
}

/// @title IPayouts
/// @notice Pays many receivers in one transaction, in native currency (`token` is zero) or in an ERC-20 that the sender
/// lets this contract take. A receiver that cannot be paid is skipped: its amount stays with the sender, and nobody else
/// waits for it. The rounds of a sender are counted here, so that no round is paid twice, however often it is sent.
/// @dev Holds nothing between transactions. No owner, no fee, no upgrade, no pause. A token that takes a fee from what it
/// moves pays receivers less than `amount`.
interface IPayouts {
    /* EVENTS */

    /// @notice One row of `sender`'s round, in the order of the rows. If it was not `paid`, the sender keeps the amount.
    event PaidOut(
        address indexed sender,
        uint256 indexed round,
        address indexed receiver,
        address token,
        uint256 amount,
        bool paid
    );

    /* ERRORS */

    /// @notice The sender's next round is another one: this one was paid, or comes too early.
    error WrongRound(uint256 next);
    /// @notice Native currency came that is not exactly what the rows add up to.
    error WrongValue(uint256 expected);
    /// @notice There is no contract at the token's address.
    error NoToken(address token);
    /// @notice With so little gas a receiver that could be paid might not be. Nothing was paid.
    error NotEnoughGas();
    /// @notice What was skipped could not be given back. Nothing was paid.
    error RefundFailed(uint256 amount);

    /* ACTIONS */

    /// @notice Pays the sender's round. Each row may use 200,000 gas.
    /// @param round Must be `rounds(msg.sender)`.
    function pay(address token, uint256 round, Payout[] calldata payouts) external payable;

    /* VIEWS */

    /// @notice How many rounds a sender has paid: the number of its next one.
    function rounds(address sender) external view returns (uint256);
}
