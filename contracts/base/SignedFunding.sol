// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Channel, IPaymentChannels} from "../interfaces/IPaymentChannels.sol";
import {IERC20, IERC2612, IERC3009, IERC3009Bytes, IPermit2} from "../interfaces/ITokens.sol";
import {ChannelWord} from "../libraries/ChannelWord.sol";
import {Description} from "../libraries/Description.sol";
import {Transfers} from "../libraries/Transfers.sol";
import {ChannelCore, Lane} from "./ChannelCore.sol";

/// @title SignedFunding
/// @notice Opens and top-ups whose money comes by a signature: EIP-2612, EIP-3009 and Permit2.
abstract contract SignedFunding is ChannelCore {
    using Description for Channel;

    address private constant PERMIT2 = 0x000000000022D473030F116dDEE9F6B43aC78BA3;

    bytes32 private constant OPEN_WITNESS_TYPEHASH =
        keccak256("ChannelOpenWitness(address payee,bytes32 salt,address authorizedSigner)");
    bytes32 private constant TOP_UP_WITNESS_TYPEHASH = keccak256("ChannelTopUpWitness(bytes32 channelId)");

    /// @dev The end of Permit2's type string: the witness, then the types it refers to in alphabetical order.
    string private constant OPEN_WITNESS =
        "ChannelOpenWitness witness)ChannelOpenWitness(address payee,bytes32 salt,address authorizedSigner)TokenPermissions(address token,uint256 amount)";
    string private constant TOP_UP_WITNESS =
        "ChannelTopUpWitness witness)ChannelTopUpWitness(bytes32 channelId)TokenPermissions(address token,uint256 amount)";

    /* EIP-2612 */

    /// @inheritdoc IPaymentChannels
    function openWithPermit(
        address payee,
        address token,
        uint128 deposit,
        bytes32 salt,
        address authorizedSigner,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external returns (bytes32 id) {
        id = _create(msg.sender, payee, token, deposit, salt, authorizedSigner);
        // Whoever saw the permit may have used it already; whether the allowance is there, the pull finds out.
        Transfers.tryCall(
            token, abi.encodeCall(IERC2612.permit, (msg.sender, address(this), deposit, deadline, v, r, s))
        );
        _pull(token, deposit, token, abi.encodeCall(IERC20.transferFrom, (msg.sender, address(this), deposit)));
    }

    /* EIP-3009 */

    /// @inheritdoc IPaymentChannels
    function openWithAuthorization(
        address payee,
        address token,
        uint128 deposit,
        bytes32 salt,
        address authorizedSigner,
        address from,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external returns (bytes32 id) {
        id = _create(from, payee, token, deposit, salt, authorizedSigner);
        _checkNonce(nonce, keccak256(abi.encode(from, payee, token, salt, authorizedSigner)));
        _pull(
            token,
            deposit,
            token,
            abi.encodeCall(
                IERC3009Bytes.receiveWithAuthorization,
                (from, address(this), deposit, validAfter, validBefore, nonce, signature)
            )
        );
    }

    /// @inheritdoc IPaymentChannels
    function openWithAuthorization(
        address payee,
        address token,
        uint128 deposit,
        bytes32 salt,
        address authorizedSigner,
        address from,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external returns (bytes32 id) {
        id = _create(from, payee, token, deposit, salt, authorizedSigner);
        _checkNonce(nonce, keccak256(abi.encode(from, payee, token, salt, authorizedSigner)));
        _pull(
            token,
            deposit,
            token,
            abi.encodeCall(
                IERC3009.receiveWithAuthorization,
                (from, address(this), deposit, validAfter, validBefore, nonce, v, r, s)
            )
        );
    }

    /// @inheritdoc IPaymentChannels
    function topUpWithAuthorization(
        Channel calldata channel,
        uint128 amount,
        address from,
        bytes32 topUpSalt,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external {
        (bytes32 id, Lane storage lane, ChannelWord word) = _load(channel);
        _add(channel, id, lane, word, amount, address(0));
        _checkNonce(nonce, keccak256(abi.encode(id, amount, from, topUpSalt)));
        _pull(
            channel.tokenOf(),
            amount,
            channel.tokenOf(),
            abi.encodeCall(
                IERC3009Bytes.receiveWithAuthorization,
                (from, address(this), amount, validAfter, validBefore, nonce, signature)
            )
        );
    }

    /// @inheritdoc IPaymentChannels
    function topUpWithAuthorization(
        Channel calldata channel,
        uint128 amount,
        address from,
        bytes32 topUpSalt,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external {
        (bytes32 id, Lane storage lane, ChannelWord word) = _load(channel);
        _add(channel, id, lane, word, amount, address(0));
        _checkNonce(nonce, keccak256(abi.encode(id, amount, from, topUpSalt)));
        _pull(
            channel.tokenOf(),
            amount,
            channel.tokenOf(),
            abi.encodeCall(
                IERC3009.receiveWithAuthorization,
                (from, address(this), amount, validAfter, validBefore, nonce, v, r, s)
            )
        );
    }

    /* PERMIT2 */

    /// @inheritdoc IPaymentChannels
    function openWithPermit2(
        address payee,
        address token,
        uint128 deposit,
        bytes32 salt,
        address authorizedSigner,
        address from,
        uint256 nonce,
        uint256 deadline,
        bytes calldata signature
    ) external returns (bytes32 id) {
        id = _create(from, payee, token, deposit, salt, authorizedSigner);
        bytes32 witness = keccak256(abi.encode(OPEN_WITNESS_TYPEHASH, payee, salt, authorizedSigner));
        _pullByPermit2(token, deposit, from, nonce, deadline, witness, OPEN_WITNESS, signature);
    }

    /// @inheritdoc IPaymentChannels
    function topUpWithPermit2(
        Channel calldata channel,
        uint128 amount,
        address from,
        uint256 nonce,
        uint256 deadline,
        bytes calldata signature
    ) external {
        (bytes32 id, Lane storage lane, ChannelWord word) = _load(channel);
        _add(channel, id, lane, word, amount, address(0));
        bytes32 witness = keccak256(abi.encode(TOP_UP_WITNESS_TYPEHASH, id));
        _pullByPermit2(channel.tokenOf(), amount, from, nonce, deadline, witness, TOP_UP_WITNESS, signature);
    }

    /* INTERNAL */

    /// @dev A nonce made from the channel's parameters binds an EIP-3009 signature to this one channel.
    function _checkNonce(bytes32 nonce, bytes32 expected) private pure {
        require(nonce == expected, NonceMismatch(expected));
    }

    function _pullByPermit2(
        address token,
        uint256 amount,
        address from,
        uint256 nonce,
        uint256 deadline,
        bytes32 witness,
        string memory witnessType,
        bytes calldata signature
    ) private {
        IPermit2.PermitTransferFrom memory permit =
            IPermit2.PermitTransferFrom(IPermit2.TokenPermissions(token, amount), nonce, deadline);
        IPermit2.SignatureTransferDetails memory details =
            IPermit2.SignatureTransferDetails(address(this), amount);
        _pull(
            token,
            amount,
            PERMIT2,
            abi.encodeCall(
                IPermit2.permitWitnessTransferFrom, (permit, details, from, witness, witnessType, signature)
            )
        );
    }
}
