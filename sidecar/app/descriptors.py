"""File descriptors: the process takes all that it may have, and keeps some back for what is not a client."""

import logging
import resource

from sidecar.config import Config

KEPT = 256  # for the health and the admin listener, fetches of keys, files and spans

log = logging.getLogger("sidecar.descriptors")


def take_all() -> int:
    """Raise the soft limit to the hard one; how many there may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # some systems have a lower limit of their own
        return soft
    return hard


def client_connections(config: Config) -> int:
    """How many clients may be connected: as many as the configuration says, or as there are descriptors for."""
    room, upstream, _ = _shares(config)
    return min(config.limits.connections, max(1, room - upstream))


def warn_if_short(config: Config) -> None:
    """Say in the log when there are too few descriptors for the limits of the configuration."""
    room, _, needed = _shares(config)
    if needed > room:
        log.warning(
            "event=descriptors_do_not_fit open_files=%d needed=%d connections=%d do=%r",
            room + KEPT,
            needed + KEPT,
            client_connections(config),
            "No more clients than this are served at once: raise the limit of open files, or lower limits.connections.",
        )


def _shares(config: Config) -> tuple[int, int, int]:
    """Descriptors for clients and backends together, of these for backends, and how many the configuration may need."""
    room = max(2, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - KEPT)
    upstream = config.limits.upstream_connections * len(config.upstreams)
    return room, min(upstream, room // 2), config.limits.connections + upstream
