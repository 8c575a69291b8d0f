"""Time that only a test moves, and an event loop that lives in it.

@in_its_time
async def test_a_pause(clock: HandClock) -> None:
    await asyncio.sleep(600)            # takes no time; clock.monotonic() is 600 s later
"""

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

from sidecar.common.clock import Clock
from tests.peers import PATIENCE_S

EPOCH = 1_800_000_000.0
REAL_WAIT_S = PATIENCE_S  # for the end of a thread, say, when no timer is set


Result = TypeVar("Result")
Given = TypeVarTuple("Given")


class HandClock(Clock):
    """A clock that stands still until a test moves it."""

    def __init__(self, wall: float = EPOCH) -> None:
        self._wall = wall
        self._monotonic = 1000.0

    def wall(self) -> float:
        return self._wall

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move both clocks by this many seconds."""
        self._wall += seconds
        self._monotonic += seconds


class HandLoop(asyncio.SelectorEventLoop):
    """An event loop with the time of a HandClock: when no task can run, it moves the clock to the next timer."""

    def __init__(self, clock: HandClock, quiet_s: float) -> None:
        self._selector_in_time = _Selector(clock, quiet_s)
        super().__init__(self._selector_in_time)
        self._hand_clock = clock

    def time(self) -> float:
        return self._hand_clock.monotonic()

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Given], Result], *args: *Given
    ) -> "asyncio.Future[Result]":
        """Threads work in real time, and nobody's time goes on meanwhile."""
        working = super().run_in_executor(executor, func, *args)
        self._selector_in_time.threads.add(working)
        working.add_done_callback(self._selector_in_time.threads.discard)
        return working

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Threads end in real time: `timeout`, which asyncio gives from Python 3.12 on, would be over at once."""
        await super().shutdown_default_executor()


class _Selector(selectors.DefaultSelector):
    def __init__(self, clock: HandClock, quiet_s: float) -> None:
        super().__init__()
        self.threads: set[asyncio.Future[Any]] = set()
        self._clock = clock
        self._quiet_s = quiet_s

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        in_reality = timeout is None or bool(self.threads)
        ready = super().select(REAL_WAIT_S if in_reality else self._quiet_s)
        if not ready and in_reality:
            raise AssertionError("everything waits, and nothing will ever happen")
        if not ready and timeout:
            self._clock.advance(timeout)
        return ready


Test = Callable[..., Coroutine[Any, Any, None]]


def in_its_time(test: Test, *, quiet_s: float = 0.0, loop: type[HandLoop] = HandLoop) -> Callable[..., None]:
    """Run an async test that takes a `clock` in a loop of that clock: when nobody can go on, time goes on to the next timer.

    Only for tests that wait for timers and for each other; sockets take real time.
    """

    @functools.wraps(test)
    def run(*args: Any, clock: HandClock, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=lambda: loop(clock, quiet_s)) as runner:
            runner.run(test(*args, clock=clock, **kwargs))

    return run


def in_its_time_with_sockets(test: Test) -> Callable[..., None]:
    """The same for a test whose servers and clients all live in its loop: time goes on when no byte has moved for 1 ms."""
    return in_its_time(test, quiet_s=0.001)
