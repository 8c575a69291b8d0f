"""The counters, as plain data."""

from collections import Counter
from typing import Final

from sidecar.common.histogram import Histogram
from sidecar.policy.routes import Auth

# OpenTelemetry's buckets for HTTP durations, with two smaller ones for a proxy on loopback.
BUCKETS_S: Final[tuple[float, ...]] = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
OVERHEAD_S: Final[tuple[float, ...]] = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
)  # fmt: skip
LAG_S: Final[tuple[float, ...]] = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
SKIPPED: Final = {Auth.NONE: "public", Auth.OPTIONAL: "optional", Auth.REQUIRED: "preflight", Auth.API_KEY: "preflight"}
MODES = {False: "enforce", True: "report"}  # was a refusal only reported?
PAUSE_S: Final = 300.0  # a pause without refusals of a kind; the next refusal begins a new spell


class Count:
    """A number to add to, without a look-up of its name."""

    def __init__(self) -> None:
        self.number = 0


class Spell:
    """Refusals of one kind: their `count`, the time of the last, and since when they come without a pause of PAUSE_S.

    Times are Unix times.
    """

    def __init__(self, count: int = 0, since: float = 0.0, last: float = 0.0) -> None:
        self.count = count
        self.since = since
        self.last = last

    def add(self, at: float) -> None:
        """Count a refusal at a Unix time."""
        self.count += 1
        if at > self.last + PAUSE_S:
            self.since = at
        self.last = at

    def __add__(self, other: "Spell") -> "Spell":
        earlier, later = sorted((self, other), key=lambda spell: spell.last)
        since = later.since if later.since > earlier.last + PAUSE_S else min(earlier.since, later.since)
        return Spell(self.count + other.count, since, later.last)


class Counts:
    """Counters by names from the configuration and closed sets, never from a client.

    `requests` are by route, method and status, `decisions` by issuer, result and reason. The results are allow, deny, error (a
    5xx: not the client's fault) and report (accepted in report mode). `skipped` are requests accepted without a token, by reason.
    `durations` and `upstream_durations` are by route, `upstream_errors` by upstream and kind, `minted` are tokens by audience.
    `spells` are refusals by route, issuer, code, and whether they were only reported. `handshakes` are failed TLS handshakes by
    cause. `lost_lines` are lines of the access log, `task_failures` failures of background tasks.
    `overhead` is the time from a request's head to the request to the backend, `loop_lag` how late the event loop runs due work.
    """

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, int], Count] = {}
        self._decisions: dict[tuple[str, str, str], Count] = {}
        self.skipped = dict.fromkeys(SKIPPED.values(), 0)
        self.headers_stripped = dict.fromkeys(("claim", "underscore", "forwarded"), 0)
        self.upstream_errors: dict[tuple[str, str], int] = Counter()
        self.minted: dict[str, int] = {}
        self.spells: dict[tuple[str, str, str, bool], Spell] = {}
        self.durations: dict[str, Histogram] = {}
        self.upstream_durations: dict[str, Histogram] = {}
        self.overhead = Histogram(OVERHEAD_S)
        self.loop_lag = Histogram(LAG_S)
        self.handshakes: dict[str, int] = {}
        self.lost_lines = 0
        self.task_failures = 0

    @property
    def requests(self) -> dict[tuple[str, str, int], int]:
        """The requests at this moment."""
        return {names: count.number for names, count in dict(self._requests).items()}

    @property
    def decisions(self) -> dict[tuple[str, str, str], int]:
        """The decisions at this moment."""
        return {names: count.number for names, count in dict(self._decisions).items()}
