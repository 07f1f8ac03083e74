// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Channel} from "../../../contracts/interfaces/IPaymentChannels.sol";
import {TestToken} from "../../../contracts/mocks/TestToken.sol";
import {ForgeTest} from "./ForgeTest.sol";
import {Reference} from "./Reference.sol";

/// @notice Signatures over the test token's transfers and allowances, and of payees.
abstract contract Signing is ForgeTest {
    bytes32 private constant RECEIVE_TYPE = keccak256(
        "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
    );
    bytes32 private constant PERMIT_TYPE =
        keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");

    bytes4 private constant OPEN_WITH_BYTES = bytes4(
        keccak256(
            "openWithAuthorization(address,address,uint128,bytes32,address,address,uint256,uint256,bytes32,bytes)"
        )
    );
    bytes4 private constant OPEN_WITH_PARTS = bytes4(
        keccak256(
            "openWithAuthorization(address,address,uint128,bytes32,address,address,uint256,uint256,bytes32,uint8,bytes32,bytes32)"
        )
    );

    function openNonce(Channel memory channel) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(channel.payer, channel.payee, channel.token, channel.salt, channel.authorizedSigner)
        );
    }

    function topUpNonce(Channel memory channel, uint128 amount, address from, bytes32 topUpSalt)
        internal
        view
        returns (bytes32)
    {
        return keccak256(abi.encode(idOf(channel), amount, from, topUpSalt));
    }

    /// @dev An EIP-3009 signature that is valid for ever.
    function authorization(uint256 key, uint256 amount, bytes32 nonce) internal view returns (bytes memory) {
        return sign(key, authorizationDigest(vm.addr(key), amount, nonce));
    }

    function authorizationDigest(address from, uint256 amount, bytes32 nonce) internal view returns (bytes32) {
        return _tokenDigest(
            keccak256(abi.encode(RECEIVE_TYPE, from, address(channels), amount, 0, type(uint256).max, nonce))
        );
    }

    function permitDigest(address owner, uint256 amount) internal view returns (bytes32) {
        return _tokenDigest(
            keccak256(
                abi.encode(PERMIT_TYPE, owner, address(channels), amount, token.nonces(owner), type(uint256).max)
            )
        );
    }

    function closeAuthorization(uint256 key, Channel memory channel, uint128 amount)
        internal
        view
        returns (bytes memory)
    {
        bytes32 domain = Reference.domain(address(channels), block.chainid);
        return sign(key, Reference.closeDigest(domain, idOf(channel), amount));
    }

    /// @param parts Whether the signature goes as v, r, s instead of as bytes.
    function openData(Channel memory channel, uint128 deposit, bytes32 nonce, bool parts, bytes memory signature)
        internal
        pure
        returns (bytes memory)
    {
        bytes memory head = abi.encode(
            channel.payee,
            channel.token,
            deposit,
            channel.salt,
            channel.authorizedSigner,
            channel.payer,
            0,
            type(uint256).max,
            nonce
        );
        if (!parts) {
            return bytes.concat(OPEN_WITH_BYTES, head, abi.encode(10 * 32, signature.length), signature, bytes31(0));
        }
        (bytes32 r, bytes32 s, bytes1 v) = (bytes32(0), bytes32(0), signature[64]);
        assembly ("memory-safe") {
            r := mload(add(signature, 0x20))
            s := mload(add(signature, 0x40))
        }
        return bytes.concat(OPEN_WITH_PARTS, head, abi.encode(uint8(v), r, s));
    }

    function _tokenDigest(bytes32 structHash) private view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), structHash));
    }
}
