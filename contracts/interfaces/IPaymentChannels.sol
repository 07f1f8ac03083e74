// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// @notice A channel's description. It travels as calldata and is never stored: the contract recomputes its id.
/// @param payer Who locked the deposit and gets the refund.
/// @param payee Who is paid by vouchers.
/// @param token The ERC-20 of the deposit; zero for the chain's native currency.
/// @param authorizedSigner The key that signs vouchers; zero for the payer's own key.
/// @param salt Chosen by the payer. Its low 32 bits are the channel's epoch, the rest picks the lane.
struct Channel {
    address payer;
    address payee;
    address token;
    address authorizedSigner;
    bytes32 salt;
}

/// @notice Where a channel is in its life.
enum Status {
    Absent,
    Open,
    Closing,
    Finalized
}

/// @notice What the contract knows of one channel.
/// @param status Where the channel is in its life.
/// @param deposit All that was ever locked in this channel, in base units of the token.
/// @param settled The cumulative amount already paid to the payee.
/// @param closeRequestedAt Unix seconds of the pending close request; zero if there is none.
struct ChannelState {
    Status status;
    uint96 deposit;
    uint96 settled;
    uint32 closeRequestedAt;
}

/// @title IPaymentChannels
/// @notice One-way payment channels for native currency and ERC-20, after draft-evm-session-00 ("EVM Session Intent for
/// HTTP Payment Authentication"). A payer locks a deposit, signs cumulative vouchers off chain, and the payee takes the
/// money with one transaction.
/// @dev No owner, no fee, no upgrade, no pause. Tokens that take a fee on transfer are refused at the open; rebasing
/// tokens are not supported. A share that cannot be pushed to its owner is kept for them: see `claim`.
interface IPaymentChannels {
    /* EVENTS */

    /// @notice A channel was opened; the log carries the whole description, so logs alone rebuild every channel.
    event ChannelOpened(
        bytes32 indexed channelId,
        address indexed payer,
        address indexed payee,
        address token,
        address authorizedSigner,
        bytes32 salt,
        uint256 deposit
    );

    /// @notice Money was added; `deposit` is the new total.
    event ToppedUp(
        bytes32 indexed channelId, address indexed payer, address indexed payee, uint256 amount, uint256 deposit
    );

    /// @notice The payee was paid up to `cumulativeAmount`; the channel stays as it was.
    event Settled(
        bytes32 indexed channelId, address indexed payer, address indexed payee, uint256 cumulativeAmount
    );

    /// @notice The payer wants out; from `withdrawableAt` (Unix seconds) on, `withdraw` pays the rest back.
    event CloseRequested(
        bytes32 indexed channelId, address indexed payer, address indexed payee, uint256 withdrawableAt
    );

    /// @notice The payer's top-up took the pending close request back.
    event CloseCancelled(bytes32 indexed channelId, address indexed payer, address indexed payee);

    /// @notice The channel is over: the payee got `settled` in all, the payer got `refund` back.
    event ChannelClosed(
        bytes32 indexed channelId, address indexed payer, address indexed payee, uint256 settled, uint256 refund
    );

    /// @notice A share could not be pushed to `account`; it waits for `claim`.
    event ShareKept(address indexed token, address indexed account, uint256 amount);

    /// @notice A kept share was paid out to `receiver`.
    event ShareClaimed(address indexed token, address indexed account, address receiver, uint256 amount);

    /* ERRORS */

