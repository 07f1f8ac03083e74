// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Channel, ChannelState, IPaymentChannels, Status} from "./interfaces/IPaymentChannels.sol";
import {ChannelWord, ChannelWordLib} from "./libraries/ChannelWord.sol";
import {ECDSA} from "./libraries/ECDSA.sol";
import {Transfers} from "./libraries/Transfers.sol";

/// @title PaymentChannels
/// @notice See IPaymentChannels; docs/invariants.md says what must always hold.
contract PaymentChannels is IPaymentChannels {
    /* CONSTANTS AND IMMUTABLES */

    uint256 private constant GRACE_PERIOD_MIN = 10 minutes;
    bytes32 private constant VOUCHER_TYPEHASH = keccak256("Voucher(bytes32 channelId,uint128 cumulativeAmount)");
    bytes32 private constant DOMAIN_TYPEHASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");

    /// @inheritdoc IPaymentChannels
    uint256 public immutable gracePeriod;
    uint256 private immutable DEPLOYMENT_CHAIN_ID;
    bytes32 private immutable DEPLOYMENT_DOMAIN_SEPARATOR;

    /* STORAGE */

    /// @dev By lane: the description with the epoch shifted out of its salt.
    mapping(bytes32 lane => ChannelWord) private _words;

    /// @inheritdoc IPaymentChannels
    mapping(address token => mapping(address account => uint256)) public keptShare;

    /* CONSTRUCTOR */

    /// @param gracePeriod_ Seconds, at least ten minutes.
    constructor(uint256 gracePeriod_) {
        require(gracePeriod_ >= GRACE_PERIOD_MIN, GracePeriodTooShort(gracePeriod_));
        gracePeriod = gracePeriod_;
        DEPLOYMENT_CHAIN_ID = block.chainid;
        DEPLOYMENT_DOMAIN_SEPARATOR = _computeDomainSeparator();
    }

    /* PAYER'S ACTIONS */

    /// @inheritdoc IPaymentChannels
    function open(address payee, address token, uint128 deposit, bytes32 salt, address authorizedSigner)
        external
        payable
        returns (bytes32 id)
    {
        Channel memory channel = Channel(msg.sender, payee, token, authorizedSigner, salt);
        bytes32 lane;
        (id, lane) = _identify(channel);
        uint256 epoch = uint32(uint256(salt));
        ChannelWord word = _words[lane];
        require(payee != address(0), InvalidPayee());
        require(
            word.isUnused() || (word.isFinalized() && word.epoch() < epoch), ChannelAlreadyExists(id)
        );
        _checkDeposit(deposit, deposit);

        _words[lane] = ChannelWordLib.opened(deposit, epoch);
        emit ChannelOpened(id, msg.sender, payee, token, authorizedSigner, salt, deposit);

        _pull(token, deposit);
    }

    /// @inheritdoc IPaymentChannels
    function topUp(Channel memory channel, uint128 amount) external payable {
        (bytes32 id, bytes32 lane, ChannelWord word) = _load(channel);
        uint256 deposit = word.deposit() + amount;
        _checkDeposit(amount, deposit);

        word = word.withDeposit(deposit);
        if (msg.sender == channel.payer && word.closeRequestedAt() != 0) {
            word = word.withCloseRequestedAt(0);
            emit CloseCancelled(id, channel.payer, channel.payee);
        }
        _words[lane] = word;
        emit ToppedUp(id, channel.payer, channel.payee, amount, deposit);

        _pull(channel.token, amount);
    }

    /// @inheritdoc IPaymentChannels
    function requestClose(Channel memory channel) external {
        (bytes32 id, bytes32 lane, ChannelWord word) = _load(channel);
        require(msg.sender == channel.payer, NotPayer(channel.payer));
        if (word.closeRequestedAt() != 0) return;

        _words[lane] = word.withCloseRequestedAt(block.timestamp);
        emit CloseRequested(id, channel.payer, channel.payee, block.timestamp + gracePeriod);
    }

    /// @inheritdoc IPaymentChannels
    function withdraw(Channel memory channel) external {
        (bytes32 id, bytes32 lane, ChannelWord word) = _load(channel);
        require(msg.sender == channel.payer, NotPayer(channel.payer));
        uint256 requestedAt = word.closeRequestedAt();
        require(requestedAt != 0, CloseNotReady(0));
        require(block.timestamp >= requestedAt + gracePeriod, CloseNotReady(requestedAt + gracePeriod));

        uint256 refund = _finalize(channel, id, lane, word);

        _push(channel.token, channel.payer, refund);
    }

    /* PAYEE'S ACTIONS */

    /// @inheritdoc IPaymentChannels
    function settle(Channel memory channel, uint128 cumulativeAmount, bytes calldata signature) external {
        (bytes32 id, bytes32 lane, ChannelWord word) = _load(channel);
        uint256 settled = word.settled();
        require(cumulativeAmount > settled, AmountNotIncreasing(cumulativeAmount, settled));
        _checkVoucher(channel, id, word, cumulativeAmount, signature);

        _words[lane] = word.withSettled(cumulativeAmount);
        emit Settled(id, channel.payer, channel.payee, cumulativeAmount);

        _push(channel.token, channel.payee, cumulativeAmount - settled);
    }

    /// @inheritdoc IPaymentChannels
    function close(Channel memory channel, uint128 cumulativeAmount, bytes calldata signature) external {
        (bytes32 id, bytes32 lane, ChannelWord word) = _load(channel);
        require(msg.sender == channel.payee, NotPayee(channel.payee));
        uint256 paid = 0;
        uint256 settled = word.settled();
        if (cumulativeAmount > settled) {
            _checkVoucher(channel, id, word, cumulativeAmount, signature);
            paid = cumulativeAmount - settled;
            word = word.withSettled(cumulativeAmount);
        }

        uint256 refund = _finalize(channel, id, lane, word);

        _push(channel.token, channel.payee, paid);
        _push(channel.token, channel.payer, refund);
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
    function domainSeparator() public view returns (bytes32) {
        return block.chainid == DEPLOYMENT_CHAIN_ID ? DEPLOYMENT_DOMAIN_SEPARATOR : _computeDomainSeparator();
    }

    /// @inheritdoc IPaymentChannels
    function channelId(Channel memory channel) external view returns (bytes32 id) {
        (id,) = _identify(channel);
    }

    /// @inheritdoc IPaymentChannels
    function voucherDigest(bytes32 id, uint128 cumulativeAmount) public view returns (bytes32) {
        bytes32 structHash = keccak256(abi.encode(VOUCHER_TYPEHASH, id, cumulativeAmount));
        return keccak256(abi.encodePacked(hex"1901", domainSeparator(), structHash));
    }

    /// @inheritdoc IPaymentChannels
    function channelState(Channel memory channel) public view returns (ChannelState memory state) {
        (, bytes32 lane) = _identify(channel);
        ChannelWord word = _words[lane];
        uint256 epoch = uint32(uint256(channel.salt));
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

    /// @dev The live channel of this description, or a revert: an epoch that is over or was never opened is not live.
    function _load(Channel memory channel) private view returns (bytes32 id, bytes32 lane, ChannelWord word) {
        (id, lane) = _identify(channel);
        word = _words[lane];
        uint256 epoch = uint32(uint256(channel.salt));
        require(!word.isUnused() && word.epoch() >= epoch, ChannelNotFound(id));
        require(word.epoch() == epoch && !word.isFinalized(), ChannelFinalized(id));
    }

    /// @dev `id` and `lane` hash the same five words; the id adds contract and chain, the lane drops the epoch.
    function _identify(Channel memory channel) private view returns (bytes32 id, bytes32 lane) {
        assembly ("memory-safe") {
            let words := mload(0x40)
            let salt := mload(add(channel, 0x80))
            mstore(words, mload(channel))
            mstore(add(words, 0x20), mload(add(channel, 0x20)))
            mstore(add(words, 0x40), mload(add(channel, 0x40)))
            mstore(add(words, 0x60), salt)
            mstore(add(words, 0x80), mload(add(channel, 0x60)))
            mstore(add(words, 0xa0), address())
            mstore(add(words, 0xc0), chainid())
            id := keccak256(words, 0xe0)
            mstore(add(words, 0x60), shr(32, salt))
            lane := keccak256(words, 0xa0)
        }
    }

    function _checkDeposit(uint256 amount, uint256 deposit) private pure {
        require(amount != 0, ZeroDeposit());
        require(deposit <= type(uint96).max, DepositOverflow(deposit));
    }

    function _checkVoucher(
        Channel memory channel,
        bytes32 id,
        ChannelWord word,
        uint128 cumulativeAmount,
        bytes calldata signature
    ) private view {
        require(cumulativeAmount <= word.deposit(), AmountExceedsDeposit(cumulativeAmount, word.deposit()));
        address signer = channel.authorizedSigner == address(0) ? channel.payer : channel.authorizedSigner;
        address recovered = ECDSA.recover(voucherDigest(id, cumulativeAmount), signature);
        require(recovered != address(0) && recovered == signer, InvalidSignature());
    }

    function _finalize(Channel memory channel, bytes32 id, bytes32 lane, ChannelWord word)
        private
        returns (uint256 refund)
    {
        uint256 settled = word.settled();
        refund = word.deposit() - settled;
        _words[lane] = word.withCloseRequestedAt(ChannelWordLib.FINALIZED);
        emit ChannelClosed(id, channel.payer, channel.payee, settled, refund);
    }

    function _pull(address token, uint256 amount) private {
        uint256 value = token == address(0) ? amount : 0;
        require(msg.value == value, WrongValue(value, msg.value));
        if (token == address(0)) return;
        require(token.code.length != 0, InvalidToken(token));
        require(Transfers.tryPull(token, msg.sender, amount), TokenTransferFailed(token));
    }

    /// @dev A push that fails is kept, so neither side can block the other; one that was starved of gas is a revert, so
    /// no sender can force a share to be kept.
    function _push(address token, address to, uint256 amount) private {
        if (amount == 0) return;
        uint256 gasBefore = gasleft();
        if (Transfers.tryPush(token, to, amount, Transfers.PUSH_GAS)) return;
        require(gasBefore >= Transfers.PUSH_GAS_NEEDED, GasTooLow());
        keptShare[token][to] += amount;
        emit ShareKept(token, to, amount);
    }

    function _computeDomainSeparator() private view returns (bytes32) {
        return keccak256(
            abi.encode(
                DOMAIN_TYPEHASH, keccak256("EVM Payment Channel"), keccak256("1"), block.chainid, address(this)
            )
        );
    }
}
