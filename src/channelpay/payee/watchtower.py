"""Vouchers on their way to somebody who watches for the payee, and what that one does with them.

An export is a file of JSON lines, one voucher each, that needs no secret to be used: settling pays
nobody but the payee. So a watchtower has the vouchers, gas money of its own, and neither the
payee's key nor its books.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

from channelpay.errors import InputError, NotFound, PaymentRefused
from channelpay.observe import Observer
from channelpay.observe.alerts import Alert, AlertName, Alerts
from channelpay.payee.chain_link import ChainLink
from channelpay.payee.follower import Follower
from channelpay.payee.terms import Terms
from channelpay.protocol.eip712 import VoucherHasher
from channelpay.protocol.parse import (
    parse_address,
    parse_amount,
    parse_bytes32,
    parse_chain_id,
    parse_channel_id,
    parse_json_object,
    parse_signature,
)
from channelpay.protocol.rules import ChannelRecord
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import (
    Address,
    Channel,
    ChannelId,
    ChannelStatus,
    Deployment,
    Voucher,
)
from channelpay.store import Store

SUFFIX = ".jsonl"
LINE_BYTES_MAX = 2_048
"""A line has about 700."""
OLD_SECONDS = 6 * 3600.0
_TOGETHER = 100
_MEMBERS = frozenset(
    {
        "channelId",
        "chainId",
        "contract",
        "payer",
        "payee",
        "token",
        "authorizedSigner",
        "salt",
        "cumulativeAmount",
        "signature",
    }
)
_log = getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Exported:
    """One voucher with all that is needed to settle it."""

    deployment: Deployment
    channel: Channel
    voucher: Voucher


def export_line(record: ChannelRecord, deployment: Deployment) -> str:
    """The best voucher of a channel as a line of an export. Raises what
    :meth:`~channelpay.protocol.eip712.VoucherHasher.check` raises if it is none that the contract
    takes.
    """
    channel = record.channel
    assert record.voucher is not None  # what is owed has one
    voucher = VoucherHasher(deployment).with_right_v(record.voucher, channel.signer)
    members = {
        "channelId": to_hex(record.channel_id),
        "chainId": deployment.chain_id,
        "contract": to_hex(deployment.contract),
        "payer": to_hex(channel.payer),
        "payee": to_hex(channel.payee),
        "token": to_hex(channel.token),
        "authorizedSigner": to_hex(channel.authorized_signer),
        "salt": to_hex(channel.salt),
        "cumulativeAmount": str(voucher.cumulative_amount),
        "signature": to_hex(voucher.signature),
    }
    return json.dumps(members)


def parse_line(line: bytes) -> Exported:
    """What :func:`export_line` wrote: every member, no other one, and a signature that is checked.

    Raises :class:`~channelpay.errors.InputError` and
    :class:`~channelpay.errors.PaymentRefused`.
    """
    members = parse_json_object(line, "the line")
    if members.keys() != _MEMBERS:
        raise InputError("the line does not have the members of a voucher")
    deployment = Deployment(
        parse_chain_id(members["chainId"]), parse_address(members["contract"], "contract")
    )
    channel = _parsed_channel(members)
    voucher = Voucher(
        parse_channel_id(members["channelId"]),
        parse_amount(members["cumulativeAmount"], "cumulativeAmount"),
        parse_signature(members["signature"]),
    )
    if channel.id(deployment) != voucher.channel_id:
        raise InputError("the channelId is not that of the channel")
    VoucherHasher(deployment).check(voucher, channel.signer)
    return Exported(deployment, channel, voucher)


def _parsed_channel(members: Mapping[str, Any]) -> Channel:
    return Channel(
        parse_address(members["payer"], "payer"),
        parse_address(members["payee"], "payee"),
        parse_address(members["token"], "token"),
        parse_address(members["authorizedSigner"], "authorizedSigner"),
        parse_bytes32(members["salt"], "salt"),
    )


def write_export(lines: Iterable[str], to: Path) -> None:
    """Replace ``to`` with these lines at once, so that nobody reads half of them. Only its owner
    may read it.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=".export-", dir=to.absolute().parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.writelines(f"{line}\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(to)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(f"{to} cannot be written: {error.strerror}") from error


class ExportReader:
    """Reads an export, or all of them in a folder (``*.jsonl``), whenever they have changed.

    One voucher for each channel, the best one ever read: a file that is gone or older than before
    takes nothing away.
    """

    def __init__(self, path: Path, alerts: Alerts) -> None:
        self._path = path
        self._alerts = alerts
        self._read: dict[Path, tuple[int, int, int]] = {}
        self.best: dict[ChannelId, Exported] = {}
        self.changed_at: float = 0.0
        """When the newest file was written, in Unix seconds; 0 if there is none."""

    def read(self) -> list[Exported]:
        """What is new since the last time."""
        found: dict[ChannelId, Exported] = {}
        for file in self._files():
            try:
                state = file.stat()
                stamp = (state.st_ino, state.st_mtime_ns, state.st_size)
                if self._read.get(file) != stamp:
                    found |= {one.voucher.channel_id: one for one in self._better(file)}
                    self._read[file] = stamp
            except OSError as error:
                _log.warning("an export cannot be read: %s", error.strerror)
                continue
            self.changed_at = max(self.changed_at, state.st_mtime)
        return list(found.values())

    def _files(self) -> list[Path]:
        if self._path.is_dir():
            return sorted(self._path.glob(f"*{SUFFIX}"))
        return [self._path]

    def _better(self, file: Path) -> Iterator[Exported]:
        """The vouchers of a file that are the best so far; other lines are told and left out."""
        bad: list[tuple[int, str]] = []
        with file.open("rb") as lines:
            for number, line in enumerate(_bounded(lines), start=1):
                try:
                    exported = parse_line(line)
                except (InputError, PaymentRefused) as error:
                    bad.append((number, error.detail))
                    continue
                known = self.best.get(exported.voucher.channel_id)
                amount = exported.voucher.cumulative_amount
                if known is None or amount > known.voucher.cumulative_amount:
                    self.best[exported.voucher.channel_id] = exported
                    yield exported
        self._tell_bad(file, bad)

    def _tell_bad(self, file: Path, bad: Sequence[tuple[int, str]]) -> None:
        if not bad:
            self._alerts.end(AlertName.BAD_EXPORT, file.name)
            return
        number, detail = bad[0]
        text = f"{len(bad)} lines of {file.name} are no vouchers: line {number}: {detail}"
        facts: dict[str, str | int] = {"file": file.name, "lines": len(bad), "first": number}
        self._alerts.begin(Alert(AlertName.BAD_EXPORT, text, facts, file.name))


def _bounded(lines: Any) -> Iterator[bytes]:
    """Lines of at most ``LINE_BYTES_MAX``; a longer one comes cut, which is no voucher."""
    while line := lines.readline(LINE_BYTES_MAX):
        yield line.rstrip(b"\n")
        while line and not line.endswith(b"\n"):
            line = lines.readline(LINE_BYTES_MAX)


def sole_payee(exported: Iterable[Exported], deployment: Deployment) -> Address:
    """Who is paid by these channels of one contract. Raises :class:`~channelpay.errors.NotFound`
    if there is nobody, :class:`~channelpay.errors.InputError` if there are several.
    """
    payees = {one.channel.payee for one in exported if one.deployment == deployment}
    if not payees:
        raise NotFound(
            "the export has no voucher for this contract and chain",
            hint="Write it with 'channelpay payee export', or name the --payee.",
        )
    if len(payees) > 1:
        raise InputError(
            "the export has channels of several payees",
            hint="Name one with --payee, and run one watch for each.",
        )
    return payees.pop()


class Watchtower:
    """Follows the chain for the channels of an export; its place in a
    :class:`~channelpay.payee.daemon.Daemon` is that of the follower.

    ``store`` is the watchtower's own. It remembers the vouchers, so that no export is needed again.
    """

    def __init__(
        self,
        reader: ExportReader,
        payee: Address,
        link: ChainLink,
        store: Store,
        alerts: Alerts,
        observer: Observer | None = None,
        old_seconds: float = OLD_SECONDS,
    ) -> None:
        self._reader = reader
        self._payee = payee
        self._link = link
        self._store = store
        self._alerts = alerts
        self._old_seconds = old_seconds
        terms = Terms(link.contract.deployment, payee, ())
        self._follower = Follower(terms, link, store, observer)
        self._waiting: dict[ChannelId, Exported] = {
            one.voucher.channel_id: one for one in reader.best.values() if self._is_ours(one)
        }

    def step(self) -> None:
        """Read what is new in the export, then on the chain."""
        self._waiting |= {
            one.voucher.channel_id: one for one in self._reader.read() if self._is_ours(one)
        }
        self._tell_age()
        self._follower.step()
        waiting = list(self._waiting.values())
        for start in range(0, len(waiting), _TOGETHER):
            self._enter(waiting[start : start + _TOGETHER])

    def _is_ours(self, exported: Exported) -> bool:
        right_place = exported.deployment == self._link.contract.deployment
        return right_place and exported.channel.payee == self._payee

    def _enter(self, some: Sequence[Exported]) -> None:
        """One whose deposit is not on the chain yet waits."""
        views = self._link.views([one.channel for one in some])
        added = [
            self._store.add_channel(one.voucher.channel_id, one.channel, view)
            for one, view in zip(some, views, strict=True)
        ]
        for one, future in zip(some, added, strict=True):
            record = future.result()
            is_over = record.chain.status is ChannelStatus.FINALIZED
            if is_over or self._take(one.voucher, record):
                del self._waiting[one.voucher.channel_id]

    def _take(self, voucher: Voucher, record: ChannelRecord) -> bool:
        """Enter a voucher: as the last one before a close, which is taken also while the channel is
        closing, and the close is given up again.
        """
        if voucher.cumulative_amount <= record.accepted:
            return True
        try:
            self._store.begin_close(record.channel_id, voucher).result()
        except PaymentRefused as error:
            _log.info("a voucher has to wait: %s", error.detail)
            return False
        self._store.close_failed(record.channel_id).result()
        return True

    def _tell_age(self) -> None:
        age = time.time() - self._reader.changed_at
        if age <= self._old_seconds:
            self._alerts.end(AlertName.VOUCHERS_OLD)
            return
        text = f"the export was last written {age / 3600:.0f} hours ago"
        if not self._reader.changed_at:
            text = "there is no export to read"
        self._alerts.begin(Alert(AlertName.VOUCHERS_OLD, text))