    /// @notice The deployment's grace period is shorter than ten minutes.
    error GracePeriodTooShort(uint256 gracePeriod);
    /// @notice The payee is the zero address.
    error InvalidPayee();
    /// @notice There is no contract at the token's address.
    error InvalidToken(address token);
    /// @notice A deposit or top-up of nothing.
    error ZeroDeposit();
    /// @notice The deposit does not fit 96 bits.
    error DepositOverflow(uint256 deposit);
    /// @notice The value sent is not the deposit (native currency), or is not zero (ERC-20).
    error WrongValue(uint256 expected, uint256 sent);
    /// @notice The token moved another amount than asked, or refused.
    error TokenTransferFailed(address token);
    /// @notice This id, or a later epoch of its lane, was already used; or the lane's channel is still open.
    error ChannelAlreadyExists(bytes32 channelId);
    /// @notice No such channel.
    error ChannelNotFound(bytes32 channelId);
    /// @notice The channel is closed for good.
    error ChannelFinalized(bytes32 channelId);
    /// @notice Only the payer may do this.
    error NotPayer(address payer);
    /// @notice Only the payee may do this.
    error NotPayee(address payee);
    /// @notice The voucher pays no more than what is settled already.
    error AmountNotIncreasing(uint256 cumulativeAmount, uint256 settled);
    /// @notice The voucher promises more than the channel holds.
    error AmountExceedsDeposit(uint256 cumulativeAmount, uint256 deposit);
    /// @notice The voucher was not signed by the channel's signer, or not in canonical form.
    error InvalidSignature();
    /// @notice No close was requested (`withdrawableAt` is zero), or the grace period still runs.
    error CloseNotReady(uint256 withdrawableAt);
    /// @notice Too little gas was sent along to make a push to this contract's payee or payer meaningful.
    error GasTooLow();
    /// @notice Nothing is kept for the caller in this token.
    error NothingToClaim();

    /* ACTIONS */

    /// @notice Opens a channel; the caller becomes the payer.
    /// @dev A fresh lane takes any epoch. A lane whose channel is finalized takes only a greater epoch: the new channel has
    /// a new id, so vouchers of the old one are dead for good.
    /// @param payee Who will be paid.
    /// @param token ERC-20 (needs an allowance for this contract), or zero for native currency sent with the call.
    /// @param deposit Base units to lock; not zero, at most 2**96 - 1.
    /// @param salt Picks lane and epoch.
    /// @param authorizedSigner The key that signs vouchers; zero for the payer's own key. Contracts can't sign vouchers.
    /// @return channelId The new channel's id.
    function open(address payee, address token, uint128 deposit, bytes32 salt, address authorizedSigner)
        external
        payable
        returns (bytes32 channelId);

    /// @notice Adds money to a channel. Anyone may; only the payer's own top-up takes a pending close request back.
    function topUp(Channel calldata channel, uint128 amount) external payable;

    /// @notice Pays the payee what a voucher promises beyond what is settled. Anyone may send it; it pays only the payee,
    /// and it works until the channel is finalized, also while a close is pending.
    function settle(Channel calldata channel, uint128 cumulativeAmount, bytes calldata signature) external;

    /// @notice Settles, refunds the payer and finalizes the channel, at once. Payee only.
    /// @dev With a `cumulativeAmount` not above what is settled, nothing more is paid and no signature is looked at.
    function close(Channel calldata channel, uint128 cumulativeAmount, bytes calldata signature) external;

    /// @notice Starts the grace period, in which the payee can still settle. Payer only. Repeating it moves nothing.
    function requestClose(Channel calldata channel) external;

    /// @notice Refunds what was not settled and finalizes the channel. Payer only, once the grace period is over.
    function withdraw(Channel calldata channel) external;

    /// @notice Pays the caller's kept share of a token to `receiver`.
    function claim(address token, address receiver) external;

    /* VIEWS */

    /// @notice The EIP-712 domain separator of this contract on this chain.
    function domainSeparator() external view returns (bytes32);

    /// @notice Seconds between a close request and the earliest withdrawal; the same for every channel, for good.
    function gracePeriod() external view returns (uint256);

    /// @notice The id of a channel on this contract and chain, whether it exists or not.
    function channelId(Channel calldata channel) external view returns (bytes32);

    /// @notice What a voucher for this amount has to sign.
    function voucherDigest(bytes32 id, uint128 cumulativeAmount) external view returns (bytes32);

    /// @notice The state of one channel. Of an earlier epoch, only that it is finalized is still known.
    function channelState(Channel calldata channel) external view returns (ChannelState memory);

    /// @notice The states of many channels, in their order.
    function channelStates(Channel[] calldata channels) external view returns (ChannelState[] memory);

    /// @notice What is kept for an account in a token because it could not be pushed.
    function keptShare(address token, address account) external view returns (uint256);
}
