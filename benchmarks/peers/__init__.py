"""The compared programs, each with a configuration that does the same work."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.setting import Setting


class Missing(Exception):
    """A peer cannot be run on this machine; the text says what is lacking."""


@dataclass(frozen=True)
class Peer:
    """One bar of the chart."""

    name: str
    about: str
    """One line: which program, with what switched on."""
    config: str
    """The file in its directory that `command` writes and a reader may want to see."""
    version: Callable[[], str]
    """Finds or installs it and says its version; raises `Missing`."""
    command: Callable[[Setting, int, Path], list[str]]
    """Writes the configuration for a setting and a port into a directory (its working directory), says how to start."""
    verifies: bool = True
    """False: forwards without looking at the token."""


def peers() -> list[Peer]:
    """All of them, jwt-sidecar first; the others are in the order of their name in the tables."""
    # Imported here: each of these modules needs Peer.
    from benchmarks.peers import envoy, fastify, haproxy, nginx, relay, sidecar

    return [sidecar.PEER, envoy.PEER, envoy.CACHED, haproxy.PEER, nginx.PEER, fastify.PEER, relay.PEER]
