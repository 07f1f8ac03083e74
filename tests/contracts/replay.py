"""All channels and kept shares, rebuilt from the contract's events and nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from channelpay.protocol.lifecycle import LaneState
from channelpay.protocol.types import Channel, ChannelId
from tests.contracts.abi import Event


class Replay:
    """What one who reads the logs from the first block knows.

    ``lanes`` by lane key; ``kept`` by token and account, in base units.
    """

    def __init__(self, grace_seconds: int) -> None:
        self.lanes: dict[bytes, LaneState] = {}
        self.kept: Counter[tuple[bytes, bytes]] = Counter()
        self._grace_seconds = grace_seconds
        self._lane_of: dict[ChannelId, bytes] = {}

    def feed(self, event: Event) -> None:
        """Take the next event in."""
        said = event.arguments
        if event.name == "ChannelOpened":
            self._opened(said)
        elif event.name == "ToppedUp":
            assert said["deposit"] == self._lane(said).deposit + said["amount"]
            self._change(said, deposit=said["deposit"])
        elif event.name == "CloseCancelled":
            self._change(said, close_requested_at=0)
        elif event.name == "Settled":
            self._change(said, settled=said["cumulativeAmount"])
        elif event.name == "CloseRequested":
            requested_at = said["withdrawableAt"] - self._grace_seconds
            self._change(said, close_requested_at=requested_at)
        elif event.name == "ChannelClosed":
            assert said["settled"] + said["refund"] == self._lane(said).deposit
            self._change(said, settled=said["settled"], finalized=True)
        elif event.name == "ShareKept":
            self.kept[said["token"], said["account"]] += said["amount"]
        else:
            assert event.name == "ShareClaimed"
            self.kept[said["token"], said["account"]] -= said["amount"]

    def _opened(self, said: dict[str, bytes]) -> None:
        names = ("payer", "payee", "token", "authorizedSigner", "salt")
        channel = Channel(*(said[name] for name in names))  # type: ignore[arg-type]
        self._lane_of[ChannelId(said["channelId"])] = channel.lane
        self.lanes[channel.lane] = LaneState(channel.epoch, int(said["deposit"]))

    def _lane(self, said: dict[str, bytes]) -> LaneState:
        return self.lanes[self._lane_of[ChannelId(said["channelId"])]]

    def _change(self, said: dict[str, bytes], **fields: Any) -> None:
        key = self._lane_of[ChannelId(said["channelId"])]
        self.lanes[key] = replace(self.lanes[key], **fields)
