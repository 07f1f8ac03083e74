"""The splitter against exact arithmetic, under random payments and releases.

Whatever the order, a party's released and releasable units together are its part of all that ever
arrived, rounded down once. So nothing is created, and what rounding leaves is less than one unit
per party. This is asked of native currency and of an ERC-20 after each step that changed something.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from functools import cache

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from channelpay.protocol.types import NATIVE, Address
from tests.contracts.test_splitter import (
    WHOLE,
    Party,
    account,
    new_splitter,
    pay,
    refuses,
    release,
)
from tests.contracts.world import Contract, Wallet, World, contract_address, new_world

STEPS = 30
PARTIES_MAX = 6


@st.composite
def partitions(draw: st.DrawFn) -> list[int]:
    """The whole in a few parts, among them very small ones."""
    cut = st.integers(1, WHOLE - 1) | st.integers(1, 5) | st.integers(WHOLE - 5, WHOLE - 1)
    cuts = sorted(draw(st.sets(cut, min_size=1, max_size=PARTIES_MAX - 1)))
    return [end - start for start, end in zip([0, *cuts], [*cuts, WHOLE], strict=True)]


# A few units, so that rounding matters in each step; sometimes many.
amounts = st.integers(1, 30) | st.integers(1, 3 * WHOLE) | st.integers(1, 10**20)
tokens = st.integers(0, 1)
numbers = st.integers(0, PARTIES_MAX - 1)


@cache
def shared_world() -> World:
    """One chain for all examples, with a wallet that refuses native currency."""
    world = new_world()
    world.deploy_wallet("RevertingWallet")
    return world


class SplitterMachine(RuleBasedStateMachine):
    """A group whose first party refuses native currency."""

    def __init__(self) -> None:
        super().__init__()
        self.world = shared_world()
        self.undo = ExitStack()
        self.undo.enter_context(self.world.rolled_back())
        wallet = list(self.world.senders.values())[-1]
        assert isinstance(wallet, Wallet)
        self.wallet = wallet
        self.tokens = (NATIVE, self.world.token.address)
        self.received: Counter[Address] = Counter()
        self.released: Counter[tuple[Address, bytes]] = Counter()
        self.holdings: Counter[tuple[Address, bytes]] = Counter()
        self.parties: list[Party] = []
        self.changed = True

    def teardown(self) -> None:
        self.undo.close()

    # Actions

    @initialize(parts=partitions(), before=st.tuples(st.just(0) | amounts, st.just(0) | amounts))
    def begin(self, parts: list[int], before: tuple[int, int]) -> None:
        """Money may be there before the group is."""
        others = [account(number) for number in range(1, len(parts))]
        self.parties = list(zip([self.wallet.address, *others], parts, strict=True))
        creator = self.world.accounts[9]
        self.address = contract_address(creator.address, self.world._nonce(creator))
        for number, amount in enumerate(before):
            self.arrive(number, amount)
        self.splitter: Contract = new_splitter(self.world, self.parties)
        assert self.splitter.address == self.address

    @rule(token=tokens, amount=amounts)
    def arrive(self, token: int, amount: int) -> None:
        """Anyone pays the group."""
        pay(self.world, self.tokens[token], self.address, amount)
        self.received[self.tokens[token]] += amount
        self.changed = True

    @rule(token=tokens, party=numbers)
    def release(self, token: int, party: int) -> None:
        """A stranger asks for any party, also for one that refuses, or has nothing to get."""
        asset, (receiver, _) = self.tokens[token], self.parties[party % len(self.parties)]
        due = self.due(asset, receiver)
        if not due:
            with refuses("NothingToRelease", asset, receiver):
                release(self.world, self.splitter, asset, Address(receiver))
        elif asset == NATIVE and receiver == self.wallet.address:
            with refuses("ReleaseFailed", asset, receiver, due):
                release(self.world, self.splitter, asset, Address(receiver))
        else:
            release(self.world, self.splitter, asset, Address(receiver))
            self._paid(asset, receiver, receiver, due)

    @rule(token=tokens, receiver=numbers)
    def release_to(self, token: int, receiver: int) -> None:
        """The first party names another receiver: another party, an outsider, or the group."""
        asset = self.tokens[token]
        others = [*(party for party, _ in self.parties[1:]), account(99), self.address]
        other = others[receiver % len(others)]
        due = self.due(asset, self.wallet.address)
        arguments = (self.wallet, self.splitter, "releaseTo", asset, other)
        if not due:
            with refuses("NothingToRelease", asset, self.wallet.address):
                self.world.send(*arguments)
            return
        self.world.send(*arguments)
        self._paid(asset, self.wallet.address, other, due)

    # Invariants

    @invariant()
    def all_that_must_hold_does(self) -> None:
        """Only after a step that changed something: a revert leaves no trace."""
        if not self.parties or not self.changed:
            return
        self.changed = False
        for token in self.tokens:
            self.every_share_is_exact(token)
            self.no_unit_is_lost_or_created(token)
            self.everyone_has_what_the_model_paid(token)

    def every_share_is_exact(self, token: Address) -> None:
        for party, part in self.parties:
            released = self.world.read(self.splitter, "released", token, party)
            due = self.world.read(self.splitter, "releasable", token, party)
            assert released + due == self.received[token] * part // WHOLE
            assert released == self.released[token, party]

    def no_unit_is_lost_or_created(self, token: Address) -> None:
        balance = self.world.balance(token, self.address)
        paid = self.world.read(self.splitter, "totalReleased", token)
        due = sum(
            self.world.read(self.splitter, "releasable", token, party) for party, _ in self.parties
        )
        assert balance + paid == self.received[token]
        assert 0 <= balance - due < len(self.parties)

    def everyone_has_what_the_model_paid(self, token: Address) -> None:
        for holder in (*(party for party, _ in self.parties), account(99)):
            assert self.world.balance(token, Address(holder)) == self.holdings[token, holder]

    # Details

    def due(self, token: Address, party: bytes) -> int:
        """What a party may take now, in base units."""
        part = dict(self.parties)[party]
        return self.received[token] * part // WHOLE - self.released[token, party]

    def _paid(self, token: Address, party: bytes, receiver: bytes, amount: int) -> None:
        self.released[token, party] += amount
        if receiver == self.address:
            self.received[token] += amount
        else:
            self.holdings[token, receiver] += amount
        self.changed = True


@pytest.mark.hypothesis
def test_every_share_is_exact_in_any_order() -> None:
    # A run of thirty steps is worth fifteen examples of other tests, and takes as long.
    examples = settings().max_examples // 15
    run_state_machine_as_test(
        SplitterMachine, settings=settings(stateful_step_count=STEPS, max_examples=examples)
    )
