// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Channel, IPaymentChannels, VoucherRow} from "../../../contracts/interfaces/IPaymentChannels.sol";
import {MockToken} from "../../../contracts/mocks/HostileTokens.sol";
import {Crowd} from "./Crowd.sol";
import {LaneRecord} from "./Ledger.sol";
import {Reference} from "./Reference.sol";

/// @title Handler
/// @notice Calls the contract as its users would, honest and not, and says before each call whether it has to succeed.
contract Handler is Crowd {
    struct Voucher {
        uint256 lane;
        Channel channel;
        uint128 amount;
        bytes signature;
    }

    Voucher[] private _vouchers;
    mapping(string action => uint256) public succeeded;
    mapping(string action => uint256) public refused;

    constructor() {
        setUp();
        _invite();
    }

    modifier running(uint256 seed) {
        if (lanes.length == 0) _choose(seed);
        _;
    }

    function contractUnderTest() external view returns (IPaymentChannels) {
        return channels;
    }

    /* FUNDING */

    function open(uint256 seed, uint256 amount, uint256 step) external running(seed) {
        LaneRecord storage record = _pick(seed);
        uint128 deposit = _money(amount);
        Channel memory channel = Reference.withEpoch(record.channel, _nextEpoch(record, step));
        bool allowed = _isFree(record, channel) && _fits(deposit) && _paysFrom(channel.token, channel.payer);
        bool success = _pay(
            channel.payer,
            channel.token,
            deposit,
            abi.encodeCall(
                channels.open, (channel.payee, channel.token, deposit, channel.salt, channel.authorizedSigner)
            )
        );
        if (!success && _mayBeDisturbed(channel.token, channel.payer)) return;
        _count("open", success, allowed);
    }

    /// @dev By EIP-3009 in both forms, and by EIP-2612.
    function openSigned(uint256 seed, uint256 amount, uint256 step, uint256 form) external running(seed) {
        LaneRecord storage record = lanes[seed % 2];
        uint128 deposit = _money(amount);
        Channel memory channel = Reference.withEpoch(record.channel, _nextEpoch(record, step));
        bytes memory data =
            form % 3 == 0 ? _permitted(channel, deposit) : _authorized(channel, deposit, form % 3 == 1);
        bool unused = form % 3 == 0 || !token.authorizationState(channel.payer, openNonce(channel));
        bool allowed = _isFree(record, channel) && _fits(deposit) && unused;
        bool success = _send(form % 3 == 0 ? channel.payer : stranger, 0, data, channel.payer);
        vm.prank(channel.payer); // a permit leaves no allowance but its own
        token.approve(address(channels), type(uint256).max);
        _count("openSigned", success, allowed);
    }

    function topUp(uint256 seed, uint256 amount, uint256 who) external running(seed) {
        LaneRecord storage record = who % 4 == 1 ? _pickClosing(seed) : _pick(seed);
        Channel memory channel = record.channel;
        address sender = who % 4 == 0 ? stranger : channel.payer;
        uint128 added = _money(amount);
        bool fits = added != 0 && record.deposit + added <= type(uint96).max;
        bool allowed = _isLive(record) && fits && _paysFrom(channel.token, sender);
        bool success = _pay(sender, channel.token, added, abi.encodeCall(channels.topUp, (channel, added)));
        if (!success && _mayBeDisturbed(channel.token, sender)) return;
        _count("topUp", success, allowed);
    }

    function topUpSigned(uint256 seed, uint256 amount, uint256 topUpSalt) external running(seed) {
        LaneRecord storage record = lanes[seed % 2];
        uint128 added = _money(amount);
        bytes32 nonce = topUpNonce(record.channel, added, stranger, bytes32(topUpSalt));
        bool fits = added != 0 && record.deposit + added <= type(uint96).max;
        bool allowed = _isLive(record) && fits && !token.authorizationState(stranger, nonce);
        bytes memory data = abi.encodeWithSignature(
            "topUpWithAuthorization((address,address,address,address,bytes32),uint128,address,bytes32,uint256,uint256,bytes32,bytes)",
            record.channel,
            added,
            stranger,
            topUpSalt,
            0,
            type(uint256).max,
            nonce,
            authorization(STRANGER_KEY, added, nonce)
        );
        bool success = _send(people[1], 0, data, stranger);
        _count("topUpSigned", success, allowed);
    }

    /* VOUCHERS */

    function settle(uint256 seed, uint256 amount) external running(seed) {
        (LaneRecord storage record, Voucher memory signed) = _promise(seed, amount);
        bytes memory data = abi.encodeCall(channels.settle, (signed.channel, signed.amount, signed.signature));
        _try("settle", stranger, data, _pays(record, signed));
    }

    /// @dev A voucher signed before: one of the last few, or any; of any epoch, paid already or not.
    function replay(uint256 seed, uint256 amongLast) external running(seed) {
        if (_vouchers.length == 0) return;
        uint256 age = seed % (amongLast % 2 == 0 || _vouchers.length < 6 ? _vouchers.length : 6);
        Voucher memory signed = _vouchers[_vouchers.length - 1 - age];
        bytes memory data = abi.encodeCall(channels.settle, (signed.channel, signed.amount, signed.signature));
        _try("replay", stranger, data, _pays(lanes[signed.lane], signed));
    }

    /// @dev A voucher of another key, of another lane, or for another amount.
    function settleForged(uint256 seed, uint256 amount, uint256 form) external running(seed) {
        (, Voucher memory signed) = _promise(seed, amount);
        Channel memory channel = signed.channel;
        if (form % 3 == 0) signed.signature = voucher(STRANGER_KEY, channel, signed.amount);
        if (form % 3 == 1) channel = lanes[(seed % lanes.length + 1) % lanes.length].channel;
        if (form % 3 == 2) signed.amount += 1;
        bytes memory data = abi.encodeCall(channels.settle, (channel, signed.amount, signed.signature));
        _try("settleForged", stranger, data, false);
    }

    function settleBatch(uint256 seed, uint256 size) external running(seed) {
        Channel memory first = lanes[_groupOf(seed)].channel;
        VoucherRow[] memory rows = _rows(seed, size);
        bytes memory data = abi.encodeCall(channels.settleBatch, (first.payee, first.token, rows));
        _try("settleBatch", stranger, data, true);
    }

    /* ENDS */

    function close(uint256 seed, uint256 amount, uint256 who) external running(seed) {
        (LaneRecord storage record, Voucher memory signed) = _promise(seed, amount);
        bytes memory data = abi.encodeCall(channels.close, (signed.channel, signed.amount, signed.signature));
        bool byPayee = who % 4 != 0;
        _try("close", byPayee ? signed.channel.payee : stranger, data, byPayee && _closes(record, signed));
    }

    function closeSigned(uint256 seed, uint256 amount, uint256 who) external running(seed) {
        (LaneRecord storage record, Voucher memory signed) = _promise(seed, amount);
        uint256 payeeKey = keyOf[signed.channel.payee];
        if (payeeKey == 0) return;
        bool byPayee = who % 4 != 0;
        bytes memory agreed = closeAuthorization(byPayee ? payeeKey : STRANGER_KEY, signed.channel, signed.amount);
        bytes memory data = abi.encodeCall(
            channels.closeWithAuthorization, (signed.channel, signed.amount, signed.signature, agreed)
        );
        _try("closeSigned", stranger, data, byPayee && _closes(record, signed));
    }

    function closeBatch(uint256 seed, uint256 size) external running(seed) {
        Channel memory first = lanes[_groupOf(seed)].channel;
        VoucherRow[] memory rows = _rows(seed, size);
        bytes memory data = abi.encodeCall(channels.closeBatch, (first.token, rows));
        _try("closeBatch", first.payee, data, true);
    }

    function requestClose(uint256 seed, uint256 who) external running(seed) {
        LaneRecord storage record = _pick(seed);
        address sender = who % 4 == 0 ? stranger : record.channel.payer;
        bytes memory data = abi.encodeCall(channels.requestClose, (record.channel));
        bool allowed = _isLive(record) && sender == record.channel.payer;
        _try("requestClose", sender, data, allowed);
    }

    function withdraw(uint256 seed, uint256 who) external running(seed) {
        LaneRecord storage record = _pickClosing(seed);
        address sender = who % 8 == 0 ? stranger : record.channel.payer;
        bytes memory data = abi.encodeCall(channels.withdraw, (record.channel));
        uint256 requestedAt = record.closeRequestedAt;
        bool due = requestedAt != 0 && block.timestamp >= requestedAt + GRACE;
        bool allowed = _isLive(record) && due && sender == record.channel.payer;
        _try("withdraw", sender, data, allowed);
    }

    /// @dev With the gas of a block, not of this machine: a receiver may burn all of it.
    function claim(uint256 seed, uint256 to) external running(seed) {
        address token_ = lanes[_groupOf(seed)].channel.token;
        address account = _pickOwner(token_, seed >> 128);
        address receiver = people[to % people.length];
        uint256 share = kept[token_][account];
        vm.recordLogs();
        vm.prank(account);
        (bool success,) =
            address(channels).call{gas: 3_000_000}(abi.encodeCall(channels.claim, (token_, receiver)));
        if (success) _record(vm.getRecordedLogs(), account);
        if (success || share == 0 || isEasyToPay(token_, receiver)) _count("claim", success, share != 0);
    }

    /* THE WORLD */

    function pass(uint256 seed, uint256 time) external running(seed) {
        uint256[4] memory steps = [1, GRACE / 2, GRACE - 1, GRACE];
        vm.warp(block.timestamp + steps[time % 4]);
        succeeded["pass"] += 1;
    }

    function donate(uint256 seed, uint256 amount_) external running(seed) {
        address token_ = tokens[seed % tokens.length];
        uint256 amount = uint64(amount_);
        donated[token_] += amount;
        if (token_ == NATIVE) {
            vm.deal(address(channels), address(channels).balance + amount);
        } else {
            MockToken(token_).mint(address(channels), amount);
        }
        succeeded["donate"] += 1;
    }

    /// @dev Tokens turn accounts away and back; wallets refuse, burn gas, and plan what to call when they are paid.
    function changeMood(uint256 seed, uint256 mood, uint256 temper) external running(seed) {
        bool hostile = temper % 2 == 0;
        address account = mood % 13 == 0 ? address(channels) : people[seed % people.length];
        if (mood % 6 == 0) falseToken.list(account, hostile);
        if (mood % 6 == 1) blacklistToken.list(account, hostile);
        if (mood % 6 == 2) bombToken.list(account, hostile);
        if (mood % 6 == 3) reentrant.setRefusing(hostile);
        if (mood % 6 == 4) hungryToken.setAppetite(hostile ? 250_000 : 100_000);
        if (mood % 6 == 5) hungryWallet.setAppetite(hostile ? 250_000 : 100_000);
        succeeded["changeMood"] += 1;
    }

    function planReentry(uint256 seed, uint256 form, uint256 amount) external running(seed) {
        (, Voucher memory signed) = _promise(seed, amount);
        Channel memory channel = signed.channel;
        bytes memory data;
        if (form % 6 == 0) data = abi.encodeCall(channels.settle, (channel, signed.amount, signed.signature));
        if (form % 6 == 1) data = abi.encodeCall(channels.close, (channel, signed.amount, signed.signature));
        if (form % 6 == 2) data = abi.encodeCall(channels.requestClose, (channel));
        if (form % 6 == 3) data = abi.encodeCall(channels.withdraw, (channel));
        if (form % 6 == 4) data = abi.encodeCall(channels.claim, (channel.token, address(reentrant)));
        if (form % 6 == 5) data = _planOpen(amount);
        reentrant.plan(address(channels), data);
        succeeded["planReentry"] += 1;
    }

    /* WHAT HAS TO SUCCEED */

    function _isFree(LaneRecord storage record, Channel memory channel) private view returns (bool) {
        return !record.used || (record.finalized && uint32(uint256(channel.salt)) > record.epoch);
    }

    function _fits(uint128 deposit) private pure returns (bool) {
        return deposit != 0 && deposit <= type(uint96).max;
    }

    function _paysFrom(address token_, address account) private view returns (bool) {
        if (token_ == address(falseToken)) return !falseToken.listed(account);
        if (token_ == address(bombToken)) return !bombToken.listed(address(channels));
        if (token_ != address(blacklistToken)) return true;
        return !blacklistToken.listed(account) && !blacklistToken.listed(address(channels));
    }

    /// @dev A payer's own hook that moves money of the same token spoils its own deposit.
    function _mayBeDisturbed(address token_, address account) private view returns (bool) {
        return token_ == address(hookToken) && account == address(reentrant);
    }

    function _pays(LaneRecord storage record, Voucher memory signed) private view returns (bool) {
        return _isLive(record) && record.channel.salt == signed.channel.salt && signed.amount > record.settled
            && signed.amount <= record.deposit;
    }

    function _closes(LaneRecord storage record, Voucher memory signed) private view returns (bool) {
        return _isLive(record) && (signed.amount <= record.settled || signed.amount <= record.deposit);
    }

    /* INTERNAL */

    function _pick(uint256 seed) private view returns (LaneRecord storage) {
        return lanes[seed % lanes.length];
    }

    /// @dev The next account with a kept share, if there is one.
    function _pickOwner(address token_, uint256 seed) private view returns (address account) {
        for (uint256 i = 0; i < people.length; ++i) {
            account = people[(seed % people.length + i) % people.length];
            if (kept[token_][account] != 0) return account;
        }
    }

    /// @dev The next lane with a close request, if there is one.
    function _pickClosing(uint256 seed) private view returns (LaneRecord storage record) {
        for (uint256 i = 0; i < lanes.length; ++i) {
            record = lanes[(seed % lanes.length + i) % lanes.length];
            if (_isLive(record) && record.closeRequestedAt != 0) return record;
        }
        return _pick(seed);
    }

    function _groupOf(uint256 seed) private pure returns (uint256) {
        return (seed % GROUPS) * LANES_PER_GROUP;
    }

    /// @dev Mostly small, so that amounts meet; at times the greatest, one more, or nothing.
    function _money(uint256 seed) private pure returns (uint128) {
        if (seed % 16 == 0) return uint128((seed >> 8) % 2 == 0 ? 0 : uint256(type(uint96).max) + 1);
        if (seed % 16 == 1) return type(uint96).max;
        return uint128(1 + (seed >> 8) % 1000);
    }

    /// @dev Mostly the next one or one after; at times the same, or the one before.
    function _nextEpoch(LaneRecord storage record, uint256 step) private view returns (uint32) {
        if (step % 8 == 0) return uint32(record.epoch);
        if (step % 8 == 1) return uint32(record.epoch == 0 ? 0 : record.epoch - 1);
        return uint32(record.epoch + 1 + step % 2);
    }

    /// @dev A voucher of a lane's current epoch, for an amount about what is left; kept for replays.
    function _promise(uint256 seed, uint256 amount)
        private
        returns (LaneRecord storage record, Voucher memory signed)
    {
        record = _pick(seed);
        uint128 sum = uint128(record.settled + amount % (record.deposit - record.settled + 2));
        bytes memory signature = voucher(record.signerKey, record.channel, sum);
        signed = Voucher(seed % lanes.length, record.channel, sum, signature);
        _vouchers.push(signed);
    }

    /// @dev Up to four rows of one group: lanes may repeat, one in eight is signed by a stranger.
    function _rows(uint256 seed, uint256 size) private returns (VoucherRow[] memory rows) {
        rows = new VoucherRow[](size % 5);
        for (uint256 i = 0; i < rows.length; ++i) {
            uint256 random = uint256(keccak256(abi.encode(seed, size, i)));
            uint256 number = _groupOf(seed) + random % LANES_PER_GROUP;
            (LaneRecord storage record, Voucher memory signed) = _promise(number, random >> 16);
            rows[i] = row(random >> 253 == 0 ? STRANGER_KEY : record.signerKey, signed.channel, signed.amount);
        }
    }

    function _permitted(Channel memory channel, uint128 deposit) private view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(keyOf[channel.payer], permitDigest(channel.payer, deposit));
        return abi.encodeCall(
            channels.openWithPermit,
            (
                channel.payee,
                channel.token,
                deposit,
                channel.salt,
                channel.authorizedSigner,
                type(uint256).max,
                v,
                r,
                s
            )
        );
    }

    function _authorized(Channel memory channel, uint128 deposit, bool parts) private view returns (bytes memory) {
        bytes32 nonce = openNonce(channel);
        return openData(channel, deposit, nonce, parts, authorization(keyOf[channel.payer], deposit, nonce));
    }

    function _planOpen(uint256 amount) private view returns (bytes memory) {
        LaneRecord storage record = lanes[2];
        Channel memory channel = Reference.withEpoch(record.channel, uint32(record.epoch + 1));
        return abi.encodeCall(
            channels.open,
            (channel.payee, channel.token, _money(amount), channel.salt, channel.authorizedSigner)
        );
    }

    function _pay(address sender, address token_, uint128 amount, bytes memory data) private returns (bool) {
        return _send(sender, token_ == NATIVE ? amount : 0, data, sender);
    }

    function _send(address sender, uint256 value, bytes memory data, address funder) private returns (bool success) {
        vm.recordLogs();
        vm.prank(sender);
        (success,) = address(channels).call{value: value}(data);
        if (success) _record(vm.getRecordedLogs(), funder);
    }

    function _try(string memory action, address sender, bytes memory data, bool allowed) private {
        _count(action, _send(sender, 0, data, sender), allowed);
    }

    function _count(string memory action, bool success, bool allowed) private {
        if (success != allowed) {
            revert(string.concat(action, allowed ? " was refused" : " was not refused"));
        }
        if (success) succeeded[action] += 1;
        else refused[action] += 1;
    }
}
