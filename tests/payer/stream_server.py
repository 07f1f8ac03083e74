"""A paid event stream over real sockets, by the real rules; each connection has its own thread."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from channelpay.payer.steps import Answer, Send
from channelpay.protocol.passes import PLACE
from channelpay.protocol.sse import NeedVoucher
from channelpay.protocol.types import ChannelId
from channelpay.protocol.wire import Credential, OpenPayload, VoucherPayload
from tests.payer.selling import Selling
from tests.payer.site import Site

PAUSE_SECONDS = 20.0
Reply = tuple[int, Mapping[str, str], bytes]
_OURS = {"Authorization", "Idempotency-Key"}


class StreamServer(ThreadingHTTPServer):
    """Sells ``amounts`` as a stream; ``extra`` is sent before it, and ``cut`` ends it after so many
    events. While ``goes_on`` is not set, a voucher changes nothing. ``ask_receipt`` answers who
    asks for a receipt: with a status, headers and a body.
    """

    daemon_threads = True

    def __init__(self, site: Site, amounts: Sequence[int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.site = site
        self.amounts = amounts
        self.extra = b""
        self.cut: int | None = None
        self.hold_after: int | None = None
        self.released = threading.Event()
        self.goes_on = True
        self.lost_vouchers = 0
        self.ask_receipt: Callable[[ChannelId, str], Reply] = lambda *_: (404, {}, b"")
        self.changed = threading.Condition()
        self.requests: list[tuple[str, int, dict[str, str], bytes]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/stream"

    def sent_with(self, method: str) -> list[tuple[str, int, dict[str, str], bytes]]:
        return [request for request in self.requests if request[0] == method]


@contextmanager
def serving(server: StreamServer) -> Iterator[StreamServer]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.goes_on = True
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: StreamServer

    def do_GET(self) -> None:
        answer = self._answer(bare=False)
        if answer.receipt is None or answer.status != 200:
            self._refuse(answer)
        else:
            self._stream(answer)

    def do_POST(self) -> None:
        if not self.path.startswith(PLACE):
            self.do_GET()
            return
        self._note_request()
        channel_id = ChannelId(bytes.fromhex(self.path.rpartition("/0x")[2]))
        status, headers, body = self.server.ask_receipt(channel_id, self.headers["Idempotency-Key"])
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        if self.server.lost_vouchers > 0:
            self.server.lost_vouchers -= 1
            self.close_connection = True
            return
        answer = self._answer(bare=True)
        with self.server.changed:
            self.server.changed.notify_all()
        self.send_response(answer.status)
        for challenge in answer.challenges:
            self.send_header("WWW-Authenticate", challenge)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: the test's output is its own."""

    def _note_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((self.command, self.client_address[1], headers, body))

    def _answer(self, *, bare: bool) -> Answer:
        self._note_request()
        with self.server.changed:
            ours = {name: self.headers[name] for name in _OURS if name in self.headers}
            return self.server.site.answer(self.server.url, Send(ours, bare=bare))

    def _refuse(self, answer: Answer) -> None:
        body = json.dumps(answer.problem).encode()
        self.send_response(answer.status)
        for challenge in answer.challenges:
            self.send_header("WWW-Authenticate", challenge)
        self.send_header("Content-Type", "application/problem+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, answer: Answer) -> None:
        assert answer.receipt is not None
        self.send_response(200)
        self.send_header("Payment-Receipt", answer.receipt)
        self.send_header("Content-Type", f"{self.server.site.media_type}; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            self._sell()
        except OSError:
            self.close_connection = True

    def _sell(self) -> None:
        server = self.server
        payload = Credential.parse(self.headers["Authorization"]).payload
        assert isinstance(payload, OpenPayload | VoucherPayload)
        key = self.headers["Idempotency-Key"]
        selling = Selling(server.site, payload.voucher.channel_id, key, server.amounts)
        self._chunk(server.extra)
        events = 0
        while not selling.is_over:
            with server.changed:
                sent, need = selling.event()
            self._chunk(sent)
            events += need is None
            if need is not None and not self._gets(need):
                break
            if events == server.cut:
                self.close_connection = True
                return
            if events == server.hold_after:
                assert server.released.wait(PAUSE_SECONDS)
        with server.changed:
            self._chunk(selling.receipt())
        self.wfile.write(b"0\r\n\r\n")

    def _gets(self, need: NeedVoucher) -> bool:
        """Whether a voucher for more comes in time."""
        server = self.server

        def is_there() -> bool:
            record = server.site.records[need.channel_id]
            return server.goes_on and record.accepted > need.accepted

        with server.changed:
            return server.changed.wait_for(is_there, PAUSE_SECONDS)

    def _chunk(self, data: bytes) -> None:
        if data:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
