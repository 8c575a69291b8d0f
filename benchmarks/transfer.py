"""One large body through a proxy, down or up, with a cheap client."""

import socket
import tempfile

from benchmarks.setting import BULK_BYTES


def download(port: int, token: str) -> None:
    """Reads BULK_BYTES through the proxy at 127.0.0.1:`port`."""
    with _sent(port, f"GET / HTTP/1.1\r\n{_headers(port, token)}\r\n") as connection:
        left = BULK_BYTES - len(_answer_head(connection))
        piece = bytearray(1 << 20)
        while left > 0:
            got = connection.recv_into(piece, min(left, len(piece)))
            if not got:
                raise ConnectionError(f"the body ended {left} bytes early")
            left -= got


def upload(port: int, token: str) -> None:
    """Sends BULK_BYTES through the proxy and waits for the answer."""
    content = f"Content-Type: application/octet-stream\r\nContent-Length: {BULK_BYTES}\r\n"
    with _sent(port, f"POST / HTTP/1.1\r\n{_headers(port, token)}{content}\r\n") as connection:
        with tempfile.TemporaryFile() as sparse:
            sparse.truncate(BULK_BYTES)
            connection.sendfile(sparse)
        _answer_head(connection)


def _headers(port: int, token: str) -> str:
    return f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"


def _sent(port: int, head: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(head.encode())
    return connection


def _answer_head(connection: socket.socket) -> bytes:
    """Read the head of a 200; return the received part of the body."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError("no answer")
        answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(f"not a 200: {head[:100]!r}")
    return body
