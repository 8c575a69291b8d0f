"""Every metric: its text, its labels, and how the values of several workers become one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.samples import Exemplar

from sidecar.common.histogram import Histogram
from sidecar.observability.telemetry import Example

PREFIX = "jwt_sidecar_"

Together = Callable[[Iterable[float]], float]


class Family(NamedTuple):
    """A metric. `together` makes one value of those of several workers."""

    kind: type[Any]
    text: str
    labels: tuple[str, ...]
    together: Together


def _counter(text: str, *labels: str) -> Family:
    return Family(CounterMetricFamily, text, labels, sum)


def _histogram(text: str, *labels: str) -> Family:
    return Family(HistogramMetricFamily, text, labels, sum)


def _gauge(text: str, *labels: str, together: Together = max) -> Family:
    """A gauge. `max`: the oldest value, or equal in all workers."""
    return Family(GaugeMetricFamily, text, labels, together)


FAMILIES = {
    "requests": _counter("Answered requests; code 0: the client left before the answer.", "route", "method", "code"),
    "auth": _counter("Decisions by the issuer of the verified token, the result (allow, deny, error, report) and the reason.",
                     "issuer", "result", "reason"),
    "refused": _counter("Requests that were refused, or would have been in report mode, by route, issuer and reason.",
                        "route", "issuer", "reason", "mode"),
    "auth_skipped": _counter("Requests accepted without a token, by reason.", "why"),
    "headers_stripped": _counter("Headers of clients that were dropped because they may be forged, by kind.", "kind"),
    "upstream_errors": _counter("Requests that a backend failed, by kind of failure.", "upstream", "kind"),
    "request_duration_seconds": _histogram("Time from a request's head to the end of its answer.", "route"),
    "upstream_request_duration_seconds": _histogram(
        "Time from the request to the backend to the head of its answer.", "route"),
    "overhead_seconds": _histogram("Time from a request's head to the request to the backend."),
    "event_loop_lag_seconds": _histogram("How late the event loop is, measured once a second."),
    "task_failures": _counter("Failures of background tasks, each of which was started again."),
    "token_cache_hits": _counter("Tokens found in the cache of verified tokens."),
    "token_cache_misses": _counter("Tokens that were not in the cache and were verified."),
    "token_cache_evictions": _counter("Tokens evicted because the cache was full."),
    "token_cache_entries": _gauge("Tokens in the cache of verified tokens.", together=sum),
    "token_cache_bytes": _gauge("Approximate memory of the cache of verified tokens.", together=sum),
    "jwks_fetches": _counter("Fetches of key sets.", "issuer", "trigger", "result"),
    "jwks_fetch_duration_seconds": _histogram("Duration of fetches of key sets.", "issuer"),
    "jwks_refresh_suppressed": _counter(
        "Tokens with an unknown kid that caused no fetch, because one was made recently.", "issuer"),
    "jwks_age_seconds": _gauge("Time since the last successful fetch of the key set.", "issuer"),
    "jwks_last_success_timestamp_seconds": _gauge(
        "Unix time of the last successful fetch of the key set.", "issuer", together=min),
    "jwks_keys": _gauge("Usable keys of an issuer.", "issuer", together=min),
    "jwks_state": _gauge(
        "1 for the state of an issuer's keys: fresh, stale (the last fetch failed) or absent (there are no trusted keys).",
        "issuer", "state"),
    "jwks_usable_seconds": _gauge(
        "How long the present keys stay trusted if no fetch succeeds.", "issuer", together=min),
    "jwks_next_refresh_seconds": _gauge("Time until the next scheduled fetch.", "issuer"),
    "jwks_clock_offset_seconds": _gauge(
        "How far the issuer's clock is ahead of the sidecar's, by the Date header of its key set.", "issuer"),
    "denylist_entries": _gauge(
        "Entries of the deny list by origin (file, posted) and state (in_force, or waiting for their issuer).",
        "origin", "state"),
    "denylist_age_seconds": _gauge("Time since a check last found the deny list in use equal to its file."),
    "minted_tokens": _counter("Tokens that the sidecar minted, by audience.", "audience"),
    "api_keys": _gauge("API keys in the file, by state: on, expired or disabled.", "state"),
    "signing_key_age_seconds": _gauge("Time since the signing key began to sign.", "alg"),
    "key_file_good": _gauge(
        "0 while a file of keys cannot be used and its previous content stays in use.", "file", together=min),
    "config_reloads": _counter("Reloads of the configuration, by result.", "result"),
    "config_last_reload_successful": _gauge(
        "0 if the last reload failed and the previous configuration stays in use.", together=min),
    "config_info": _gauge("Always 1; the label is the SHA-256 of the configuration in use.", "hash"),
    "build_info": _gauge("Always 1; the labels are the versions in use.", "version", "python"),
    "connections": _gauge("Connections of clients.", together=sum),
    "connections_limit": _gauge("The most connections of clients.", together=sum),
    "requests_in_flight": _gauge("Requests being served.", together=sum),
    "requests_in_flight_limit": _gauge("The most requests that are served at once.", together=sum),
    "buffered_bytes": _gauge("Bytes that wait for a slow peer or for the end of a head.", together=sum),
    "buffered_bytes_limit": _gauge("The limit of buffered bytes; new requests are refused beyond it.", together=sum),
    "draining": _gauge("1 while the sidecar drains: it is not ready and still serves."),
    "config_loaded_timestamp_seconds": _gauge(
        "Unix time at which the configuration in use was read.", together=min),
    "upstream_connections": _gauge("Connections to a backend, by state.", "upstream", "state", together=sum),
    "upstream_connections_limit": _gauge("The most connections to a backend.", "upstream", together=sum),
    "upstream_waiting_requests": _gauge("Requests that wait for a connection to a backend.", "upstream", together=sum),
    "file_good": _gauge(
        "0 while a file cannot be used and its previous content stays in use.", "file", together=min),
    "tls_handshakes_failed": _counter("Failed TLS handshakes of clients, by cause.", "cause"),
    "access_log_lost_lines": _counter("Lines of the access log that could not be written."),
    "workers": _gauge("Processes that serve clients."),
    "worker_replacements": _counter("Replaced workers, by reason: died or silent.", "why"),
}  # fmt: skip


def metric(
    name: str, values: Mapping[Any, Any], examples: Mapping[str, Sequence[Example | None]] | None = None
) -> Metric:
    """A metric with its values by labels: a tuple, or a text for one label.

    `examples` of a histogram, by label and bucket, become OpenMetrics exemplars.
    """
    family = FAMILIES[name]
    made = family.kind(PREFIX + name, family.text, labels=family.labels)
    for labels, value in dict(values).items():
        of = (labels,) if isinstance(labels, str) else labels
        if not isinstance(value, Histogram):
            made.add_metric(of, value)
            continue
        buckets: list[Any] = list(value.cumulative())
        for number, example in enumerate((examples or {}).get(labels, ())):
            if example is not None:
                exemplar = Exemplar({"trace_id": example.trace_id}, example.duration_s, example.at)
                buckets[number] = (*buckets[number], exemplar)
        made.add_metric(of, buckets, value.sum)
    found: Metric = made
    return found


def encoded(collected: CollectorRegistry, accept: str = "") -> tuple[bytes, str]:
    """The metrics as text, and its content type: OpenMetrics if `accept` allows it."""
    encode, content_type = choose_encoder(accept)
    return encode(collected), content_type
