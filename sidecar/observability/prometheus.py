"""Collects the metrics for Prometheus at each scrape."""

import platform
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import chain, product
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector, registry
from prometheus_client.core import Metric

from sidecar.common.clock import Clock
from sidecar.common.histogram import Histogram
from sidecar.gateway.gateway import Gateway
from sidecar.jwt.denylist import DenyList
from sidecar.jwt.jwks.cache import JwksSource
from sidecar.jwt.verifier import TokenCacheUse
from sidecar.observability.counters import MODES
from sidecar.observability.metric_families import encoded, metric
from sidecar.observability.record import NO_ROUTE
from sidecar.observability.telemetry import UPSTREAM_ERRORS, Example, Telemetry

NEVER_ENDS_S = 10 * 365 * 86400.0  # of keys that need no fetch
MAX_ROUTES = 100  # routes with their own label
OTHERS = "(others)"
DEFAULT_ROUTE = "(default)"
STATES = ("fresh", "stale", "absent")
BUILD = version("jwt-sidecar"), platform.python_version()

Values = tuple[str, Mapping[Any, Any]] | tuple[str, Mapping[Any, Any], Mapping[str, Sequence[Example | None]]]
"""The name of a metric, its values, and examples of a histogram."""


class Shown(NamedTuple):
    """The objects in use at one moment. `config_digest` is the configuration's SHA-256; `upstreams` and `routes` are names.

    `usage` are the metrics of what other modules use and limit.
    """

    telemetry: Telemetry
    token_cache: TokenCacheUse
    sources: Collection[JwksSource]
    denylist: DenyList
    gateway: Gateway
    upstreams: Collection[str]
    routes: Collection[str]
    config_digest: str
    usage: Collection[Values]


class Collector(registry.Collector):
    """Reads the counters and the key sources, in another thread than the one that counts.

    The first MAX_ROUTES routes have their own label, and all others share one, so that the number of series is bounded.
    """

    def __init__(self, shown: Shown, clock: Clock) -> None:
        self._shown = shown
        self._clock = clock
        self._labels = {*list(dict.fromkeys(shown.routes))[:MAX_ROUTES], DEFAULT_ROUTE, NO_ROUTE}

    def collect(self) -> Iterator[Metric]:
        """The metrics at this moment."""
        parts = (
            self._requests(),
            self._tokens(),
            self._keys(),
            self._gateway(),
            self._configuration(),
            self._shown.usage,
        )
        for values in chain.from_iterable(parts):
            yield metric(*values)

    def _configuration(self) -> Iterator[Values]:
        telemetry = self._shown.telemetry
        yield "config_reloads", telemetry.reloads
        yield "config_last_reload_successful", {(): telemetry.last_reload_successful}
        yield "config_info", {self._shown.config_digest: 1}
        yield "build_info", {BUILD: 1}

    def _requests(self) -> Iterator[Values]:
        telemetry = self._shown.telemetry
        spells = dict(telemetry.spells)
        counts = (
            ((route, method, str(status)), number) for (route, method, status), number in telemetry.requests.items()
        )
        yield "requests", self._added(counts)
        yield "auth", telemetry.decisions
        kinds = (((*kind[:3], MODES[kind[3]]), spell.count) for kind, spell in spells.items())
        yield "refused", self._added(kinds)
        yield "auth_skipped", telemetry.skipped
        yield "headers_stripped", telemetry.headers_stripped
        failures = product(self._shown.upstreams, (*UPSTREAM_ERRORS.values(), "reset"))
        yield "upstream_errors", {failure: telemetry.upstream_errors[failure] for failure in failures}
        yield "request_duration_seconds", self._merged(telemetry.durations), telemetry.exemplars
        yield "upstream_request_duration_seconds", self._merged(telemetry.upstream_durations)
        yield "overhead_seconds", {(): telemetry.overhead}
        yield "event_loop_lag_seconds", {(): telemetry.loop_lag}
        yield "task_failures", {(): telemetry.task_failures}

    def _added(self, values: Iterable[tuple[tuple[str, ...], int]]) -> Mapping[tuple[str, ...], int]:
        """Sum up counts whose first label is a route, with the shared label for the routes beyond MAX_ROUTES."""
        found: Counter[tuple[str, ...]] = Counter()
        for (route, *rest), number in values:
            found[route if route in self._labels else OTHERS, *rest] += number
        return found

    def _merged(self, values: Mapping[str, Histogram]) -> Mapping[str, Histogram]:
        found: dict[str, Histogram] = {}
        for route, durations in dict(values).items():
            label = route if route in self._labels else OTHERS
            found[label] = found[label] + durations if label in found else durations
        return found

    def _tokens(self) -> Iterator[Values]:
        cache, denylist = self._shown.token_cache, self._shown.denylist
        for name in ("hits", "misses", "evictions", "entries", "bytes"):
            yield f"token_cache_{name}", {(): getattr(cache, name)}
        yield "denylist_entries", denylist.counts
        found = denylist.found_good_at
        yield "denylist_age_seconds", {} if found is None else {(): self._clock.monotonic() - found}

    def _keys(self) -> Iterator[Values]:
        now, wall = self._clock.monotonic(), self._clock.wall()
        sources = self._shown.sources
        yield (
            "jwks_fetches",
            {(source.name, *labels): number for source in sources for labels, number in dict(source.fetches).items()},
        )
        yield "jwks_fetch_duration_seconds", {source.name: source.fetch_durations for source in sources}
        yield "jwks_refresh_suppressed", {source.name: source.suppressed for source in sources}
        fetched = {source.name: now - source.fetched_at for source in sources if source.fetched_at is not None}
        yield "jwks_age_seconds", fetched
        yield "jwks_last_success_timestamp_seconds", {name: wall - age_s for name, age_s in fetched.items()}
        yield "jwks_keys", {source.name: len(source.jwks.keys) if source.jwks else 0 for source in sources}
        yield (
            "jwks_state",
            {(source.name, state): state == source.state for source in sources for state in STATES},
        )
        left = {source.name: source.trusted_until - now for source in sources if source.jwks is not None}
        yield "jwks_usable_seconds", {name: min(NEVER_ENDS_S, max(0.0, left_s)) for name, left_s in left.items()}
        yield "jwks_next_refresh_seconds", {source.name: max(0.0, source.next_fetch_at - now) for source in sources}
        offsets = {source.name: source.issuer_clock.offset_s for source in sources}
        yield "jwks_clock_offset_seconds", {name: ahead_s for name, ahead_s in offsets.items() if ahead_s is not None}

    def _gateway(self) -> Iterator[Values]:
        now = self._clock.wall()
        gateway = self._shown.gateway
        yield "minted_tokens", self._shown.telemetry.minted
        states: Counter[str] = Counter()
        if gateway.api_keys is not None:
            states.update(on=0, expired=0, disabled=0)
            states.update(entry.state(now) for entry, _ in gateway.api_keys.file.value.values())
        yield "api_keys", states
        signers = [] if gateway.key_ring is None else gateway.key_ring.value.signers(now)
        yield "signing_key_age_seconds", {signer.key.alg: now - signer.sign_from for signer in signers}
        yield "key_file_good", {file.path.name: file.problem is None for file in gateway.files}


def exposition(shown: Shown, clock: Clock, accept: str = "") -> tuple[bytes, str]:
    """The text for Prometheus and its content type: OpenMetrics if `accept` allows it."""
    once = CollectorRegistry(auto_describe=False)
    once.register(Collector(shown, clock))
    ProcessCollector(registry=once)
    return encoded(once, accept)
