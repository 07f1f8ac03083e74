// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Channel, IPaymentChannels} from "../../contracts/interfaces/IPaymentChannels.sol";
import {ForgeTest} from "./support/ForgeTest.sol";
import {Reference} from "./support/Reference.sol";

contract SignatureTest is ForgeTest {
    uint256 private constant ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;

    Channel private channel;

    function setUp() public override {
        super.setUp();
        channel = describe(NATIVE, bytes32(uint256(7)));
        open(channel, type(uint96).max);
    }

    /// forge-config: default.fuzz.runs = 16
    /// forge-config: fuzz.fuzz.runs = 256
    function testFuzz_everyOtherVIsRefused(uint96 amount) external {
        uint128 promised = _amount(amount);
        (uint8 right, bytes32 r, bytes32 s) = _sign(SESSION_KEY, promised);
        for (uint256 v = 0; v < 256; ++v) {
            if (v != right) _refuses(promised, abi.encodePacked(r, s, uint8(v)));
        }
        _accepts(promised, abi.encodePacked(r, s, right));
    }

    function testFuzz_theTwinWithTheHighSIsRefused(uint96 amount) external {
        uint128 promised = _amount(amount);
        (uint8 v, bytes32 r, bytes32 s) = _sign(SESSION_KEY, promised);
        vm.assertTrue(uint256(s) <= ORDER / 2);
        bytes32 high = bytes32(ORDER - uint256(s));
        vm.assertEq(ecrecover(_digest(promised), 55 - v, r, high), session);
        _refuses(promised, abi.encodePacked(r, high, 55 - v));
    }

    function testFuzz_everyOtherLengthIsRefused(uint96 amount, uint8 length) external {
        vm.assume(length != 65);
        uint128 promised = _amount(amount);
        (uint8 v, bytes32 r, bytes32 s) = _sign(SESSION_KEY, promised);
        bytes memory signature = abi.encodePacked(r, s, v, new bytes(255));
        assembly ("memory-safe") {
            mstore(signature, length)
        }
        _refuses(promised, signature);
    }

    function testFuzz_theCompactFormIsRefused(uint96 amount) external {
        uint128 promised = _amount(amount);
        (uint8 v, bytes32 r, bytes32 s) = _sign(SESSION_KEY, promised);
        _refuses(promised, abi.encodePacked(r, uint256(s) | (uint256(v - 27) << 255)));
    }

    function testFuzz_anotherKeyPaysNothing(uint96 amount, uint256 key) external {
        uint256 anyone = within(key, 1, 2 ** 128);
        vm.assume(anyone != SESSION_KEY);
        _refuses(_amount(amount), voucher(anyone, channel, _amount(amount)));
    }

    function testFuzz_onceASignerIsNamedThePayersKeyPaysNothing(uint96 amount) external {
        _refuses(_amount(amount), voucher(PAYER_KEY, channel, _amount(amount)));
    }

    function testFuzz_withoutASignerOnlyThePayersKeyPays(uint96 amount) external {
        channel.authorizedSigner = address(0);
        open(channel, type(uint96).max);
        uint128 promised = _amount(amount);
        _refuses(promised, voucher(SESSION_KEY, channel, promised));
        _accepts(promised, voucher(PAYER_KEY, channel, promised));
    }

    function testFuzz_anotherAmountPaysNothing(uint96 amount, uint96 other) external {
        vm.assume(_amount(amount) != _amount(other));
        _refuses(_amount(amount), voucher(SESSION_KEY, channel, _amount(other)));
    }

    function testFuzz_anotherChainPaysNothing(uint96 amount, uint64 chain, bool sameId) external {
        vm.assume(chain != block.chainid);
        bytes32 id = sameId ? idOf(channel) : Reference.id(channel, address(channels), chain);
        bytes32 digest = Reference.voucherDigest(Reference.domain(address(channels), chain), id, _amount(amount));
        _refuses(_amount(amount), sign(SESSION_KEY, digest));
    }

    function testFuzz_anotherContractPaysNothing(uint96 amount, address contract_, bool sameId) external {
        vm.assume(contract_ != address(channels));
        bytes32 id = sameId ? idOf(channel) : Reference.id(channel, contract_, block.chainid);
        bytes32 digest = Reference.voucherDigest(Reference.domain(contract_, block.chainid), id, _amount(amount));
        _refuses(_amount(amount), sign(SESSION_KEY, digest));
    }

    function testFuzz_noiseIsRefusedAlsoForTheZeroAddress(uint96 amount, bytes32 r, bytes32 s, uint8 v) external {
        vm.deal(address(0), type(uint96).max);
        _refuses(_amount(amount), abi.encodePacked(r, s, v));
        Channel memory nobodys = Channel(address(0), payee, NATIVE, address(0), channel.salt);
        open(nobodys, type(uint96).max);
        vm.expectRevert(IPaymentChannels.InvalidSignature.selector);
        channels.settle(nobodys, _amount(amount), abi.encodePacked(r, s, v));
    }

    function _amount(uint96 amount) private pure returns (uint128) {
        return uint128(within(amount, 1, type(uint96).max));
    }

    function _digest(uint128 amount) private view returns (bytes32) {
        return Reference.voucherDigest(Reference.domain(address(channels), block.chainid), idOf(channel), amount);
    }

    function _sign(uint256 key, uint128 amount) private view returns (uint8 v, bytes32 r, bytes32 s) {
        return vm.sign(key, _digest(amount));
    }

    function _refuses(uint128 amount, bytes memory signature) private {
        vm.expectRevert(IPaymentChannels.InvalidSignature.selector);
        channels.settle(channel, amount, signature);
    }

    function _accepts(uint128 amount, bytes memory signature) private {
        channels.settle(channel, amount, signature);
        vm.assertEq(payee.balance, amount);
    }
}
