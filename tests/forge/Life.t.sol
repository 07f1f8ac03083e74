// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Channel, IPaymentChannels, Status} from "../../contracts/interfaces/IPaymentChannels.sol";
import {ForgeTest} from "./support/ForgeTest.sol";
import {Reference} from "./support/Reference.sol";

contract LifeTest is ForgeTest {
    uint128 private constant DEPOSIT = 1_000_000;

    /* THE GRACE PERIOD */

    function testFuzz_thePayeeHasTheWholeGracePeriodToTheSecond(uint32 grace, uint32 requestedAt, uint32 early) external {
        uint256 period = within(grace, GRACE, 365 days);
        uint256 start = within(requestedAt, 1, type(uint32).max - 1);
        channels = deploy(period);
        Channel memory channel = _opened(1);
        vm.warp(start);
        _requestClose(channel);

        vm.warp(start + within(early, 0, period - 1));
        _tooEarly(channel, start + period);
        vm.warp(start + period - 1);
        _tooEarly(channel, start + period);
        _settle(channel, 1);
        vm.warp(start + period);
        _withdraw(channel);
        vm.assertEq(payee.balance, 1);
    }

    function testFuzz_aVoucherStillSettlesAfterTheGracePeriod(uint32 late, uint96 amount) external {
        uint128 promised = uint128(within(amount, 1, DEPOSIT));
        Channel memory channel = _opened(1);
        _requestClose(channel);
        vm.warp(START + GRACE + late);
        _settle(channel, promised);
        uint256 before = payer.balance;
        _withdraw(channel);
        vm.assertEq(payer.balance, before + DEPOSIT - promised);
        vm.assertEq(payee.balance, promised);
    }

    function testFuzz_requestingAgainMovesNothing(uint32 later) external {
        Channel memory channel = _opened(1);
        _requestClose(channel);
        vm.warp(START + uint256(later));
        _requestClose(channel);
        vm.assertEq(channels.channelState(channel).closeRequestedAt, START);
    }

    function testFuzz_aRequestThatWasTakenBackStartsAnew(uint16 later, uint16 again) external {
        Channel memory channel = _opened(1);
        _requestClose(channel);
        vm.warp(START + later);
        vm.prank(payer);
        channels.topUp{value: 1}(channel, 1);
        vm.assertTrue(channels.channelState(channel).status == Status.Open);
        vm.warp(START + later + again);
        _requestClose(channel);
        vm.warp(START + later + again + GRACE - 1);
        _tooEarly(channel, START + later + again + GRACE);
    }

    function testFuzz_aStrangersTopUpLeavesTheRequest(uint16 later, uint64 amount) external {
        vm.assume(amount != 0);
        Channel memory channel = _opened(1);
        _requestClose(channel);
        vm.warp(START + later);
        vm.prank(stranger);
        channels.topUp{value: amount}(channel, amount);
        vm.assertEq(channels.channelState(channel).closeRequestedAt, START);
    }

    function testFuzz_noCloseIsRequestedOnceTimeLeavesItsField(uint64 late) external {
        Channel memory channel = _opened(1);
        vm.warp(uint256(type(uint32).max) - 1);
        _requestClose(channel);
        vm.assertTrue(channels.channelState(channel).status == Status.Closing);

        Channel memory other = _opened(2 << 32);
        vm.warp(uint256(type(uint32).max) + late);
        vm.expectRevert(IPaymentChannels.TimeOverflow.selector);
        vm.prank(payer);
        channels.requestClose(other);
        vm.assertTrue(channels.channelState(other).status == Status.Open);
    }

    /* LANES AND EPOCHS */

    function testFuzz_aFinalizedLaneTakesGreaterEpochsOnly(uint32 first, uint32 second) external {
        Channel memory channel = _closed(first);
        Channel memory next = Reference.withEpoch(channel, second);
        if (second > first) {
            open(next, DEPOSIT);
            vm.assertTrue(idOf(next) != idOf(channel));
            vm.assertTrue(channels.channelState(channel).status == Status.Finalized);
        } else {
            vm.expectRevert(abi.encodeWithSelector(IPaymentChannels.ChannelAlreadyExists.selector, idOf(next)));
            vm.prank(payer);
            channels.open{value: DEPOSIT}(payee, NATIVE, DEPOSIT, next.salt, session);
        }
    }

    function testFuzz_aLiveLaneTakesNoEpoch(uint32 first, uint32 second, bool closing) external {
        Channel memory channel = _opened(first);
        if (closing) _requestClose(channel);
        Channel memory next = Reference.withEpoch(channel, second);
        vm.expectRevert(abi.encodeWithSelector(IPaymentChannels.ChannelAlreadyExists.selector, idOf(next)));
        vm.prank(payer);
        channels.open{value: DEPOSIT}(payee, NATIVE, DEPOSIT, next.salt, session);
    }

    function testFuzz_vouchersOfAnOlderEpochNeverPay(uint32 first, uint32 second, uint96 amount) external {
        vm.assume(second > first);
        uint128 promised = uint128(within(amount, 1, DEPOSIT));
        Channel memory old = _closed(first);
        bytes memory signature = voucher(SESSION_KEY, old, promised);
        Channel memory current = Reference.withEpoch(old, second);
        open(current, DEPOSIT);

        vm.expectRevert(abi.encodeWithSelector(IPaymentChannels.ChannelFinalized.selector, idOf(old)));
        channels.settle(old, promised, signature);
        vm.expectRevert(IPaymentChannels.InvalidSignature.selector);
        channels.settle(current, promised, signature);
        vm.expectRevert(IPaymentChannels.InvalidSignature.selector);
        vm.prank(payee);
        channels.close(current, promised, signature);
        vm.assertEq(payee.balance, 0);
    }

    function testFuzz_nothingWorksOnAnEpochThatIsNotLive(uint32 first, uint32 asked, bool closed) external {
        Channel memory channel = closed ? _closed(first) : _opened(first);
        vm.assume(closed || asked != first);
        Channel memory other = Reference.withEpoch(channel, asked);
        bytes4 refusal =
            asked > first ? IPaymentChannels.ChannelNotFound.selector : IPaymentChannels.ChannelFinalized.selector;
        _everythingFails(other, abi.encodeWithSelector(refusal, idOf(other)));
    }

    function testFuzz_onlyThePayerGetsOutAndOnlyThePayeeCloses(address anyone) external {
        vm.assume(anyone != payer && anyone != payee);
        Channel memory channel = _opened(1);
        vm.expectRevert(abi.encodeWithSelector(IPaymentChannels.NotPayer.selector, payer));
        vm.prank(anyone);
        channels.requestClose(channel);
        vm.expectRevert(abi.encodeWithSelector(IPaymentChannels.NotPayee.selector, payee));
        vm.prank(anyone);
        channels.close(channel, 0, "");
        _requestClose(channel);
        vm.warp(START + GRACE);
        vm.expectRevert(abi.encodeWithSelector(IPaymentChannels.NotPayer.selector, payer));
        vm.prank(anyone);
        channels.withdraw(channel);
    }

    /* INTERNAL */

    function _opened(uint256 salt) private returns (Channel memory channel) {
        channel = describe(NATIVE, bytes32(salt));
        open(channel, DEPOSIT);
    }

    function _closed(uint32 epoch) private returns (Channel memory channel) {
        channel = _opened(epoch);
        vm.prank(payee);
        channels.close(channel, 0, "");
    }

    function _settle(Channel memory channel, uint128 amount) private {
        channels.settle(channel, amount, voucher(SESSION_KEY, channel, amount));
    }

    function _requestClose(Channel memory channel) private {
        vm.prank(payer);
        channels.requestClose(channel);
    }

    function _withdraw(Channel memory channel) private {
        vm.prank(payer);
        channels.withdraw(channel);
    }

    function _tooEarly(Channel memory channel, uint256 withdrawableAt) private {
        vm.expectRevert(abi.encodeWithSelector(IPaymentChannels.CloseNotReady.selector, withdrawableAt));
        _withdraw(channel);
    }

    function _everythingFails(Channel memory channel, bytes memory refusal) private {
        bytes memory signature = voucher(SESSION_KEY, channel, 1);
        vm.expectRevert(refusal);
        channels.settle(channel, 1, signature);
        vm.expectRevert(refusal);
        channels.closeWithAuthorization(channel, 1, signature, "");
        vm.expectRevert(refusal);
        vm.prank(payee);
        channels.close(channel, 1, signature);
        vm.expectRevert(refusal);
        _requestClose(channel);
        vm.expectRevert(refusal);
        _withdraw(channel);
        vm.expectRevert(refusal);
        vm.prank(payer);
        channels.topUp{value: 1}(channel, 1);
    }
}
