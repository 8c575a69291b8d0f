"""Report mode: the rules that are safe to enforce, with the numbers."""

from typing import Any

from sidecar.app.history import Counted
from sidecar.app.state import Live
from sidecar.common.clock import Clock, iso_time
from sidecar.policy.routes import Route

ENOUGH = 300  # requests without a refusal: fewer than 1 in 100 would be refused, with 95 % certainty


def report(live: Live, clock: Clock) -> dict[str, Any]:
    """The refusals of rules in report mode since the last reload or start, and whether there are none."""
    counted = live.history.now().since(live.file.counted)
    rules = {rule.name: rule for rule in live.assembly.handler.routes.all if rule.report}
    return judged(
        {
            "since": iso_time(live.file.loaded_at),
            "seconds": round(clock.wall() - live.file.loaded_at, 3),
            "routes": [_rule(rule, live, counted) for rule in rules.values()],
        }
    )


def judged(told: dict[str, Any]) -> dict[str, Any]:
    """Add the conclusions to the numbers of a report, of one or several processes."""
    for rule in told["routes"]:
        requests, refused = rule["requests"], sum(one["count"] for one in rule["refused"])
        rule["would_be_refused"] = refused
        rule["at_most"] = round(3 / requests, 6) if requests and not refused else None  # the rule of three
        rule["verdict"] = "refuses" if refused else "safe" if requests >= ENOUGH else "too_few"
    safe = all(rule["verdict"] == "safe" for rule in told["routes"])
    return told | {"enough": ENOUGH, "safe": safe}


def _rule(rule: Route, live: Live, counted: Counted) -> dict[str, Any]:
    refused = []
    for kind, number in sorted(counted.refused.items(), key=lambda one: -one[1]):
        route, issuer, code, reported = kind
        if route == rule.name and reported and number > 0:
            last = iso_time(live.telemetry.spells[kind].last)
            refused.append({"issuer": issuer, "code": code, "count": number, "last": last})
    return {"route": rule.name, "requests": counted.requests.get(rule.name, 0), "refused": refused}
