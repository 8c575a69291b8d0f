"""The backends: their answers in the last minute, connections and probes."""

from typing import Any

from sidecar.app.builder.assembly import Assembly
from sidecar.app.history import Counted, History, add_up, quantile, upstream_durations, upstream_health
from sidecar.common.clock import iso_time
from sidecar.observability.telemetry import UPSTREAM_ERRORS, Telemetry


def upstreams(assembly: Assembly, telemetry: Telemetry, history: History) -> list[dict[str, Any]]:
    """Every configured backend."""
    minute = history.minute()
    return [_upstream(name, assembly, telemetry, history, minute) for name in assembly.upstreams]


def _upstream(name: str, assembly: Assembly, telemetry: Telemetry, history: History, minute: Counted) -> dict[str, Any]:
    kinds = (*UPSTREAM_ERRORS.values(), "reset")
    durations = add_up(upstream_durations(name, minute, assembly))
    state = history.states.get(("upstream", name))
    return {
        "name": name,
        "url": assembly.config.upstreams[name].url,
        "health": upstream_health(name, minute, assembly)[0],
        "since": None if state is None else iso_time(state.since),
        "connections": assembly.upstreams[name].use._asdict(),
        "errors": {kind: telemetry.upstream_errors.get((name, kind), 0) for kind in kinds},
        "minute": {
            "answered": sum(durations),
            "errors": {kind: minute.upstream_errors.get((name, kind), 0) for kind in kinds},
            "p50_s": quantile(0.5, durations),
            "p99_s": quantile(0.99, durations),
        },
        "probes": [
            {"name": probe, "path": settings.path, "status": assembly.probes[probe].last_status}
            for probe, settings in assembly.config.health.probes.items()
            if (settings.upstream or assembly.config.default_upstream) == name
        ],
    }
