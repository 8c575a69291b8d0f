"""`/metrics` of several workers, added up."""

from collections import Counter
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, registry
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from sidecar.observability.metric_families import FAMILIES, PREFIX, encoded, metric


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
        counts = [one for one in self._last.pop(pid, []) if one.type != "gauge"]
        self._gone = list(_added_up([self._gone, counts]))

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """The sum of all workers as text, and its content type."""
        once = CollectorRegistry(auto_describe=False)
        once.register(self)
        return encoded(once, accept)

    def collect(self) -> Iterable[Metric]:
        """The sum of all workers."""
        yield from _added_up([self._gone, *self._last.values()])
        yield metric("workers", {(): self.workers})
        yield metric("worker_replacements", self.replaced)


def _added_up(of_workers: Iterable[list[Metric]]) -> Iterable[Metric]:
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]] = {}
    families: dict[str, Metric] = {}
    for families_of_one in of_workers:
        for one in families_of_one:
            families.setdefault(one.name, one)
            samples = values.setdefault(one.name, {})
            for sample in one.samples:
                samples.setdefault((sample.name, tuple(sample.labels.items())), []).append(sample.value)
    for name, family in families.items():
        added = Metric(name, family.documentation, family.type)
        ours = FAMILIES.get(name.removeprefix(PREFIX))
        of_process = sum if family.type != "gauge" or name.endswith("memory_bytes") else max
        how = of_process if ours is None else ours.together
        added.samples = [Sample(of, dict(labels), how(them)) for (of, labels), them in values[name].items()]
        yield added
