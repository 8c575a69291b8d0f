"""A small HTTP/1.1 server in a thread of this process, for work without a need for speed."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Keeps connections and prints nothing; subclasses add `do_GET` and the like."""

    protocol_version = "HTTP/1.1"

    def answer(self, status: int, body: bytes) -> None:
        """Sends a complete answer."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """No access log."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 1024  # with its 5, connections that are opened together are refused after a second

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A proxy that is stopped resets the connections it kept.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def listening(handler: type[Handler]) -> Iterator[int]:
    """Serves until the block ends; yields the port on 127.0.0.1."""
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
