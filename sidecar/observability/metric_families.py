"""Counters, gauges and histograms as Prometheus knows them, and their text."""

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
    """What only grows; `values` by their labels: a tuple, or a text where there is one label."""
    return _samples(CounterMetricFamily(PREFIX + name, text, labels=labels), values)


def gauge(name: str, text: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    """What goes up and down."""
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
    """`examples` are by the label and the number of their bucket; OpenMetrics has a place for them."""
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
    """What is collected as text, and its content type: OpenMetrics where it is accepted."""
    encode, content_type = choose_encoder(accept)
    return encode(collected), content_type
