"""What is going on, for operators: the last refusals, and the counts that the page makes its rates of."""

from collections import Counter
from typing import Any

from sidecar.common.clock import iso_time
from sidecar.observability.counters import BUCKETS_S
from sidecar.observability.rejection_log import Refusal
from sidecar.observability.telemetry import Telemetry


def refusal(kept: Refusal) -> dict[str, Any]:
    """One refusal. `method` and `path` are null where the bytes never became a request."""
    return {
        "time": iso_time(kept.at),
        "request_id": kept.request_id,
        "method": kept.method or None,
        "path": kept.path or None,
        "route": kept.route,
        "mode": "report" if kept.reported else "enforce",
        "status": kept.status,
        "code": kept.reason.code,
        "error": kept.reason.error,
        "details": kept.details or None,
        "cause": kept.cause or None,
        "issuer": kept.issuer,
        "claims": kept.claims,
        "peer": kept.peer,
    }


def traffic(telemetry: Telemetry) -> dict[str, Any]:
    """Counts since the start. `durations` are the counts of each bucket up to a bound in seconds, and one of what was slower."""
    refused: Counter[str] = Counter()
    reported: Counter[str] = Counter()
    for (_, result, reason), number in telemetry.decisions.items():
        if result != "allow":
            (reported if result == "report" else refused)[reason] += number
    routes = [histogram.counts for histogram in telemetry.durations.values()]
    return {
        "requests": sum(telemetry.requests.values()),
        "in_flight": telemetry.requests_in_flight,
        "draining": telemetry.draining,
        "refused": refused,
        "reported": reported,
        "bounds_s": BUCKETS_S,
        "durations": [sum(bucket) for bucket in zip([0] * (len(BUCKETS_S) + 1), *routes, strict=True)],
    }
