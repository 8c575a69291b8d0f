"""How much of each limit is in use, and what of the sidecar's own is not well, for Prometheus."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

PREFIX = "jwt_sidecar_"


class PoolUse(Protocol):
    """The connections to a backend: how many there are, of them idle, how many requests wait for one, and their limit."""

    @property
    def open(self) -> int: ...
    @property
    def idle(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def most(self) -> int: ...


class Usage(NamedTuple):
    """Plain values of one moment. `files` says of each file that is followed whether it could be used when it was read last.

    `handshakes` are those that failed, by their cause.
    """

    connections_limit: int
    in_flight_limit: int
    buffered_bytes: int
    buffered_bytes_limit: int
    connections: int
    in_flight: int
    pools: Mapping[str, PoolUse]
    draining: bool
    files: Mapping[str, bool]
    handshakes: Mapping[str, int]
    lost_lines: int
    loaded_at: float

    def collect(self) -> Iterator[Metric]:
        """The metrics."""
        yield _gauge("connections", "Connections of clients.", self.connections)
        yield _gauge("requests_in_flight", "Requests being served.", self.in_flight)
        yield _gauge("connections_limit", "Connections of clients that may be open.", self.connections_limit)
        yield _gauge("requests_in_flight_limit", "Requests that may be served at once.", self.in_flight_limit)
        yield _gauge(
            "buffered_bytes", "Bytes that wait for a slow peer, or for the end of a head.", self.buffered_bytes
        )
        yield _gauge("buffered_bytes_limit", "Such bytes that there may be.", self.buffered_bytes_limit)
        yield _gauge("draining", "1 while it is told to be not ready, and still serves.", self.draining)
        yield _gauge("config_loaded_timestamp_seconds", "When the configuration in use was read.", self.loaded_at)
        connections = GaugeMetricFamily(
            f"{PREFIX}upstream_connections", "Connections to a backend, by what they are.", labels=("upstream", "state")
        )
        limits = GaugeMetricFamily(
            f"{PREFIX}upstream_connections_limit", "Connections to a backend that may be open.", labels=("upstream",)
        )
        waiting = GaugeMetricFamily(
            f"{PREFIX}upstream_waiting_requests", "Requests that wait for a connection.", labels=("upstream",)
        )
        for name, use in self.pools.items():
            connections.add_metric((name, "active"), use.open - use.idle)
            connections.add_metric((name, "idle"), use.idle)
            limits.add_metric((name,), use.most)
            waiting.add_metric((name,), use.waiting)
        yield from (connections, limits, waiting)
        files = GaugeMetricFamily(
            f"{PREFIX}file_good",
            "0 while a file cannot be used, and what was read before it is in use.",
            labels=("file",),
        )
        for file, good in self.files.items():
            files.add_metric((file,), good)
        yield files
        failed = CounterMetricFamily(
            f"{PREFIX}tls_handshakes_failed", "Handshakes of clients that failed, by their cause.", labels=("cause",)
        )
        for cause, number in self.handshakes.items():
            failed.add_metric((cause,), number)
        yield failed
        lost = CounterMetricFamily(f"{PREFIX}access_log_lost_lines", "Lines of the access log that nobody took.")
        lost.add_metric((), self.lost_lines)
        yield lost


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=float(value))
