// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IHooked} from "../../../contracts/mocks/HostileWallets.sol";

/// @notice Uses every payment, and every hook of a token, to make a call that it was told before.
/// @dev forge records logs of calls that failed as well. The wallet marks where its call began and how it ended, and always
/// keeps the gas to say so.
contract PlanningWallet is IHooked {
    event Entering();
    event Left(bool success);

    uint256 private constant GAS_KEPT = 10_000;

    address private _target;
    bytes private _data;
    bool private _refusing;

    error Refused();

    function setRefusing(bool value) external {
        _refusing = value;
    }

    function plan(address target, bytes calldata data) external {
        (_target, _data) = (target, data);
    }

    receive() external payable {
        require(!_refusing, Refused());
        _reenter();
    }

    function hook() external {
        _reenter();
    }

    function _reenter() private {
        bytes memory data = _data;
        if (_target == address(0) || gasleft() < 3 * GAS_KEPT) return;
        emit Entering();
        (bool success,) = _target.call{gas: gasleft() - 2 * GAS_KEPT}(data);
        emit Left(success);
    }
}
