"""The last hour on a time axis: counts and changes."""

from typing import Any

from sidecar.app.history import STEP_S, Event, History, Step, quantile
from sidecar.common.clock import iso_time
from sidecar.observability.counters import MODES


def timeline(history: History, after: float) -> dict[str, Any]:
    """The steps and events after a Unix time."""
    return {
        "step_s": STEP_S,
        "steps": [_step(step) for step in history.steps if step.at > after],
        "events": [event(one) for one in history.events if one.at > after],
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "at": iso_time(step.at),
        "requests": step.requests,
        "refused": [
            {"route": route, "issuer": issuer, "code": code, "mode": MODES[reported], "count": number}
            for (route, issuer, code, reported), number in step.refused.items()
        ],
        "p50_s": quantile(0.5, step.durations),
        "p99_s": quantile(0.99, step.durations),
    }


def event(one: Event) -> dict[str, Any]:
    """A change."""
    return one._asdict() | {"at": iso_time(one.at)}
