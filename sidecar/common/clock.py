"""The two clocks that the sidecar reads, in one object so that a test can hand it another time."""

import time
from datetime import UTC, datetime


class Clock:
    """The current time. Tests subclass it to set the time."""

    # Plain functions instead of methods: a request reads the clocks eight times.
    wall = staticmethod(time.time)
    """Unix time in seconds: compared with `exp`, `nbf` and `iat`."""
    monotonic = staticmethod(time.monotonic)
    """Monotonic seconds, for ages, intervals and deadlines."""


def iso_time(unix_s: float) -> str:
    """A Unix time in ISO 8601, UTC, to the millisecond."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ago(seconds: float) -> str:
    """A duration for people: `12 s`, `5 min`, `3 h`, `2 d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
