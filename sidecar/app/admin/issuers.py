"""The state of each issuer's keys, and refreshes on demand."""

import asyncio
from collections import Counter
from typing import Any

from sidecar.app.builder.assembly import Assembly
from sidecar.app.history import History
from sidecar.common.clock import Clock, iso_time
from sidecar.config import Issuer
from sidecar.jwt.jwks.cache import JwksSource


def issuers(assembly: Assembly, history: History, clock: Clock) -> list[dict[str, Any]]:
    """Every configured issuer with its keys and the refusals of its tokens; durations are in seconds."""
    refused: Counter[str] = Counter()
    for (_, issuer, _, reported), number in history.minute().refused.items():
        if not reported:
            refused[issuer] += number
    return [
        _issuer(issuer, assembly.sources[name], clock) | {"minute": {"refused": refused[name]}}
        for name, issuer in assembly.config.issuers.items()
    ]


def _issuer(issuer: Issuer, source: JwksSource, clock: Clock) -> dict[str, Any]:
    now = clock.monotonic()
    jwks = source.jwks
    age_s = None if source.fetched_at is None else now - source.fetched_at
    fetches: dict[str, dict[str, int]] = {}
    for (trigger, result), number in source.fetches.items():
        fetches.setdefault(trigger, {})[result] = number
    return {
        "name": issuer.name,
        "issuer": issuer.issuer,
        "aliases": issuer.issuer_aliases,
        "keys_from": issuer.keys_from,
        "state": source.state,
        "usable": source.usable,
        "usable_for_s": None if jwks is None else _s(max(0.0, source.trusted_until - now)),
        "fetched_at": None if age_s is None else iso_time(clock.wall() - age_s),
        "age_s": _s(age_s),
        "next_refresh_s": _s(max(0.0, source.next_fetch_at - now)),
        "cooldown_s": _s(source.cooldown_s),
        "last_error": source.last_error,
        "clock_offset_s": _s(source.issuer_clock.offset_s),
        "fetches": fetches,
        "keys": [
            {
                "kid": key.kid,
                "kty": key.kty,
                "use": "sig",
                "alg": list(key.by_algorithm),
                "grace_s": _s(source.removed.grace_s(key)),
            }
            for key in (() if jwks is None else jwks.keys)
        ],
        "skipped": source.skipped,
    }


def _s(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


async def refreshed(sources: list[JwksSource], *, force: bool) -> list[dict[str, Any]]:
    """Fetch the keys of these issuers now, except during a cooldown, and return the results."""
    flights = [(source, source.refresh(force=force)) for source in sources]
    if waited_for := {flight for _, flight in flights if flight is not None}:
        await asyncio.wait(waited_for)
    return [
        {
            "name": source.name,
            "result": "cooldown" if flight is None else "fetched" if source.last_error is None else "failed",
            "last_error": source.last_error,
            "cooldown_s": _s(source.cooldown_s),
        }
        for source, flight in flights
    ]
