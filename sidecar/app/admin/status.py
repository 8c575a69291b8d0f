"""The summary of a sidecar: the process, its problems and its counts."""

import os
import platform
import socket
from collections import Counter
from importlib.metadata import version
from typing import Any

from sidecar.app.admin.problems import Problem, noteworthy, of_the_minute, problems
from sidecar.app.admin.refusals import refusal
from sidecar.app.history import Counted, add_up, quantile
from sidecar.app.state import Live
from sidecar.common.clock import Clock, iso_time

VERSION = version("jwt-sidecar")
STATES = ("fresh", "stale", "absent")


class Status:
    """Answers `/status`. The last minute is evaluated once for each new count."""

    def __init__(self, live: Live, clock: Clock) -> None:
        self._live = live
        self._clock = clock
        self._minute: Counted | None = None
        self._lately: list[Problem] = []
        self._traffic: dict[str, Any] = {}

    def told(self, after: int, most: int) -> dict[str, Any]:
        """The status, with the last `most` refusals after the first `after` of their total."""
        live, clock = self._live, self._clock
        minute = live.history.minute()
        if minute is not self._minute:
            self._minute = minute
            self._lately = of_the_minute(live, minute)
            self._traffic = _in(minute)
        refusals = live.telemetry.refusals
        states = [source.state for source in live.assembly.sources.values()]
        return {
            "sidecar": about(live, clock),
            "last_reload_successful": live.telemetry.last_reload_successful,
            "problems": problems(live, self._lately, clock),
            "traffic": _since_the_start(live) | {"minute": self._traffic},
            "issuers": {state: states.count(state) for state in STATES},
            "refusals": refusals.total,
            "last": [refusal(kept) for kept in refusals.after(after, most)],
        }


def about(live: Live, clock: Clock) -> dict[str, Any]:
    """The identity of the process."""
    now = clock.wall()
    return {
        "pid": os.getpid(),
        "version": VERSION,
        "python": platform.python_version(),
        "host": socket.gethostname(),
        "time": iso_time(now),
        "started_at": iso_time(live.started_at),
        "uptime_s": round(now - live.started_at, 3),
        "listens": live.listens,
        "health": live.health,
        "admin": live.admin,
        "draining": live.resources.draining,
        "configuration": {
            "file": None if live.file.path is None else str(live.file.path),
            "hash": live.assembly.config.digest,
            "loaded_at": iso_time(live.file.loaded_at),
        },
    }


def _since_the_start(live: Live) -> dict[str, Any]:
    """Counts since the start; `refused` and `reported` are by code."""
    telemetry = live.telemetry
    refused: Counter[str] = Counter()
    reported: Counter[str] = Counter()
    for (_, result, reason), number in telemetry.decisions.items():
        if result != "allow":
            (reported if result == "report" else refused)[reason] += number
    return {
        "requests": sum(telemetry.requests.values()),
        "in_flight": live.resources.requests_in_flight,
        "connections": live.resources.connections,
        "draining": live.resources.draining,
        "refused": refused,
        "reported": reported,
    }


def _in(minute: Counted) -> dict[str, Any]:
    durations = add_up(minute.durations.values())
    requests = sum(minute.requests.values())
    refused = sum(number for (*_, reported), number in minute.refused.items() if not reported)
    return {
        "seconds": round(minute.seconds, 3),
        "requests": requests,
        "refused": refused,
        "noteworthy": noteworthy(refused, requests),
        "p50_s": quantile(0.5, durations),
        "p99_s": quantile(0.99, durations),
    }
