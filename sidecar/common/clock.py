"""The two clocks that the sidecar reads, in one object so that a test can hand it another time."""

import time
from datetime import UTC, datetime


class Clock:
    """What time it is. Tests subclass it to move time by hand."""

    # The functions themselves and no methods around them: a request reads the clocks eight times.
    wall = staticmethod(time.time)
    """Unix time in seconds: compared with `exp`, `nbf` and `iat`."""
    monotonic = staticmethod(time.monotonic)
    """Seconds that never go back: ages, intervals and deadlines."""


def iso_time(unix_s: float) -> str:
    """A Unix time in ISO 8601, UTC, to the millisecond."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
