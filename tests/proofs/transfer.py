"""Bodies of 2 GiB through the sidecar: they arrive intact, and the process does not grow.

    python -m tests.proofs.transfer [--mib 2048]

Up and down, with a length and in chunks, and down a tunnel; also with a receiver that stops reading for a while. A body
is never held: the peak memory of the process (VmHWM) stays within MOST_GROWTH_MIB of what it held (VmRSS) after bodies of 4 MiB.
"""

import argparse
import hashlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sidecar.cli.dev.issuer import Issuer
from tests.peers.wire import WEBSOCKET, request
from tests.proofs import subject, verdict
from tests.proofs.running import AUDIENCE, MIB, Sidecar, forget_peak, memory_mib, running

MOST_GROWTH_MIB = 16
WARM_UP_MIB = 4
STALL_S = 3.0
BLOCK = hashlib.shake_256(b"jwt-sidecar").digest(MIB)
"""Every MiB of a body is this one, turned by its number: not compressible, not to be mistaken for another."""


def blocks(mib: int) -> Iterator[memoryview]:
    """The blocks of a body of this many MiB."""
    twice = memoryview(BLOCK + BLOCK)
    for number in range(mib):
        at = number * 4099 % MIB
        yield twice[at : at + MIB]


def expected(mib: int) -> str:
    """The digest of that body."""
    whole = hashlib.sha256()
    for block in blocks(mib):
        whole.update(block)
    return whole.hexdigest()


class Wire:
    """A connection that is read by lines and by lengths."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._buffer = bytearray()

    def head(self) -> bytes:
        """Up to the next empty line."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        self._buffer = bytearray(rest)
        return head.lower()

    def line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._more()
        line, _, rest = bytes(self._buffer).partition(b"\r\n")
        self._buffer = bytearray(rest)
        return line

    def take(self, length: int, whole: "hashlib._Hash") -> None:
        """Hash this many bytes."""
        while length:
            if not self._buffer:
                self._more()
            piece = self._buffer[:length]
            del self._buffer[:length]
            whole.update(piece)
            length -= len(piece)

    def body(self, head: bytes) -> str:
        """The digest of the body that the head announces."""
        whole = hashlib.sha256()
        if b"transfer-encoding: chunked" in head:
            while size := int(self.line(), 16):
                self.take(size, whole)
                self.line()
            self.line()
        else:
            self.take(int(head.partition(b"content-length: ")[2].split()[0]), whole)
        return whole.hexdigest()

    def send(self, mib: int, chunked: bool) -> None:
        """Send a body of this many MiB."""
        for block in blocks(mib):
            if chunked:
                self.connection.sendall(b"%x\r\n" % len(block))
            self.connection.sendall(block)
            if chunked:
                self.connection.sendall(b"\r\n")
        if chunked:
            self.connection.sendall(b"0\r\n\r\n")

    def _more(self) -> None:
        piece = self.connection.recv(256 * 1024)
        if not piece:
            raise ConnectionError(f"it ended early, after {bytes(self._buffer[:200])!r}")
        self._buffer += piece


