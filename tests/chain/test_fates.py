"""Whatever comes, in whatever order: kills, lost pools, reorganisations, dear gas, others."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from channelpay.chain.fees import GWEI
from channelpay.chain.outgoing import TransactionSender
from channelpay.errors import ChannelPayError
from channelpay.protocol.transactions import TransactionStatus
from channelpay.store import Store, open_store
from channelpay.testing import anvil_chain
from channelpay.testing.clock import FakeClock
from tests.chain.mortal import PATIENCE_SECONDS, Fate, Killed, mortal_sender, payment
from tests.chain.world import POLICY, Anvil, end_all

processes = st.integers(0, 1)
moments = st.none() | st.integers(0, 7)


class Fates(RuleBasedStateMachine):
    """Two processes with one account and one journal."""

    anvil: ClassVar[Anvil]

    def __init__(self) -> None:
        super().__init__()
        self.snapshot = self.anvil.chain.snapshot()
        self.anvil.automine(False)
        self.anvil.chain.mine(5)
        self.folder = tempfile.TemporaryDirectory()
        self.clock = FakeClock()
        self.stores = [self.opened(), self.opened()]
        self.sent = 0

    def opened(self) -> Store:
        return open_store(f"sqlite:///{Path(self.folder.name, 'books')}")

    @rule(process=processes, moment=moments, urgency=st.sampled_from([0.0, 0.5]))
    def send(self, process: int, moment: int | None, urgency: float) -> None:
        self.sent += 1
        sender = self.sender(process, moment)
        with suppress(Killed, ChannelPayError):
            sender.send(payment(self.sent), str(self.sent), urgency=urgency)

    @rule(process=processes, moment=moments, urgency=st.sampled_from([0.0, 0.5, 1.0]))
    def step(self, process: int, moment: int | None, urgency: float) -> None:
        sender = self.sender(process, moment)
        with suppress(Killed, ChannelPayError):
            sender.step(lambda _: urgency)

    @rule(seconds=st.sampled_from([1.0, PATIENCE_SECONDS + 1]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(base_fee=st.none() | st.integers(1, 40))
    def mine(self, base_fee: int | None) -> None:
        self.anvil.mine(None if base_fee is None else base_fee * GWEI)

    @rule()
    def lose_the_pool(self) -> None:
        self.anvil.forget_pool()

    @rule(depth=st.integers(1, 4))
    def reorganise(self, depth: int) -> None:
        self.anvil.reorganise(depth)

    @rule()
    def another_program(self) -> None:
        account = self.anvil.accounts[0].address
        with suppress(ChannelPayError):
            used = self.anvil.connection.used_nonces(account)
            self.anvil.send_as_another_program(account, used)

    @invariant()
    def nothing_is_confirmed_that_was_not_journaled(self) -> None:
        journaled = sum(one.value_wei for one in self.stores[0].transactions(1000))
        assert self.anvil.received() <= journaled

    def sender(self, process: int, moment: int | None) -> TransactionSender:
        """A process that was started anew."""
        self.stores[process].close()
        self.stores[process] = self.opened()
        fate = Fate(moment)
        store = self.stores[process]
        return mortal_sender(self.anvil.connection, 0, store, fate, self.clock, POLICY)

    def teardown(self) -> None:
        try:
            end_all(self.anvil, self.stores[0], self.clock)
            self.check()
        finally:
            for store in self.stores:
                store.close()
            self.folder.cleanup()
            self.anvil.forget_pool()
            self.anvil.chain.revert(self.snapshot)

    def check(self) -> None:
        """Each payment was made once, or another program has its nonce; and there is no gap."""
        journaled = self.stores[0].transactions(1000)
        confirmed = [one for one in journaled if one.status is TransactionStatus.CONFIRMED]
        assert all(one.mined is None for one in journaled if one not in confirmed)
        assert self.anvil.received() == sum(one.value_wei for one in confirmed)
        used = self.anvil.connection.used_nonces(self.anvil.accounts[0].address)
        assert all(one.nonce < used for one in journaled)


@pytest.fixture(scope="module")
def anvil() -> Iterator[Anvil]:
    with anvil_chain() as chain:
        yield Anvil(chain)


def test_there_is_no_gap_and_nothing_twice_whatever_happens(anvil: Anvil) -> None:
    Fates.anvil = anvil
    run_state_machine_as_test(
        Fates,
        settings=settings(
            max_examples=25,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
