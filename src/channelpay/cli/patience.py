"""Waiting for a node when a program begins that is to run for long."""

from __future__ import annotations

import time
from logging import getLogger

from channelpay.cli.common import connected
from channelpay.errors import NetworkError, WrongChain

PAUSE_SECONDS_MAX = 30
_log = getLogger(__name__)


def wait_for_node(rpc: str | None) -> None:
    """Return when a node answers, however long that takes: what is started with the machine must
    not end because its network is not there yet. Raises :class:`~channelpay.errors.WrongChain`.
    """
    pause = 1
    while True:
        try:
            connected(rpc)
            return
        except WrongChain:
            raise
        except NetworkError as error:
            _log.warning("%s; asking again in %d s", error.detail, pause)
        time.sleep(pause)
        pause = min(2 * pause, PAUSE_SECONDS_MAX)
