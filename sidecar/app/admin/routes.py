"""The routes with their counts."""

from collections import Counter
from typing import Any

from sidecar.app.builder.assembly import Assembly
from sidecar.app.history import Counted, History, Kind, quantile
from sidecar.config import Route
from sidecar.observability.counters import MODES
from sidecar.observability.record import NO_ROUTE


def routes(assembly: Assembly, history: History) -> list[dict[str, Any]]:
    """Every rule in order, then the requests without a route. Rules with the same path share a name and a count."""
    now, minute = history.now(), history.minute()
    refused, lately = _by_route(now.refused), _by_route(minute.refused)
    found = [
        {
            "name": rule.name,
            **_rule(settings),
            "auth": rule.auth.value,
            "mode": MODES[bool(rule.report)],
            "upstream": rule.upstream,
        }
        for rule, settings in zip(assembly.handler.routes.all, (*assembly.config.routes, None), strict=True)
    ]
    found.append({"name": NO_ROUTE, **_rule(None), "auth": None, "mode": None, "upstream": None})
    for route in found:
        name = route["name"]
        route |= _counts(name, now, refused)
        route["minute"] = {
            **_counts(name, minute, lately),
            "p50_s": quantile(0.5, minute.durations.get(name, ())),
            "p99_s": quantile(0.99, minute.durations.get(name, ())),
        }
    return found


def _rule(settings: Route | None) -> dict[str, Any]:
    return {name: getattr(settings, name, None) for name in ("line", "methods", "hosts", "issuers")}


def _counts(name: str, counted: Counted, refused: Counter[tuple[str, bool]]) -> dict[str, int]:
    return {
        "requests": counted.requests.get(name, 0),
        "refused": refused[name, False],
        "reported": refused[name, True],
    }


def _by_route(refused: dict[Kind, int]) -> Counter[tuple[str, bool]]:
    found: Counter[tuple[str, bool]] = Counter()
    for (route, _, _, reported), number in refused.items():
        found[route, reported] += number
    return found
