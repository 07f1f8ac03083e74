// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// @title TypedData
/// @notice The EIP-712 messages of a channel. Both have the same two fields: `bytes32 channelId,uint128 cumulativeAmount`.
library TypedData {
    bytes32 internal constant VOUCHER = keccak256("Voucher(bytes32 channelId,uint128 cumulativeAmount)");
    bytes32 internal constant CLOSE_AUTHORIZATION =
        keccak256("CloseAuthorization(bytes32 channelId,uint128 cumulativeAmount)");

    bytes32 private constant DOMAIN =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");

    /// @notice The domain of this contract on this chain.
    function domainSeparator() internal view returns (bytes32) {
        return keccak256(
            abi.encode(DOMAIN, keccak256("EVM Payment Channel"), keccak256("1"), block.chainid, address(this))
        );
    }

    /// @notice What is signed: `keccak256(0x1901 || domain || keccak256(type, id, amount))`.
    function digest(bytes32 domain, bytes32 typehash, bytes32 id, uint256 amount) internal pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            let words := mload(0x40)
            mstore(words, typehash)
            mstore(add(words, 0x20), id)
            mstore(add(words, 0x40), amount)
            mstore(add(words, 0x22), keccak256(words, 0x60))
            mstore(words, shl(240, 0x1901))
            mstore(add(words, 0x02), domain)
            hash := keccak256(words, 0x42)
        }
    }
}
