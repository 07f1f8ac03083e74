"""Where Prometheus reads the metrics: an address of its own, never the paid site.

A process of its own observes with ``with metrics_at("127.0.0.1:9402") as observer``. Of several
workers each does so, and one of them ``serves`` what all have counted; the process that starts them
holds ``with shared_metrics()`` around their lives.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from channelpay.errors import ConfigError
from channelpay.observe.observer import Observer

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

MULTIPROCESS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus-client's own switch, which it reads when it is first imported."""
_ADDRESS = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\[\]:\s]+):(?P<port>[0-9]{1,5})\Z")


@contextmanager
def metrics_at(address: str | None, *, serves: bool = True) -> Iterator[Observer]:
    """An observer that counts, scraped at ``address`` (``host:port``) as long as this lasts; one
    that does nothing if there is no address. Without ``serves`` another worker is scraped.

    Raises :class:`~channelpay.errors.ConfigError` for an address that cannot be had, and
    :class:`ModuleNotFoundError` if the extra ``metrics`` is not installed.
    """
    if address is None:
        yield Observer()
        return
    from channelpay.observe.metrics import PrometheusObserver

    observer = PrometheusObserver()
    if not serves:
        yield observer
        return
    with _served(address, _of_all_workers() or observer.registry):
        yield observer


@contextmanager
def shared_metrics() -> Iterator[None]:
    """A folder, private to its owner, in which the workers that are started meanwhile put what they
    count: the one that ``PROMETHEUS_MULTIPROC_DIR`` names, or a new one for this time.

    Workers inherit the environment, and must not have imported prometheus-client before.
    """
    if MULTIPROCESS_DIRECTORY in os.environ:
        yield
        return
    directory = tempfile.mkdtemp(prefix="channelpay-metrics-")
    os.environ[MULTIPROCESS_DIRECTORY] = directory
    try:
        yield
    finally:
        del os.environ[MULTIPROCESS_DIRECTORY]
        shutil.rmtree(directory, ignore_errors=True)


def worker_ended(process_id: int) -> None:
    """Forget what a worker said of itself (its queue, its follower); what it counted stays."""
    if MULTIPROCESS_DIRECTORY in os.environ:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(process_id)  # type: ignore[no-untyped-call]


@contextmanager
def _served(address: str, registry: CollectorRegistry) -> Iterator[None]:
    from prometheus_client import start_http_server

    host, port = parse_listen_address(address)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {address}: {error.strerror}", hint="Choose another --metrics."
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def parse_listen_address(text: str) -> tuple[str, int]:
    """Host and port of ``127.0.0.1:9402``, ``[::1]:9402`` or ``localhost:9402``. Raises
    :class:`~channelpay.errors.ConfigError`.
    """
    match = _ADDRESS.match(text)
    if match is None or not 0 < int(match["port"]) < 65_536:
        raise ConfigError(
            f"{text[:80]!r} is not an address to listen on", hint="Write it as 127.0.0.1:9402."
        )
    return match["host"].strip("[]"), int(match["port"])


def _of_all_workers() -> CollectorRegistry | None:
    """What every worker has counted, or None where there is one process alone."""
    directory = os.environ.get(MULTIPROCESS_DIRECTORY)
    if directory is None:
        return None
    from prometheus_client import CollectorRegistry
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry, directory)  # type: ignore[no-untyped-call]
    return registry
