// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {RevenueSplitter, checkParties} from "./RevenueSplitter.sol";
import {IRevenueSplitterFactory, Party} from "./interfaces/IRevenueSplitter.sol";

/// @title RevenueSplitterFactory
/// @notice See IRevenueSplitterFactory.
contract RevenueSplitterFactory is IRevenueSplitterFactory {
    /* CONSTANTS */

    /// @dev The description is part of the hashed code already; nothing else tells two splitters apart.
    bytes32 private constant SALT = 0;

    /* ACTIONS */

    /// @inheritdoc IRevenueSplitterFactory
    function create(Party[] calldata parties, address operator) external returns (address splitter) {
        splitter = _address(parties, operator);
        if (splitter.code.length != 0) return splitter;

        emit SplitterCreated(splitter, operator, parties);

        new RevenueSplitter{salt: SALT}(parties, operator);
    }

    /* VIEWS */

    /// @inheritdoc IRevenueSplitterFactory
    function addressOf(Party[] calldata parties, address operator) external view returns (address) {
        checkParties(parties);
        return _address(parties, operator);
    }

    /* INTERNAL */

    function _address(Party[] calldata parties, address operator) private view returns (address) {
        bytes32 codeHash =
            keccak256(abi.encodePacked(type(RevenueSplitter).creationCode, abi.encode(parties, operator)));
        bytes32 hash = keccak256(abi.encodePacked(hex"ff", address(this), SALT, codeHash));
        return address(uint160(uint256(hash)));
    }
}
