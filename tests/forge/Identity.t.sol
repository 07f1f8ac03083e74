// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Channel, IPaymentChannels} from "../../contracts/interfaces/IPaymentChannels.sol";
import {ForgeTest} from "./support/ForgeTest.sol";
import {Reference} from "./support/Reference.sol";

contract IdentityTest is ForgeTest {
    function test_typeHashesAreThoseOfTheirTexts() external pure {
        vm.assertEq(
            keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
            Reference.DOMAIN_TYPE
        );
        vm.assertEq(keccak256("Voucher(bytes32 channelId,uint128 cumulativeAmount)"), Reference.VOUCHER_TYPE);
        vm.assertEq(keccak256("CloseAuthorization(bytes32 channelId,uint128 cumulativeAmount)"), Reference.CLOSE_TYPE);
        vm.assertEq(keccak256("EVM Payment Channel"), Reference.NAME);
        vm.assertEq(keccak256("1"), Reference.VERSION);
    }

    function testFuzz_anIdHashesTheDescriptionTheContractAndTheChain(Channel calldata channel, uint64 chain) external {
        vm.assume(chain != 0);
        vm.chainId(chain);
        vm.assertEq(channels.channelId(channel), Reference.id(channel, address(channels), chain));
    }

    function testFuzz_everyPartOfTheDescriptionChangesTheId(Channel memory channel, uint8 part, uint256 change)
        external
        view
    {
        bytes32 before = channels.channelId(channel);
        vm.assume(uint160(change) != 0);
        if (part % 5 == 0) channel.payer = _changed(channel.payer, change);
        if (part % 5 == 1) channel.payee = _changed(channel.payee, change);
        if (part % 5 == 2) channel.token = _changed(channel.token, change);
        if (part % 5 == 3) channel.authorizedSigner = _changed(channel.authorizedSigner, change);
        if (part % 5 == 4) channel.salt ^= bytes32(change);
        vm.assertTrue(channels.channelId(channel) != before);
    }

    function testFuzz_theLaneHashesTheDescriptionWithoutTheEpoch(bytes32 salt, uint96 deposit, address signer) external {
        vm.assume(deposit != 0);
        Channel memory channel = Channel(payer, payee, NATIVE, signer, salt);
        open(channel, deposit);
        bytes32 word = Reference.word(deposit, 0, 0, uint32(uint256(salt)));
        vm.assertEq(vm.load(address(channels), Reference.lane(channel)), word);
    }

    function testFuzz_digestsAreThoseOfEip712(bytes32 id, uint128 amount, uint64 chain) external {
        vm.assume(chain != 0);
        vm.chainId(chain);
        bytes32 domain = Reference.domain(address(channels), chain);
        vm.assertEq(channels.domainSeparator(), domain);
        vm.assertEq(channels.voucherDigest(id, amount), Reference.voucherDigest(domain, id, amount));
        vm.assertEq(channels.closeAuthorizationDigest(id, amount), Reference.closeDigest(domain, id, amount));
    }

    function testFuzz_aVoucherAndACloseAuthorizationNeverShareADigest(bytes32 id, uint128 amount) external view {
        vm.assertTrue(channels.voucherDigest(id, amount) != channels.closeAuthorizationDigest(id, amount));
    }

    function testFuzz_anotherContractHasOtherIdsAndDigests(Channel calldata channel, uint128 amount) external {
        IPaymentChannels other = deploy(GRACE);
        bytes32 id = channels.channelId(channel);
        vm.assertTrue(id != other.channelId(channel));
        vm.assertTrue(channels.voucherDigest(id, amount) != other.voucherDigest(id, amount));
    }

    function _changed(address account, uint256 change) private pure returns (address) {
        return address(uint160(account) ^ uint160(change));
    }
}
