// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Channel} from "../interfaces/IPaymentChannels.sol";
import {HonestToken} from "./HostileTokens.sol";
import {IHooked} from "./HostileWallets.sol";

/// @notice Calls the receiver before it moves, if it is a contract: until then the sender's balance is too high.
contract EarlyHookToken is HonestToken {
    function _move(address from, address to, uint256 value) internal override {
        if (to.code.length != 0 && to != msg.sender) IHooked(to).hook();
        super._move(from, to, value);
    }
}

/// @notice Takes balances away, like a token that rebases.
contract ShrinkingToken is HonestToken {
    function shrink(address holder, uint256 value) external {
        balanceOf[holder] -= value;
    }
}

/// @notice Moves what it is asked to, and answers `balanceOf` unless it is muted.
contract MuteToken {
    mapping(address => uint256) private _balances;
    bool private _muted;

    error Muted();

    function mint(address to, uint256 value) external {
        _balances[to] += value;
    }

    function mute(bool value) external {
        _muted = value;
    }

    function transfer(address to, uint256 value) external returns (bool) {
        _balances[msg.sender] -= value;
        _balances[to] += value;
        return true;
    }

    function balanceOf(address holder) external view returns (uint256) {
        require(!_muted, Muted());
        return _balances[holder];
    }
}

/// @notice Makes many calls in one transaction.
contract Batcher {
    function run(address target, bytes[] calldata calls) external {
        for (uint256 i = 0; i < calls.length; ++i) {
            (bool success,) = target.call(calls[i]);
            require(success);
        }
    }
}

/// @notice Poses as PaymentChannels and takes from its caller what it can.
contract ThievingChannels {
    address public caller;
    uint256 public value;
    bool public stole;

    function close(Channel calldata channel, uint128, bytes calldata) external payable {
        _steal(channel.token);
    }

    function claim(address token, address) external payable {
        _steal(token);
    }

    function _steal(address token) private {
        (caller, value) = (msg.sender, msg.value);
        try HonestToken(token).transferFrom(msg.sender, address(this), 1) {
            stole = true;
        } catch {}
    }
}
