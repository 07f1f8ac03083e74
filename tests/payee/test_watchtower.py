"""Exports of vouchers: what is written, what is believed, and what a watchtower makes of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelpay.errors import InputError, NotFound, PaymentRefused, SignerMismatch
from channelpay.observe.alerts import AlertName, Alerts
from channelpay.payee.watchtower import (
    LINE_BYTES_MAX,
    ExportReader,
    Watchtower,
    export_line,
    parse_line,
    sole_payee,
    write_export,
)
from channelpay.protocol.eip712 import VoucherHasher, VoucherSigner
from channelpay.protocol.rules import ChannelRecord
from channelpay.protocol.types import (
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelState,
    ChannelStatus,
    Deployment,
)
from channelpay.testing.furnished import FurnishedChain
from tests.payee.office import Office, office_on
from tests.payee.shop import PRICE, Payer

DEPLOYMENT = Deployment(31337, Address(b"\xcc" * 20))
SIGNER = VoucherSigner(DEPLOYMENT, b"\x07" * 32)
Change = Callable[[dict[str, Any]], Any]


def record(cumulative: int = 5, payee: int = 0xBB, salt: int = 1) -> ChannelRecord:
    channel = Channel(
        SIGNER.address, Address(bytes([payee]) * 20), NATIVE, ZERO_ADDRESS, salt.to_bytes(32, "big")
    )
    channel_id = channel.id(DEPLOYMENT)
    voucher = SIGNER.sign(channel_id, cumulative)
    state = ChannelState(ChannelStatus.OPEN, 100)
    return ChannelRecord(channel_id, channel, state, cumulative, cumulative, voucher.signature)


def line(**more: Any) -> str:
    return export_line(record(**more), DEPLOYMENT)


@given(st.integers(1, 2**96), st.integers(0, 2**256 - 1))
def test_what_was_written_is_read_again(cumulative: int, salt: int) -> None:
    written = record(cumulative, salt=salt)
    read = parse_line(export_line(written, DEPLOYMENT).encode())
    assert (read.deployment, read.channel, read.voucher) == (
        DEPLOYMENT,
        written.channel,
        written.voucher,
    )


def test_a_line_has_the_v_that_the_contract_takes() -> None:
    right = record()
    assert right.voucher is not None
    flipped = VoucherHasher.with_other_v(right.voucher).signature
    wrong = right.with_books(right.accepted, right.spent, flipped)
    assert export_line(wrong, DEPLOYMENT) == export_line(right, DEPLOYMENT)


@pytest.mark.parametrize(
    "change",
    [
        lambda members: members.pop("salt"),
        lambda members: members.update(more="1"),
        lambda members: members.update(cumulativeAmount="6"),
        lambda members: members.update(cumulativeAmount=5),
        lambda members: members.update(cumulativeAmount="05"),
        lambda members: members.update(signature=members["signature"].upper()),
        lambda members: members.update(signature="0x" + "00" * 65),
        lambda members: members.update(chainId="31337"),
        lambda members: members.update(chainId=1),
        lambda members: members.update(payer="0x" + "11" * 20),
        lambda members: members.update(payee="0x" + "11" * 20),
        lambda members: members.update(contract="0x" + "11" * 20),
        lambda members: members.update(channelId="0x" + "11" * 32),
    ],
)
def test_a_line_that_is_not_exactly_a_signed_voucher_is_refused(change: Change) -> None:
    members = json.loads(line())
    change(members)
    with pytest.raises((InputError, PaymentRefused)):
        parse_line(json.dumps(members).encode())


def test_a_voucher_of_somebody_else_is_refused() -> None:
    members = json.loads(line())
    stranger = VoucherSigner(DEPLOYMENT, b"\x08" * 32)
    signature = stranger.sign(record().channel_id, 5).signature
    with pytest.raises(SignerMismatch):
        parse_line(json.dumps(members | {"signature": "0x" + signature.hex()}).encode())


@pytest.fixture
def export(tmp_path: Path) -> Path:
    return tmp_path / "vouchers.jsonl"


def test_an_export_is_replaced_at_once_and_is_its_owners_alone(export: Path) -> None:
    write_export([line()], export)
    write_export([line(), line(salt=2)], export)
    assert len(export.read_text().splitlines()) == 2
    assert export.stat().st_mode & 0o777 == 0o600
    assert [*export.parent.iterdir()] == [export]


def test_the_best_voucher_stays_whatever_later_exports_say(export: Path) -> None:
    reader = ExportReader(export, Alerts(()))
    for cumulative, is_new in ((5, True), (9, True), (7, False), (9, False)):
        write_export([line(cumulative=cumulative)], export)
        assert bool(reader.read()) is is_new
    export.unlink()
    assert reader.read() == []
    assert [one.voucher.cumulative_amount for one in reader.best.values()] == [9]


def test_an_export_that_did_not_change_is_not_read_again(
    export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_export([line()], export)
    reader = ExportReader(export, Alerts(()))
    reader.read()
    monkeypatch.setattr(Path, "open", None)
    assert reader.read() == []


def test_bad_lines_are_told_and_the_others_count(export: Path) -> None:
    alerts = Alerts(())
    too_long = json.dumps(json.loads(line(salt=3)) | {"more": "x" * 2 * LINE_BYTES_MAX})
    export.write_text("\n".join(["no json", line(), too_long, line(salt=2)]) + "\n")
    reader = ExportReader(export, alerts)
    assert len(reader.read()) == 2
    (alert,) = alerts.active
    assert alert.name is AlertName.BAD_EXPORT
    assert alert.facts == {"file": export.name, "lines": 2, "first": 1}
    write_export([line()], export)
    reader.read()
    assert alerts.active == []


def test_a_folder_is_all_its_exports(tmp_path: Path) -> None:
    write_export([line()], tmp_path / "one.jsonl")
    write_export([line(salt=2)], tmp_path / "two.jsonl")
    write_export([line(salt=3)], tmp_path / "notes.txt")
    assert len(ExportReader(tmp_path, Alerts(())).read()) == 2


def test_whose_channels_they_are_has_to_be_clear() -> None:
    one, other = (parse_line(line(payee=payee).encode()) for payee in (0xBB, 0xB2))
    assert sole_payee([one, one], DEPLOYMENT) == one.channel.payee
    with pytest.raises(InputError, match="several"):
        sole_payee([one, other], DEPLOYMENT)
    with pytest.raises(NotFound):
        sole_payee([one], Deployment(1, DEPLOYMENT.contract))


class Tower:
    """A watchtower beside a payee's office, with books of its own."""

    def __init__(self, furnished: FurnishedChain, payer: Payer, export: Path) -> None:
        self.payees, self.own = office_on(furnished, payer), office_on(furnished, payer)
        self.export = export
        self.alerts = Alerts(())

    def publish(self) -> None:
        office = self.payees
        owed = [one for one in office.store.owed() if one.unsettled]
        write_export([export_line(one, office.terms.deployment) for one in owed], self.export)

    def started(self, **more: Any) -> Watchtower:
        reader = ExportReader(self.export, self.alerts)
        reader.read()
        office: Office = self.own
        return Watchtower(
            reader, office.terms.payee, office.link, office.store, self.alerts, **more
        )


