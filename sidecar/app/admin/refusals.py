"""The last refusals, and counts of refusals in groups."""

from collections.abc import Mapping, Sequence
from typing import Any

from sidecar.app.history import Counted
from sidecar.common.clock import iso_time
from sidecar.observability.counters import MODES, Counts, Spell
from sidecar.observability.rejection_log import Refusal

GROUPED_BY = ("code", "issuer", "route")


def refusal(kept: Refusal) -> dict[str, Any]:
    """One refusal. `method`, `path` and `host` are null for bytes that were no valid request."""
    return {
        "time": iso_time(kept.at),
        "request_id": kept.request_id,
        "method": kept.method or None,
        "path": kept.path or None,
        "host": kept.host or None,
        "route": kept.route,
        "mode": MODES[kept.reported],
        "status": kept.status,
        "code": kept.reason.code,
        "error": kept.reason.error,
        "details": kept.details or None,
        "cause": kept.cause or None,
        "expected": kept.expected or None,
        "found": kept.found or None,
        "issuer": kept.issuer,
        "kid": kept.kid,
        "claims": kept.claims,
        "peer": kept.peer,
    }


def fits(told: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    """Does a refusal or a group have all of these values?"""
    return all(told[name] == value for name, value in wanted.items())


def groups(counts: Counts, minute: Counted, by: Sequence[str], wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    """Refusals grouped by mode and `by`, the most frequent of the last minute first."""
    found: dict[tuple[str, ...], tuple[Spell, int]] = {}
    for kind, spell in counts.spells.items():
        route, issuer, code, reported = kind
        values = {"code": code, "issuer": issuer, "route": route, "mode": MODES[reported]}
        if fits(values, wanted):
            key = (*(values[name] for name in by), values["mode"])
            before, lately = found.get(key, (Spell(), 0))
            found[key] = (before + spell if before.count else spell), lately + minute.refused.get(kind, 0)
    told = [
        {
            **dict(zip((*by, "mode"), key, strict=True)),
            "count": spell.count,
            "last_minute": lately,
            "since": iso_time(spell.since),
            "last": iso_time(spell.last),
        }
        for key, (spell, lately) in found.items()
    ]
    return sorted(told, key=lambda group: (-group["last_minute"], -group["count"]))
