"""All that is counted, as plain data."""

from collections import Counter
from dataclasses import dataclass, field

from sidecar.common.histogram import Histogram
from sidecar.policy.routes import Auth

# OpenTelemetry's buckets for HTTP durations, with two below for a proxy on loopback.
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
OVERHEAD_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
LAG_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
SKIPPED = {Auth.NONE: "public", Auth.OPTIONAL: "optional", Auth.REQUIRED: "preflight", Auth.API_KEY: "preflight"}
PAUSE_S = 300.0  # without a refusal of a kind, after which the next one is news


@dataclass(slots=True)
class Spell:
    """Refusals of one kind: their `count`, the time of the last, and since when they come without a pause of PAUSE_S.

    Times are Unix times.
    """

    count: int = 0
    since: float = 0.0
    last: float = 0.0

    def add(self, at: float) -> None:
        """One more."""
        self.count += 1
        if at > self.last + PAUSE_S:
            self.since = at
        self.last = at

    def __add__(self, other: "Spell") -> "Spell":
        earlier, later = sorted((self, other), key=lambda spell: spell.last)
        since = later.since if later.since > earlier.last + PAUSE_S else min(earlier.since, later.since)
        return Spell(self.count + other.count, since, later.last)


@dataclass(eq=False)
class Counts:
    """Counters by names from the configuration and closed sets, never from a client.

    `requests` are by route, method and status, `decisions` by issuer, result and reason. The results are allow, deny, error (a
    5xx: no fault of the client) and report (let in by a route that only reports). `skipped` are requests that were let in
    without a token, by why; `durations` and `upstream_durations` are by route, `upstream_errors` by upstream and kind,
    `minted` tokens of our own by audience. `spells` are refusals by route, issuer, code, and whether they were only reported.
    `handshakes` are those of TLS that failed, by cause; `lost_lines` are of the access log, `task_failures` of what runs in the
    background.
    `overhead` is what a request waits here before the backend is asked, `loop_lag` how late the event loop runs what is due.
    """

    requests: dict[tuple[str, str, int], int] = field(default_factory=dict)
    decisions: dict[tuple[str, str, str], int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SKIPPED.values(), 0))
    headers_stripped: dict[str, int] = field(default_factory=lambda: Counter(claim=0, underscore=0, forwarded=0))
    upstream_errors: dict[tuple[str, str], int] = field(default_factory=Counter)
    minted: dict[str, int] = field(default_factory=dict)
    spells: dict[tuple[str, str, str, bool], Spell] = field(default_factory=dict)
    durations: dict[str, Histogram] = field(default_factory=dict)
    upstream_durations: dict[str, Histogram] = field(default_factory=dict)
    overhead: Histogram = field(default_factory=lambda: Histogram(OVERHEAD_S))
    loop_lag: Histogram = field(default_factory=lambda: Histogram(LAG_S))
    handshakes: dict[str, int] = field(default_factory=dict)
    lost_lines: int = 0
    task_failures: int = 0
