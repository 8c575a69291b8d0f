"""The drain state: the sidecar still serves, and tells the cluster and clients that it is going away."""

import logging

from sidecar.app.history import History
from sidecar.common.clock import Clock
from sidecar.proxy.resources import Resources

log = logging.getLogger("sidecar.live")


class Drain:
    """`since` is the monotonic time at which draining began, None while it does not drain. `stopping`: the process is ending."""

    def __init__(self, resources: Resources, history: History, clock: Clock) -> None:
        self.since: float | None = None
        self.stopping = False
        self._resources = resources
        self._history = history
        self._clock = clock

    def begin(self, since: float | None = None) -> None:
        """Begin to drain: the sidecar is not ready, and each answer is the last one of its connection.

        `since`: the monotonic time at which other workers began.
        """
        if self.since is None:
            self.since = self._clock.monotonic() if since is None else since
            self._resources.draining = True
            self._history.note("draining", "sidecar", "warn", "the sidecar began to drain")
            log.info("event=draining")

    def take_back(self) -> bool:
        """End a drain. Returns False if the process is stopping."""
        if self.stopping:
            return False
        if self.since is not None:
            self.since = None
            self._resources.draining = False
            self._history.note("draining", "sidecar", "good", "the sidecar no longer drains")
            log.info("event=not_draining")
        return True
