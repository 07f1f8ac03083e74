"""A voucher that was settled stands on the chain: whoever copies it from there gets nothing for it,
and whoever has its key everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest

from channelpay.payee import TabPlan
from channelpay.protocol.proofs import HEADER, proof_place
from channelpay.protocol.tabs import ACCEPTED
from channelpay.protocol.tabs import HEADER as TAB
from channelpay.protocol.types import Voucher
from channelpay.protocol.wire import ClosePayload, Payload, VoucherPayload
from channelpay.testing.furnished import FurnishedChain
from tests.payee.shop import PRICE, OpenChannel, Payer, Shop, challenges_of, opened_shop

pytestmark = pytest.mark.anyio

AHEAD = 3 * PRICE
"""What the reader has promised, of which a page is spent."""


@pytest.fixture
def shop(furnished: FurnishedChain, payer: Payer, tmp_path: Path) -> Iterator[Shop]:
    tab = TabPlan(limit_start="0.03", limit_max="0.1", grows=50, total_max="0.2", due_days=7)
    with opened_shop(furnished, tmp_path, payer, tab=tab) as opened:
        yield opened


async def settled(shop: Shop) -> tuple[OpenChannel, Voucher]:
    """A channel with credit, and the voucher that anyone can read in the transaction of its
    settlement.
    """
    channel = await shop.opened()
    voucher = channel.sign(AHEAD)
    header = shop.header(VoucherPayload(voucher), challenges_of(await shop.get("/page"))[0])
    assert (await shop.get("/page", header, key=str(uuid4()))).status_code == 200
    settle(shop, channel, voucher)
    return channel, voucher


def settle(shop: Shop, channel: OpenChannel, voucher: Voucher) -> None:
    """As anyone may, and the payee learns of it."""
    amount, signature = voucher.cumulative_amount, voucher.signature
    call = shop.payer.contract.settle(channel.channel, amount, signature)
    assert signature[:64] in call.data
    shop.payer.sender.send(call)
    (view,) = shop.verifier._link.views([channel.channel])
    shop.verifier._store.update_chain(channel.id, view).result()


async def show(
    shop: Shop, payload: Payload, owner: OpenChannel | None = None, wish: str | None = None
) -> httpx2.Response:
    """The answer to a credential, which the ``owner`` of the key proves to be its own."""
    challenge = challenges_of(await shop.get("/page"))[0]
    headers = {} if wish is None else {TAB: wish}
    if owner is not None:
        headers |= owner.proof(challenge)
    return await shop.get("/page", shop.header(payload, challenge), key=str(uuid4()), **headers)


@pytest.mark.parametrize("wish", [None, ACCEPTED])
async def test_what_can_be_read_on_the_chain_buys_nothing(shop: Shop, wish: str | None) -> None:
    channel, public = await settled(shop)

    answer = await show(shop, VoucherPayload(public), wish=wish)

    told = answer.json()
    assert (answer.status_code, told["code"]) == (402, "voucher-public")
    assert told["requiredCumulative"] == str(AHEAD + 1)
    assert {"spent", "acceptedCumulative", "acceptedSignature"}.isdisjoint(told)
    assert shop.spent(channel) == PRICE


async def test_what_can_be_read_on_the_chain_closes_nothing(shop: Shop) -> None:
    channel, public = await settled(shop)

    answer = await show(shop, ClosePayload(public))

    assert answer.json()["code"] == "voucher-public"
    assert (await shop.pay(channel, AHEAD + PRICE)).status_code == 200, "it is open"


async def test_whoever_has_the_key_spends_what_was_settled_and_closes(shop: Shop) -> None:
    channel, public = await settled(shop)

    page = await show(shop, VoucherPayload(public), channel)
    higher = await show(shop, VoucherPayload(channel.sign(AHEAD + 1)))
    closed = await show(shop, ClosePayload(channel.sign(AHEAD)), channel)

    assert [one.status_code for one in (page, higher, closed)] == [200, 200, 200]
    assert shop.spent(channel) == AHEAD


async def test_a_proof_is_for_one_challenge_and_of_one_key(shop: Shop) -> None:
    channel, public = await settled(shop)
    stranger = Payer(shop.payer.furnished, 3).open()
    challenge = challenges_of(await shop.get("/page"))[0]
    proofs = (
        channel.signer.sign(proof_place(channel.id, "another"), 0),
        channel.signer.sign(proof_place(stranger.id, challenge.id), 0),
        stranger.signer.sign(proof_place(channel.id, challenge.id), 0),
    )

    for proof in proofs:
        header = {HEADER: f"0x{proof.signature.hex()}"}
        credential = shop.header(VoucherPayload(public), challenge)
        answer = await shop.get("/page", credential, key=str(uuid4()), **header)
        assert answer.json()["code"] == "signer-mismatch"
    assert shop.spent(channel) == PRICE


async def test_a_request_that_is_repeated_with_its_key_is_served_also_after_the_settlement(
    shop: Shop,
) -> None:
    channel = await shop.opened()
    header = shop.header(VoucherPayload(channel.sign(PRICE)))
    first = await shop.get("/page", header, key="mine")
    settle(shop, channel, channel.sign(PRICE))

    again = await shop.get("/page", header, key="mine")

    assert (first.status_code, again.status_code, shop.spent(channel)) == (200, 200, PRICE)