@pytest.fixture
def tower(furnished: FurnishedChain, payer: Payer, export: Path) -> Tower:
    return Tower(furnished, payer, export)


def test_a_watchtower_knows_the_channels_of_the_export_and_follows_them(tower: Tower) -> None:
    channel = tower.payees.channel(3 * PRICE)
    tower.publish()
    watching = tower.started()
    watching.step()
    assert tower.own.record(channel).accepted == 3 * PRICE
    assert tower.own.record(channel).closes_begun == 0
    tower.payees.payer.request_close(channel)
    watching.step()
    assert tower.own.record(channel).chain.status is ChannelStatus.CLOSING


def test_a_voucher_counts_also_if_its_export_comes_after_the_close_request(tower: Tower) -> None:
    channel = tower.payees.channel(PRICE)
    tower.publish()
    watching = tower.started()
    watching.step()
    tower.payees.buy(channel, 2 * PRICE)
    tower.payees.payer.request_close(channel)
    watching.step()
    tower.publish()
    watching.step()
    assert tower.own.record(channel).accepted == 2 * PRICE


def test_vouchers_outlive_their_export(tower: Tower) -> None:
    channel = tower.payees.channel(PRICE)
    tower.publish()
    tower.started().step()
    tower.export.write_text("")
    tower.started().step()
    assert tower.own.record(channel).accepted == PRICE


def test_an_export_that_is_no_longer_written_is_told(tower: Tower) -> None:
    tower.payees.channel(PRICE)
    tower.publish()
    tower.started(old_seconds=60).step()
    assert tower.alerts.active == []
    os.utime(tower.export, (1, 1))
    tower.started(old_seconds=60).step()
    assert [one.name for one in tower.alerts.active] == [AlertName.VOUCHERS_OLD]
