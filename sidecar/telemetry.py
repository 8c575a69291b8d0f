"""What has happened and what is going on, in numbers that cost an addition each; whoever shows them reads them when asked."""

import asyncio
import logging

from sidecar.access_log import AccessLog
from sidecar.clock import Clock
from sidecar.counts import BUCKETS_S, SKIPPED, Counts
from sidecar.histogram import Histogram
from sidecar.refusals import Refusals
from sidecar.rejections import Reason
from sidecar.request import Request

LAG_EVERY_S = 1.0
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})  # RFC 9110, 5789
NO_ROUTE = "(none)"
UPSTREAM_ERRORS = {
    Reason.UPSTREAM_UNREACHABLE: "connect",
    Reason.UPSTREAM_TIMEOUT: "timeout",
    Reason.UPSTREAM_INVALID: "protocol",
}

log = logging.getLogger("sidecar.requests")


class Telemetry(Counts):
    """Counts what happens, for the life of the process: every assembly counts here.

    `draining` is set once, and makes each answer the last of its connection. `workers` is how many processes serve clients.
    """

    def __init__(self, clock: Clock, access_log: AccessLog | None = None) -> None:
        super().__init__()
        self._clock = clock
        self.access_log = access_log
        self.refusals = Refusals(clock)
        self.draining = False
        self.workers = 1
        self.reloads = {"success": 0, "failure": 0}
        self.last_reload_successful = True

    def reloaded(self, result: str) -> None:
        """The configuration was read again: `success`, or `failure` when the one before stays in use."""
        self.reloads[result] += 1
        self.last_reload_successful = result == "success"

    def ended(self, request: Request) -> None:
        """A request has been answered, or its client is gone (status 0)."""
        route = request.route.name if request.route is not None else NO_ROUTE
        method = request.method if request.method in METHODS else "_OTHER"
        duration_s = self._clock.monotonic() - request.started
        key = (route, method, request.status)
        self.requests[key] = self.requests.get(key, 0) + 1
        rejected = request.rejected
        if rejected is None:
            decision = (request.issuer, "allow", "allowed")
            if request.claims is None and request.route is not None:
                self.skipped[SKIPPED[request.route.auth]] += 1
        else:
            decision = (request.issuer, request.result, rejected.code)
            if rejected in UPSTREAM_ERRORS and request.route is not None:
                kind = "reset" if request.broken_off else UPSTREAM_ERRORS[rejected]
                self.upstream_errors[request.route.upstream, kind] += 1
            self.refusals.add(request, rejected, route)
        self.decisions[decision] = self.decisions.get(decision, 0) + 1
        if route not in self.durations:
            self.durations[route] = Histogram(BUCKETS_S)
            self.upstream_durations[route] = Histogram(BUCKETS_S)
        self.durations[route].add(duration_s)
        if request.answered:
            self.upstream_durations[route].add(request.answered - request.sent)
            self.overhead.add(request.sent - request.started)
        if self.access_log is not None:
            self.access_log.write(request, duration_s)

    def unread(self, reason: Reason, request_id: str, peer: bytes) -> None:
        """Bytes that never became a request were refused."""
        key = (NO_ROUTE, "_OTHER", reason.status)
        self.requests[key] = self.requests.get(key, 0) + 1
        decision = ("none", reason.result, reason.code)
        self.decisions[decision] = self.decisions.get(decision, 0) + 1
        self.refusals.add_unread(reason, request_id, peer, NO_ROUTE)
        log.info("event=refused reason=%s request_id=%s peer=%s", reason.code, request_id, peer.decode())

    async def watch_loop(self, every_s: float = LAG_EVERY_S) -> None:
        """Measure `loop_lag` for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + every_s
            await asyncio.sleep(every_s)
            self.loop_lag.add(max(0.0, loop.time() - due))
