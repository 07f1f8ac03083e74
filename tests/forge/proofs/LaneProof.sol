// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {PaymentChannels} from "../../../contracts/PaymentChannels.sol";
import {Channel, VoucherRow} from "../../../contracts/interfaces/IPaymentChannels.sol";
import {ChannelWord} from "../../../contracts/libraries/ChannelWord.sol";
import {Reference} from "../support/Reference.sol";
import {Vm} from "../support/Vm.sol";

/// @notice Moves what it is asked to, without an allowance, so that every path leads through PaymentChannels alone.
contract LedgerToken {
    mapping(address account => uint256) public balanceOf;

    function mint(address to, uint256 value) external {
        balanceOf[to] += value;
    }

    function transfer(address to, uint256 value) external returns (bool) {
        balanceOf[msg.sender] -= value;
        balanceOf[to] += value;
        return true;
    }

    function transferFrom(address from, address to, uint256 value) external returns (bool) {
        balanceOf[from] -= value;
        balanceOf[to] += value;
        return true;
    }
}

/// @notice What each action does to the word of a lane, from every word that keeps the rules, for every caller, time, salt,
/// amount and signature. Each check is one step of an induction: what holds before an action holds after it.
/// @dev The rules of a word: it is zero (never used), or 0 < deposit and settled <= deposit. ecrecover is any function.
contract LaneProof {
    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    uint256 private constant GRACE = 1 days;
    uint256 private constant MONEY = 2 ** 128;
    address private constant PAYER = address(0xA11CE);
    address private constant PAYEE = address(0xB0B);
    address private constant SESSION = address(0x5E55);
    address private constant STRANGER = address(0x57A6);
    uint256 private constant HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;

    PaymentChannels private channels;
    LedgerToken private token;

    function setUp() public {
        channels = new PaymentChannels(GRACE);
        token = new LedgerToken();
        token.mint(address(channels), MONEY);
        token.mint(PAYER, MONEY);
        token.mint(STRANGER, MONEY);
    }

    /* SETTLE */

    function check_settlePaysExactlyWhatTheVoucherAdds(
        uint256 any,
        bytes32 salt,
        uint128 amount,
        bytes32 r,
        bytes32 s,
        uint8 v,
        address sender
    ) external {
        Channel memory channel = _lane(any, salt);
        ChannelWord word = ChannelWord.wrap(any);

        vm.prank(sender);
        bool success = _call(abi.encodeCall(channels.settle, (channel, amount, abi.encodePacked(r, s, v))));
        bool allowed = _isLive(word, salt) && amount > word.settled() && amount <= word.deposit()
            && _isSigned(channel, amount, r, s, v);
        assert(success == allowed);
        _became(channel, word, success ? word.withSettled(amount) : word);
        _paid(success ? amount - word.settled() : 0, 0);
    }

    /// @dev A batch of one row does what `settle` does, except that it skips what `settle` refuses.
    function check_aRowSettlesWhatSettleWould(
        uint256 any,
        bytes32 salt,
        uint128 amount,
        bytes32 r,
        bytes32 s,
        uint8 v,
        address sender
    ) external {
        Channel memory channel = _lane(any, salt);
        ChannelWord word = ChannelWord.wrap(any);
        VoucherRow[] memory rows = new VoucherRow[](1);
        rows[0] = _row(salt, amount, r, s, v);

        vm.prank(sender);
        uint256 paid = channels.settleBatch(PAYEE, address(token), rows);
        bool allowed = _isLive(word, salt) && amount > word.settled() && amount <= word.deposit()
            && _isSigned(channel, amount, r, s, v);
        assert(paid == (allowed ? amount - word.settled() : 0));
        _became(channel, word, allowed ? word.withSettled(amount) : word);
        _paid(paid, 0);
    }

    /// @dev Two vouchers of one channel in one batch: the sum is what the channel's word says.
    function check_twoRowsOfOneChannelNeverPayTwice(
        uint256 any,
        bytes32 salt,
        uint128 first,
        uint128 second,
        bytes32 r,
        bytes32 s,
        uint8 v
    ) external {
        Channel memory channel = _lane(any, salt);
        ChannelWord word = ChannelWord.wrap(any);
        VoucherRow[] memory rows = new VoucherRow[](2);
        rows[0] = _row(salt, first, r, s, v);
        rows[1] = _row(salt, second, r, s, v);

        uint256 paid = channels.settleBatch(PAYEE, address(token), rows);
        assert(paid == _wordOf(channel).settled() - word.settled());
        _became(channel, word, _wordOf(channel));
        _paid(paid, 0);
    }

    /* CLOSE */

    function check_closeSplitsTheDeposit(
        uint256 any,
        bytes32 salt,
        uint128 amount,
        bytes32 r,
        bytes32 s,
        uint8 v,
        address sender
    ) external {
        Channel memory channel = _lane(any, salt);
        ChannelWord word = ChannelWord.wrap(any);
        bytes memory signature = abi.encodePacked(r, s, v);

        vm.prank(sender);
        bool success = _call(abi.encodeCall(channels.close, (channel, amount, signature)));
        bool allowed = _isLive(word, salt) && sender == PAYEE && _mayClose(channel, word, amount, r, s, v);
        assert(success == allowed);
        _closed(channel, word, amount, success);
    }

    function check_aCloseThatThePayeeSignedSplitsTheDeposit(
        uint256 any,
        bytes32 salt,
        uint128 amount,
        bytes32 r,
        bytes32 s,
        uint8 v,
        address sender
    ) external {
        Channel memory channel = _lane(any, salt);
        ChannelWord word = ChannelWord.wrap(any);
        bytes memory signature = abi.encodePacked(r, s, v);

        vm.prank(sender);
        bool success =
            _call(abi.encodeCall(channels.closeWithAuthorization, (channel, amount, signature, signature)));
        bool allowed = _isLive(word, salt) && _isSignedBy(PAYEE, _closeDigest(channel, amount), r, s, v)
            && _mayClose(channel, word, amount, r, s, v);
        assert(success == allowed);
        _closed(channel, word, amount, success);
    }

    function check_aRowThatPaysClosesWhatCloseWould(
        uint256 any,
        bytes32 salt,
        uint128 amount,
        bytes32 r,
        bytes32 s,
        uint8 v
    ) external {
        ChannelWord word = ChannelWord.wrap(any);
        vm.assume(amount > word.settled());
        Channel memory channel = _lane(any, salt);
        VoucherRow[] memory rows = new VoucherRow[](1);
        rows[0] = _row(salt, amount, r, s, v);

        vm.prank(PAYEE);
        channels.closeBatch(address(token), rows);
        bool allowed = _isLive(word, salt) && amount <= word.deposit() && _isSigned(channel, amount, r, s, v);
        _closed(channel, word, amount, allowed);
    }

    function check_aRowThatPaysNothingClosesWithoutAVoucher(uint256 any, bytes32 salt, uint128 amount, bytes32 r)
        external
    {
        ChannelWord word = ChannelWord.wrap(any);
        vm.assume(amount <= word.settled());
        Channel memory channel = _lane(any, salt);
        VoucherRow[] memory rows = new VoucherRow[](1);
        rows[0] = _row(salt, amount, r, r >> 1, 27);

        vm.prank(PAYEE);
        uint256 paid = channels.closeBatch(address(token), rows);
        assert(paid == 0);
        _closed(channel, word, amount, _isLive(word, salt));
    }

    function check_nobodyElsesBatchClosesAChannel(uint256 any, bytes32 salt, uint128 amount, address sender) external {
        Channel memory channel = _lane(any, salt);
        vm.assume(sender != PAYEE);
        VoucherRow[] memory rows = new VoucherRow[](1);
        rows[0] = _row(salt, amount, 0, 0, 27);

        vm.prank(sender);
        channels.closeBatch(address(token), rows);
        _became(channel, ChannelWord.wrap(any), ChannelWord.wrap(any));
        _paid(0, 0);
    }

    /* THE PAYER'S WAY OUT */

    function check_onlyThePayerRequestsACloseAndOnlyOnce(uint256 any, bytes32 salt, address sender, uint64 time)
        external
    {
        Channel memory channel = _lane(any, salt);
        ChannelWord word = ChannelWord.wrap(any);
        vm.warp(time);
        vm.assume(time != 0);

        vm.prank(sender);
        bool success = _call(abi.encodeCall(channels.requestClose, (channel)));
        bool pending = word.closeRequestedAt() != 0;
        assert(success == (_isLive(word, salt) && sender == PAYER && (pending || time < Reference.FINALIZED)));
        _became(channel, word, success && !pending ? word.withCloseRequestedAt(time) : word);
        _paid(0, 0);
    }

    function check_withdrawPaysTheRestAfterTheWholeGracePeriod(uint256 any, bytes32 salt, address sender, uint64 time)
        external
    {
        Channel memory channel = _lane(any, salt);
        ChannelWord word = ChannelWord.wrap(any);
        vm.warp(time);

        vm.prank(sender);
        bool success = _call(abi.encodeCall(channels.withdraw, (channel)));
        uint256 requestedAt = word.closeRequestedAt();
        bool due = requestedAt != 0 && time >= requestedAt + GRACE;
        assert(success == (_isLive(word, salt) && sender == PAYER && due));
        _closed(channel, word, 0, success);
    }

    /* OPEN, TOP UP, RE-OPEN */

    function check_openTakesAFreshLaneOrAGreaterEpoch(uint256 any, bytes32 salt, uint128 deposit) external {
        Channel memory channel = _lane(any, salt);
        ChannelWord word = ChannelWord.wrap(any);
        uint256 held = token.balanceOf(address(channels));

        vm.prank(PAYER);
        bool success =
            _call(abi.encodeCall(channels.open, (PAYEE, address(token), deposit, salt, SESSION)));
        uint256 epoch = uint32(uint256(salt));
        bool free = any == 0 || (word.isFinalized() && epoch > word.epoch());
        assert(success == (free && deposit != 0 && deposit <= type(uint96).max));
        _became(channel, word, success ? ChannelWord.wrap(uint256(Reference.word(deposit, 0, 0, epoch))) : word);
        assert(token.balanceOf(address(channels)) == held + (success ? deposit : 0));
    }

    function check_topUpAddsAndOnlyThePayersCancels(uint256 any, bytes32 salt, uint128 amount, bool byPayer) external {
        Channel memory channel = _lane(any, salt);
        ChannelWord word = ChannelWord.wrap(any);
        address sender = byPayer ? PAYER : STRANGER;
        uint256 held = token.balanceOf(address(channels));

        vm.prank(sender);
        bool success = _call(abi.encodeCall(channels.topUp, (channel, amount)));
        uint256 deposit = word.deposit() + amount;
        assert(success == (_isLive(word, salt) && amount != 0 && deposit <= type(uint96).max));
        if (success) {
            uint256 time = byPayer ? 0 : word.closeRequestedAt();
            _became(channel, word, word.withDeposit(deposit).withCloseRequestedAt(time));
        } else {
            _became(channel, word, word);
        }
        assert(token.balanceOf(address(channels)) == held + (success ? amount : 0));
    }

    /// @dev Through a whole life: an epoch that was closed is closed for good, whatever is asked of it afterwards.
    function check_anOlderEpochNeverLivesAgain(bytes32 salt, uint32 next, uint32 asked, uint96 deposit) external {
        Channel memory channel = _lane(0, salt);
        vm.assume(deposit != 0);
        uint256 epoch = uint32(uint256(salt));
        _open(channel, deposit);
        vm.prank(PAYEE);
        channels.close(channel, 0, "");
        Channel memory later = Reference.withEpoch(channel, next);
        assert(_open(later, deposit) == (next > epoch));
        if (next <= epoch) return;

        vm.prank(PAYEE);
        channels.close(later, 0, "");
        assert(_open(Reference.withEpoch(channel, asked), deposit) == (asked > next));
        assert(asked <= next || !_open(channel, deposit));
    }

    /* IDS */

    function check_everyTwoSaltsHaveTwoIds(bytes32 salt, bytes32 other) external view {
        vm.assume(salt != other);
        assert(_id(salt) != _id(other));
    }

    function check_everyTwoDescriptionsHaveTwoIds(Channel memory channel, Channel memory other) external view {
        bool same = channel.payer == other.payer && channel.payee == other.payee && channel.token == other.token
            && channel.authorizedSigner == other.authorizedSigner && channel.salt == other.salt;
        assert(same == (channels.channelId(channel) == channels.channelId(other)));
    }

    /// @dev The word of another lane is out of reach: here of every lane that differs in its salt.
    function check_settlingOneLaneLeavesEveryOther(
        uint256 any,
        uint256 neighbour,
        bytes32 salt,
        bytes32 other,
        uint128 amount,
        bytes32 r,
        bytes32 s,
        uint8 v
    ) external {
        vm.assume(uint256(salt) >> 32 != uint256(other) >> 32);
        Channel memory channel = _lane(any, salt);
        Channel memory beside = _lane(neighbour, other);
        _call(abi.encodeCall(channels.settle, (channel, amount, abi.encodePacked(r, s, v))));
        assert(ChannelWord.unwrap(_wordOf(beside)) == neighbour);
    }

    /* INTERNAL */

    /// @dev A lane with any word that keeps the rules.
    function _lane(uint256 any, bytes32 salt) private returns (Channel memory channel) {
        ChannelWord word = ChannelWord.wrap(any);
        vm.assume(any == 0 || (word.deposit() != 0 && word.settled() <= word.deposit()));
        channel = Channel(PAYER, PAYEE, address(token), SESSION, salt);
        vm.store(address(channels), Reference.lane(channel), bytes32(any));
    }

    function _row(bytes32 salt, uint128 amount, bytes32 r, bytes32 s, uint8 v)
        private
        pure
        returns (VoucherRow memory)
    {
        vm.assume(uint256(s) < 2 ** 255 && (v == 27 || v == 28)); // the short form has no others
        return VoucherRow({
            salt: salt,
            payer: PAYER,
            authorizedSigner: SESSION,
            cumulativeAmount: amount,
            r: r,
            vs: bytes32(uint256(s) | (uint256(v - 27) << 255))
        });
    }

    function _call(bytes memory data) private returns (bool success) {
        (success,) = address(channels).call(data);
    }

    function _open(Channel memory channel, uint128 deposit) private returns (bool) {
        vm.prank(PAYER);
        return _call(abi.encodeCall(channels.open, (PAYEE, address(token), deposit, channel.salt, SESSION)));
    }

    function _id(bytes32 salt) private view returns (bytes32) {
        return channels.channelId(Channel(PAYER, PAYEE, address(token), SESSION, salt));
    }

    function _wordOf(Channel memory channel) private view returns (ChannelWord) {
        return ChannelWord.wrap(uint256(vm.load(address(channels), Reference.lane(channel))));
    }

    function _isLive(ChannelWord word, bytes32 salt) private pure returns (bool) {
        return !word.isUnused() && word.epoch() == uint32(uint256(salt)) && !word.isFinalized();
    }

    function _isSigned(Channel memory channel, uint128 amount, bytes32 r, bytes32 s, uint8 v)
        private
        view
        returns (bool)
    {
        bytes32 domain = Reference.domain(address(channels), block.chainid);
        bytes32 id = Reference.id(channel, address(channels), block.chainid);
        return _isSignedBy(SESSION, Reference.voucherDigest(domain, id, amount), r, s, v);
    }

    function _closeDigest(Channel memory channel, uint128 amount) private view returns (bytes32) {
        bytes32 domain = Reference.domain(address(channels), block.chainid);
        return Reference.closeDigest(domain, Reference.id(channel, address(channels), block.chainid), amount);
    }

    function _isSignedBy(address signer, bytes32 digest, bytes32 r, bytes32 s, uint8 v) private pure returns (bool) {
        return uint256(s) <= HALF_ORDER && ecrecover(digest, v, r, s) == signer;
    }

    /// @dev A close needs a good voucher only if it pays something.
    function _mayClose(Channel memory channel, ChannelWord word, uint128 amount, bytes32 r, bytes32 s, uint8 v)
        private
        view
        returns (bool)
    {
        return amount <= word.settled() || (amount <= word.deposit() && _isSigned(channel, amount, r, s, v));
    }

    /// @dev If it closed: payee and payer together got what was left, and the word says finalized.
    function _closed(Channel memory channel, ChannelWord word, uint128 amount, bool success) private view {
        if (!success) {
            _became(channel, word, word);
            _paid(0, 0);
            return;
        }
        uint256 settled = amount > word.settled() ? amount : word.settled();
        _became(channel, word, word.withSettled(settled).withCloseRequestedAt(Reference.FINALIZED));
        _paid(settled - word.settled(), word.deposit() - settled);
    }

    function _paid(uint256 toPayee, uint256 toPayer) private view {
        assert(token.balanceOf(PAYEE) == toPayee);
        assert(token.balanceOf(PAYER) == MONEY + toPayer);
        assert(token.balanceOf(address(channels)) == MONEY - toPayee - toPayer);
    }

    /// @dev The word is the expected one, and the rules that every action keeps hold from `before` to it.
    function _became(Channel memory channel, ChannelWord before, ChannelWord expected) private view {
        ChannelWord word = _wordOf(channel);
        assert(ChannelWord.unwrap(word) == ChannelWord.unwrap(expected));
        assert(word.settled() <= word.deposit());
        if (before.isUnused()) return;
        assert(!word.isUnused());
        assert(word.epoch() >= before.epoch());
        if (word.epoch() > before.epoch()) {
            assert(before.isFinalized());
            return;
        }
        assert(word.deposit() >= before.deposit());
        assert(word.settled() >= before.settled());
        if (before.isFinalized()) assert(ChannelWord.unwrap(word) == ChannelWord.unwrap(before));
    }
}
