"""Runs one fetch of an issuer's keys at a time; all callers share it."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from sidecar.common.clock import Clock
from sidecar.common.histogram import Histogram
from sidecar.jwt.jwks.unknown_kids import Cooldown

WAIT_S = 2.0  # the longest that one request waits for keys
MOST_WAITING = 500  # requests: a client without a valid token can send them, and `limits.in_flight` counts them
FETCH_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # buckets; a fetch gives up after 5 s


class KeysAwaited(Exception):
    """A fetch may bring the key: ask again, with this, when it has `landed`."""

    def __init__(self, fetching: "SharedFetch", flight: "asyncio.Task[None]") -> None:
        self._fetching = fetching
        self._flight = flight

    async def landed(self) -> None:
        """Wait until the fetch has ended, but no longer than WAIT_S."""
        self._fetching.waiting += 1
        try:
            await asyncio.wait({self._flight}, timeout=WAIT_S)  # the fetch goes on when the waiting client disconnects
        finally:
            self._fetching.waiting -= 1


class SharedFetch:
    """Runs `fetch`, with its trigger as the argument. `under_way` is the current fetch, or None.

    `waiting` is the number of requests that wait for it.
    """

    def __init__(self, fetch: Callable[[str], Coroutine[Any, Any, None]], clock: Clock) -> None:
        self.under_way: asyncio.Task[None] | None = None
        self.waiting = 0
        self.cooldown = Cooldown(clock)
        self.durations = Histogram(FETCH_S)
        self._fetch = fetch
        self._clock = clock
        self._landed = asyncio.Event()

    def awaited(self) -> KeysAwaited | None:
        """The exception with which a request waits for the current fetch; None without one, or if MOST_WAITING wait already."""
        if self.under_way is None or self.waiting >= MOST_WAITING:
            return None
        return KeysAwaited(self, self.under_way)

    def begin(self, trigger: str) -> "asyncio.Task[None]":
        """Begin a fetch, or return the current one."""
        if self.under_way is None:
            self.under_way = asyncio.create_task(self._run(trigger))
        return self.under_way

    def force(self) -> "asyncio.Task[None] | None":
        """Begin a fetch on demand, or return the current one; None within the cooldown."""
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
        """Wait `pause_s` seconds, or until a fetch ends or `wake` is called: the time of the next fetch may change then."""
        self._landed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._landed.wait()

    def wake(self) -> None:
        """End the pause."""
        self._landed.set()

    async def stop(self) -> None:
        """Cancel the current fetch."""
        if self.under_way is not None:
            self.under_way.cancel()
            await asyncio.wait({self.under_way})
