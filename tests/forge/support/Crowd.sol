// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Channel} from "../../../contracts/interfaces/IPaymentChannels.sol";
import {
    BlacklistToken,
    BombToken,
    FalseToken,
    HookToken,
    HungryToken,
    MockToken,
    SilentToken
} from "../../../contracts/mocks/HostileTokens.sol";
import {
    GasBurningWallet,
    HungryWallet,
    ReturnBombWallet,
    RevertBombWallet,
    RevertingWallet
} from "../../../contracts/mocks/HostileWallets.sol";
import {Ledger} from "./Ledger.sol";
import {PlanningWallet} from "./PlanningWallet.sol";

/// @title Crowd
/// @notice The people, contract wallets and tokens, kind and hostile, and the lanes between them.
/// @dev Lanes come in groups of three that share payee and token. A run plays four groups of the fourteen kinds, so that
/// every lane is used often; the first is always the plain token's.
abstract contract Crowd is Ledger {
    uint256 internal constant GROUPS = 4;
    uint256 internal constant LANES_PER_GROUP = 3;
    uint256 private constant KINDS = 14;
    uint256 private constant PLAIN_KIND = 6;
    uint256 internal constant SECOND_PAYER_KEY = 0xA11CE2;
    uint256 internal constant SECOND_PAYEE_KEY = 0xB0B2;

    BlacklistToken internal blacklistToken;
    BombToken internal bombToken;
    FalseToken internal falseToken;
    HookToken internal hookToken;
    HungryToken internal hungryToken;
    HungryWallet internal hungryWallet;

    address[] internal tokens;
    address[] internal people;
    mapping(address account => uint256) internal keyOf;
    mapping(address token => mapping(address account => uint256)) internal initial;

    address[14] private _payees;
    address[14] private _currencies;

    function tokenList() external view returns (address[] memory) {
        return tokens;
    }

    function peopleList() external view returns (address[] memory) {
        return people;
    }

    /// @dev What an account should own, by the logs.
    function expectedBalance(address token_, address account) external view returns (int256) {
        return int256(initial[token_][account]) + credited[token_][account];
    }

    /// @dev Whether only a broken contract could fail to push this money to this account.
    function isEasyToPay(address token_, address account) public view returns (bool) {
        bool easyToken = token_ == NATIVE || token_ == address(token) || token_ == tokens[2] || token_ == tokens[3];
        return easyToken && account.code.length == 0;
    }

    function _invite() internal {
        _deployTokens();
        reentrant = new PlanningWallet();
        hungryWallet = new HungryWallet();
        _addPerson(payer, PAYER_KEY);
        _addPerson(vm.addr(SECOND_PAYER_KEY), SECOND_PAYER_KEY);
        _addPerson(payee, PAYEE_KEY);
        _addPerson(vm.addr(SECOND_PAYEE_KEY), SECOND_PAYEE_KEY);
        _addPerson(stranger, STRANGER_KEY);
        _addPerson(address(reentrant), 0);
        _addPerson(address(hungryWallet), 0);
        _addKinds();
    }

    /// @dev Four groups of lanes, chosen once per run.
    function _choose(uint256 seed) internal {
        for (uint256 i = 0; i < GROUPS; ++i) {
            uint256 kind = i == 0 ? PLAIN_KIND : uint256(keccak256(abi.encode(seed, i))) % KINDS;
            bytes32 salt = bytes32((i + 1) << 32);
            Channel memory channel = Channel(people[0], _payees[kind], _currencies[kind], address(0), salt);
            _addLane(channel, PAYER_KEY);
            channel = Channel(people[1], _payees[kind], _currencies[kind], session, salt);
            _addLane(channel, SESSION_KEY);
            channel = Channel(address(reentrant), _payees[kind], _currencies[kind], session, salt);
            _addLane(channel, SESSION_KEY);
        }
    }

    function _deployTokens() private {
        blacklistToken = new BlacklistToken();
        bombToken = new BombToken();
        falseToken = new FalseToken();
        hookToken = new HookToken();
        hungryToken = new HungryToken();
        tokens = [NATIVE, address(token), address(hookToken), address(new SilentToken())];
        tokens.push(address(blacklistToken));
        tokens.push(address(falseToken));
        tokens.push(address(bombToken));
        tokens.push(address(hungryToken));
    }

    function _addKinds() private {
        _addKind(0, NATIVE, payee);
        _addKind(1, NATIVE, _wallet(address(new RevertingWallet())));
        _addKind(2, NATIVE, address(reentrant));
        _addKind(3, NATIVE, _wallet(address(new GasBurningWallet())));
        _addKind(4, NATIVE, _wallet(address(new ReturnBombWallet())));
        _addKind(5, NATIVE, _wallet(address(new RevertBombWallet())));
        _addKind(PLAIN_KIND, address(token), payee);
        _addKind(7, address(hookToken), address(reentrant));
        _addKind(8, tokens[3], people[3]);
        _addKind(9, address(blacklistToken), payee);
        _addKind(10, address(falseToken), people[3]);
        _addKind(11, address(bombToken), payee);
        _addKind(12, address(hungryToken), people[3]);
        _addKind(13, NATIVE, address(hungryWallet));
    }

    function _addKind(uint256 kind, address token_, address payee_) private {
        (_currencies[kind], _payees[kind]) = (token_, payee_);
    }

    function _wallet(address account) private returns (address) {
        _addPerson(account, 0);
        return account;
    }

    function _addPerson(address account, uint256 key) private {
        people.push(account);
        keyOf[account] = key;
        for (uint256 i = 0; i < tokens.length; ++i) {
            if (tokens[i] == NATIVE) {
                vm.deal(account, 2 ** 120);
            } else {
                MockToken(tokens[i]).mint(account, 2 ** 120);
                vm.prank(account);
                MockToken(tokens[i]).approve(address(channels), type(uint256).max);
            }
            initial[tokens[i]][account] = balance(tokens[i], account);
        }
    }
}
