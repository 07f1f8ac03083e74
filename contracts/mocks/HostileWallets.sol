// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

interface IHooked {
    function hook() external;
}

/// @dev Logs burn much gas in few steps, which keeps tests fast.
function burnGas(uint256 amount) {
    uint256 gasAtEnd = gasleft() - amount;
    while (gasleft() > gasAtEnd) {
        assembly ("memory-safe") {
            log0(0, 0x200)
        }
    }
}

/// @notice A contract wallet that does what anyone tells it. For tests only.
abstract contract MockWallet {
    function execute(address target, uint256 value, bytes calldata data) external payable {
        (bool success, bytes memory result) = target.call{value: value}(data);
        if (success) return;
        assembly ("memory-safe") {
            revert(add(result, 0x20), mload(result))
        }
    }
}

/// @notice Takes what it is sent.
contract FriendlyWallet is MockWallet {
    receive() external payable {}
}

/// @notice Refuses native currency.
contract RevertingWallet is MockWallet {
    error Refused();

    receive() external payable {
        revert Refused();
    }
}

/// @notice Burns all gas that it is sent along with native currency.
contract GasBurningWallet is MockWallet {
    receive() external payable {
        while (true) {}
    }
}

/// @notice Takes native currency, and at least `appetite` gas with it.
contract HungryWallet is MockWallet {
    uint256 public appetite;

    function setAppetite(uint256 gas_) external {
        appetite = gas_;
    }

    receive() external payable {
        burnGas(appetite);
    }
}

/// @notice Takes native currency and returns a quarter megabyte.
contract ReturnBombWallet is MockWallet {
    receive() external payable {
        assembly ("memory-safe") {
            return(0, 250000)
        }
    }
}

/// @notice Refuses native currency with a quarter megabyte of reasons.
contract RevertBombWallet is MockWallet {
    receive() external payable {
        assembly ("memory-safe") {
            revert(0, 250000)
        }
    }
}

/// @notice Uses every payment, and every hook of a token, to make a call that it was told before.
contract ReentrantWallet is MockWallet, IHooked {
    address public target;
    bytes public data;
    bool public refusing;
    uint256 public calls;
    uint256 public successes;

    error Refused();

    function setRefusing(bool value) external {
        refusing = value;
    }

    function plan(address target_, bytes calldata data_) external {
        (target, data) = (target_, data_);
    }

    receive() external payable {
        require(!refusing, Refused());
        _reenter();
    }

    function hook() external {
        _reenter();
    }

    function _reenter() private {
        if (target == address(0)) return;
        calls += 1;
        (bool success,) = target.call(data);
        if (success) successes += 1;
    }
}
