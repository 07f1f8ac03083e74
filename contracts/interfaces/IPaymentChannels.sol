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

/// @notice One voucher of a batch, whose rows share payee and token: the rest of the channel's description, the amount, and
/// the voucher's signature in the short form of EIP-2098 (`vs` is s with v - 27 in its highest bit).
struct VoucherRow {
    bytes32 salt;
    address payer;
    address authorizedSigner;
    uint128 cumulativeAmount;
    bytes32 r;
    bytes32 vs;
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

    /// @notice A row of a batch changed nothing: its channel is not live, its voucher is wrong or above the deposit, or, in
    /// `settleBatch`, is settled already.
    event RowSkipped(bytes32 indexed channelId);

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
    /// @notice The close authorization was not signed by the payee, or not in canonical form.
    error InvalidAuthorization();
    /// @notice The nonce of an EIP-3009 authorization is not the one made from the channel's parameters.
    error NonceMismatch(bytes32 expected);
    /// @notice No close was requested (`withdrawableAt` is zero), or the grace period still runs.
    error CloseNotReady(uint256 withdrawableAt);
    /// @notice The time no longer fits the channel's word: after 7 February 2106 no close can be requested.
    error TimeOverflow();
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

    /// @notice Opens a channel of the caller with a token's EIP-2612 permit instead of an allowance given before.
    /// @dev A permit that somebody else has used first is no obstacle: what counts is that the allowance is there.
    /// @param deadline Last second, Unix, at which the permit holds. It is for exactly `deposit`, to this contract.
    function openWithPermit(
        address payee,
        address token,
        uint128 deposit,
        bytes32 salt,
        address authorizedSigner,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external returns (bytes32 channelId);

    /// @notice Opens a channel of `from`, who signed an EIP-3009 `ReceiveWithAuthorization` of `deposit` to this contract.
    /// Anyone may send it and pay for the gas.
    /// @param from The payer.
    /// @param nonce Must be `keccak256(abi.encode(from, payee, token, salt, authorizedSigner))`, so that the signature can
    /// open no other channel.
    function openWithAuthorization(
        address payee,
        address token,
        uint128 deposit,
        bytes32 salt,
        address authorizedSigner,
        address from,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external returns (bytes32 channelId);

    /// @notice The same for tokens that take the signature in three parts.
    function openWithAuthorization(
        address payee,
        address token,
        uint128 deposit,
        bytes32 salt,
        address authorizedSigner,
        address from,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external returns (bytes32 channelId);

    /// @notice Opens a channel of `from`, who signed a Permit2 transfer of `deposit` to this contract with the witness
    /// `ChannelOpenWitness(address payee,bytes32 salt,address authorizedSigner)`. Anyone may send it.
    /// @param from The payer, who has approved the token to Permit2.
    /// @param nonce Any unused nonce of the payer at Permit2.
    /// @param deadline Last second, Unix, at which the signature holds.
    function openWithPermit2(
        address payee,
        address token,
        uint128 deposit,
        bytes32 salt,
        address authorizedSigner,
        address from,
        uint256 nonce,
        uint256 deadline,
        bytes calldata signature
    ) external returns (bytes32 channelId);

    /// @notice Adds money to a channel. Anyone may; only the payer's own top-up takes a pending close request back.
    function topUp(Channel calldata channel, uint128 amount) external payable;

    /// @notice Adds money of `from`, who signed an EIP-3009 `ReceiveWithAuthorization` of `amount` to this contract. Anyone
    /// may send it. It never takes a close request back: the signature may be older than the request.
    /// @param nonce Must be `keccak256(abi.encode(channelId, amount, from, topUpSalt))`.
    function topUpWithAuthorization(
        Channel calldata channel,
        uint128 amount,
        address from,
        bytes32 topUpSalt,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external;

    /// @notice The same for tokens that take the signature in three parts.
    function topUpWithAuthorization(
        Channel calldata channel,
        uint128 amount,
        address from,
        bytes32 topUpSalt,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external;

    /// @notice Adds money of `from`, who signed a Permit2 transfer of `amount` to this contract with the witness
    /// `ChannelTopUpWitness(bytes32 channelId)`. Anyone may send it; it never takes a close request back.
    function topUpWithPermit2(
        Channel calldata channel,
        uint128 amount,
        address from,
        uint256 nonce,
        uint256 deadline,
        bytes calldata signature
    ) external;

    /// @notice Pays the payee what a voucher promises beyond what is settled. Anyone may send it; it pays only the payee,
    /// and it works until the channel is finalized, also while a close is pending.
    function settle(Channel calldata channel, uint128 cumulativeAmount, bytes calldata signature) external;

    /// @notice Settles many channels of one payee and token with one transfer. Anyone may send it.
    /// @dev A row that lost a race or is wrong is skipped and logged by `RowSkipped`; it never stops the others.
    /// @return paid What the payee got in all.
    function settleBatch(address payee, address token, VoucherRow[] calldata rows) external returns (uint256 paid);

    /// @notice Settles, refunds the payer and finalizes the channel, at once. Payee only.
    /// @dev With a `cumulativeAmount` not above what is settled, nothing more is paid and no signature is looked at.
    function close(Channel calldata channel, uint128 cumulativeAmount, bytes calldata signature) external;

    /// @notice The same by anyone who has the payee's signature over `CloseAuthorization(bytes32 channelId,uint128
    /// cumulativeAmount)` in this contract's domain. A channel closes once, so the signature needs no nonce.
    /// @dev The payee signs it last: who holds it can close with this amount, whatever vouchers come later.
    /// @param voucherSignature The payer's, over the voucher; not looked at if the amount is settled already.
    /// @param payeeSignature ECDSA, as strict as a voucher's. A payee that is a contract calls `close` itself.
    function closeWithAuthorization(
        Channel calldata channel,
        uint128 cumulativeAmount,
        bytes calldata voucherSignature,
        bytes calldata payeeSignature
    ) external;

    /// @notice Closes many channels of the caller in one token: one transfer to the caller, one refund for each channel.
    /// @dev As in `settleBatch`, a row that is not live, or whose voucher is wrong, is skipped. A row whose amount is settled
    /// already closes without looking at its signature. A payer that burns gas makes the whole batch revert (`GasTooLow`) if
    /// the transaction has not the 220,000 gas that a failed push needs.
    /// @return paid What the caller got in all.
    function closeBatch(address token, VoucherRow[] calldata rows) external returns (uint256 paid);

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

    /// @notice What the payee signs to let anyone close the channel with this amount.
    function closeAuthorizationDigest(bytes32 id, uint128 cumulativeAmount) external view returns (bytes32);

    /// @notice The state of one channel. Of an earlier epoch, only that it is finalized is still known.
    function channelState(Channel calldata channel) external view returns (ChannelState memory);

    /// @notice The states of many channels, in their order.
    function channelStates(Channel[] calldata channels) external view returns (ChannelState[] memory);

    /// @notice What is kept for an account in a token because it could not be pushed.
    function keptShare(address token, address account) external view returns (uint256);
}
