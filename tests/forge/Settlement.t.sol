// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Channel, IPaymentChannels, Status} from "../../contracts/interfaces/IPaymentChannels.sol";
import {ForgeTest} from "./support/ForgeTest.sol";
import {Reference} from "./support/Reference.sol";

contract SettlementTest is ForgeTest {
    uint256 private constant MAX = type(uint96).max;

    function testFuzz_settlePaysExactlyWhatTheVoucherAdds(bool native, uint96 deposit, uint96 first, uint96 second)
        external
    {
        uint128 last = uint128(within(second, 2, MAX));
        uint128 before = uint128(within(first, 1, last - 1));
        Channel memory channel = _opened(native, uint128(within(deposit, last, MAX)));
        uint256 held = balance(channel.token, address(channels));

        _settle(channel, before);
        _settle(channel, last);
        vm.assertEq(balance(channel.token, payee), last);
        vm.assertEq(balance(channel.token, address(channels)), held - last);
        vm.assertEq(channels.channelState(channel).settled, last);
    }

    function testFuzz_aVoucherThatAddsNothingPaysNothing(bool native, uint96 settled, uint96 amount) external {
        uint128 done = uint128(within(settled, 1, MAX));
        uint128 again = uint128(within(amount, 0, done));
        Channel memory channel = _opened(native, uint128(MAX));
        _settle(channel, done);

        bytes memory signature = voucher(SESSION_KEY, channel, again);
        vm.expectRevert(abi.encodeWithSelector(IPaymentChannels.AmountNotIncreasing.selector, again, done));
        channels.settle(channel, again, signature);
    }

    function testFuzz_aVoucherAboveTheDepositPaysNothing(bool native, uint96 deposit, uint128 amount) external {
        uint128 locked = uint128(within(deposit, 1, MAX));
        uint128 more = uint128(within(amount, uint256(locked) + 1, type(uint128).max));
        Channel memory channel = _opened(native, locked);

        bytes memory signature = voucher(SESSION_KEY, channel, more);
        bytes memory refusal = abi.encodeWithSelector(IPaymentChannels.AmountExceedsDeposit.selector, more, locked);
        vm.expectRevert(refusal);
        channels.settle(channel, more, signature);
        vm.expectRevert(refusal);
        vm.prank(payee);
        channels.close(channel, more, signature);
    }

    function testFuzz_closeSplitsTheDepositWithoutRemainder(bool native, uint96 deposit, uint96 settled, uint96 closing)
        external
    {
        uint128 locked = uint128(within(deposit, 1, MAX));
        uint128 before = uint128(within(settled, 0, locked));
        uint128 last = uint128(within(closing, 0, locked));
        Channel memory channel = _opened(native, locked);
        uint256 rest = balance(channel.token, payer);
        if (before != 0) _settle(channel, before);

        bytes memory signature = last > before ? voucher(SESSION_KEY, channel, last) : bytes("");
        vm.prank(payee);
        channels.close(channel, last, signature);
        uint256 earned = last > before ? last : before;
        vm.assertEq(balance(channel.token, payee), earned);
        vm.assertEq(balance(channel.token, payer), rest + locked - earned);
        vm.assertEq(balance(channel.token, address(channels)), 0);
        vm.assertTrue(channels.channelState(channel).status == Status.Finalized);
    }

    function testFuzz_aCloseThatThePayeeSignedPaysAsItsOwnClose(bool native, uint96 deposit, uint96 amount, address sender)
        external
    {
        uint128 locked = uint128(within(deposit, 1, MAX));
        uint128 last = uint128(within(amount, 0, locked));
        Channel memory channel = _opened(native, locked);
        uint256 rest = balance(channel.token, payer);
        bytes memory signature = last != 0 ? voucher(SESSION_KEY, channel, last) : bytes("");
        bytes memory authorization = _authorization(PAYEE_KEY, channel, last);

        vm.prank(sender);
        channels.closeWithAuthorization(channel, last, signature, authorization);
        vm.assertEq(balance(channel.token, payee), last);
        vm.assertEq(balance(channel.token, payer), rest + locked - last);

        vm.expectRevert(abi.encodeWithSelector(IPaymentChannels.ChannelFinalized.selector, idOf(channel)));
        channels.closeWithAuthorization(channel, last, signature, authorization);
    }

    function testFuzz_onlyThePayeesOwnSignatureOverThisAmountCloses(uint96 amount, uint96 other, uint256 key) external {
        uint128 last = uint128(within(amount, 1, MAX));
        uint128 signed = uint128(within(other, 1, MAX));
        vm.assume(signed != last);
        uint256 anyone = within(key, 1, 2 ** 128);
        vm.assume(anyone != PAYEE_KEY);
        Channel memory channel = _opened(true, uint128(MAX));
        bytes memory signature = voucher(SESSION_KEY, channel, last);

        _refusesToClose(channel, last, signature, _authorization(anyone, channel, last));
        _refusesToClose(channel, last, signature, _authorization(PAYEE_KEY, channel, signed));
        _refusesToClose(channel, last, signature, voucher(PAYEE_KEY, channel, last));
        _refusesToClose(channel, last, signature, "");
    }

    function testFuzz_topUpsAddUpToTheDeposit(bool native, uint96 deposit, uint96 amount) external {
        uint128 locked = uint128(within(deposit, 1, MAX - 1));
        uint128 more = uint128(within(amount, 1, MAX - locked));
        Channel memory channel = _opened(native, locked);
        vm.prank(stranger);
        channels.topUp{value: native ? more : 0}(channel, more);
        vm.assertEq(channels.channelState(channel).deposit, uint256(locked) + more);
        vm.assertEq(balance(channel.token, address(channels)), uint256(locked) + more);
    }

    function testFuzz_noDepositPasses96Bits(bool native, uint96 deposit, uint128 amount) external {
        uint128 locked = uint128(within(deposit, 1, MAX));
        uint128 more = uint128(within(amount, MAX - locked + 1, type(uint128).max));
        Channel memory channel = _opened(native, locked);
        vm.expectPartialRevert(IPaymentChannels.DepositOverflow.selector);
        channels.topUp(channel, more);

        Channel memory next = Reference.withEpoch(channel, 1);
        next.payee = stranger;
        vm.expectPartialRevert(IPaymentChannels.DepositOverflow.selector);
        channels.open(next.payee, next.token, uint128(within(more, MAX + 1, type(uint128).max)), next.salt, session);
    }

    function testFuzz_theValueSentIsTheDepositOrNothing(bool native, uint96 deposit, uint96 value) external {
        uint128 locked = uint128(within(deposit, 1, MAX));
        vm.assume(value != (native ? locked : 0));
        address currency_ = currency(native);
        vm.expectPartialRevert(IPaymentChannels.WrongValue.selector);
        vm.prank(payer);
        channels.open{value: value}(payee, currency_, locked, 0, session);
    }

    function _opened(bool native, uint128 deposit) private returns (Channel memory channel) {
        channel = describe(currency(native), bytes32(uint256(1 << 32)));
        open(channel, deposit);
    }

    function _settle(Channel memory channel, uint128 amount) private {
        bytes memory signature = voucher(SESSION_KEY, channel, amount);
        vm.prank(stranger);
        channels.settle(channel, amount, signature);
    }

    function _authorization(uint256 key, Channel memory channel, uint128 amount) private view returns (bytes memory) {
        bytes32 domain = Reference.domain(address(channels), block.chainid);
        return sign(key, Reference.closeDigest(domain, idOf(channel), amount));
    }

    function _refusesToClose(Channel memory channel, uint128 amount, bytes memory signature, bytes memory authorization)
        private
    {
        vm.expectRevert(IPaymentChannels.InvalidAuthorization.selector);
        channels.closeWithAuthorization(channel, amount, signature, authorization);
    }
}
