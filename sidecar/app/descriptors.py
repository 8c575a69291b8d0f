"""The limit of file descriptors: raised at start, with a part reserved for other uses than clients."""

import logging
import resource

from sidecar.config import Config

KEPT = 256  # reserved for the health and admin listeners, fetches of keys, files and spans

log = logging.getLogger("sidecar.descriptors")


def take_all() -> int:
    """Raise the soft limit to the hard limit; returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # some systems have another, lower limit
        return soft
    return hard


def client_connections(config: Config) -> int:
    """The limit of client connections: the configured one, or as many as there are descriptors for."""
    room, upstream, _ = _shares(config)
    return min(config.limits.connections, max(1, room - upstream))


def warn_if_short(config: Config) -> None:
    """Log a warning if there are too few descriptors for the configured limits."""
    room, _, needed = _shares(config)
    if needed > room:
        log.warning(
            "event=descriptors_do_not_fit open_files=%d needed=%d connections=%d do=%r",
            room + KEPT,
            needed + KEPT,
            client_connections(config),
            "Raise the limit of open files, or lower limits.connections; until then fewer clients are served at once.",
        )


def _shares(config: Config) -> tuple[int, int, int]:
    """Descriptors for clients and backends, the part for backends, and the number that the configuration may need."""
    room = max(2, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - KEPT)
    upstream = config.limits.upstream_connections * len(config.upstreams)
    return room, min(upstream, room // 2), config.limits.connections + upstream
