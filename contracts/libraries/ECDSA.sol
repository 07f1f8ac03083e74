// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// @title ECDSA
/// @notice Strict checks: s in the lower half, v 27 or 28, and no zero address for a signature that no key made.
library ECDSA {
    uint256 private constant HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;

    /// @notice Whether `signer` signed `digest` with exactly 65 bytes `r || s || v`.
    function isSignedBy(bytes32 digest, address signer, bytes calldata signature) internal view returns (bool) {
        if (signature.length != 65) return false;
        uint256 r;
        uint256 s;
        uint256 v;
        assembly ("memory-safe") {
            r := calldataload(signature.offset)
            s := calldataload(add(signature.offset, 0x20))
            v := byte(0, calldataload(add(signature.offset, 0x40)))
        }
        return isSignedBy(digest, signer, r, s, v);
    }

    /// @dev The precompile leaves the zero at hand if it recovers nobody, as for every v but 27 and 28.
    function isSignedBy(bytes32 digest, address signer, uint256 r, uint256 s, uint256 v)
        internal
        view
        returns (bool isSigned)
    {
        assembly ("memory-safe") {
            let words := mload(0x40)
            mstore(words, digest)
            mstore(add(words, 0x20), v)
            mstore(add(words, 0x40), r)
            mstore(add(words, 0x60), s)
            mstore(0, 0)
            pop(staticcall(gas(), 1, words, 0x80, 0, 0x20))
            let recovered := mload(0)
            isSigned := and(iszero(shl(96, xor(recovered, signer))), lt(iszero(recovered), lt(s, add(HALF_ORDER, 1))))
        }
    }
}
