// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Channel, IPaymentChannels} from "../../contracts/interfaces/IPaymentChannels.sol";
import {Signing} from "./support/Signing.sol";

/// @notice Opens and top-ups whose money comes by a signature over the token.
contract FundingTest is Signing {
    function testFuzz_aSignedOpenIsThePayersOwn(uint96 deposit, bytes32 salt, bool parts, address sender) external {
        Channel memory channel = describe(address(token), salt);
        uint128 amount = uint128(within(deposit, 1, type(uint96).max));
        uint256 before = token.balanceOf(payer);
        vm.assertTrue(_openSigned(channel, amount, openNonce(channel), parts, sender));
        vm.assertEq(channels.channelState(channel).deposit, amount);
        vm.assertEq(token.balanceOf(payer), before - amount);
    }

    function testFuzz_nobodyRedirectsASignedOpen(uint96 deposit, uint8 part, uint160 change, bool parts) external {
        vm.assume(change != 0);
        Channel memory channel = describe(address(token), bytes32(uint256(1)));
        uint128 amount = uint128(within(deposit, 1, type(uint96).max));
        bytes32 nonce = openNonce(channel);
        if (part % 3 == 0) channel.payee = address(uint160(channel.payee) ^ change);
        if (part % 3 == 1) channel.authorizedSigner = address(uint160(channel.authorizedSigner) ^ change);
        if (part % 3 == 2) channel.salt ^= bytes32(uint256(change));
        vm.assume(channel.payee != address(0));
        vm.assertFalse(_openSigned(channel, amount, nonce, parts, stranger));
    }

    function testFuzz_aSignedOpenTakesNoOtherAmount(uint96 deposit, uint96 other, bool parts) external {
        uint128 signed = uint128(within(deposit, 1, type(uint96).max));
        uint128 asked = uint128(within(other, 1, type(uint96).max));
        vm.assume(signed != asked);
        Channel memory channel = describe(address(token), 0);
        bytes32 nonce = openNonce(channel);
        bytes memory signature = authorization(PAYER_KEY, signed, nonce);
        bytes memory data = openData(channel, asked, nonce, parts, signature);
        (bool success,) = address(channels).call(data);
        vm.assertFalse(success);
    }

    function testFuzz_aSignedTopUpCancelsNoRequestNotEvenThePayers(uint96 amount, bytes32 topUpSalt) external {
        Channel memory channel = describe(address(token), 0);
        open(channel, 1);
        vm.prank(payer);
        channels.requestClose(channel);
        uint128 added = uint128(within(amount, 1, type(uint96).max - 1));
        bytes32 nonce = topUpNonce(channel, added, payer, topUpSalt);
        bytes memory signature = authorization(PAYER_KEY, added, nonce);
        channels.topUpWithAuthorization(channel, added, payer, topUpSalt, 0, type(uint256).max, nonce, signature);
        vm.assertEq(channels.channelState(channel).deposit, uint256(added) + 1);
        vm.assertEq(channels.channelState(channel).closeRequestedAt, START);
    }

    function testFuzz_nobodyRedirectsASignedTopUp(uint96 amount, bytes32 topUpSalt, bool otherAmount) external {
        Channel memory channel = describe(address(token), 0);
        Channel memory other = describe(address(token), bytes32(uint256(1 << 32)));
        open(channel, 1);
        open(other, 1);
        uint128 added = uint128(within(amount, 1, type(uint96).max - 2));
        bytes32 nonce = topUpNonce(channel, added, payer, topUpSalt);
        bytes memory signature = authorization(PAYER_KEY, added, nonce);
        vm.expectPartialRevert(IPaymentChannels.NonceMismatch.selector);
        channels.topUpWithAuthorization(
            otherAmount ? channel : other,
            otherAmount ? added + 1 : added,
            payer,
            topUpSalt,
            0,
            type(uint256).max,
            nonce,
            signature
        );
    }

    function testFuzz_aPermitThatSomebodyUsedFirstStillOpens(uint96 deposit, bytes32 salt, bool usedFirst) external {
        vm.prank(payer);
        token.approve(address(channels), 0);
        uint128 amount = uint128(within(deposit, 1, type(uint96).max));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(PAYER_KEY, permitDigest(payer, amount));
        if (usedFirst) token.permit(payer, address(channels), amount, type(uint256).max, v, r, s);
        vm.prank(payer);
        channels.openWithPermit(payee, address(token), amount, salt, session, type(uint256).max, v, r, s);
        vm.assertEq(channels.channelState(describe(address(token), salt)).deposit, amount);
        vm.assertEq(token.allowance(payer, address(channels)), 0);
    }

    function testFuzz_aForgedPermitOpensNothing(uint96 deposit, uint256 key) external {
        vm.prank(payer);
        token.approve(address(channels), 0);
        uint256 anyone = within(key, 1, 2 ** 128);
        vm.assume(anyone != PAYER_KEY);
        uint128 amount = uint128(within(deposit, 1, type(uint96).max));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(anyone, permitDigest(payer, amount));
        vm.expectRevert(abi.encodeWithSelector(IPaymentChannels.TokenTransferFailed.selector, address(token)));
        vm.prank(payer);
        channels.openWithPermit(payee, address(token), amount, 0, session, type(uint256).max, v, r, s);
    }

    function _openSigned(Channel memory channel, uint128 amount, bytes32 nonce, bool parts, address sender)
        private
        returns (bool success)
    {
        bytes memory data = openData(channel, amount, nonce, parts, authorization(PAYER_KEY, amount, nonce));
        vm.prank(sender);
        (success,) = address(channels).call(data);
    }
}
