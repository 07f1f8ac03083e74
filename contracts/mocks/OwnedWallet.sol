// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @notice The least smart-contract wallet: it does what its owner sends it to do. For tests only.
contract OwnedWallet {
    error NotTheOwner();

    address public immutable owner;

    constructor(address owner_) {
        owner = owner_;
    }

    receive() external payable {}

    function execute(address target, uint256 value, bytes calldata data) external {
        if (msg.sender != owner) revert NotTheOwner();
        (bool success, bytes memory result) = target.call{value: value}(data);
        if (success) return;
        assembly ("memory-safe") {
            revert(add(result, 0x20), mload(result))
        }
    }
}
