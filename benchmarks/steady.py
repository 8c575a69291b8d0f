"""Open-loop load: requests are sent at fixed times, whether or not earlier ones were answered.

A request that finds no free connection, or that the client sends late, still counts from the time it should have left.
How late the client was is reported too: where that lag is not small against it, the latency is the client's own.
"""

import gc
import select
import socket
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from statistics import quantiles

_HEAD_END = b"\r\n\r\n"
_QUANTUM_S = 0.0005
"""Waits are at most this long, so that a late wake-up of the machine is seen as lag."""


@dataclass(frozen=True)
class Latency:
    """Of one run; times in milliseconds."""

    rate: float
    """Requests per second that were answered."""
    p50: float
    p99: float
    lag_p99: float
    """How much later than planned the client sent."""


def steady(port: int, heads: Iterator[bytes], rate: float, requests: int, connections: int = 32) -> Latency:
    """So many `requests`, taken from `heads`, at 127.0.0.1:`port`, `rate` of them a second; at an infinite rate as many as
    get through.
    """
    to_come = deque(islice(heads, requests + connections))  # made before anything is timed
    idle = deque(_Connection(port) for _ in range(connections))
    for connection in idle:  # opened by the proxy, and its own connections to the origin, before anything is timed
        connection.send(to_come.popleft(), 0.0)
    for connection in idle:
        while not connection.received():
            select.select([connection.socket], [], [], 1.0)
    busy: dict[socket.socket, _Connection] = {}
    latencies: list[float] = []
    lags: list[float] = []
    gc.collect()
    gc.disable()
    try:
        start, sent, waited = time.perf_counter(), 0, 0.0
        while len(latencies) < requests:
            now = time.perf_counter()
            while sent < requests and start + sent / rate <= now and idle:
                planned = start + sent / rate
                connection = idle.popleft()
                connection.send(to_come.popleft(), planned)
                # Waiting for a free connection is the proxy's doing and no lag of the client.
                lags.append(max(0.0, now - max(planned, waited)))
                busy[connection.socket] = connection
                sent += 1
            wait = start + sent / rate - time.perf_counter() if sent < requests and idle else _QUANTUM_S
            ready = select.select(busy, [], [], min(_QUANTUM_S, max(0.0, wait)))[0]
            for ready_socket in ready:
                connection = busy[ready_socket]
                if connection.received():
                    latencies.append(time.perf_counter() - connection.planned)
                    del busy[ready_socket]
                    if not idle:
                        waited = time.perf_counter()
                    idle.append(connection)
        took = time.perf_counter() - start
    finally:
        gc.enable()
        for connection in [*idle, *busy.values()]:
            connection.socket.close()
    percent = quantiles(latencies, n=100)
    return Latency(requests / took, percent[49] * 1e3, percent[98] * 1e3, quantiles(lags, n=100)[98] * 1e3)


class _Connection:
    """One keep-alive connection with at most one request under way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.planned = 0.0
        self._answer = b""

    def send(self, request: bytes, planned: float) -> None:
        self.planned = planned
        self._answer = b""
        self.socket.sendall(request)

    def received(self) -> bool:
        """Reads what is there; True when the answer is complete. It must be a 200 with a Content-Length or chunks."""
        piece = self.socket.recv(65536)
        if not piece:
            raise ConnectionError("the proxy closed a connection")
        self._answer += piece
        head, found, body = self._answer.partition(_HEAD_END)
        if not found:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(f"not a 200: {head[:100]!r}")
        lower = head.lower()
        at = lower.find(b"\r\ncontent-length:")
        if at < 0:
            return body.endswith(b"0\r\n\r\n")
        return len(body) >= int(lower[at + 17 :].partition(b"\r\n")[0])
