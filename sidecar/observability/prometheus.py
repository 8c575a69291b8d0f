"""Collects the metrics for Prometheus at each scrape."""

import platform
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector, registry
from prometheus_client.core import Metric

from sidecar.common.clock import Clock
from sidecar.common.histogram import Histogram
from sidecar.gateway.gateway import Gateway
from sidecar.jwt.denylist import DenyList
from sidecar.jwt.jwks.cache import JwksSource
from sidecar.jwt.verifier import TokenCacheUse
from sidecar.observability.metric_families import counter, encoded, gauge, histogram
from sidecar.observability.record import NO_ROUTE
from sidecar.observability.telemetry import UPSTREAM_ERRORS, Telemetry

NEVER_ENDS_S = 10 * 365 * 86400.0  # of keys that need no fetch
MAX_ROUTES = 100  # routes with their own label
OTHERS = "(others)"
ISSUER = ("issuer",)
DEFAULT_ROUTE = "(default)"
STATES = ("fresh", "stale", "absent")
BUILD = {"version": version("jwt-sidecar"), "python": platform.python_version()}


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
    usage: Collection[Metric]


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
        yield from self._requests()
        yield from self._tokens()
        yield from self._fetches()
        yield from self._keys()
        yield from self._denylist()
        yield from self._gateway()
        yield from self._shown.usage
        telemetry = self._shown.telemetry
        yield counter("config_reloads", "Reloads of the configuration, by result.", ("result",), telemetry.reloads)
        yield gauge(
            "config_last_reload_successful",
            "0 if the last reload failed and the previous configuration stays in use.",
            (),
            {(): telemetry.last_reload_successful},
        )
        digest = self._shown.config_digest
        yield gauge(
            "config_info", "Always 1; the label is the SHA-256 of the configuration in use.", ("hash",), {digest: 1}
        )
        yield gauge(
            "build_info", "Always 1; the labels are the versions in use.", tuple(BUILD), {tuple(BUILD.values()): 1}
        )

    def _requests(self) -> Iterator[Metric]:
        telemetry = self._shown.telemetry
        requests, spells = dict(telemetry.requests), dict(telemetry.spells)
        yield counter(
            "requests",
            "Answered requests; code 0: the client left before the answer.",
            ("route", "method", "code"),
            self._added(((route, method, str(status)), number) for (route, method, status), number in requests.items()),
        )
        yield counter(
            "auth",
            "Decisions by the issuer of the verified token, the result (allow, deny, error, report) and the reason.",
            ("issuer", "result", "reason"),
            dict(telemetry.decisions),
        )
        yield counter(
            "refused",
            "Requests that were refused, or would have been in report mode, by route, issuer and reason.",
            ("route", "issuer", "reason", "mode"),
            self._added(
                ((*kind[:3], "report" if kind[3] else "enforce"), spell.count) for kind, spell in spells.items()
            ),
        )
        yield counter("auth_skipped", "Requests accepted without a token, by reason.", ("why",), telemetry.skipped)
        yield counter(
            "headers_stripped",
            "Headers of clients that were dropped because they may be forged, by kind.",
            ("kind",),
            telemetry.headers_stripped,
        )
        upstreams = self._shown.upstreams
        kinds = (*UPSTREAM_ERRORS.values(), "reset")
        yield counter(
            "upstream_errors",
            "Requests that a backend failed, by kind of failure.",
            ("upstream", "kind"),
            {(name, kind): telemetry.upstream_errors[name, kind] for name in upstreams for kind in kinds},
        )
        yield histogram(
            "request_duration_seconds",
            "Time from a request's head to the end of its answer.",
            self._merged(telemetry.durations),
            "route",
            dict(telemetry.exemplars),
        )
        yield histogram(
            "upstream_request_duration_seconds",
            "Time from the request to the backend to the head of its answer.",
            self._merged(telemetry.upstream_durations),
            "route",
        )
        yield histogram(
            "overhead_seconds", "Time from a request's head to the request to the backend.", {"": telemetry.overhead}
        )
        yield histogram(
            "event_loop_lag_seconds", "How late the event loop is, measured once a second.", {"": telemetry.loop_lag}
        )
        yield counter(
            "task_failures",
            "Failures of background tasks, each of which was started again.",
            (),
            {(): telemetry.task_failures},
        )

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

    def _tokens(self) -> Iterator[Metric]:
        cache = self._shown.token_cache
        yield counter("token_cache_hits", "Tokens found in the cache of verified tokens.", (), {(): cache.hits})
        yield counter(
            "token_cache_misses", "Tokens that were not in the cache and were verified.", (), {(): cache.misses}
        )
        yield counter("token_cache_evictions", "Tokens evicted because the cache was full.", (), {(): cache.evictions})
        yield gauge("token_cache_entries", "Tokens in the cache of verified tokens.", (), {(): cache.entries})
        yield gauge("token_cache_bytes", "Approximate memory of the cache of verified tokens.", (), {(): cache.bytes})

    def _fetches(self) -> Iterator[Metric]:
        sources = self._shown.sources
        yield counter(
            "jwks_fetches",
            "Fetches of key sets.",
            ("issuer", "trigger", "result"),
            {(source.name, *labels): number for source in sources for labels, number in dict(source.fetches).items()},
        )
        yield histogram(
            "jwks_fetch_duration_seconds",
            "Duration of fetches of key sets.",
            {source.name: source.fetch_durations for source in sources},
            "issuer",
        )
        yield counter(
            "jwks_refresh_suppressed",
            "Tokens with an unknown kid that caused no fetch, because one was made recently.",
            ISSUER,
            {source.name: source.suppressed for source in sources},
        )

    def _keys(self) -> Iterator[Metric]:
        now = self._clock.monotonic()
        sources = self._shown.sources
        fetched = {source.name: now - source.fetched_at for source in sources if source.fetched_at is not None}
        wall = self._clock.wall()
        yield gauge("jwks_age_seconds", "Time since the last successful fetch of the key set.", ISSUER, fetched)
        yield gauge(
            "jwks_last_success_timestamp_seconds",
            "Unix time of the last successful fetch of the key set.",
            ISSUER,
            {name: wall - age_s for name, age_s in fetched.items()},
        )
        yield gauge(
            "jwks_keys",
            "Usable keys of an issuer.",
            ISSUER,
            {source.name: len(source.jwks.keys) if source.jwks else 0 for source in sources},
        )
        yield gauge(
            "jwks_state",
            "1 for the state of an issuer's keys: fresh, stale (the last fetch failed) or absent (there are no trusted keys).",
            ("issuer", "state"),
            {(source.name, state): state == source.state for source in sources for state in STATES},
        )
        yield gauge(
            "jwks_usable_seconds",
            "How long the present keys stay trusted if no fetch succeeds.",
            ISSUER,
            {
                source.name: min(NEVER_ENDS_S, max(0.0, source.trusted_until - now))
                for source in sources
                if source.jwks is not None
            },
        )
        yield gauge(
            "jwks_next_refresh_seconds",
            "Time until the next scheduled fetch.",
            ISSUER,
            {source.name: max(0.0, source.next_fetch_at - now) for source in sources},
        )
        yield gauge(
            "jwks_clock_offset_seconds",
            "How far the issuer's clock is ahead of the sidecar's, by the Date header of its key set.",
            ISSUER,
            {
                source.name: source.issuer_clock.offset_s
                for source in sources
                if source.issuer_clock.offset_s is not None
            },
        )

    def _denylist(self) -> Iterator[Metric]:
        denylist = self._shown.denylist
        yield gauge(
            "denylist_entries",
            "Entries of the deny list by origin (file, posted) and state (in_force, or waiting for their issuer).",
            ("origin", "state"),
            denylist.counts,
        )
        found = denylist.found_good_at
        yield gauge(
            "denylist_age_seconds",
            "Time since a check last found the deny list in use equal to its file.",
            (),
            {} if found is None else {(): self._clock.monotonic() - found},
        )

    def _gateway(self) -> Iterator[Metric]:
        now = self._clock.wall()
        gateway = self._shown.gateway
        yield counter(
            "minted_tokens", "Tokens that the sidecar minted, by audience.", ("audience",), self._shown.telemetry.minted
        )
        states: Counter[str] = Counter()
        if gateway.api_keys is not None:
            states.update(on=0, expired=0, disabled=0)
            states.update(entry.state(now) for entry, _ in gateway.api_keys.file.value.values())
        yield gauge("api_keys", "API keys in the file, by state: on, expired or disabled.", ("state",), states)
        ages: dict[str, float] = {}
        if gateway.key_ring is not None:
            ages = {signer.key.alg: now - signer.sign_from for signer in gateway.key_ring.value.signers(now)}
        yield gauge("signing_key_age_seconds", "Time since the signing key began to sign.", ("alg",), ages)
        yield gauge(
            "key_file_good",
            "0 while a file of keys cannot be used and its previous content stays in use.",
            ("file",),
            {file.path.name: file.problem is None for file in gateway.files},
        )


def exposition(shown: Shown, clock: Clock, accept: str = "") -> tuple[bytes, str]:
    """The text for Prometheus and its content type: OpenMetrics if `accept` allows it."""
    once = CollectorRegistry(auto_describe=False)
    once.register(Collector(shown, clock))
    ProcessCollector(registry=once)
    return encoded(once, accept)
