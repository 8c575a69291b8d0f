"""The last hour in steps of ten seconds, and its changes.

It does no work for a request: every ten seconds it compares the counters with their previous values.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from sidecar.app.builder.assembly import Assembly
from sidecar.common.clock import Clock
from sidecar.observability.counters import BUCKETS_S
from sidecar.observability.telemetry import Telemetry

STEP_S = 10.0
STEPS = 360
FRESH_S = 5.0  # the last minute is evaluated again after this time
RECENT = 6  # steps of the last minute
MOST_KINDS = 20  # kinds of refusals in one step; the others are counted together
EVENTS = 100
OTHERS = "(others)"
FAILING = 0.5  # share of errors from which a backend fails

Key = TypeVar("Key")
Kind = tuple[str, str, str, bool]
"""Route, issuer and code of a refusal, and whether it was only reported."""


class Event(NamedTuple):
    """A change at a Unix time: kind and name of the object, level (good, note, warn or bad), sentence."""

    at: float
    what: str
    name: str
    level: str
    text: str


class Step(NamedTuple):
    """The counts of ten seconds from a Unix time on. `durations` are by the buckets of BUCKETS_S."""

    at: float
    requests: int
    refused: dict[Kind, int]
    durations: list[int]


class Counted(NamedTuple):
    """Counters at one moment, or their increase between two; histograms are counts of buckets by route.

    `seconds` are a Unix time, or the time between the two moments.
    """

    seconds: float
    requests: dict[str, int]
    refused: dict[Kind, int]
    durations: dict[str, list[int]]
    upstream_durations: dict[str, list[int]]
    upstream_errors: dict[tuple[str, str], int]

    def since(self, before: "Counted") -> "Counted":
        """The increase since an earlier moment."""
        return Counted(
            self.seconds - before.seconds,
            _less(self.requests, before.requests),
            _less(self.refused, before.refused),
            {name: _fewer(counts, before.durations.get(name)) for name, counts in self.durations.items()},
            {
                name: _fewer(counts, before.upstream_durations.get(name))
                for name, counts in self.upstream_durations.items()
            },
            _less(self.upstream_errors, before.upstream_errors),
        )


class State(NamedTuple):
    """A state, and the Unix time of its begin."""

    state: str
    since: float


class History:
    """The counts of the last STEPS, and the last EVENTS. `states` are of issuers and upstreams, by kind and name."""

    def __init__(self, telemetry: Telemetry, clock: Clock) -> None:
        self.steps: deque[Step] = deque(maxlen=STEPS)
        self.events: deque[Event] = deque(maxlen=EVENTS)
        self.states: dict[tuple[str, str], State] = {}
        self._telemetry = telemetry
        self._clock = clock
        self._before: deque[Counted] = deque([self.now()], maxlen=RECENT)
        self._minute: Counted | None = None
        self._minute_until = 0.0
        self._keys: dict[str, set[str]] = {}
        self.note("started", "sidecar", "note", "the sidecar started")

    def note(self, what: str, name: str, level: str, text: str) -> None:
        """Record a change now."""
        self.events.append(Event(self._clock.wall(), what, name, level, text))

    async def watch(self, assembly: Callable[[], Assembly]) -> None:
        """Take steps until cancelled, at full ten seconds of the clock, so that the steps of several processes match."""
        while True:
            await asyncio.sleep(STEP_S - self._clock.wall() % STEP_S)
            self.step(assembly())

    def step(self, assembly: Assembly) -> None:
        """Record ten seconds."""
        now = self.now()
        new = now.since(self._before[-1])
        durations = add_up(new.durations.values())
        at = (round(now.seconds / STEP_S) - 1) * STEP_S
        self.steps.append(Step(at, sum(new.requests.values()), _most(new.refused), durations))
        self._minute = None
        self.look(assembly)
        self._minute = None
        self._before.append(now)

    def now(self) -> Counted:
        """The current counters."""
        telemetry = self._telemetry
        requests: Counter[str] = Counter()
        for (route, _, _), number in telemetry.requests.items():
            requests[route] += number
        return Counted(
            self._clock.wall(),
            requests,
            {kind: spell.count for kind, spell in telemetry.spells.items()},
            {name: histogram.counts.copy() for name, histogram in telemetry.durations.items()},
            {name: histogram.counts.copy() for name, histogram in telemetry.upstream_durations.items()},
            dict(telemetry.upstream_errors),
        )

    def minute(self) -> Counted:
        """The counts of the last minute, or since the start; computed at most once in FRESH_S."""
        now = self._clock.monotonic()
        if self._minute is None or now >= self._minute_until:
            self._minute = self.now().since(self._before[0])
            self._minute_until = now + FRESH_S
        return self._minute

    def look(self, assembly: Assembly) -> None:
        """Record changes of issuers and upstreams."""
        minute = self.minute()
        seen: dict[tuple[str, str], State] = {}
        for name, source in assembly.sources.items():
            seen["issuer", name] = self._now("issuer", name, source.state, source.last_error or "")
            self._look_at_keys(name, {key.kid or "no kid" for key in source.jwks.keys} if source.jwks else set())
        for name in assembly.upstreams:
            health, why = upstream_health(name, minute, assembly)
            if health == "idle" and ("upstream", name) in self.states:
                seen["upstream", name] = self.states["upstream", name]  # keep the state of its last requests
            else:
                seen["upstream", name] = self._now("upstream", name, health, why)
        self.states = seen
        self._keys = {name: kids for name, kids in self._keys.items() if name in assembly.sources}

    def _now(self, what: str, name: str, state: str, why: str) -> State:
        before = self.states.get((what, name))
        if before is not None and before.state == state:
            return before
        level, text = WORDS[state]
        if before is not None or level in ("warn", "bad"):
            self.note(what, name, level, f"{what} {name} {text}" + (f": {why}" if why and level != "good" else ""))
        return State(state, self._clock.wall())

    def _look_at_keys(self, name: str, kids: set[str]) -> None:
        before = self._keys.get(name)
        if before and before != kids:
            changes = [*(f"+ {kid}" for kid in sorted(kids - before)), *(f"- {kid}" for kid in sorted(before - kids))]
            self.note("issuer", name, "note", f"issuer {name} changed its keys: {', '.join(changes[:MOST_KINDS])}")
        if kids:
            self._keys[name] = kids


WORDS = {
    "fresh": ("good", "has fresh keys"),
    "stale": ("warn", "cannot be reached for its keys, and the present keys stay trusted"),
    "absent": ("bad", "has no usable keys"),
    "idle": ("note", "got no requests"),
    "good": ("good", "answers"),
    "errors": ("warn", "fails some requests"),
    "failing": ("bad", "fails most requests"),
}


ERRORS = {  # one, and several
    "connect": ("connection failed", "connections failed"),
    "timeout": ("timeout", "timeouts"),
    "protocol": ("invalid answer", "invalid answers"),
    "reset": ("connection broken off", "connections broken off"),
}


def upstream_health(name: str, minute: Counted, assembly: Assembly) -> tuple[str, str]:
    """The state of a backend in the last minute (idle, good, errors or failing), and its errors in words."""
    errors = {
        kind: number for (upstream, kind), number in minute.upstream_errors.items() if upstream == name and number
    }
    why = ", ".join(f"{number:,} {ERRORS[kind][number != 1]}" for kind, number in errors.items())
    failed = sum(errors.values())
    answered = sum(sum(counts) for counts in upstream_durations(name, minute, assembly))
    if failed:
        return ("failing" if failed >= FAILING * (answered + failed) else "errors"), why
    return ("good" if answered else "idle"), why


def upstream_durations(name: str, counted: Counted, assembly: Assembly) -> Iterator[list[int]]:
    """The durations of a backend's answers, route by route."""
    for route in {route.name for route in assembly.handler.routes.all if route.upstream == name}:
        if route in counted.upstream_durations:
            yield counted.upstream_durations[route]


