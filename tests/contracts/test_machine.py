"""The contract against the pure model of its life, under random actions of all its users.

Each step is told to both. They must agree on the outcome: the error's name, or the new state and
who is paid what. After each step the contract holds exactly what it owes and was given for nothing,
nobody but the one who acted has less, and the events alone say the same as the state.

Each run has native currency, the test token and one awkward token, and two contract wallets, one
that pays and one that is paid, which may refuse money or come back into the contract with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from channelpay.errors import ChainReverted
from channelpay.protocol.lifecycle import CLOSE_REQUEST_TIME_MAX, LaneState
from channelpay.protocol.types import (
    DEPOSIT_MAX,
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelState,
)
from channelpay.testing.accounts import DevAccount
from tests.contracts import funding
from tests.contracts.ledger import BatchRow, Ledger
from tests.contracts.replay import Replay
from tests.contracts.world import (
    GRACE_SECONDS,
    Contract,
    Receipt,
    Reverted,
    Row,
    Sender,
    Wallet,
    World,
    as_state,
    as_struct,
    new_world,
)

STEPS = 50
WALLET_WEI = 10**6
WALLETS = [
    "FriendlyWallet",
    "RevertingWallet",
    "GasBurningWallet",
    "RevertBombWallet",
    "ReturnBombWallet",
    "ReentrantWallet",
]
REFUSING = {"RevertingWallet", "GasBurningWallet", "RevertBombWallet"}
TOKENS = ["BlacklistToken", "FalseToken", "BombToken", "SilentToken", "HookToken"]
FIRST_CHANNELS = [(0, 0, 0), (1, 2, 0), (2, 0, 0), (0, 0, 1), (1, 2, 2), (2, 0, 2)]
"""Payer, payee and token."""
LISTING = {"BlacklistToken", "FalseToken", "BombToken"}
T = TypeVar("T")


def mostly(usual: st.SearchStrategy[T], rare: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """One of ten is rare: a refused action teaches less than one that goes through."""
    return st.integers(0, 9).flatmap(lambda number: rare if number == 9 else usual)


amounts = mostly(st.integers(1, 30), st.sampled_from([0, DEPOSIT_MAX + 1, 2**128 - 1]))
vouchers = mostly(st.integers(1, 25), st.sampled_from([0, 100, 2**96 + 5, 2**128 - 1]))
epochs = mostly(st.integers(0, 1), st.sampled_from([2, 3, 2**32 - 1]))
waits = mostly(
    st.sampled_from([1, 60, GRACE_SECONDS - 1, GRACE_SECONDS, GRACE_SECONDS + 1]),
    st.just(CLOSE_REQUEST_TIME_MAX),
)
"""Seconds, or the end of 32-bit time."""
anyone = st.sampled_from(["payer", "payee", "stranger"])
signings = mostly(st.just("right"), st.sampled_from(["other key", "next epoch", "other amount"]))
authorizations = mostly(st.just("right"), st.sampled_from(["other key", "other amount", "voucher"]))
wallet_kinds = st.sampled_from(["RevertingWallet", "ReentrantWallet"]) | st.sampled_from(WALLETS)
payers, payees, tokens = st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)
rows = st.lists(st.tuples(st.integers(0, 7), vouchers, signings), max_size=5)


@dataclass(frozen=True, slots=True)
class Stage:
    """One chain for all examples, with all the wallets and tokens that one may choose from."""

    world: World
    wallets: dict[str, tuple[Wallet, Wallet]]
    tokens: dict[str, Contract]


@cache
def stage() -> Stage:
    """Everyone who may pay holds much of each token, all of it approved."""
    world = new_world()
    wallets = {kind: (world.deploy_wallet(kind), world.deploy_wallet(kind)) for kind in WALLETS}
    kinds = {kind: world.deploy_token(kind) for kind in TOKENS}
    for pair in wallets.values():
        world.give_ether(pair[0], WALLET_WEI)
        for token in (world.token, *kinds.values()):
            world.fund(pair[0], token)
    return Stage(world, wallets, kinds)


class ContractMachine(RuleBasedStateMachine):
    """Random users of one contract."""

    channels = Bundle("channels")

    def __init__(self) -> None:
        super().__init__()
        self.world = stage().world
        self.undo = ExitStack()
        self.undo.enter_context(self.world.rolled_back())
        self.known: dict[Channel, ChannelState] = {}
        self.listed: set[Address] = set()
        self.given: Counter[Address] = Counter()
        self.used_nonces: set[bytes] = set()
        self.replay = Replay(GRACE_SECONDS)
        self.ledger = Ledger(self.contract, self.refuses_payment, self.refuses_pull)
        self.moved_before: Counter[Any] = Counter()
        self.changed = False

    @initialize(
        target=channels,
        token=st.sampled_from(TOKENS),
        payer=wallet_kinds,
        payee=wallet_kinds,
    )
    def begin(self, token: str, payer: str, payee: str) -> MultipleResults[Channel]:
        """Choose the awkward ones, and open channels of the kinds that differ most."""
        world = self.world
        self.token_kind, awkward = token, stage().tokens[token]
        self.tokens = (NATIVE, world.token.address, awkward.address)
        self.wallets = (stage().wallets[payer][0], stage().wallets[payee][1])
        self.wallet_kinds = {self.wallets[0].address: payer, self.wallets[1].address: payee}
        self.payers: list[Sender] = [world.payer, world.stranger, self.wallets[0]]
        self.payees: list[Sender] = [world.payee, world.accounts[4], self.wallets[1]]
        self.people = [*self.payers, *self.payees, world.accounts[5]]
        self.ledger.hooked = frozenset([NATIVE, awkward.address][: 1 + (token == "HookToken")])
        self.start = {
            (token, holder): world.balance(token, holder)
            for token in self.tokens
            for holder in (*(one.address for one in self.people), self.contract)
        }
        opened = [
            self._channel(payer, payee, token, with_session_key=payer == 0)
            for payer, payee, token in FIRST_CHANNELS
        ]
        for channel in opened:
            self._open(channel, 20)
        self._settle_to_the_wallet(opened)
        return multiple(*opened)

    def _settle_to_the_wallet(self, opened: list[Channel]) -> None:
        """What a wallet refuses is kept from the beginning."""
        for channel in opened:
            if channel.payee == self.wallets[1].address and channel in self.known:
                row, voucher = BatchRow(channel, 3), self.world.sign(channel, 3)
                self._step(
                    partial(self.ledger.settle, row),
                    partial(self.world.settle, channel, 3, voucher),
                )

    def teardown(self) -> None:
        if self.known:
            self._check_balances(set(self.start))
        self.undo.close()

    @property
    def contract(self) -> Address:
        return self.world.contract.address

    # Who refuses what

    def refuses_payment(self, token: Address, account: Address) -> bool:
        """Whether a push fails."""
        kind = self.wallet_kinds.get(account)
        if token == NATIVE:
            return kind in REFUSING
        if token != self.tokens[2]:
            return False
        if self.token_kind == "HookToken":
            return kind not in (None, "ReentrantWallet")
        frozen = self.token_kind == "BlacklistToken" and self.contract in self.listed
        return frozen or account in self.listed

    def refuses_pull(self, token: Address, funder: Address) -> bool:
        """Whether taking a deposit fails."""
        if token != self.tokens[2]:
            return False
        if self.token_kind == "HookToken":
            return self.wallet_kinds.get(funder) not in (None, "ReentrantWallet")
        looked_at = {
            "BlacklistToken": {funder, self.contract},
            "FalseToken": {funder},
            "BombToken": {self.contract},
        }
        return bool(looked_at.get(self.token_kind, set()) & self.listed)

    # Actions of payers

    @rule(
        target=channels,
        payer=payers,
        payee=payees,
        token=tokens,
        with_session_key=st.booleans(),
        lane=st.integers(0, 1),
        epoch=epochs,
        deposit=amounts,
    )
    def open(
        self,
        payer: int,
        payee: int,
        token: int,
        with_session_key: bool,
        lane: int,
        epoch: int,
        deposit: int,
    ) -> Channel:
        """A channel of any two of them."""
        channel = self._channel(payer, payee, token, with_session_key, lane, epoch)
        self._open(channel, deposit)
        return channel

    @rule(
        target=channels,
        channel=channels,
        ahead=mostly(st.just(1), st.sampled_from([-1, 0, 2])),
        deposit=amounts,
    )
    def reopen(self, channel: Channel, ahead: int, deposit: int) -> Channel:
        """A channel that is over, where there is one."""
        over = [
            one
            for one in self.known
            if (lane := self.ledger.lane(one)) and lane.finalized and lane.epoch == one.epoch
        ]
        channel = over[deposit % len(over)] if over else channel
        again = channel.with_epoch((channel.epoch + ahead) % 2**32)
        self._open(again, deposit)
        return again

    @rule(
        target=channels,
        payer=st.integers(0, 1),
        payee=payees,
        epoch=epochs,
        deposit=st.integers(1, 30),
        form=st.sampled_from(funding.Form),
    )
    def open_by_a_relayer(
        self, payer: int, payee: int, epoch: int, deposit: int, form: funding.Form
    ) -> Channel:
        """With the payer's EIP-3009 signature."""
        channel = self._channel(payer, payee, 1, False, 2, epoch)
        self.known.setdefault(channel, self.world.state(channel))
        call = funding.authorized_open(self.world, channel, deposit, form)

        def expected() -> None:
            self.ledger.open(channel, deposit, channel.payer)
            self.used_nonces.add(call.values["nonce"])

        relayer = self.world.accounts[5]
        self._step(expected, lambda: call.send(self.world, relayer), channel.payer)
        return channel

    @rule(channel=channels, amount=amounts, sender=st.sampled_from(["payer", "stranger"]))
    def top_up(self, channel: Channel, amount: int, sender: str) -> None:
        account = self.world.stranger if sender == "stranger" else self._sender(channel, sender)
        by_payer = account.address == channel.payer
        value = _value(channel, amount)
        self._step(
            lambda: self.ledger.top_up(channel, amount, account.address, by_payer=by_payer),
            lambda: self.world.top_up(channel, amount, sender=account, value=value),
            account.address,
        )

    @rule(channel=channels, amount=st.integers(1, 30), funder=st.integers(0, 1))
    def top_up_by_a_relayer(self, channel: Channel, amount: int, funder: int) -> None:
        """With an EIP-3009 signature of the payer's or a stranger's; each is good for once. If it
        can be, of a channel that is about to close: nothing may take that back.
        """
        alike = [one for one in self.known if one.token == self.world.token.address]
        closing = [one for one in alike if self.known[one].close_requested_at]
        if channel not in alike:
            channel = [*alike, *closing][-1]
        giver = self.payers[funder]
        assert isinstance(giver, DevAccount)
        call = funding.authorized_top_up(
            self.world, channel, amount, funding.Form.BYTES, funder=giver
        )
        nonce = call.values["nonce"]

        def expected() -> None:
            used = nonce in self.used_nonces
            before = dict(self.ledger.lanes), self.ledger.moved.copy()
            self.ledger.top_up(channel, amount, giver.address, by_payer=False)
            if used:
                self.ledger.lanes, self.ledger.moved = before
                raise ChainReverted(error="TokenTransferFailed")
            self.used_nonces.add(nonce)

        relayer = self.world.accounts[5]
        self._step(expected, lambda: call.send(self.world, relayer), giver.address)

    @rule(
        channel=channels,
        sender=mostly(st.just("payer"), anyone),
        again=mostly(st.just(False), st.just(True)),
        seconds_late=st.sampled_from([-1, 0, 0, 1]),
    )
    def leave(self, channel: Channel, sender: str, again: bool, seconds_late: int) -> None:
        """Request a close; where that was done, withdraw around the second in which the grace
        period ends.
        """
        channel = self._aimed(channel, again)
        account = self._sender(channel, sender)
        lane = self.ledger.lane(channel)
        by_payer = account.address == channel.payer
        if again or not lane or not lane.close_requested_at:
            self._step(
                lambda: self.ledger.request_close(channel, by_payer=by_payer),
                lambda: self.world.request_close(channel, sender=account),
            )
            return
        due = lane.close_requested_at + GRACE_SECONDS + seconds_late
        self.world.next_block_at(max(due, self.world.timestamp + 1))
        self._step(
            lambda: self.ledger.withdraw(channel, by_payer=by_payer),
            lambda: self.world.withdraw(channel, sender=account),
        )

    # Actions of payees, and of anyone with their vouchers

    @rule(
        channel=channels,
        action=st.sampled_from(["settle", "settle", "close", "close_with_authorization"]),
        cumulative=vouchers,
        sender=mostly(st.just("payee"), anyone),
        signing=signings,
        authorization=authorizations,
        dead_too=mostly(st.just(False), st.just(True)),
    )
    def use_a_voucher(
        self,
        channel: Channel,
        action: str,
        cumulative: int,
        sender: str,
        signing: str,
        authorization: str,
        dead_too: bool,
    ) -> None:
        channel = self._aimed(channel, dead_too)
        account = self._sender(channel, sender)
        voucher = self._signature(channel, cumulative, signing)
        row = BatchRow(channel, cumulative, signing == "right")
        if action == "settle":
            self._step(
                lambda: self.ledger.settle(row),
                lambda: self.world.settle(channel, cumulative, voucher, sender=account),
            )
        elif action == "close":
            by_payee = account.address == channel.payee
            self._step(
                lambda: self.ledger.close(row, by_payee=by_payee),
                lambda: self.world.close(channel, cumulative, voucher, sender=account),
            )
        else:
            authorized, signature = self._authorization(channel, cumulative, authorization)
            self._step(
                lambda: self.ledger.close_with_authorization(row, authorized=authorized),
                lambda: self.world.close_with_authorization(
                    channel, cumulative, voucher, signature, sender=account
                ),
            )

    @rule(
        channel=channels,
        action=st.sampled_from(["settle", "settle", "close"]),
        drawn=rows,
        sender=mostly(st.just("payee"), anyone),
    )
    def use_a_batch(
        self, channel: Channel, action: str, drawn: list[tuple[int, int, str]], sender: str
    ) -> None:
        channel = self._aimed(channel, False)
        account, token = self._sender(channel, sender), channel.token
        payee = channel.payee if action == "settle" else account.address
        told, calldata = self._rows(channel, payee, drawn)
        if action == "settle":
            self._batch_step(
                lambda: self.ledger.settle_batch(payee, token, told),
                lambda: self.world.settle_batch(payee, token, calldata, sender=account),
            )
        else:
            self._batch_step(
                lambda: self.ledger.close_batch(payee, token, told),
                lambda: self.world.close_batch(token, calldata, sender=account),
            )

    # Actions of others

    @rule(token=tokens, holder=st.integers(0, 6), receiver=st.integers(0, 6))
    def claim(self, token: int, holder: int, receiver: int) -> None:
        """By one for whom something is kept, where there is one."""
        kept = [one for one, share in self.ledger.kept.items() if share]
        asset, owner = self.tokens[token], self.people[holder]
        if kept and holder:
            asset, address = kept[holder % len(kept)]
            owner = self.world.senders[address]
        account = self.people[receiver].address
        self._step(
            lambda: self.ledger.claim(asset, owner.address, account),
            lambda: self.world.claim(owner, asset, account),
        )

    @rule(token=tokens, amount=st.integers(1, 30))
    def give_for_nothing(self, token: int, amount: int) -> None:
        """Wei that cannot be refused, or tokens."""
        asset = self.tokens[token]
        if asset == NATIVE:
            self.world.force_ether(amount)
            self.ledger.moved[NATIVE, self.world.stranger.address] -= amount
        else:
            contract = Contract(asset, self.world.token.abi)
            self.world.send(self.world.stranger, contract, "mint", self.contract, amount)
        self.ledger.donate(asset, amount)
        self.given[asset] += amount
        self.moved_before = self.ledger.moved.copy()
        self.changed = True

    @rule(who=st.sampled_from([0, 2, 3, 5, 7]), value=st.booleans())
    def turn_away(self, who: int, value: bool) -> None:
        """The awkward token lists someone, or the contract itself, which is a pause."""
        if self.token_kind not in LISTING:
            return
        account = self.contract if who == 7 else self.people[who].address
        self.world.configure(
            stage().tokens[self.token_kind], self.token_kind, "list", account, value
        )
        (self.listed.add if value else self.listed.discard)(account)

    @rule(channel=channels, action=st.sampled_from(["settle", "close", "withdraw", "claim"]))
    def plan(self, channel: Channel, action: str) -> None:
        """What a wallet does as soon as it is paid, if it is of the kind that comes back."""
        channel = self._aimed(channel, False)
        wallet = next(
            (
                self.world.senders[one]
                for one in (channel.payee, channel.payer)
                if self.wallet_kinds.get(one) == "ReentrantWallet"
            ),
            None,
        )
        if wallet is None or not self._is_its_own(wallet, channel, action):
            return
        row = BatchRow(channel, 15)
        voucher = (as_struct(channel), 15, self.world.sign(channel, 15))
        calls: dict[str, tuple[Callable[[], None], str, tuple[Any, ...]]] = {
            "settle": (lambda: self.ledger.settle(row), "settle", voucher),
            "close": (lambda: self.ledger.close(row, by_payee=True), "close", voucher),
            "withdraw": (
                lambda: self.ledger.withdraw(channel, by_payer=True),
                "withdraw",
                voucher[:1],
            ),
            "claim": (
                lambda: self.ledger.claim(channel.token, wallet.address, wallet.address),
                "claim",
                (channel.token, wallet.address),
            ),
        }
        planned, function, arguments = calls[action]
        self._forget_plan()
        self.ledger.plan, self.ledger.returning = planned, wallet.address
        data = self.world.contract.abi.encode(function, *arguments)
        self.world.configure(wallet, "ReentrantWallet", "plan", self.contract, data)

    @rule(seconds=waits)
    def wait(self, seconds: int) -> None:
        """Move the next block's time."""
        now = self.world.timestamp
        if seconds == CLOSE_REQUEST_TIME_MAX:
            self.world.next_block_at(max(seconds, now + 1))
        else:
            self.world.next_block_at(now + seconds)

    # Invariants

    @invariant()
    def all_that_must_hold_does(self) -> None:
        """Only after a step that changed something: a revert leaves no trace."""
        if not self.changed:
            return
        self.changed = False
        self.every_view_says_what_the_model_says()
        self.the_contract_holds_exactly_what_it_owes()
        self.events_alone_rebuild_the_state()

    def every_view_says_what_the_model_says(self) -> None:
        structs = [as_struct(channel) for channel in self.known]
        answers = self.world.read(self.world.contract, "channelStates", structs)
        for (channel, before), answer in zip(list(self.known.items()), answers, strict=True):
            state, lane = as_state(answer), self.ledger.lane(channel)
            assert state == (lane.view(channel.epoch) if lane else ChannelState(before.status))
            assert state.settled <= state.deposit
            if lane and lane.epoch == channel.epoch:
                assert (state.settled, state.deposit) >= (before.settled, before.deposit)
            self.known[channel] = state

    def the_contract_holds_exactly_what_it_owes(self) -> None:
        owed = self.given.copy()
        for (token, _), share in self.ledger.kept.items():
            owed[token] += share
        for channel, state in self.known.items():
            if _is_live(self.ledger.lane(channel), channel):
                owed[channel.token] += state.deposit - state.settled
        for token in self.tokens:
            assert self.world.balance(token, self.contract) == owed[token]

    def events_alone_rebuild_the_state(self) -> None:
        assert self.replay.lanes == self.ledger.lanes
        assert +self.replay.kept == +self.ledger.kept

    # Details

    def _channel(
        self,
        payer: int,
        payee: int,
        token: int,
        with_session_key: bool,
        lane: int = 0,
        epoch: int = 0,
    ) -> Channel:
        """A wallet cannot sign: its vouchers are always the session key's."""
        signer = self.world.session_key.address if with_session_key or payer == 2 else ZERO_ADDRESS
        return Channel(
            self.payers[payer].address,
            self.payees[payee].address,
            self.tokens[token],
            signer,
            (lane << 32 | epoch).to_bytes(32, "big"),
        )

    def _aimed(self, channel: Channel, dead_too: bool) -> Channel:
        """A live channel where there is one, unless the dead are wanted too."""
        live = [one for one in self.known if _is_live(self.ledger.lane(one), one)]
        if dead_too or not live or channel in live:
            return channel
        return live[channel.epoch % len(live)]

    def _open(self, channel: Channel, deposit: int) -> None:
        self.known.setdefault(channel, self.world.state(channel))
        value = _value(channel, deposit)
        self._step(
            lambda: self.ledger.open(channel, deposit, channel.payer),
            lambda: self.world.open(channel, deposit, value=value),
            channel.payer,
        )

    def _step(
        self,
        expected: Callable[[], object],
        act: Callable[[], Receipt],
        funder: Address | None = None,
    ) -> Receipt | None:
        """Do it in the model and on the chain; compare. Nobody but ``funder`` may have less."""
        self.ledger.now = self.world.chain.pending_header().timestamp
        try:
            expected()
        except ChainReverted as refusal:
            with pytest.raises(Reverted, match=rf"^{refusal.error}\("):
                act()
            return None
        receipt = act()
        for event in receipt.events:
            if event.name != "RowSkipped":
                self.replay.feed(event)
            if event.name in ("ShareKept", "ShareClaimed"):
                self._check_kept(event.arguments["token"], event.arguments["account"])
        self._check_moves(funder)
        self.changed = True
        return receipt

    def _batch_step(
        self, expected: Callable[[], tuple[int, list[Channel]]], act: Callable[[], Receipt]
    ) -> None:
        outcome: list[tuple[int, list[Channel]]] = []
        receipt = self._step(lambda: outcome.append(expected()), act)
        assert receipt
        skips = [one for one in receipt.events if one.name == "RowSkipped"]
        expected_ids = [self.world.id(channel) for channel in outcome[0][1]]
        assert [one.arguments["channelId"] for one in skips] == expected_ids

    def _check_kept(self, token: Address, account: Address) -> None:
        assert self.world.kept(token, account) == self.ledger.kept[token, account]

    def _check_moves(self, funder: Address | None) -> None:
        moved = self.ledger.moved
        holdings = {key for key in moved if moved[key] != self.moved_before[key]}
        for token, holder in holdings:
            is_less = moved[token, holder] < self.moved_before[token, holder]
            assert not is_less or holder in (funder, self.contract)
        self._check_balances(holdings)
        self.moved_before = moved.copy()

    def _check_balances(self, holdings: set[tuple[Address, Address]]) -> None:
        for token, holder in holdings:
            expected = self.start[token, holder] + self.ledger.moved[token, holder]
            assert self.world.balance(token, holder) == expected

    def _rows(
        self, channel: Channel, payee: Address, drawn: list[tuple[int, int, str]]
    ) -> tuple[list[BatchRow], list[Row]]:
        """Rows about the channel's neighbours, and now and then about others' channels."""
        alike = [one for one in self.known if one.payee == payee and one.token == channel.token]
        around = [*alike, *self.known] if len(alike) < 3 else alike
        told, calldata = [], []
        for index, cumulative, signing in drawn:
            one = around[index % len(around)]
            asked = replace(one, payee=payee, token=channel.token)
            signature = self._signature(one, cumulative, signing)
            told.append(BatchRow(asked, cumulative, one == asked and signing == "right"))
            calldata.append(self.world.row(one, cumulative, signature))
        return told, calldata

    def _is_its_own(self, wallet: Sender, channel: Channel, action: str) -> bool:
        """Whether the plan pays nobody who might refuse: inside a payment that is a revert."""
        if action == "claim":
            return True
        if action == "withdraw":
            return wallet.address == channel.payer
        if action == "close":
            payer = self.world.senders[channel.payer]
            return wallet.address == channel.payee and isinstance(payer, DevAccount)
        return wallet.address == channel.payee

    def _forget_plan(self) -> None:
        for wallet in self.wallets:
            if self.wallet_kinds[wallet.address] == "ReentrantWallet":
                self.world.configure(wallet, "ReentrantWallet", "plan", ZERO_ADDRESS, b"")

    def _sender(self, channel: Channel, who: str) -> Sender:
        if who == "stranger":
            return self.world.accounts[5]
        return self.world.senders[getattr(channel, who)]

    def _signature(self, channel: Channel, cumulative: int, signing: str) -> bytes:
        if signing == "other key":
            return self.world.sign_as(self.world.payee, self.world.id(channel), cumulative)
        if signing == "next epoch":
            return self.world.sign(channel.with_epoch((channel.epoch + 1) % 2**32), cumulative)
        return self.world.sign(channel, cumulative if signing == "right" else cumulative ^ 1)

    def _authorization(self, channel: Channel, cumulative: int, kind: str) -> tuple[bool, bytes]:
        """Whether it authorizes, and the signature; a payee that is a contract has none."""
        payee, channel_id = self.world.senders[channel.payee], self.world.id(channel)
        if not isinstance(payee, DevAccount):
            return False, self.world.sign_close_as(self.world.stranger, channel_id, cumulative)
        if kind == "voucher":
            return False, self.world.sign_as(payee, channel_id, cumulative)
        signer = self.world.session_key if kind == "other key" else payee
        amount = cumulative ^ 1 if kind == "other amount" else cumulative
        return kind == "right", self.world.sign_close_as(signer, channel_id, amount)


def _is_live(lane: LaneState | None, channel: Channel) -> bool:
    return lane is not None and lane.epoch == channel.epoch and not lane.finalized


def _value(channel: Channel, amount: int) -> int:
    """What comes with a deposit; nobody owns the amounts that do not fit."""
    return amount if channel.token == NATIVE and amount <= DEPOSIT_MAX else 0


@pytest.mark.hypothesis
def test_the_contract_does_what_the_model_does() -> None:
    # A run of fifty steps is worth ten examples of other tests, and takes as long.
    examples = settings().max_examples // 10
    run_state_machine_as_test(
        ContractMachine, settings=settings(stateful_step_count=STEPS, max_examples=examples)
    )
