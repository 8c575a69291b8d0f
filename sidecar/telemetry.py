"""What has happened and what is going on, in numbers that cost an addition each; whoever shows them reads them when asked."""

import logging
from bisect import bisect_left

from sidecar.access_log import AccessLog
from sidecar.clock import Clock
from sidecar.refusals import Refusals
from sidecar.rejections import Reason
from sidecar.request import Request

# OpenTelemetry's buckets for HTTP durations, with two below for a proxy on loopback.
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})  # RFC 9110, 5789
NO_ROUTE = "(none)"

log = logging.getLogger("sidecar.requests")


class Telemetry:
    """Counters by route, method, status and reason: names from the configuration and closed sets, never from a client.

    `decisions` are by issuer, result (allow, deny, or report: let in by a route that only reports) and reason.

    There is one for the life of the process: every assembly counts here. `draining` is set once, and makes each answer the
    last of its connection.
    """

    def __init__(self, clock: Clock, access_log: AccessLog | None = None) -> None:
        self._clock = clock
        self._access_log = access_log
        self.requests: dict[tuple[str, str, int], int] = {}
        self.decisions: dict[tuple[str, str, str], int] = {}
        self.refusals = Refusals(clock)
        self.durations: dict[str, list[int]] = {}
        self.duration_sums: dict[str, float] = {}
        self.requests_in_flight = 0
        self.draining = False

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
        else:
            decision = (request.issuer, "report" if request.reported else "deny", rejected.code)
            self.refusals.add(request, rejected, route)
        self.decisions[decision] = self.decisions.get(decision, 0) + 1
        counts = self.durations.get(route)
        if counts is None:
            counts = self.durations[route] = [0] * (len(BUCKETS_S) + 1)
            self.duration_sums[route] = 0.0
        counts[bisect_left(BUCKETS_S, duration_s)] += 1
        self.duration_sums[route] += duration_s
        if self._access_log is not None:
            self._access_log.write(request, duration_s)

    def unread(self, reason: Reason, request_id: str, peer: bytes) -> None:
        """Bytes that never became a request were refused."""
        key = (NO_ROUTE, "_OTHER", reason.status)
        self.requests[key] = self.requests.get(key, 0) + 1
        decision = ("none", "deny", reason.code)
        self.decisions[decision] = self.decisions.get(decision, 0) + 1
        self.refusals.add_unread(reason, request_id, peer, NO_ROUTE)
        log.info("event=refused reason=%s request_id=%s peer=%s", reason.code, request_id, peer.decode())
