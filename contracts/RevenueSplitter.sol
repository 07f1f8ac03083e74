// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Channel, IPaymentChannels} from "./interfaces/IPaymentChannels.sol";
import {IRevenueSplitter, Party} from "./interfaces/IRevenueSplitter.sol";
import {Transfers} from "./libraries/Transfers.sol";

uint256 constant PARTIES_MIN = 2;
uint256 constant PARTIES_MAX = 100;
uint256 constant BASIS_POINTS = 10_000;

/// @dev Reverts unless a group of these parties can exist.
function checkParties(Party[] memory parties) pure {
    uint256 count = parties.length;
    require(count >= PARTIES_MIN && count <= PARTIES_MAX, IRevenueSplitter.PartyCountOutOfRange(count));
    uint256 total = 0;
    for (uint256 i = 0; i < count; ++i) {
        Party memory party = parties[i];
        bool valid = party.account != address(0) && party.basisPoints != 0 && !isListed(parties, i, party.account);
        require(valid, IRevenueSplitter.InvalidParty(party.account, party.basisPoints));
        total += party.basisPoints;
    }
    require(total == BASIS_POINTS, IRevenueSplitter.PartsDoNotAddUp(total));
}

/// @dev Whether the account is one of the first `count` parties. Assembly: a hundred parties take 4,950 comparisons.
function isListed(Party[] memory parties, uint256 count, address account) pure returns (bool listed) {
    assembly ("memory-safe") {
        let entry := add(parties, 0x20)
        for { let end := add(entry, shl(5, count)) } lt(entry, end) { entry := add(entry, 0x20) } {
            listed := or(listed, eq(mload(mload(entry)), account))
        }
    }
}

/// @title RevenueSplitter
/// @notice See IRevenueSplitter.
contract RevenueSplitter is IRevenueSplitter {
    /* IMMUTABLES */

    /// @inheritdoc IRevenueSplitter
    address public immutable operator;

    /* STORAGE */

    /// @inheritdoc IRevenueSplitter
    mapping(address account => uint16) public basisPoints;

    /// @inheritdoc IRevenueSplitter
    mapping(address token => uint256) public totalReleased;

    /// @inheritdoc IRevenueSplitter
    mapping(address token => mapping(address account => uint256)) public released;

    /// @dev True during a payment. A token may call out before it moves: until it does, the balance counts twice.
    bool private transient _paying;

    /* CONSTRUCTOR */

    /// @param parties 2 to 100 different accounts, whose parts add up to 10,000.
    /// @param operator_ Who may close channels; zero for nobody.
    constructor(Party[] memory parties, address operator_) {
        checkParties(parties);
        operator = operator_;
        for (uint256 i = 0; i < parties.length; ++i) {
            basisPoints[parties[i].account] = parties[i].basisPoints;
        }
    }

    /* PAYMENTS */

    /// @inheritdoc IRevenueSplitter
    receive() external payable {}

    /// @inheritdoc IRevenueSplitter
    function release(address token, address account) external {
        _release(token, account, account);
    }

    /// @inheritdoc IRevenueSplitter
    function releaseTo(address token, address receiver) external {
        require(receiver != address(0), InvalidReceiver(receiver));
        _release(token, msg.sender, receiver);
    }

    /* CHANNELS */

    /// @inheritdoc IRevenueSplitter
    function close(
        IPaymentChannels channels,
        Channel calldata channel,
        uint128 cumulativeAmount,
        bytes calldata signature
    ) external {
        require(msg.sender == operator, NotOperator(operator));
        channels.close(channel, cumulativeAmount, signature);
    }

    /// @inheritdoc IRevenueSplitter
    function claim(IPaymentChannels channels, address token) external {
        channels.claim(token, address(this));
    }

    /* VIEWS */

    /// @inheritdoc IRevenueSplitter
    function releasable(address token, address account) public view returns (uint256) {
        require(!_paying, Reentered());
        uint256 balance = token == address(0) ? address(this).balance : Transfers.balance(token);
        uint256 received = balance + totalReleased[token];
        uint256 share = received * basisPoints[account] / BASIS_POINTS;
        uint256 paid = released[token][account];
        // Of a token that takes balances away, a party may have more than its share by now.
        return share > paid ? share - paid : 0;
    }

    /* INTERNAL */

    function _release(address token, address account, address receiver) private {
        uint256 amount = releasable(token, account);
        require(amount != 0, NothingToRelease(token, account));

        _paying = true;
        released[token][account] += amount;
        totalReleased[token] += amount;
        emit Released(token, account, receiver, amount);

        require(Transfers.tryPush(token, receiver, amount, gasleft()), ReleaseFailed(token, receiver, amount));
        _paying = false;
    }
}
