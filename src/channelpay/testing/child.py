"""The process behind a development chain: ``python -m channelpay.testing.child embedded|anvil …``.

It prints one JSON line ``{"rpcUrl": "http://…"}`` once the chain answers and ends when its standard
input does, which happens whenever the parent ends, however that ends. So no chain outlives the
program that started it.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from contextlib import suppress
from threading import Thread
from typing import IO

from channelpay.testing.accounts import FUNDED_COUNT, MNEMONIC
from channelpay.testing.execution import CHAIN_ID

_LISTENING = re.compile(r"Listening on ([\d.]+:\d+)")
_STOP_SECONDS = 5.0


def main() -> None:
    """Arguments: ``embedded PORT`` or ``anvil BINARY PORT``."""
    # Ctrl-C goes to the whole process group; the parent decides when the chain ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    kind, *arguments = sys.argv[1:]
    if kind == "embedded":
        _serve_embedded(int(arguments[0]))
    else:
        sys.exit(_supervise_anvil(arguments[0], arguments[1]))


def _serve_embedded(port: int) -> None:
    from channelpay.testing.embedded import embedded_rpc
    from channelpay.testing.http_server import serving

    with serving(embedded_rpc(), port) as rpc_url:
        _report(rpc_url)
        sys.stdin.read()


def _supervise_anvil(binary: str, port: str) -> int:
    """Run anvil until it ends or standard input does; returns anvil's own exit code or 0."""
    process = subprocess.Popen(
        anvil_command(binary, port), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    Thread(target=_stop_at_end_of_input, args=(process,), daemon=True).start()
    _relay_url(process.stdout)
    return max(0, process.wait())


def anvil_command(binary: str, port: str) -> list[str]:
    options = {
        "--accounts": str(FUNDED_COUNT),
        "--chain-id": str(CHAIN_ID),
        "--hardfork": "prague",
        "--host": "127.0.0.1",
        "--mnemonic": MNEMONIC,
        "--port": port,
    }
    return [binary, *(word for option in options.items() for word in option)]


def _relay_url(lines: IO[str]) -> None:
    """Report the address that anvil prints; read on, since anvil stops at a full pipe."""
    for line in lines:
        found = _LISTENING.search(line)
        if found:
            _report(f"http://{found[1]}")


def _stop_at_end_of_input(process: subprocess.Popen[str]) -> None:
    sys.stdin.read()
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def _report(rpc_url: str) -> None:
    with suppress(BrokenPipeError):
        sys.stdout.write(json.dumps({"rpcUrl": rpc_url}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