@contextmanager
def backend() -> Iterator[str]:
    """Takes a body and answers its digest; gives one to /down/MIB (with a length), /chunked/MIB and, as one frame, /ws/MIB."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(wire: Wire) -> None:
        with wire.connection:
            while True:
                try:
                    head = wire.head()
                except ConnectionError:
                    return
                kind, _, mib = head.split()[1].decode().strip("/").partition("/")
                if kind == "up":
                    answer = wire.body(head).encode()
                    wire.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))
                elif kind == "ws":
                    wire.connection.sendall(
                        b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                    )
                    wire.connection.sendall(b"\x82\x7f" + (int(mib) * MIB).to_bytes(8))
                    wire.send(int(mib), False)
                    return
                else:
                    framing = (
                        b"Transfer-Encoding: chunked" if kind == "chunked" else b"Content-Length: %d" % (int(mib) * MIB)
                    )
                    wire.connection.sendall(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing)
                    wire.send(int(mib), kind == "chunked")

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(Wire(connection),), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def up(sidecar: Sidecar, token: str, mib: int, chunked: bool) -> str:
    """Send a body. Return the digest of the backend."""
    framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(mib * MIB))
    with socket.create_connection(sidecar.proxy) as connection:
        wire = Wire(connection)
        connection.sendall(request("POST", "/up", token=token, headers=[framing]))
        wire.send(mib, chunked)
        head = wire.head()
        assert head.startswith(b"http/1.1 200"), head
        while len(wire._buffer) < 64:
            wire._more()
        return wire._buffer.decode()


def down(sidecar: Sidecar, token: str, mib: int, chunked: bool, stall_s: float = 0.0) -> str:
    """Fetch a body; its digest."""
    with socket.create_connection(sidecar.proxy) as connection:
        wire = Wire(connection)
        connection.sendall(request("GET", f"/{'chunked' if chunked else 'down'}/{mib}", token=token))
        head = wire.head()
        time.sleep(stall_s)
        return wire.body(head)


def tunnelled(sidecar: Sidecar, token: str, mib: int, stall_s: float) -> str:
    """Get a body as one WebSocket frame; its digest."""
    with socket.create_connection(sidecar.proxy) as connection:
        wire = Wire(connection)
        connection.sendall(request("GET", f"/ws/{mib}", token=token, headers=WEBSOCKET))
        assert wire.head().startswith(b"http/1.1 101")
        frame = hashlib.sha256()
        wire.take(10, frame)
        time.sleep(stall_s)
        whole = hashlib.sha256()
        wire.take(mib * MIB, whole)
        return whole.hexdigest()


def main() -> int:
    """0: every body arrived intact and the process did not grow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=2048, help="of each body (default: %(default)s)")
    mib: int = parser.parse_args().mib
    print(subject(), flush=True)
    issuer = Issuer("https://issuer.test", audience=AUDIENCE)
    right, failures = {size: expected(size) for size in (WARM_UP_MIB, mib)}, 0
    with backend() as url, running(url, issuer) as sidecar:
        token = issuer.mint()
        transfers: dict[str, Callable[[int], str]] = {
            "up, with a length": lambda size: up(sidecar, token, size, chunked=False),
            "up, in chunks": lambda size: up(sidecar, token, size, chunked=True),
            "down, with a length": lambda size: down(sidecar, token, size, chunked=False),
            "down, in chunks": lambda size: down(sidecar, token, size, chunked=True),
            "down, the receiver stalls": lambda size: down(sidecar, token, size, chunked=False, stall_s=STALL_S),
            "down a tunnel, the receiver stalls": lambda size: tunnelled(sidecar, token, size, stall_s=STALL_S),
        }
        for transfer in transfers.values():
            transfer(WARM_UP_MIB)
        warm_mib = memory_mib(sidecar.pid, "VmRSS")
        print(f"memory after the warm-up: {warm_mib:.1f} MiB")
        for name, transfer in transfers.items():
            forget_peak(sidecar.pid)
            began = time.monotonic()
            intact = transfer(mib) == right[mib]
            seconds = time.monotonic() - began
            growth_mib = memory_mib(sidecar.pid, "VmHWM") - warm_mib
            good = intact and growth_mib < MOST_GROWTH_MIB
            failures += not good
            print(
                f"{'ok  ' if good else 'FAIL'} {name}: {mib} MiB in {seconds:.1f} s ({mib / seconds:.0f} MiB/s), "
                f"sha256 {'intact' if intact else 'WRONG'}, peak {growth_mib:+.1f} MiB",
                flush=True,
            )
        for line in sidecar.bugs():
            failures += 1
            print(line)
    return verdict(failures)


if __name__ == "__main__":
    sys.exit(main())
