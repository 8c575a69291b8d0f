"""Counts requests. Counting costs one addition for each number; metrics are read at a scrape."""

import asyncio
import logging
from typing import Final, NamedTuple

from sidecar.common.clock import Clock
from sidecar.common.errors import Reason, Rejection
from sidecar.common.histogram import Histogram
from sidecar.observability.access_log import AccessLog
from sidecar.observability.counters import BUCKETS_S, SKIPPED, Count, Counts, Spell
from sidecar.observability.record import NO_ROUTE, Record
from sidecar.observability.rejection_log import Refusals

LAG_EVERY_S: Final = 1.0
# RFC 9110, RFC 5789
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
UPSTREAM_ERRORS: Final = {
    Reason.UPSTREAM_UNREACHABLE: "connect",
    Reason.UPSTREAM_TIMEOUT: "timeout",
    Reason.UPSTREAM_INVALID: "protocol",
}

log = logging.getLogger("sidecar.requests")


MAX_OUTCOMES: Final = 1024
MAX_SPELLS: Final = 2000
EXEMPLAR_EVERY_S: Final = 1.0  # the least time between two exemplars of a bucket


class Example(NamedTuple):
    """An exemplar of a bucket: the id of the request's trace, its duration, and the Unix time of its end.

    It is kept until `until`, in monotonic seconds.
    """

    trace_id: str
    duration_s: float
    at: float
    until: float


class _Outcome:
    """The counters of requests with the same result; the names are those of Counts. `exemplars` are by bucket."""

    def __init__(
        self,
        route: str,
        request: Count,
        decision: Count,
        skipped: str | None,
        durations: Histogram,
        exemplars: list[Example | None],
        upstream_durations: Histogram,
    ) -> None:
        self.route = route
        self.request = request
        self.decision = decision
        self.skipped = skipped
        self.durations = durations
        self.exemplars = exemplars
        self.upstream_durations = upstream_durations


class Telemetry(Counts):
    """The counters of the process; they outlive reloads. `exemplars` of `durations` are by route and bucket."""

    def __init__(self, clock: Clock, access_log: AccessLog | None = None) -> None:
        super().__init__()
        self._clock = clock
        self.access_log = access_log
        self.refusals = Refusals(clock)
        self._outcomes: dict[tuple[object, ...], _Outcome] = {}
        self.exemplars: dict[str, list[Example | None]] = {}
        self.reloads = {"success": 0, "failure": 0}
        self.last_reload_successful = True

    def reloaded(self, result: str) -> None:
        """Count a reload: `success`, or `failure` if the previous configuration stays in use."""
        self.reloads[result] += 1
        self.last_reload_successful = result == "success"

    def ended(self, request: Record, now: float) -> None:
        """Count a request that was answered, or whose client left (status 0). `now` are monotonic seconds."""
        claims = request.claims
        key = (
            request.route,
            request.method,
            request.status,
            request.rejected,
            request.reported,
            request.token_issuer if claims is None else claims.issuer,
        )
        outcome = self._outcomes.get(key) or self._outcome(key, request)
        outcome.request.number += 1
        outcome.decision.number += 1
        if outcome.skipped is not None:
            self.skipped[outcome.skipped] += 1
        duration_s = now - request.started
        bucket = outcome.durations.add(duration_s)
        if request.span_trace_id is not None or request.traceparent is not None:
            kept = outcome.exemplars[bucket]
            if (kept is None or now >= kept.until) and (trace_id := request.trace_id) is not None:
                example = Example(trace_id, duration_s, self._clock.wall(), now + EXEMPLAR_EVERY_S)
                outcome.exemplars[bucket] = example
        if request.answered:
            outcome.upstream_durations.add(request.answered - request.sent)
            self.overhead.add(request.sent - request.started)
        rejected = request.rejected
        if rejected is not None:
            if rejected in UPSTREAM_ERRORS and request.route is not None:
                kind = "reset" if request.broken_off else UPSTREAM_ERRORS[rejected]
                self.upstream_errors[request.route.upstream, kind] += 1
            self.refusals.add(request, rejected, outcome.route)
            self._spell((outcome.route, request.issuer, rejected.code, request.reported))
        if self.access_log is not None:
            self.access_log.write(request, duration_s)

    def _outcome(self, key: tuple[object, ...], request: Record) -> "_Outcome":
        """The counters of requests with this result, looked up once."""
        route = request.route.name if request.route is not None else NO_ROUTE
        counted = (route, request.method if request.method in METHODS else "_OTHER", request.status)
        decision = (request.issuer, request.result, "allowed" if request.rejected is None else request.rejected.code)
        skipped = None
        if request.rejected is None and request.claims is None and request.route is not None:
            skipped = SKIPPED[request.route.auth]
        outcome = _Outcome(
            route,
            self._requests.setdefault(counted, Count()),
            self._decisions.setdefault(decision, Count()),
            skipped,
            self.durations.setdefault(route, Histogram(BUCKETS_S)),
            self.exemplars.setdefault(route, [None] * (len(BUCKETS_S) + 1)),
            self.upstream_durations.setdefault(route, Histogram(BUCKETS_S)),
        )
        if len(self._outcomes) >= MAX_OUTCOMES:  # clients can send any method, and each reload brings new routes
            self._outcomes.clear()
        self._outcomes[key] = outcome
        return outcome

    def unread(self, reason: Reason, request_id: str, peer: str, cause: str) -> None:
        """Count and log a refusal of bytes that were no valid request."""
        key = (NO_ROUTE, "_OTHER", reason.status)
        self._requests.setdefault(key, Count()).number += 1
        decision = ("none", reason.result, reason.code)
        self._decisions.setdefault(decision, Count()).number += 1
        self.refusals.add_unread(reason, request_id, peer, NO_ROUTE, cause)
        self._spell((NO_ROUTE, "none", reason.code, False))
        if self.access_log is not None:
            unread = Record(request_id, "", "", b"", 1, peer, "", 0.0)
            unread.refused(Rejection(reason, cause=cause))
            unread.status = reason.status
            self.access_log.write(unread, 0.0)
        log.info("event=refused reason=%s request_id=%s peer=%s cause=%r", reason.code, request_id, peer, cause)

    def _spell(self, kind: tuple[str, str, str, bool]) -> None:
        spell = self.spells.get(kind)
        if spell is None:
            if len(self.spells) >= MAX_SPELLS:  # each reload brings new routes
                del self.spells[min(self.spells, key=lambda one: self.spells[one].last)]
            spell = self.spells[kind] = Spell()
        spell.add(self._clock.wall())

    async def watch_loop(self, every_s: float = LAG_EVERY_S) -> None:
        """Measure `loop_lag` until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + every_s
            await asyncio.sleep(every_s)
            self.loop_lag.add(max(0.0, loop.time() - due))
