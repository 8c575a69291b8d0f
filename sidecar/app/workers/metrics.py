"""`/metrics` of several workers, added up."""

from collections import Counter
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, registry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from sidecar.observability.metric_families import PREFIX, encoded

# Counters, histograms and these gauges are summed. Of other gauges the largest counts: the oldest, or equal in all workers.
ADD_UP = {
    "requests_in_flight",
    "requests_in_flight_limit",
    "connections",
    "connections_limit",
    "buffered_bytes",
    "buffered_bytes_limit",
    "upstream_connections",
    "upstream_connections_limit",
    "upstream_waiting_requests",
    "token_cache_entries",
    "token_cache_bytes",
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
}
SMALLEST = {
    "config_last_reload_successful",
    "config_loaded_timestamp_seconds",
    "file_good",
    "key_file_good",
    "jwks_last_success_timestamp_seconds",
    "jwks_keys",
    "jwks_usable_seconds",
}


class Counted(registry.Collector):
    """The metrics of all workers, ended ones included, so that counters never fall. `replaced` counts ended workers by reason."""

    def __init__(self) -> None:
        self.workers = 0
        self.replaced = Counter(died=0, silent=0)
        self._last: dict[int, list[Metric]] = {}
        self._gone: list[Metric] = []

    def add(self, pid: int, text: str) -> None:
        """Take the metrics of a worker."""
        self._last[pid] = list(text_string_to_metric_families(text))

    def lost(self, pid: int) -> None:
        """A worker has ended; keep its last counters."""
        counts = [metric for metric in self._last.pop(pid, []) if metric.type != "gauge"]
        self._gone = list(_added_up([self._gone, counts]))

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """The sum of all workers as text, and its content type."""
        once = CollectorRegistry(auto_describe=False)
        once.register(self)
        return encoded(once, accept)

    def collect(self) -> Iterable[Metric]:
        """The sum of all workers."""
        yield from _added_up([self._gone, *self._last.values()])
        yield GaugeMetricFamily(f"{PREFIX}workers", "Processes that serve clients.", value=self.workers)
        replacements = CounterMetricFamily(
            f"{PREFIX}worker_replacements", "Replaced workers, by reason: died or silent.", labels=("why",)
        )
        for why, number in self.replaced.items():
            replacements.add_metric((why,), number)
        yield replacements


def _added_up(of_workers: Iterable[list[Metric]]) -> Iterable[Metric]:
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]] = {}
    families: dict[str, Metric] = {}
    for metrics in of_workers:
        for metric in metrics:
            families.setdefault(metric.name, metric)
            samples = values.setdefault(metric.name, {})
            for sample in metric.samples:
                samples.setdefault((sample.name, tuple(sample.labels.items())), []).append(sample.value)
    for name, family in families.items():
        metric = Metric(name, family.documentation, family.type)
        own = name.removeprefix(PREFIX)
        how = sum if family.type != "gauge" or own in ADD_UP else min if own in SMALLEST else max
        metric.samples = [Sample(of, dict(labels), how(them)) for (of, labels), them in values[name].items()]
        yield metric
