// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Channel} from "../../../contracts/interfaces/IPaymentChannels.sol";

/// @title Reference
/// @notice Ids, lanes, words and digests written down a second time, from the design and not from the contract.
library Reference {
    // keccak256 of "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
    bytes32 internal constant DOMAIN_TYPE = 0x8b73c3c69bb8fe3d512ecc4cf759cc79239f7b179b0ffacaa9a75d522b39400f;
    // keccak256 of "Voucher(bytes32 channelId,uint128 cumulativeAmount)"
    bytes32 internal constant VOUCHER_TYPE = 0xe97c93f01d3ef8eaba1586553df13308f236815bf4ea49c7b696895d8f5ea68a;
    // keccak256 of "CloseAuthorization(bytes32 channelId,uint128 cumulativeAmount)"
    bytes32 internal constant CLOSE_TYPE = 0x6ff47eec226b570fd6a47961fe19cf90b4cd50e5068f41f340d2af6f338f2fc8;
    // keccak256 of "EVM Payment Channel" and of "1"
    bytes32 internal constant NAME = 0xf7fa11363025285c89d11a5bb91f55b200984247c632333cde3a12838c341300;
    bytes32 internal constant VERSION = 0xc89efdaa54c0f20c7adf612882df0950f5a951637e0307cdcb4c672f298b8bc6;

    uint256 internal constant FINALIZED = 2 ** 32 - 1;

    function id(Channel memory channel, address verifier, uint256 chain) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                channel.payer,
                channel.payee,
                channel.token,
                channel.salt,
                channel.authorizedSigner,
                verifier,
                chain
            )
        );
    }

    /// @dev The storage slot of a channel: the description without the epoch.
    function lane(Channel memory channel) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                channel.payer, channel.payee, channel.token, uint256(channel.salt) / 2 ** 32, channel.authorizedSigner
            )
        );
    }

    function word(uint256 deposit, uint256 settled, uint256 closeRequestedAt, uint256 epoch)
        internal
        pure
        returns (bytes32)
    {
        return bytes32(deposit * 2 ** 160 + settled * 2 ** 64 + closeRequestedAt * 2 ** 32 + epoch);
    }

    function domain(address verifier, uint256 chain) internal pure returns (bytes32) {
        return keccak256(abi.encode(DOMAIN_TYPE, NAME, VERSION, chain, verifier));
    }

    function voucherDigest(bytes32 domain_, bytes32 id_, uint128 cumulativeAmount) internal pure returns (bytes32) {
        return _digest(domain_, VOUCHER_TYPE, id_, cumulativeAmount);
    }

    function closeDigest(bytes32 domain_, bytes32 id_, uint128 cumulativeAmount) internal pure returns (bytes32) {
        return _digest(domain_, CLOSE_TYPE, id_, cumulativeAmount);
    }

    function _digest(bytes32 domain_, bytes32 kind, bytes32 id_, uint128 amount) private pure returns (bytes32) {
        return keccak256(bytes.concat(hex"1901", domain_, keccak256(abi.encode(kind, id_, amount))));
    }

    function withEpoch(Channel memory channel, uint32 epoch) internal pure returns (Channel memory) {
        bytes32 salt = bytes32((uint256(channel.salt) & ~FINALIZED) | epoch);
        return Channel(channel.payer, channel.payee, channel.token, channel.authorizedSigner, salt);
    }
}