def add_up(histograms: Iterable[list[int]]) -> list[int]:
    """The sum of the counts of several histograms of BUCKETS_S."""
    return list(map(sum, zip([0] * (len(BUCKETS_S) + 1), *histograms, strict=True)))


def quantile(part: float, counts: Iterable[int]) -> float | None:
    """A quantile of durations, estimated as Prometheus does: evenly spread within a bucket.

    None without durations; the last bound if it is larger.
    """
    counts = list(counts)
    wanted = part * sum(counts)
    if not wanted:
        return None
    below, low = 0, 0.0
    for count, high in zip(counts, BUCKETS_S, strict=False):
        if below + count >= wanted:
            return low + (high - low) * (wanted - below) / count
        below, low = below + count, high
    return BUCKETS_S[-1]


def _less(now: Mapping[Key, int], before: Mapping[Key, int]) -> dict[Key, int]:
    return {key: number - before.get(key, 0) for key, number in now.items()}


def _fewer(now: list[int], before: list[int] | None) -> list[int]:
    return now if before is None else [one - other for one, other in zip(now, before, strict=True)]


def _most(refused: dict[Kind, int]) -> dict[Kind, int]:
    """The most frequent kinds; the others are summed up by code."""
    found = Counter({kind: number for kind, number in refused.items() if number > 0})
    if len(found) <= MOST_KINDS:
        return dict(found)
    most = Counter(dict(found.most_common(MOST_KINDS)))
    for (_, _, code, reported), number in (found - most).items():
        most[OTHERS, OTHERS, code, reported] += number
    return dict(most)
