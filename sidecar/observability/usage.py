"""Metrics of the use of each limit and of the sidecar's own files and handshakes."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from prometheus_client.core import Metric

from sidecar.observability.metric_families import counter, gauge


class PoolUse(Protocol):
    """The connections to a backend: open, idle, their limit, and the number of waiting requests."""

    @property
    def open(self) -> int: ...
    @property
    def idle(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def most(self) -> int: ...


class Usage(NamedTuple):
    """Plain values of one moment. `files` maps each watched file to whether its last read succeeded.

    `handshakes` are failed TLS handshakes by cause.
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
            ("connections_limit", "The most connections of clients.", self.connections_limit),
            ("requests_in_flight", "Requests being served.", self.in_flight),
            ("requests_in_flight_limit", "The most requests that are served at once.", self.in_flight_limit),
            ("buffered_bytes", "Bytes that wait for a slow peer or for the end of a head.", self.buffered_bytes),
            (
                "buffered_bytes_limit",
                "The limit of buffered bytes; new requests are refused beyond it.",
                self.buffered_bytes_limit,
            ),
            ("draining", "1 while the sidecar drains: it is not ready and still serves.", self.draining),
            (
                "config_loaded_timestamp_seconds",
                "Unix time at which the configuration in use was read.",
                self.loaded_at,
            ),
        ):
            yield gauge(name, text, (), {(): float(value)})
        pools = self.pools.items()
        yield gauge(
            "upstream_connections",
            "Connections to a backend, by state.",
            ("upstream", "state"),
            {
                (name, state): number
                for name, use in pools
                for state, number in (("active", use.open - use.idle), ("idle", use.idle))
            },
        )
        yield gauge(
            "upstream_connections_limit",
            "The most connections to a backend.",
            ("upstream",),
            {name: use.most for name, use in pools},
        )
        yield gauge(
            "upstream_waiting_requests",
            "Requests that wait for a connection to a backend.",
            ("upstream",),
            {name: use.waiting for name, use in pools},
        )
        yield gauge(
            "file_good",
            "0 while a file cannot be used and its previous content stays in use.",
            ("file",),
            self.files,
        )
        yield counter(
            "tls_handshakes_failed", "Failed TLS handshakes of clients, by cause.", ("cause",), self.handshakes
        )
        yield counter(
            "access_log_lost_lines", "Lines of the access log that could not be written.", (), {(): self.lost_lines}
        )
