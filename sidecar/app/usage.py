"""Collects the objects for a scrape, and the values of the use of each limit, of files and of handshakes."""

from collections.abc import Iterator
from pathlib import Path

from sidecar.app.descriptors import client_connections
from sidecar.app.state import Live
from sidecar.observability.prometheus import Shown, Values


def shown(live: Live) -> Shown:
    """The objects for a scrape."""
    assembly = live.assembly
    pages = assembly.handler.pages.values()
    return Shown(
        live.telemetry,
        assembly.handler.authentication.verifier.cache,
        list(assembly.sources.values()),
        assembly.denylist,
        assembly.gateway,
        list(assembly.upstreams),
        [route.name for route in (*assembly.handler.routes.all, *(page.route for page in pages))],
        assembly.config.digest,
        list(_usage(live)),
    )


def _usage(live: Live) -> Iterator[Values]:
    resources, telemetry, limits = live.resources, live.telemetry, live.assembly.config.limits
    yield "connections", {(): resources.connections}
    yield "connections_limit", {(): client_connections(live.assembly.config)}
    yield "requests_in_flight", {(): resources.requests_in_flight}
    yield "requests_in_flight_limit", {(): limits.in_flight}
    yield "buffered_bytes", {(): resources.held_bytes}
    yield "buffered_bytes_limit", {(): limits.buffered_bytes}
    yield "draining", {(): resources.draining}
    yield "config_loaded_timestamp_seconds", {(): live.file.loaded_at}
    pools = {name: upstream.use for name, upstream in live.assembly.upstreams.items()}
    active = {(name, "active"): use.open - use.idle for name, use in pools.items()}
    yield "upstream_connections", active | {(name, "idle"): use.idle for name, use in pools.items()}
    yield "upstream_connections_limit", {name: use.most for name, use in pools.items()}
    yield "upstream_waiting_requests", {name: use.waiting for name, use in pools.items()}
    yield "file_good", _files(live)
    yield "tls_handshakes_failed", telemetry.handshakes
    yield "access_log_lost_lines", {(): telemetry.lost_lines}


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
