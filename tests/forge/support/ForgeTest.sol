// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Channel, IPaymentChannels, VoucherRow} from "../../../contracts/interfaces/IPaymentChannels.sol";
import {TestToken} from "../../../contracts/mocks/TestToken.sol";
import {Reference} from "./Reference.sol";
import {Vm} from "./Vm.sol";

/// @notice A contract under test, a token, and the people who use them. The contract is the shipped artifact: the bytes
/// that solc gives for a source depend on what else it compiles with it, so that a second build would test other bytes.
abstract contract ForgeTest {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    uint256 internal constant START = 1_800_000_000;
    uint256 internal constant GRACE = 10 minutes;
    uint256 internal constant PAYER_KEY = 0xA11CE;
    uint256 internal constant PAYEE_KEY = 0xB0B;
    uint256 internal constant SESSION_KEY = 0x5E55;
    uint256 internal constant STRANGER_KEY = 0x57A6;
    address internal constant NATIVE = address(0);

    IPaymentChannels internal channels;
    TestToken internal token;
    address internal payer;
    address internal payee;
    address internal session;
    address internal stranger;

    function setUp() public virtual {
        vm.warp(START);
        channels = deploy(GRACE);
        token = TestToken(deploy("TestToken", ""));
        payer = vm.addr(PAYER_KEY);
        payee = vm.addr(PAYEE_KEY);
        session = vm.addr(SESSION_KEY);
        stranger = vm.addr(STRANGER_KEY);
        fund(payer);
        fund(stranger);
    }

    function deploy(uint256 gracePeriod) internal returns (IPaymentChannels deployed) {
        return IPaymentChannels(deploy("PaymentChannels", abi.encode(gracePeriod)));
    }

    /// @param name Of a shipped artifact.
    function deploy(string memory name, bytes memory arguments) internal returns (address deployed) {
        string memory artifact = vm.readFile(string.concat("src/channelpay/chain/artifacts/", name, ".json"));
        bytes memory code = bytes.concat(vm.parseJsonBytes(artifact, ".bytecode"), arguments);
        assembly ("memory-safe") {
            deployed := create(0, add(code, 0x20), mload(code))
        }
        require(deployed != address(0), "the artifact does not deploy");
    }

    /* PEOPLE */

    function fund(address account) internal {
        vm.deal(account, 2 ** 120);
        token.mint(account, 2 ** 120);
        vm.prank(account);
        token.approve(address(channels), type(uint256).max);
    }

    /* CHANNELS */

    function describe(address token_, bytes32 salt) internal view returns (Channel memory) {
        return Channel(payer, payee, token_, session, salt);
    }

    function open(Channel memory channel, uint128 deposit) internal returns (bytes32) {
        uint256 value = channel.token == NATIVE ? deposit : 0;
        vm.prank(channel.payer);
        return channels.open{value: value}(
            channel.payee, channel.token, deposit, channel.salt, channel.authorizedSigner
        );
    }

    function idOf(Channel memory channel) internal view returns (bytes32) {
        return Reference.id(channel, address(channels), block.chainid);
    }

    function balance(address token_, address account) internal view returns (uint256) {
        return token_ == NATIVE ? account.balance : TestToken(token_).balanceOf(account);
    }

    /// @dev One of the two kinds of money that a channel can hold.
    function currency(bool native) internal view returns (address) {
        return native ? NATIVE : address(token);
    }

    /* SIGNATURES */

    function sign(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    function voucher(uint256 key, Channel memory channel, uint128 cumulativeAmount)
        internal
        view
        returns (bytes memory)
    {
        bytes32 domain = Reference.domain(address(channels), block.chainid);
        return sign(key, Reference.voucherDigest(domain, idOf(channel), cumulativeAmount));
    }

    /// @dev A row of a batch, with the voucher signed by `key`.
    function row(uint256 key, Channel memory channel, uint128 cumulativeAmount)
        internal
        view
        returns (VoucherRow memory)
    {
        bytes32 domain = Reference.domain(address(channels), block.chainid);
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(key, Reference.voucherDigest(domain, idOf(channel), cumulativeAmount));
        return VoucherRow({
            salt: channel.salt,
            payer: channel.payer,
            authorizedSigner: channel.authorizedSigner,
            cumulativeAmount: cumulativeAmount,
            r: r,
            vs: bytes32(uint256(s) | (uint256(v - 27) << 255))
        });
    }

    /* NUMBERS */

    /// @dev `value`, folded into `low ..= high`.
    function within(uint256 value, uint256 low, uint256 high) internal pure returns (uint256) {
        return value >= low && value <= high ? value : low + value % (high - low + 1);
    }
}
