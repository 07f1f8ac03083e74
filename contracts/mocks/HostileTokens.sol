// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IHooked, burnGas} from "./HostileWallets.sol";

/// @notice What the tokens of this file have in common. For tests only: anyone may mint.
abstract contract MockToken {
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    function mint(address to, uint256 value) external {
        balanceOf[to] += value;
    }

    function approve(address spender, uint256 value) external {
        allowance[msg.sender][spender] = value;
    }

    function _pull(address from, address to, uint256 value) internal {
        allowance[from][msg.sender] -= value;
        _move(from, to, value);
    }

    function _move(address from, address to, uint256 value) internal virtual {
        balanceOf[from] -= value;
        balanceOf[to] += value;
    }
}

/// @notice Moves as asked and says so.
abstract contract HonestToken is MockToken {
    function transfer(address to, uint256 value) external returns (bool) {
        _move(msg.sender, to, value);
        return true;
    }

    function transferFrom(address from, address to, uint256 value) external returns (bool) {
        _pull(from, to, value);
        return true;
    }
}

/// @notice Burns one unit of every transfer.
contract FeeToken is HonestToken {
    function _move(address from, address to, uint256 value) internal override {
        super._move(from, to, value);
        balanceOf[to] -= 1;
    }
}

/// @notice Credits one unit more than it was asked to move.
contract GenerousToken is HonestToken {
    function _move(address from, address to, uint256 value) internal override {
        super._move(from, to, value);
        balanceOf[to] += 1;
    }
}

/// @notice Returns nothing, like the oldest stablecoins.
contract SilentToken is MockToken {
    function transfer(address to, uint256 value) external {
        _move(msg.sender, to, value);
    }

    function transferFrom(address from, address to, uint256 value) external {
        _pull(from, to, value);
    }
}

/// @notice Moves what it is asked to, and yet returns false for accounts on its list.
contract FalseToken is MockToken {
    mapping(address => bool) public listed;

    function list(address account, bool value) external {
        listed[account] = value;
    }

    function transfer(address to, uint256 value) external returns (bool) {
        if (listed[to]) return false;
        _move(msg.sender, to, value);
        return true;
    }

    function transferFrom(address from, address to, uint256 value) external returns (bool) {
        if (listed[from]) return false;
        _pull(from, to, value);
        return true;
    }
}

/// @notice Says yes and moves nothing.
contract LyingToken is MockToken {
    function transferFrom(address, address, uint256) external pure returns (bool) {
        return true;
    }
}

/// @notice Reverts for accounts on its list, as regulated stablecoins do.
contract BlacklistToken is HonestToken {
    mapping(address => bool) public listed;

    error Blacklisted(address account);

    function list(address account, bool value) external {
        listed[account] = value;
    }

    function _move(address from, address to, uint256 value) internal override {
        require(!listed[from], Blacklisted(from));
        require(!listed[to], Blacklisted(to));
        super._move(from, to, value);
    }
}

/// @notice Takes at least `appetite` gas for every transfer.
contract HungryToken is HonestToken {
    uint256 public appetite;

    function setAppetite(uint256 gas_) external {
        appetite = gas_;
    }

    function _move(address from, address to, uint256 value) internal override {
        burnGas(appetite);
        super._move(from, to, value);
    }
}

/// @notice Answers transfers to accounts on its list with a quarter megabyte.
contract BombToken is HonestToken {
    mapping(address => bool) public listed;

    function list(address account, bool value) external {
        listed[account] = value;
    }

    function _move(address from, address to, uint256 value) internal override {
        if (listed[to]) {
            assembly ("memory-safe") {
                revert(0, 250000)
            }
        }
        super._move(from, to, value);
    }
}

/// @notice Calls the sender before it moves, and the receiver after, if they are contracts.
contract HookToken is HonestToken {
    function _move(address from, address to, uint256 value) internal override {
        if (from.code.length != 0 && from != msg.sender) IHooked(from).hook();
        super._move(from, to, value);
        if (to.code.length != 0 && to != msg.sender) IHooked(to).hook();
    }
}
