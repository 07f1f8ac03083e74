// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Channel, IPaymentChannels} from "../../../contracts/interfaces/IPaymentChannels.sol";
import {PlanningWallet} from "./PlanningWallet.sol";
import {Reference} from "./Reference.sol";
import {Signing} from "./Signing.sol";
import {Vm} from "./Vm.sol";

/// @notice What one lane is, as far as the contract's logs say.
struct LaneRecord {
    Channel channel; // of the epoch last opened
    bytes32 id;
    uint256 signerKey;
    bool used;
    bool finalized;
    uint256 deposit;
    uint256 settled;
    uint256 closeRequestedAt;
    uint256 epoch;
}

/// @title Ledger
/// @notice Books kept from the contract's logs alone. Every entry is checked against the rules when it is made.
abstract contract Ledger is Signing {
    LaneRecord[] internal lanes;
    PlanningWallet internal reentrant;
    mapping(bytes32 slot => uint256 numberPlusOne) private _numberOf;

    /// @dev What every account got (or, below zero, gave) by what the logs say.
    mapping(address token => mapping(address account => int256)) public credited;
    mapping(address token => mapping(address account => uint256)) public kept;
    mapping(address token => uint256) public keptInAll;
    mapping(address token => uint256) public paidIn;
    mapping(address token => uint256) public paidOut;
    mapping(address token => uint256) public donated;

    mapping(bytes32 id => mapping(uint256 amount => bool)) private _wasPaid;
    mapping(bytes32 id => uint256 numberPlusOne) private _numberOfId;

    uint256 public reopened;
    uint256 public cancelled;
    uint256 public sharesKept;
    uint256 public rowsSkipped;

    function laneCount() external view returns (uint256) {
        return lanes.length;
    }

    function lane(uint256 number) external view returns (LaneRecord memory) {
        return lanes[number];
    }

    /// @dev The money that the live channels of a token hold.
    function locked(address token_) external view returns (uint256 sum) {
        for (uint256 i = 0; i < lanes.length; ++i) {
            LaneRecord storage record = lanes[i];
            if (record.channel.token == token_ && !record.finalized) sum += record.deposit - record.settled;
        }
    }

    function _addLane(Channel memory channel, uint256 signerKey) internal {
        lanes.push(LaneRecord(channel, 0, signerKey, false, false, 0, 0, 0, 0));
        _numberOf[Reference.lane(channel)] = lanes.length;
    }

    function _isLive(LaneRecord storage record) internal view returns (bool) {
        return record.used && !record.finalized;
    }

    /// @param funder Who pays if the logs tell of a top-up: they don't say.
    function _record(Vm.Log[] memory logs, address funder) internal {
        bool[] memory undone = _undone(logs);
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].emitter == address(channels) && !undone[i]) _enter(logs[i], funder);
        }
    }

    /// @dev Which logs stem from calls of the wallet that failed: such logs never happened.
    function _undone(Vm.Log[] memory logs) private view returns (bool[] memory undone) {
        undone = new bool[](logs.length);
        uint256[] memory entered = new uint256[](logs.length);
        uint256 depth = 0;
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].emitter != address(reentrant)) continue;
            if (logs[i].topics[0] == PlanningWallet.Entering.selector) {
                entered[depth++] = i;
                continue;
            }
            uint256 start = entered[--depth];
            if (abi.decode(logs[i].data, (bool))) continue;
            for (uint256 j = start; j < i; ++j) {
                undone[j] = true;
            }
        }
    }

    function _enter(Vm.Log memory log, address funder) private {
        bytes32 kind = log.topics[0];
        if (kind == IPaymentChannels.ShareKept.selector) return _shareKept(log);
        if (kind == IPaymentChannels.ShareClaimed.selector) return _shareClaimed(log);
        if (kind == IPaymentChannels.ChannelOpened.selector) return _opened(log);
        if (kind == IPaymentChannels.RowSkipped.selector) {
            rowsSkipped += 1;
            return;
        }
        LaneRecord storage record = _live(log.topics[1], log);
        if (kind == IPaymentChannels.ToppedUp.selector) return _toppedUp(record, log, funder);
        if (kind == IPaymentChannels.Settled.selector) return _settled(record, log);
        if (kind == IPaymentChannels.CloseRequested.selector) return _closeRequested(record, log);
        if (kind == IPaymentChannels.CloseCancelled.selector) return _closeCancelled(record);
        if (kind == IPaymentChannels.ChannelClosed.selector) return _closed(record, log);
        revert("a log of no known kind");
    }

    function _live(bytes32 id, Vm.Log memory log) private view returns (LaneRecord storage record) {
        record = lanes[_numberOfId[id] - 1];
        require(record.id == id, "only the epoch last opened moves");
        require(!record.finalized, "a finalized channel is over");
        require(log.topics[2] == _word(record.channel.payer), "a log names the payer");
        require(log.topics[3] == _word(record.channel.payee), "a log names the payee");
    }

    function _opened(Vm.Log memory log) private {
        (address token_, address signer, bytes32 salt, uint256 deposit) =
            abi.decode(log.data, (address, address, bytes32, uint256));
        Channel memory channel = Channel(_account(log.topics[2]), _account(log.topics[3]), token_, signer, salt);
        LaneRecord storage record = lanes[_numberOf[Reference.lane(channel)] - 1];
        uint256 epoch = uint32(uint256(salt));
        require(idOf(channel) == log.topics[1], "the id is the hash of the description");
        require(!record.used || (record.finalized && epoch > record.epoch), "a lane takes greater epochs only");
        require(_numberOfId[log.topics[1]] == 0, "an id lives once");
        _numberOfId[log.topics[1]] = _numberOf[Reference.lane(channel)];
        record.id = log.topics[1];
        if (record.used) reopened += 1;

        record.channel = channel;
        (record.used, record.finalized, record.epoch) = (true, false, epoch);
        (record.deposit, record.settled, record.closeRequestedAt) = (deposit, 0, 0);
        _moveIn(token_, channel.payer, deposit);
    }

    function _toppedUp(LaneRecord storage record, Vm.Log memory log, address funder) private {
        (uint256 amount, uint256 deposit) = abi.decode(log.data, (uint256, uint256));
        require(deposit == record.deposit + amount, "a top-up adds to the deposit");
        record.deposit = deposit;
        _moveIn(record.channel.token, funder, amount);
    }

    function _settled(LaneRecord storage record, Vm.Log memory log) private {
        uint256 amount = abi.decode(log.data, (uint256));
        require(amount > record.settled, "settled only grows");
        require(!_wasPaid[log.topics[1]][amount], "a voucher pays at most once");
        _wasPaid[log.topics[1]][amount] = true;
        _pay(record, amount);
    }

    function _closeRequested(LaneRecord storage record, Vm.Log memory log) private {
        uint256 withdrawableAt = abi.decode(log.data, (uint256));
        require(record.closeRequestedAt == 0, "a pending request is not moved");
        require(withdrawableAt == block.timestamp + GRACE, "a request gives the whole grace period");
        record.closeRequestedAt = block.timestamp;
    }

    function _closeCancelled(LaneRecord storage record) private {
        require(record.closeRequestedAt != 0, "only a pending request is taken back");
        record.closeRequestedAt = 0;
        cancelled += 1;
    }

    function _closed(LaneRecord storage record, Vm.Log memory log) private {
        (uint256 settled, uint256 refund) = abi.decode(log.data, (uint256, uint256));
        require(settled >= record.settled, "settled only grows");
        require(settled + refund == record.deposit, "a close splits the deposit without remainder");
        _pay(record, settled);
        record.finalized = true;
        _moveOut(record.channel.token, record.channel.payer, refund);
    }

    function _pay(LaneRecord storage record, uint256 settled) private {
        require(settled <= record.deposit, "settled never passes the deposit");
        _moveOut(record.channel.token, record.channel.payee, settled - record.settled);
        record.settled = settled;
    }

    function _shareKept(Vm.Log memory log) private {
        (address token_, address account) = (_account(log.topics[1]), _account(log.topics[2]));
        uint256 amount = abi.decode(log.data, (uint256));
        kept[token_][account] += amount;
        keptInAll[token_] += amount;
        paidOut[token_] -= amount;
        credited[token_][account] -= int256(amount);
        sharesKept += 1;
    }

    function _shareClaimed(Vm.Log memory log) private {
        (address token_, address account) = (_account(log.topics[1]), _account(log.topics[2]));
        (address receiver, uint256 amount) = abi.decode(log.data, (address, uint256));
        require(amount == kept[token_][account], "a claim takes the whole share");
        kept[token_][account] = 0;
        keptInAll[token_] -= amount;
        _moveOut(token_, receiver, amount);
    }

    function _moveIn(address token_, address account, uint256 amount) private {
        paidIn[token_] += amount;
        credited[token_][account] -= int256(amount);
    }

    function _moveOut(address token_, address account, uint256 amount) private {
        paidOut[token_] += amount;
        credited[token_][account] += int256(amount);
    }

    function _word(address account) private pure returns (bytes32) {
        return bytes32(uint256(uint160(account)));
    }

    function _account(bytes32 word) private pure returns (address) {
        return address(uint160(uint256(word)));
    }
}
