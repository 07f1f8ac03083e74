// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ChannelCore} from "./base/ChannelCore.sol";
import {SignedFunding} from "./base/SignedFunding.sol";
import {Channel, ChannelState, IPaymentChannels, Status, VoucherRow} from "./interfaces/IPaymentChannels.sol";
import {IERC20} from "./interfaces/ITokens.sol";
import {ChannelWord, ChannelWordLib} from "./libraries/ChannelWord.sol";
import {Description} from "./libraries/Description.sol";
import {ECDSA} from "./libraries/ECDSA.sol";
import {Identity, Lane} from "./libraries/Identity.sol";
import {Transfers} from "./libraries/Transfers.sol";
import {TypedData} from "./libraries/TypedData.sol";
import {VoucherRows} from "./libraries/VoucherRows.sol";

/// @title PaymentChannels
/// @notice See IPaymentChannels; docs/invariants.md says what must always hold.
contract PaymentChannels is SignedFunding {
    using Description for Channel;
    using VoucherRows for VoucherRow;
    using VoucherRows for VoucherRow[];

    /// @param gracePeriod_ Seconds, at least ten minutes.
    constructor(uint256 gracePeriod_) ChannelCore(gracePeriod_) {}

    /* PAYER'S ACTIONS */

    /// @inheritdoc IPaymentChannels
    function open(address payee, address token, uint128 deposit, bytes32 salt, address authorizedSigner)
        external
        payable
        returns (bytes32 id)
    {
        id = _create(msg.sender, payee, token, deposit, salt, authorizedSigner);

        _pullFromSender(token, deposit);
    }

    /// @inheritdoc IPaymentChannels
    function topUp(Channel calldata channel, uint128 amount) external payable {
        (bytes32 id, Lane storage lane, ChannelWord word) = _load(channel);
        _add(channel, id, lane, word, amount, msg.sender);

        _pullFromSender(channel.tokenOf(), amount);
    }

    /// @inheritdoc IPaymentChannels
    function requestClose(Channel calldata channel) external {
        (bytes32 id, Lane storage lane, ChannelWord word) = _load(channel);
        require(msg.sender == channel.payerOf(), NotPayer(channel.payerOf()));
        if (word.closeRequestedAt() != 0) return;
        require(block.timestamp < ChannelWordLib.FINALIZED, TimeOverflow());

        lane.word = word.withCloseRequestedAt(block.timestamp);
        emit CloseRequested(id, channel.payerOf(), channel.payeeOf(), block.timestamp + gracePeriod);
    }

    /// @inheritdoc IPaymentChannels
    function withdraw(Channel calldata channel) external {
        (bytes32 id, Lane storage lane, ChannelWord word) = _load(channel);
        require(msg.sender == channel.payerOf(), NotPayer(channel.payerOf()));
        uint256 requestedAt = word.closeRequestedAt();
        require(requestedAt != 0, CloseNotReady(0));
        require(block.timestamp >= requestedAt + gracePeriod, CloseNotReady(requestedAt + gracePeriod));

        uint256 refund = _finalize(id, lane, word, channel.payerOf(), channel.payeeOf(), word.settled());

        _push(channel.tokenOf(), channel.payerOf(), refund);
    }

    /* PAYEE'S ACTIONS */

    /// @inheritdoc IPaymentChannels
    function settle(Channel calldata channel, uint128 cumulativeAmount, bytes calldata signature) external {
        (bytes32 id, Lane storage lane, ChannelWord word) = _load(channel);
        uint256 settled = word.settled();
        require(cumulativeAmount > settled, AmountNotIncreasing(cumulativeAmount, settled));
        _checkVoucher(channel, id, word, cumulativeAmount, signature);

        lane.word = word.withSettled(cumulativeAmount);
        emit Settled(id, channel.payerOf(), channel.payeeOf(), cumulativeAmount);

        unchecked {
            _push(channel.tokenOf(), channel.payeeOf(), cumulativeAmount - settled);
        }
    }

    /// @inheritdoc IPaymentChannels
    function settleBatch(address payee, address token, VoucherRow[] calldata rows) external returns (uint256 paid) {
        bytes32 domain = domainSeparator();
        uint256 words = Identity.prepare(payee, token);
        for (uint256 i = 0; i < rows.length; ++i) {
            VoucherRow calldata row = rows.rowAt(i);
            (bytes32 id, Lane storage lane) = Identity.identifyRow(words, row);
            ChannelWord word = lane.word;
            uint256 amount = row.amountOf();
            if (!word.pays(Identity.epochOf(row.salt), amount)) {
                emit RowSkipped(id);
                continue;
            }
            if (!_isSigned(domain, id, row, amount)) {
                emit RowSkipped(id);
                continue;
            }

            lane.word = word.withSettled(amount);
            emit Settled(id, row.payerOf(), payee, amount);
            unchecked {
                paid += amount - word.settled(); // at most 96 bits a row
            }
        }

        _push(token, payee, paid);
    }

    /// @inheritdoc IPaymentChannels
    function close(Channel calldata channel, uint128 cumulativeAmount, bytes calldata signature) external {
        (bytes32 id, Lane storage lane, ChannelWord word) = _load(channel);
        require(msg.sender == channel.payeeOf(), NotPayee(channel.payeeOf()));
        _close(channel, id, lane, word, cumulativeAmount, signature);
    }

    /// @inheritdoc IPaymentChannels
    function closeWithAuthorization(
        Channel calldata channel,
        uint128 cumulativeAmount,
        bytes calldata voucherSignature,
        bytes calldata payeeSignature
    ) external {
        (bytes32 id, Lane storage lane, ChannelWord word) = _load(channel);
        bytes32 digest = closeAuthorizationDigest(id, cumulativeAmount);
        require(ECDSA.isSignedBy(digest, channel.payeeOf(), payeeSignature), InvalidAuthorization());
        _close(channel, id, lane, word, cumulativeAmount, voucherSignature);
    }

    /// @inheritdoc IPaymentChannels
    function closeBatch(address token, VoucherRow[] calldata rows) external returns (uint256 paid) {
        bytes32 domain = domainSeparator();
        uint256 words = Identity.prepare(msg.sender, token);
        for (uint256 i = 0; i < rows.length; ++i) {
            unchecked {
                paid += _closeRow(token, domain, words, rows.rowAt(i));
            }
        }

        _push(token, msg.sender, paid);
    }

    /* ANYONE'S ACTION */

    /// @inheritdoc IPaymentChannels
    function claim(address token, address receiver) external {
        uint256 amount = keptShare[token][msg.sender];
        require(amount != 0, NothingToClaim());

        keptShare[token][msg.sender] = 0;
        emit ShareClaimed(token, msg.sender, receiver, amount);

        require(Transfers.tryPush(token, receiver, amount, gasleft()), TokenTransferFailed(token));
    }

    /* VIEWS */

    /// @inheritdoc IPaymentChannels
    function channelId(Channel calldata channel) external view returns (bytes32 id) {
        (id,) = Identity.identify(channel.payer, channel.payee, channel.token, channel.salt, channel.authorizedSigner);
    }

    /// @inheritdoc IPaymentChannels
    function voucherDigest(bytes32 id, uint128 cumulativeAmount) external view returns (bytes32) {
        return TypedData.digest(domainSeparator(), TypedData.VOUCHER, id, cumulativeAmount);
    }

    /// @inheritdoc IPaymentChannels
    function closeAuthorizationDigest(bytes32 id, uint128 cumulativeAmount) public view returns (bytes32) {
        return TypedData.digest(domainSeparator(), TypedData.CLOSE_AUTHORIZATION, id, cumulativeAmount);
    }

    /// @inheritdoc IPaymentChannels
    function channelState(Channel calldata channel) public view returns (ChannelState memory state) {
        (, Lane storage lane) =
            Identity.identify(channel.payer, channel.payee, channel.token, channel.salt, channel.authorizedSigner);
        ChannelWord word = lane.word;
        uint256 epoch = Identity.epochOf(channel.salt);
        if (word.isUnused() || word.epoch() < epoch) return state;
        if (word.epoch() > epoch) {
            state.status = Status.Finalized;
            return state;
        }
        state.deposit = uint96(word.deposit());
        state.settled = uint96(word.settled());
        if (word.isFinalized()) {
            state.status = Status.Finalized;
        } else {
            state.closeRequestedAt = uint32(word.closeRequestedAt());
            state.status = state.closeRequestedAt == 0 ? Status.Open : Status.Closing;
        }
    }

    /// @inheritdoc IPaymentChannels
    function channelStates(Channel[] calldata channels) external view returns (ChannelState[] memory states) {
        states = new ChannelState[](channels.length);
        for (uint256 i = 0; i < channels.length; ++i) {
            states[i] = channelState(channels[i]);
        }
    }

    /* INTERNAL */

    function _pullFromSender(address token, uint256 amount) private {
        if (token == address(0)) {
            require(msg.value == amount, WrongValue(amount, msg.value));
            return;
        }
        require(msg.value == 0, WrongValue(0, msg.value));
        _pull(token, amount, token, abi.encodeCall(IERC20.transferFrom, (msg.sender, address(this), amount)));
    }

    function _close(
        Channel calldata channel,
        bytes32 id,
        Lane storage lane,
        ChannelWord word,
        uint256 cumulativeAmount,
        bytes calldata signature
    ) private {
        uint256 settled = word.settled();
        uint256 paid = 0;
        if (cumulativeAmount > settled) {
            _checkVoucher(channel, id, word, cumulativeAmount, signature);
            unchecked {
                paid = cumulativeAmount - settled;
            }
            settled = cumulativeAmount;
        }

        uint256 refund = _finalize(id, lane, word, channel.payerOf(), channel.payeeOf(), settled);

        _push(channel.tokenOf(), channel.payeeOf(), paid);
        _push(channel.tokenOf(), channel.payerOf(), refund);
    }

    /// @return paid What the row's voucher adds for the payee; zero if the row is skipped. The refund is pushed here.
    function _closeRow(address token, bytes32 domain, uint256 words, VoucherRow calldata row)
        private
        returns (uint256 paid)
    {
        (bytes32 id, Lane storage lane) = Identity.identifyRow(words, row);
        ChannelWord word = lane.word;
        uint256 amount = row.amountOf();
        uint256 settled = word.settled();
        if (word.pays(Identity.epochOf(row.salt), amount)) {
            if (!_isSigned(domain, id, row, amount)) return _skip(id);
            unchecked {
                paid = amount - settled;
            }
            settled = amount;
        } else if (!word.isLive(Identity.epochOf(row.salt)) || amount > settled) {
            return _skip(id);
        }
        uint256 refund = _finalize(id, lane, word, row.payerOf(), msg.sender, settled);

        _push(token, row.payerOf(), refund);
    }

    function _isSigned(bytes32 domain, bytes32 id, VoucherRow calldata row, uint256 amount)
        private
        view
        returns (bool)
    {
        bytes32 digest = TypedData.digest(domain, TypedData.VOUCHER, id, amount);
        (uint256 r, uint256 s, uint256 v) = row.signature();
        return ECDSA.isSignedBy(digest, row.signerOf(), r, s, v);
    }

    function _skip(bytes32 id) private returns (uint256 paid) {
        emit RowSkipped(id);
        return 0;
    }
}
