"""Small WebSocket messages through a proxy, each answered before the next one is sent on its connection."""

import base64
import contextlib
import json
import select
import socket
from collections.abc import Iterator

from benchmarks.loopback import Handler, listening
from benchmarks.setting import ECHOED, SEEN

CONNECTIONS = 20
MESSAGES = 2_000  # on each connection, each way
BYTES = 100

# RFC 6455 section 5.2: binary, final, and as short as they are; a client's is masked, here with zeros.
_ASKED = bytes([0x82, 0x80 | BYTES]) + bytes(4) + b"." * BYTES
_ANSWERED = bytes([0x82, BYTES]) + b"." * BYTES
_KEY = base64.b64encode(bytes(16)).decode()
_ACCEPT = "ICX+Yqv66kxgM0FcWaLWlFLwTAI="  # section 4.2.2, for this key


class _Echo(Handler):
    """Answers SEEN like `nginx_origin`, and every message with one as long."""

    def do_GET(self) -> None:
        if self.headers.get("Upgrade", "").lower() != "websocket":
            seen = {name.lower(): self.headers.get(name, "") for name in ECHOED} if self.path == SEEN else {}
            self.answer(200, json.dumps(seen).encode())
            return
        self.send_response(101)
        for name, value in ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Accept", _ACCEPT):
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(ConnectionError):
            while len(self.rfile.read(len(_ASKED))) == len(_ASKED):
                self.connection.sendall(_ANSWERED)


@contextlib.contextmanager
def echo_origin() -> Iterator[int]:
    """Yields its port."""
    with listening(_Echo) as port:
        yield port


def talk(port: int, token: str) -> int:
    """All messages through the proxy at 127.0.0.1:`port`; returns how many were answered."""
    with contextlib.ExitStack() as stack:
        left = {stack.enter_context(_opened(port, token)): MESSAGES for _ in range(CONNECTIONS)}
        owed = dict.fromkeys(left, len(_ANSWERED))
        for connection in left:
            connection.sendall(_ASKED)
        while left:
            for connection in select.select(list(left), [], [])[0]:
                piece = connection.recv(owed[connection])
                if not piece:
                    raise ConnectionError("the proxy closed a connection")
                owed[connection] -= len(piece)
                if owed[connection]:
                    continue
                left[connection] -= 1
                if left[connection]:
                    owed[connection] = len(_ANSWERED)
                    connection.sendall(_ASKED)
                else:
                    del left[connection]
    return CONNECTIONS * MESSAGES


def _opened(port: int, token: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(
        f"GET /echo HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\n"
        f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {_KEY}\r\n\r\n".encode()
    )
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError("no answer")
        answer += piece
    if not answer.startswith(b"HTTP/1.1 101"):
        raise ConnectionError(f"not a 101: {answer[:100]!r}")
    return connection
