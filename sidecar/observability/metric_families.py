"""Makes counters, gauges and histograms of Prometheus, and their text."""

from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.samples import Exemplar

from sidecar.common.histogram import Histogram
from sidecar.observability.telemetry import Example

PREFIX = "jwt_sidecar_"


def counter(name: str, text: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    """A counter. `values` are by labels: a tuple, or a text for one label."""
    return _samples(CounterMetricFamily(PREFIX + name, text, labels=labels), values)


def gauge(name: str, text: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    """A gauge, with `values` as for a counter."""
    return _samples(GaugeMetricFamily(PREFIX + name, text, labels=labels), values)


def _samples(family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[Any, float]) -> Metric:
    for labels, value in dict(values).items():
        family.add_metric((labels,) if isinstance(labels, str) else labels, value)
    return family


def histogram(
    name: str,
    text: str,
    values: Mapping[str, Histogram],
    label: str | None = None,
    examples: Mapping[tuple[str, int], Example] | None = None,
) -> Metric:
    """A histogram. `examples` become OpenMetrics exemplars; their keys are the label and the number of the bucket."""
    family = HistogramMetricFamily(PREFIX + name, text, labels=() if label is None else (label,))
    for of, histogram in values.items():
        buckets: list[Any] = list(histogram.cumulative())
        for (of_whom, number), example in (examples or {}).items():
            if of_whom == of:
                exemplar = Exemplar({"trace_id": example.trace_id}, example.duration_s, example.at)
                buckets[number] = (*buckets[number], exemplar)
        family.add_metric(() if label is None else (of,), buckets, histogram.sum)
    return family


def encoded(collected: CollectorRegistry, accept: str = "") -> tuple[bytes, str]:
    """The metrics as text, and its content type: OpenMetrics if `accept` allows it."""
    encode, content_type = choose_encoder(accept)
    return encode(collected), content_type
