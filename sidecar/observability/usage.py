"""How much of each limit is in use, and what of the sidecar's own is not well, for Prometheus."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from prometheus_client.core import Metric

from sidecar.observability.metric_families import counter, gauge


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
        for name, text, value in (
            ("connections", "Connections of clients.", self.connections),
            ("connections_limit", "Connections of clients that may be open.", self.connections_limit),
            ("requests_in_flight", "Requests being served.", self.in_flight),
            ("requests_in_flight_limit", "Requests that may be served at once.", self.in_flight_limit),
            ("buffered_bytes", "Bytes that wait for a slow peer, or for the end of a head.", self.buffered_bytes),
            ("buffered_bytes_limit", "Such bytes that there may be.", self.buffered_bytes_limit),
            ("draining", "1 while it is told to be not ready, and still serves.", self.draining),
            ("config_loaded_timestamp_seconds", "When the configuration in use was read.", self.loaded_at),
        ):
            yield gauge(name, text, (), {(): float(value)})
        pools = self.pools.items()
        yield gauge(
            "upstream_connections",
            "Connections to a backend, by what they are.",
            ("upstream", "state"),
            {
                (name, state): number
                for name, use in pools
                for state, number in (("active", use.open - use.idle), ("idle", use.idle))
            },
        )
        yield gauge(
            "upstream_connections_limit",
            "Connections to a backend that may be open.",
            ("upstream",),
            {name: use.most for name, use in pools},
        )
        yield gauge(
            "upstream_waiting_requests",
            "Requests that wait for a connection.",
            ("upstream",),
            {name: use.waiting for name, use in pools},
        )
        yield gauge(
            "file_good",
            "0 while a file cannot be used, and what was read before it is in use.",
            ("file",),
            self.files,
        )
        yield counter(
            "tls_handshakes_failed", "Handshakes of clients that failed, by their cause.", ("cause",), self.handshakes
        )
        yield counter("access_log_lost_lines", "Lines of the access log that nobody took.", (), {(): self.lost_lines})
