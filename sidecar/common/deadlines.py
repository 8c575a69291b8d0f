"""Deadlines of connections, looked at by one clockwork instead of a timer for each request.

Setting a deadline is storing a number. How late an expiry may be noticed is the price: one tick.
"""

import asyncio
import logging
from typing import Protocol

from sidecar.common.clock import Clock
from sidecar.common.errors import fault

NEVER = float("inf")

log = logging.getLogger("sidecar.deadlines")


class Expiring(Protocol):
    """Something with a deadline (monotonic seconds, NEVER for none) that ends itself when told."""

    deadline: float

    def expire(self) -> None:
        """The deadline has passed."""


class Deadlines:
    """Everything that may expire; `tick_s` is how often they are looked at."""

    def __init__(self, clock: Clock, tick_s: float = 1.0) -> None:
        self._clock = clock
        self.tick_s = tick_s
        self.watched: set[Expiring] = set()

    async def watch(self) -> None:
        """Look at the deadlines for ever."""
        while True:
            await asyncio.sleep(self.tick_s)
            self.tick()

    def tick(self) -> None:
        """Expire what is due."""
        now = self._clock.monotonic()
        for one in [one for one in self.watched if one.deadline <= now]:
            if one.deadline <= now:  # still: one that expires may give another more time
                one.deadline = NEVER
                try:
                    one.expire()
                except Exception as error:  # noqa: BLE001  # one that fails must not keep the others from ending
                    log.error("event=bug %s do='Please report it with this line.'", fault(error))
