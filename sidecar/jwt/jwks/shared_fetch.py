"""One fetch of an issuer's keys at a time: whoever needs them shares the one that is under way."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from sidecar.common.clock import Clock
from sidecar.common.histogram import Histogram
from sidecar.jwt.jwks.unknown_kids import Cooldown

WAIT_S = 2.0  # what one request waits for keys
FETCH_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # buckets; a fetch gives up after 5 s


class KeysAwaited(Exception):
    """Keys that may be on their way: ask again, with this, when they have `landed`."""

    def __init__(self, flight: "asyncio.Task[None]") -> None:
        super().__init__()
        self._flight = flight

    async def landed(self) -> None:
        """Wait until the fetch has ended, but no longer than WAIT_S."""
        await asyncio.wait({self._flight}, timeout=WAIT_S)  # leaves the fetch alone when the waiting client goes away


class SharedFetch:
    """Runs `fetch`, which is told what has triggered it. `under_way` is the one that runs now."""

    def __init__(self, fetch: Callable[[str], Coroutine[Any, Any, None]], clock: Clock) -> None:
        self.under_way: asyncio.Task[None] | None = None
        self.cooldown = Cooldown(clock)
        self.durations = Histogram(FETCH_S)
        self._fetch = fetch
        self._clock = clock
        self._landed = asyncio.Event()

    def begin(self, trigger: str) -> "asyncio.Task[None]":
        """Fetch now, or join the fetch that is under way."""
        if self.under_way is None:
            self.under_way = asyncio.create_task(self._run(trigger))
        return self.under_way

    def force(self) -> "asyncio.Task[None] | None":
        """The same on demand: within the cooldown none is begun."""
        if self.under_way is None and not self.cooldown.left_s:
            self.cooldown.begin()
            self.begin("forced")
        return self.under_way

    async def _run(self, trigger: str) -> None:
        began = self._clock.monotonic()
        try:
            await self._fetch(trigger)
        finally:
            self.durations.add(self._clock.monotonic() - began)
            self.under_way = None
            self._landed.set()

    async def pause(self, pause_s: float) -> None:
        """Wait so long, or until a fetch ends or `wake` is called: then the next one may be due at another time."""
        self._landed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._landed.wait()

    def wake(self) -> None:
        """End the pause."""
        self._landed.set()

    async def stop(self) -> None:
        """Give up a fetch that is under way."""
        if self.under_way is not None:
            self.under_way.cancel()
            await asyncio.wait({self.under_way})
