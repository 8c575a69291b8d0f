"""What has happened and what is going on, in numbers that cost an addition each; whoever shows them reads them when asked."""

import asyncio
import logging
from collections import Counter

from sidecar.access_log import AccessLog
from sidecar.clock import Clock
from sidecar.histogram import Histogram
from sidecar.refusals import Refusals
from sidecar.rejections import Reason
from sidecar.request import Request
from sidecar.routes import Auth

# OpenTelemetry's buckets for HTTP durations, with two below for a proxy on loopback.
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
OVERHEAD_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
LAG_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
LAG_EVERY_S = 1.0
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})  # RFC 9110, 5789
NO_ROUTE = "(none)"
UPSTREAM_ERRORS = {
    Reason.UPSTREAM_UNREACHABLE: "connect",
    Reason.UPSTREAM_TIMEOUT: "timeout",
    Reason.UPSTREAM_INVALID: "protocol",
}
SKIPPED = {Auth.NONE: "public", Auth.OPTIONAL: "optional", Auth.REQUIRED: "preflight", Auth.API_KEY: "preflight"}

log = logging.getLogger("sidecar.requests")


class Telemetry:
    """Counters by route, method, status and reason: names from the configuration and closed sets, never from a client.

    `decisions` are by issuer, result and reason. The results are allow, deny, error (a 5xx: no fault of the client) and report
    (let in by a route that only reports). `skipped` are requests that were let in without a token, by why; `durations` and
    `upstream_durations` are by route, `upstream_errors` by upstream and kind. `overhead` is what a request waits here before the
    backend is asked, `loop_lag` how late the event loop runs what is due.

    There is one for the life of the process: every assembly counts here. `draining` is set once, and makes each answer the
    last of its connection.
    """

    def __init__(self, clock: Clock, access_log: AccessLog | None = None) -> None:
        self._clock = clock
        self.access_log = access_log
        self.requests: dict[tuple[str, str, int], int] = {}
        self.decisions: dict[tuple[str, str, str], int] = {}
        self.refusals = Refusals(clock)
        self.skipped = dict.fromkeys(SKIPPED.values(), 0)
        self.headers_stripped: Counter[str] = Counter(claim=0, underscore=0, forwarded=0)
        self.upstream_errors: Counter[tuple[str, str]] = Counter()
        self.durations: dict[str, Histogram] = {}
        self.upstream_durations: dict[str, Histogram] = {}
        self.overhead = Histogram(OVERHEAD_S)
        self.loop_lag = Histogram(LAG_S)
        self.connections = 0
        self.requests_in_flight = 0
        self.draining = False
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
