"""The state behind the listeners: the current assembly, and the objects that outlive reloads."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakSet

from sidecar.app.builder.assembly import Assembly, SourceOf
from sidecar.app.builder.key_sources import key_source
from sidecar.app.drain import Drain
from sidecar.app.history import Counted, History
from sidecar.common.clock import Clock
from sidecar.common.deadlines import Deadlines
from sidecar.common.errors import fault
from sidecar.common.watched_file import WatchedFile
from sidecar.config import Config, Problem, Timeouts
from sidecar.jwt.jwks.cache import JwksSource
from sidecar.observability.access_lines import LINES
from sidecar.observability.access_log import AccessLog
from sidecar.observability.telemetry import Telemetry
from sidecar.proxy.resources import Resources

RESTART_S = 1.0  # pause before a failed task is started again
MOST_FAILURES, LIVED_S = 3, 60.0  # failures in a row: each within LIVED_S after the previous one
FIRST_KEYS_S = 5.0  # how long a reload waits for the keys of new issuers, so that their first requests do not wait

log = logging.getLogger("sidecar.live")


class ConfigurationFile:
    """The state of the configuration file. `loaded_at` is the Unix time at which the configuration in use was read, and
    `counted` are the counters at that time.

    `refused` is the changed file that was refused, None while the file is in use. `restart_needed` are changed keys that need a
    restart.
    """

    def __init__(self, now: float) -> None:
        self.path: Path | None = None
        self.loaded_at = now
        self.counted: Counted
        self.refused: Refused | None = None
        self.restart_needed: tuple[str, ...] = ()


class Refused(NamedTuple):
    """A file that was refused at a Unix time, with its problems; `text` is its text as far as it could be read."""

    at: float
    problems: list[Problem]
    text: str


class Live:
    """The current assembly, which a reload replaces; the counters that outlive it; and the background tasks.

    The health and admin listeners read it for each request. `listens`, `health` and `admin` are the URLs of the listeners.
    `failed` ends when a vital task fails repeatedly. Raises Unusable.
    """

    def __init__(self, config: Config, clock: Clock, source_of: SourceOf = key_source) -> None:
        self.deadlines = Deadlines(clock, tick_s=_tick_s(config.timeouts))
        self.resources = Resources()
        self._access_log = AccessLog(LINES["json"])
        self.telemetry = Telemetry(clock, self._log_as(config))
        self._access_log.counts = self.telemetry
        self.files: list[WatchedFile[Any]] = []
        self.assembly = Assembly(config, clock, self.deadlines, self.resources, self.telemetry, None, source_of)
        self.started_at = clock.wall()
        self.file = ConfigurationFile(self.started_at)
        self.listens = self.health = self.admin = ""
        self.history = History(self.telemetry, clock)
        self.file.counted = self.history.now()
        self.failed: asyncio.Future[None] | None = None
        self.drain = Drain(self.resources, self.history, clock)
        self._clock = clock
        self._source_of = source_of
        self._tasks: dict[object, asyncio.Task[None]] = {}
        self._sources: WeakSet[JwksSource] = WeakSet()

    async def prepare(self) -> None:
        """Read the deny list, without which revoked tokens would be accepted. Raises Unusable."""
        self.failed = asyncio.get_running_loop().create_future()
        await self.assembly.denylist.load()

    def begin(self) -> None:
        """Start the background tasks, such as fetches of keys."""
        self.background(self.deadlines.watch, "deadlines", vital=True)
        self.background(self.telemetry.watch_loop, "event loop lag")
        self.background(lambda: self.history.watch(lambda: self.assembly), "history")
        self._keep_fresh(self.assembly)

    def background(
        self, work: Callable[[], Coroutine[Any, Any, None]], owner: object, *, vital: bool = False
    ) -> "asyncio.Task[None]":
        """Run a task until the end or until its owner is no longer in use.

        A failed task is started again. `vital`: it would be unsafe to continue without the task, so the process ends after
        MOST_FAILURES failures in a row.
        """
        task = self._tasks[owner] = asyncio.create_task(self._again(work, str(owner), vital=vital), name=str(owner))
        return task

    async def _again(self, work: Callable[[], Coroutine[Any, Any, None]], name: str, *, vital: bool) -> None:
        failures = 0
        while True:
            began = self._clock.monotonic()
            try:
                await work()
            except Exception as error:  # noqa: BLE001  # a bug, which must not cause an outage
                self.telemetry.task_failures += 1
                failures = failures + 1 if self._clock.monotonic() - began < LIVED_S else 1
                log.error(
                    "event=task_failed task=%s %s do='Please report this line; the task is started again.'",
                    name,
                    fault(error),
                )
                if vital and failures == MOST_FAILURES and self.failed is not None and not self.failed.done():
                    self.failed.set_exception(error)
            await asyncio.sleep(RESTART_S)

    async def exchange(self, config: Config) -> None:
        """Use another configuration from the next request on. Raises Unusable, and changes nothing then.

        Keys, connections and operators' entries are kept if their settings have not changed.
        """
        old = self.assembly
        new = Assembly(config, self._clock, self.deadlines, self.resources, self.telemetry, old, self._source_of)
        await new.denylist.load()
        self._keep_fresh(new)
        if strange := {*new.sources.values()} - {*old.sources.values()}:
            await asyncio.wait([asyncio.create_task(source.fetch_now()) for source in strange], timeout=FIRST_KEYS_S)
        new.take_over(old)
        self.assembly = new
        self.deadlines.tick_s = _tick_s(config.timeouts)
        self.telemetry.access_log = self._log_as(config)
        for owner in {*old.kept_fresh} - {*new.kept_fresh}:
            self._tasks.pop(owner).cancel()
        for upstream in {*old.upstreams.values()} - {*new.upstreams.values()}:
            upstream.retire()

    def reloaded(self, restart_needed: tuple[str, ...], changed: str) -> None:
        """Record a successful reload; `restart_needed` are the keys that need a restart, `changed` the others that differ."""
        self.telemetry.reloaded("success")
        file = self.file
        file.loaded_at, file.refused, file.restart_needed = self._clock.wall(), None, restart_needed
        file.counted = self.history.now()
        text = f"the configuration {self.assembly.config.digest} is now in use; changed: {changed}"
        self.history.note("configuration", "", "note", text)

    def not_reloaded(self, problems: list[Problem], text: str) -> None:
        """Record a failed reload."""
        self.telemetry.reloaded("failure")
        self.file.refused = Refused(self._clock.wall(), problems, text)
        self.history.note("configuration", "", "bad", f"a changed configuration was refused: {problems[0]}")

    def _keep_fresh(self, assembly: Assembly) -> None:
        for owner in assembly.kept_fresh:
            if owner not in self._tasks:
                self.background(owner.keep_fresh, owner, vital=owner is assembly.denylist)
        self._sources.update(assembly.sources.values())

    async def stop(self, *, at_once: bool = False) -> None:
        """End everything. `at_once`: do not wait for spans to be sent."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for source in list(self._sources):
            await source.stop()
        await self.assembly.close(at_once=at_once)
        self._access_log.close()

    def _log_as(self, config: Config) -> AccessLog | None:
        if config.access_log == "off":
            return None
        self._access_log.line = LINES[config.access_log]
        self._access_log.one_of = config.access_log_sample
        return self._access_log


def _tick_s(timeouts: Timeouts) -> float:
    """Seconds between two checks of deadlines: one, or less for short timeouts."""
    shortest_s = min(timeouts.response_headers_s, timeouts.idle_s, timeouts.request_headers_s, timeouts.keep_alive_s)
    return min(1.0, shortest_s / 4)
