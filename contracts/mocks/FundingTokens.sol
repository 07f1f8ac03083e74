// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {HonestToken, MockToken} from "./HostileTokens.sol";
import {IHooked, ReentrantWallet, burnGas} from "./HostileWallets.sol";

/// @notice EIP-3009 with the signature in one piece, and only so. It believes every signature.
contract BytesOnlyToken is HonestToken {
    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256,
        uint256,
        bytes32,
        bytes calldata
    ) external {
        _move(from, to, value);
    }
}

/// @notice EIP-3009 with the signature in three parts, and only so. It believes every signature.
contract PartsOnlyToken is HonestToken {
    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256,
        uint256,
        bytes32,
        uint8,
        bytes32,
        bytes32
    ) external {
        _move(from, to, value);
    }
}

/// @notice EIP-2612 and both forms of EIP-3009. It believes every signature.
abstract contract CredulousToken is HonestToken {
    function permit(address owner, address spender, uint256 value, uint256, uint8, bytes32, bytes32)
        external
        virtual
    {
        allowance[owner][spender] = value;
    }

    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256,
        uint256,
        bytes32,
        bytes calldata
    ) external {
        _move(from, to, value);
    }

    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256,
        uint256,
        bytes32,
        uint8,
        bytes32,
        bytes32
    ) external {
        _move(from, to, value);
    }
}

/// @notice Takes what it is asked to and credits one unit less.
contract TaxedFundingToken is CredulousToken {
    function _move(address from, address to, uint256 value) internal override {
        super._move(from, to, value);
        balanceOf[to] -= 1;
    }
}

/// @notice Moves one unit less than it is asked to.
contract ShortFundingToken is CredulousToken {
    function _move(address from, address to, uint256 value) internal override {
        super._move(from, to, value - 1);
    }
}

/// @notice Moves one unit more than it is asked to.
contract LavishFundingToken is CredulousToken {
    function _move(address from, address to, uint256 value) internal override {
        super._move(from, to, value + 1);
    }
}

/// @notice Moves what it is asked to, and says that it did not.
contract DenyingToken is MockToken {
    function transferFrom(address from, address to, uint256 value) external returns (bool) {
        _pull(from, to, value);
        return false;
    }

    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256,
        uint256,
        bytes32,
        bytes calldata
    ) external returns (bool) {
        _move(from, to, value);
        return false;
    }

    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256,
        uint256,
        bytes32,
        uint8,
        bytes32,
        bytes32
    ) external returns (bool) {
        _move(from, to, value);
        return false;
    }
}

/// @notice Knows nothing of signatures, and has a fallback that takes every call, as wrapped native currency has.
contract PhantomToken is HonestToken {
    fallback() external {}
}

/// @notice Before a move, calls what its owner registered, be the owner a contract or not (as ERC-777 does).
contract HookFundingToken is CredulousToken {
    mapping(address => address) public hookOf;

    function setHook(address owner, address hook) external {
        hookOf[owner] = hook;
    }

    function _move(address from, address to, uint256 value) internal override {
        if (hookOf[from] != address(0)) IHooked(hookOf[from]).hook();
        super._move(from, to, value);
    }
}

/// @notice Calls the owner's hook in `permit`, before any money moves.
contract HookPermitToken is CredulousToken {
    mapping(address => address) public hookOf;

    function setHook(address owner, address hook) external {
        hookOf[owner] = hook;
    }

    function permit(address owner, address spender, uint256 value, uint256, uint8, bytes32, bytes32)
        external
        override
    {
        allowance[owner][spender] = value;
        if (hookOf[owner] != address(0)) IHooked(hookOf[owner]).hook();
    }
}

/// @notice A permit that sets no allowance and ends in some awkward way.
abstract contract OddPermitToken is HonestToken {
    function permit(address, address, uint256, uint256, uint8, bytes32, bytes32) external {
        _end();
    }

    function _end() internal virtual;
}

/// @notice Refuses every permit.
contract RefusingPermitToken is OddPermitToken {
    error Refused();

    function _end() internal pure override {
        revert Refused();
    }
}

/// @notice Answers a permit with a quarter megabyte.
contract BombPermitToken is OddPermitToken {
    function _end() internal pure override {
        assembly ("memory-safe") {
            return(0, 250000)
        }
    }
}

/// @notice Refuses a permit with a quarter megabyte of reasons.
contract RevertBombPermitToken is OddPermitToken {
    function _end() internal pure override {
        assembly ("memory-safe") {
            revert(0, 250000)
        }
    }
}

/// @notice Takes 500,000 gas for a permit.
contract HungryPermitToken is OddPermitToken {
    function _end() internal override {
        burnGas(500_000);
    }
}

/// @notice Takes all gas that a permit is given.
contract GasBurningPermitToken is OddPermitToken {
    function _end() internal pure override {
        assembly ("memory-safe") {
            invalid()
        }
    }
}

/// @notice A contract wallet that takes whatever it is asked for its own signature (EIP-1271).
contract SigningWallet is ReentrantWallet {
    function isValidSignature(bytes32, bytes calldata) external pure returns (bytes4) {
        return this.isValidSignature.selector;
    }
}
