"""Deadlines of connections, checked by one periodic task instead of a timer for each request.

To set a deadline is to store a number. An expiry is noticed up to one tick late.
"""

import asyncio
import logging
from typing import Final, Protocol

from sidecar.common.clock import Clock
from sidecar.common.errors import fault

NEVER: Final = float("inf")

log = logging.getLogger("sidecar.deadlines")


class Expiring(Protocol):
    """An object with a deadline: monotonic seconds, NEVER for none."""

    deadline: float

    def expire(self) -> None:
        """The deadline has passed."""


class Deadlines:
    """All objects that may expire. `tick_s` is the time between two checks."""

    def __init__(self, clock: Clock, tick_s: float = 1.0) -> None:
        self._clock = clock
        self.tick_s = tick_s
        self.watched: set[Expiring] = set()

    async def watch(self) -> None:
        """Check the deadlines until cancelled."""
        while True:
            await asyncio.sleep(self.tick_s)
            self.tick()

    def tick(self) -> None:
        """Expire every object whose deadline has passed."""
        now = self._clock.monotonic()
        for one in [one for one in self.watched if one.deadline <= now]:
            if one.deadline <= now:  # check again: an object that expires may extend another one's deadline
                one.deadline = NEVER
                try:
                    one.expire()
                except Exception as error:  # noqa: BLE001  # the others must expire although this one failed
                    log.error("event=bug %s do='Please report this line.'", fault(error))
