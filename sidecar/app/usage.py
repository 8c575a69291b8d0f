"""Collects the plain values for the metrics of usage."""

from pathlib import Path

from sidecar.app.descriptors import client_connections
from sidecar.app.state import Live
from sidecar.observability.prometheus import Shown
from sidecar.observability.usage import Usage


def shown(live: Live) -> Shown:
    """The values for a scrape."""
    assembly = live.assembly
    return Shown(
        live.telemetry,
        assembly.handler.verifier.cache,
        list(assembly.sources.values()),
        assembly.denylist,
        assembly.gateway,
        list(assembly.upstreams),
        [
            route.name
            for route in (*assembly.handler.routes.all, *(page.route for page in assembly.handler.pages.values()))
        ],
        assembly.config.digest,
        _usage(live),
    )


def _usage(live: Live) -> Usage:
    assembly, telemetry = live.assembly, live.telemetry
    limits = assembly.config.limits
    return Usage(
        connections_limit=client_connections(assembly.config),
        in_flight_limit=limits.in_flight,
        buffered_bytes=live.resources.held_bytes,
        buffered_bytes_limit=limits.buffered_bytes,
        pools={name: upstream.use for name, upstream in assembly.upstreams.items()},
        connections=live.resources.connections,
        in_flight=live.resources.requests_in_flight,
        draining=live.resources.draining,
        files=_files(live),
        handshakes=dict(telemetry.handshakes),
        lost_lines=telemetry.lost_lines,
        loaded_at=live.file.loaded_at,
    )


def _files(live: Live) -> dict[str, bool]:
    """Watched file -> did its last read succeed?"""
    assembly, config = live.assembly, live.assembly.config
    good = {path: file.problem is None for file in (*live.files, *assembly.files) for path in file.files}
    for name, issuer in config.issuers.items():
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
