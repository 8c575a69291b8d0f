"""Collects the objects for a scrape, and the metrics of the use of each limit, of files and of handshakes."""

from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import Metric

from sidecar.app.descriptors import client_connections
from sidecar.app.state import Live
from sidecar.observability.metric_families import counter, gauge
from sidecar.observability.prometheus import Shown

UPSTREAM = ("upstream",)


def shown(live: Live) -> Shown:
    """The objects for a scrape."""
    assembly = live.assembly
    pages = assembly.handler.pages.values()
    return Shown(
        live.telemetry,
        assembly.handler.verifier.cache,
        list(assembly.sources.values()),
        assembly.denylist,
        assembly.gateway,
        list(assembly.upstreams),
        [route.name for route in (*assembly.handler.routes.all, *(page.route for page in pages))],
        assembly.config.digest,
        list(_usage(live)),
    )


def _usage(live: Live) -> Iterator[Metric]:
    resources, telemetry, limits = live.resources, live.telemetry, live.assembly.config.limits
    for name, text, value in (
        ("connections", "Connections of clients.", resources.connections),
        ("connections_limit", "The most connections of clients.", client_connections(live.assembly.config)),
        ("requests_in_flight", "Requests being served.", resources.requests_in_flight),
        ("requests_in_flight_limit", "The most requests that are served at once.", limits.in_flight),
        ("buffered_bytes", "Bytes that wait for a slow peer or for the end of a head.", resources.held_bytes),
        (
            "buffered_bytes_limit",
            "The limit of buffered bytes; new requests are refused beyond it.",
            limits.buffered_bytes,
        ),
        ("draining", "1 while the sidecar drains: it is not ready and still serves.", resources.draining),
        (
            "config_loaded_timestamp_seconds",
            "Unix time at which the configuration in use was read.",
            live.file.loaded_at,
        ),
    ):
        yield gauge(name, text, (), {(): float(value)})
    pools = {name: upstream.use for name, upstream in live.assembly.upstreams.items()}
    states = {(name, "active"): use.open - use.idle for name, use in pools.items()}
    states |= {(name, "idle"): use.idle for name, use in pools.items()}
    most, waiting = ({name: getattr(use, of) for name, use in pools.items()} for of in ("most", "waiting"))
    yield gauge("upstream_connections", "Connections to a backend, by state.", ("upstream", "state"), states)
    yield gauge("upstream_connections_limit", "The most connections to a backend.", UPSTREAM, most)
    yield gauge("upstream_waiting_requests", "Requests that wait for a connection to a backend.", UPSTREAM, waiting)
    text = "0 while a file cannot be used and its previous content stays in use."
    yield gauge("file_good", text, ("file",), _files(live))
    text = "Failed TLS handshakes of clients, by cause."
    yield counter("tls_handshakes_failed", text, ("cause",), telemetry.handshakes)
    text = "Lines of the access log that could not be written."
    yield counter("access_log_lost_lines", text, (), {(): telemetry.lost_lines})


def _files(live: Live) -> dict[str, bool]:
    """Watched file -> did its last read succeed?"""
    assembly = live.assembly
    good = {path: file.problem is None for file in (*live.files, *assembly.files) for path in file.files}
    for name, issuer in assembly.config.issuers.items():
        file = issuer.jwks_file or issuer.public_key_file or issuer.secret_file
        if file is not None:
            good[file] = assembly.sources[name].last_error is None
    if live.file.path is not None:
        good[live.file.path] = live.file.refused is None
    return {_name(path, good): one for path, one in good.items()}


def _name(path: Path, others: dict[Path, bool]) -> str:
    """The name of a file without its directory if it is unique, else the whole path."""
    alone = sum(other.name == path.name for other in others) == 1
    return path.name if alone else str(path)
