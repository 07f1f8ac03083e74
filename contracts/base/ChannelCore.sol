// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Channel, IPaymentChannels} from "../interfaces/IPaymentChannels.sol";
import {ChannelWord, ChannelWordLib} from "../libraries/ChannelWord.sol";
import {Description} from "../libraries/Description.sol";
import {ECDSA} from "../libraries/ECDSA.sol";
import {Identity, Lane} from "../libraries/Identity.sol";
import {Transfers} from "../libraries/Transfers.sol";
import {TypedData} from "../libraries/TypedData.sol";

/// @title ChannelCore
/// @notice Storage, and the steps that the actions of PaymentChannels are made of.
abstract contract ChannelCore is IPaymentChannels {
    using Description for Channel;

    /* CONSTANTS AND IMMUTABLES */

    uint256 private constant GRACE_PERIOD_MIN = 10 minutes;

    /// @inheritdoc IPaymentChannels
    uint256 public immutable gracePeriod;
    uint256 private immutable DEPLOYMENT_CHAIN_ID;
    bytes32 private immutable DEPLOYMENT_DOMAIN_SEPARATOR;

    /* STORAGE, BESIDE THE LANES */

    /// @inheritdoc IPaymentChannels
    mapping(address token => mapping(address account => uint256)) public keptShare;

    /* CONSTRUCTOR */

    /// @param gracePeriod_ Seconds, at least ten minutes.
    constructor(uint256 gracePeriod_) {
        require(gracePeriod_ >= GRACE_PERIOD_MIN, GracePeriodTooShort(gracePeriod_));
        gracePeriod = gracePeriod_;
        DEPLOYMENT_CHAIN_ID = block.chainid;
        DEPLOYMENT_DOMAIN_SEPARATOR = TypedData.domainSeparator();
    }

    /// @inheritdoc IPaymentChannels
    function domainSeparator() public view returns (bytes32) {
        return block.chainid == DEPLOYMENT_CHAIN_ID ? DEPLOYMENT_DOMAIN_SEPARATOR : TypedData.domainSeparator();
    }

    /* FINDING A CHANNEL */

    /// @dev The live channel of this description, or a revert: an epoch that is over or was never opened is not live.
    function _load(Channel calldata channel) internal view returns (bytes32 id, Lane storage lane, ChannelWord word) {
        (id, lane) = Identity.identify(channel);
        word = lane.word;
        uint256 epoch = Identity.epochOf(channel.salt);
        if (!word.isLive(epoch)) {
            require(!word.isUnused() && word.epoch() >= epoch, ChannelNotFound(id));
            revert ChannelFinalized(id);
        }
    }

    /* EFFECTS; THE CALLER MOVES THE MONEY AFTERWARDS */

    function _create(
        address payer,
        address payee,
        address token,
        uint256 deposit,
        bytes32 salt,
        address authorizedSigner
    ) internal returns (bytes32 id) {
        Lane storage lane;
        (id, lane) = Identity.identify(payer, payee, token, salt, authorizedSigner);
        ChannelWord word = lane.word;
        uint256 epoch = Identity.epochOf(salt);
        require(payee != address(0), InvalidPayee());
        require(word.isUnused() || (word.isFinalized() && word.epoch() < epoch), ChannelAlreadyExists(id));
        _checkDeposit(deposit, deposit);

        lane.word = ChannelWordLib.opened(deposit, epoch);
        emit ChannelOpened(id, payer, payee, token, authorizedSigner, salt, deposit);
    }

    /// @param sender Whose top-up it is; the payer's own takes a pending close request back.
    function _add(
        Channel calldata channel,
        bytes32 id,
        Lane storage lane,
        ChannelWord word,
        uint256 amount,
        address sender
    ) internal {
        uint256 deposit;
        unchecked {
            deposit = word.deposit() + amount; // 96 bits and 128 bits
        }
        _checkDeposit(amount, deposit);

        if (word.closeRequestedAt() != 0) {
            if (sender == channel.payerOf()) {
                word = word.withCloseRequestedAt(0);
                emit CloseCancelled(id, channel.payerOf(), channel.payeeOf());
            }
        }
        lane.word = word.withDeposit(deposit);
        emit ToppedUp(id, channel.payerOf(), channel.payeeOf(), amount, deposit);
    }

    /// @param settled The cumulative amount that the payee has got at the end.
    function _finalize(bytes32 id, Lane storage lane, ChannelWord word, address payer, address payee, uint256 settled)
        internal
        returns (uint256 refund)
    {
        unchecked {
            refund = word.deposit() - settled; // settled never passes the deposit
        }
        lane.word = word.withSettled(settled).withCloseRequestedAt(ChannelWordLib.FINALIZED);
        emit ChannelClosed(id, payer, payee, settled, refund);
    }

    /* CHECKS */

    function _checkDeposit(uint256 amount, uint256 deposit) private pure {
        require(amount != 0, ZeroDeposit());
        require(deposit <= type(uint96).max, DepositOverflow(deposit));
    }

    function _checkVoucher(
        Channel calldata channel,
        bytes32 id,
        ChannelWord word,
        uint256 cumulativeAmount,
        bytes calldata signature
    ) internal view {
        require(cumulativeAmount <= word.deposit(), AmountExceedsDeposit(cumulativeAmount, word.deposit()));
        bytes32 digest = TypedData.digest(domainSeparator(), TypedData.VOUCHER, id, cumulativeAmount);
        require(ECDSA.isSignedBy(digest, channel.signerOf(), signature), InvalidSignature());
    }


    /* MONEY */

    /// @dev Takes `amount` of an ERC-20 by calling `puller` (the token itself, or Permit2) with `data`.
    function _pull(address token, uint256 amount, address puller, bytes memory data) internal {
        require(token.code.length != 0, InvalidToken(token));
        require(Transfers.tryPull(token, amount, puller, data), TokenTransferFailed(token));
    }

    /// @dev A push that fails is kept, so neither side can block the other; one that was starved of gas is a revert, so
    /// no sender can force a share to be kept.
    function _push(address token, address to, uint256 amount) internal {
        if (amount == 0) return;
        uint256 gasBefore = gasleft();
        if (Transfers.tryPush(token, to, amount, Transfers.PUSH_GAS)) return;
        require(gasBefore >= Transfers.PUSH_GAS_NEEDED, GasTooLow());
        keptShare[token][to] += amount;
        emit ShareKept(token, to, amount);
    }
}
