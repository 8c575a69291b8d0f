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
