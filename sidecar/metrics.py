"""The Prometheus text of everything that is counted, collected when it is asked for."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest, registry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from sidecar.assembly import Live
from sidecar.clock import Clock
from sidecar.telemetry import BUCKETS_S

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Collector(registry.Collector):
    """Reads the counters of what is in use, and of its key sources."""

    def __init__(self, live: Live, clock: Clock) -> None:
        self._live = live
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """The metrics at this moment."""
        telemetry = self._live.telemetry
        requests = CounterMetricFamily(
            "jwt_sidecar_requests", "Requests that were answered.", labels=["route", "method", "code"]
        )
        for (route, method, status), number in telemetry.requests.items():
            requests.add_metric([route, method, str(status)], number)
        yield requests

        decisions = CounterMetricFamily(
            "jwt_sidecar_auth",
            "Decisions, by the issuer of the verified token, the result (allow, deny, report) and the reason.",
            labels=["issuer", "result", "reason"],
        )
        for labels, number in telemetry.decisions.items():
            decisions.add_metric(labels, number)
        yield decisions

        durations = HistogramMetricFamily(
            "jwt_sidecar_request_duration_seconds", "Time from a request's head to its answer's end.", labels=["route"]
        )
        for route, counts in telemetry.durations.items():
            buckets, total = [], 0
            for bound, number in zip((*map(str, BUCKETS_S), "+Inf"), counts, strict=True):
                total += number
                buckets.append((bound, total))
            durations.add_metric([route], buckets, telemetry.duration_sums[route])
        yield durations

        yield GaugeMetricFamily(
            "jwt_sidecar_requests_in_flight", "Requests being served.", value=telemetry.requests_in_flight
        )
        verifier = self._live.assembly.proxy.verifier
        yield CounterMetricFamily(
            "jwt_sidecar_token_cache_hits", "Tokens that had been verified before.", value=verifier.hits
        )
        yield CounterMetricFamily(
            "jwt_sidecar_token_cache_misses", "Tokens that had to be verified.", value=verifier.misses
        )
        yield from self._keys()

    def _keys(self) -> Iterator[Metric]:
        now = self._clock.monotonic()
        fetches = CounterMetricFamily(
            "jwt_sidecar_jwks_fetches", "Fetches of key sets.", labels=["issuer", "trigger", "result"]
        )
        keys = GaugeMetricFamily("jwt_sidecar_jwks_keys", "Usable keys of an issuer.", labels=["issuer"])
        age = GaugeMetricFamily(
            "jwt_sidecar_jwks_age_seconds", "Time since the key set was last fetched.", labels=["issuer"]
        )
        usable = GaugeMetricFamily(
            "jwt_sidecar_jwks_usable", "1 while an issuer's keys may be believed.", labels=["issuer"]
        )
        due = GaugeMetricFamily(
            "jwt_sidecar_jwks_next_refresh_seconds", "Time until the next scheduled fetch.", labels=["issuer"]
        )
        offset = GaugeMetricFamily(
            "jwt_sidecar_jwks_clock_offset_seconds",
            "How far the issuer's clock is ahead of this one, by the Date of its key set.",
            labels=["issuer"],
        )
        for source in self._live.assembly.sources.values():
            for (trigger, result), number in source.fetches.items():
                fetches.add_metric([source.name, trigger, result], number)
            keys.add_metric([source.name], 0 if source.jwks is None else len(source.jwks.keys))
            usable.add_metric([source.name], float(source.usable))
            due.add_metric([source.name], max(0.0, source.next_fetch_at - now))
            if source.fetched_at is not None:
                age.add_metric([source.name], now - source.fetched_at)
            if source.clock_offset_s is not None:
                offset.add_metric([source.name], source.clock_offset_s)
        yield from (fetches, keys, age, usable, due, offset)


def exposition(collector: Collector) -> bytes:
    """The text that Prometheus scrapes."""
    once = CollectorRegistry(auto_describe=False)
    once.register(collector)
    return generate_latest(once)
