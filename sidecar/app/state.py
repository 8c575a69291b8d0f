"""What runs behind the listeners, over time: the assembly in use, and what outlives it when a reload exchanges it."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakSet

from sidecar.app.builder.assembly import Assembly, SourceOf
from sidecar.app.builder.key_sources import key_source
from sidecar.app.history import Counted, History
from sidecar.common.clock import Clock
from sidecar.common.deadlines import Deadlines
from sidecar.common.errors import fault
from sidecar.common.tls import Renewed
from sidecar.config import Config, Problem, Timeouts
from sidecar.jwt.jwks.cache import JwksSource
from sidecar.observability.access_lines import LINES
from sidecar.observability.access_log import AccessLog
from sidecar.observability.telemetry import Telemetry
from sidecar.proxy.resources import Resources

RESTART_S = 1.0  # before work that has failed is begun again
MOST_FAILURES, LIVED_S = 3, 60.0  # so many failures, each sooner than that after the one before, are in a row
FIRST_KEYS_S = 5.0  # a reload waits so long for the keys of new issuers, so that their first requests need not

log = logging.getLogger("sidecar.live")


class ConfigurationFile:
    """What became of the configuration's file: `loaded_at` is when what is in use was read, as a Unix time, and `counted` what
    had been counted by then.

    `refused` is the file that was not taken into use the last time, None while what it holds is in use. `restart_needed` are
    keys of the file in use that have changed and wait for a restart.
    """

    def __init__(self, now: float) -> None:
        self.path: Path | None = None
        self.loaded_at = now
        self.counted: Counted
        self.refused: Refused | None = None
        self.restart_needed: tuple[str, ...] = ()


class Refused(NamedTuple):
    """A file that was not taken into use at a Unix time, for these problems; `text` is what could be read of it."""

    at: float
    problems: list[Problem]
    text: str


class Live:
    """The assembly in use now, which a reload exchanges whole; the counts that outlive it; and the work in the background.

    Whoever answers operators holds a Live, and reads it anew each time it is asked. `listens`, `health` and `admin` are the URLs
    of the listeners. `failed` ends when work that is vital fails again and again. Raises Unusable.
    """

    def __init__(self, config: Config, clock: Clock, source_of: SourceOf = key_source) -> None:
        self.deadlines = Deadlines(clock, tick_s=_tick_s(config.timeouts))
        self.resources = Resources()
        self._access_log = AccessLog(LINES["json"])
        self.telemetry = Telemetry(clock, self._log_as(config))
        self._access_log.counts = self.telemetry
        self.certificates: list[Renewed] = []
        self.assembly = Assembly(config, clock, self.deadlines, self.resources, self.telemetry, None, source_of)
        self.started_at = clock.wall()
        self.file = ConfigurationFile(self.started_at)
        self.listens = self.health = self.admin = ""
        self.history = History(self.telemetry, clock)
        self.file.counted = self.history.now()
        self.failed: asyncio.Future[None] | None = None
        self.draining_since: float | None = None
        self.stopping = False
        self._clock = clock
        self._source_of = source_of
        self._tasks: dict[object, asyncio.Task[None]] = {}
        self._sources: WeakSet[JwksSource] = WeakSet()

    async def prepare(self) -> None:
        """Read the deny list, without which what was taken back would be accepted. Raises Unusable."""
        self.failed = asyncio.get_running_loop().create_future()
        await self.assembly.denylist.load()

    def begin(self) -> None:
        """Fetch keys, and do all else that is done in the background."""
        self.background(self.deadlines.watch, "deadlines", vital=True)
        self.background(self.telemetry.watch_loop, "event loop lag")
        self.background(lambda: self.history.watch(lambda: self.assembly), "history")
        self._keep_fresh(self.assembly)

    def background(
        self, work: Callable[[], Coroutine[Any, Any, None]], owner: object, *, vital: bool = False
    ) -> "asyncio.Task[None]":
        """Do work that runs for ever, until the end or until its owner is not needed any more.

        It is begun again when it fails. `vital`: without it going on would be unsafe, so the process ends when it fails
        MOST_FAILURES times in a row.
        """
        task = self._tasks[owner] = asyncio.create_task(self._again(work, str(owner), vital=vital), name=str(owner))
        return task

    async def _again(self, work: Callable[[], Coroutine[Any, Any, None]], name: str, *, vital: bool) -> None:
        failures = 0
        while True:
            began = self._clock.monotonic()
            try:
                await work()
            except Exception as error:  # noqa: BLE001  # a bug, which must not grow into an outage
                self.telemetry.task_failures += 1
                failures = failures + 1 if self._clock.monotonic() - began < LIVED_S else 1
                log.error(
                    "event=task_failed task=%s %s do='It is begun again; please report it with this line.'",
                    name,
                    fault(error),
                )
                if vital and failures == MOST_FAILURES and self.failed is not None and not self.failed.done():
                    self.failed.set_exception(error)
            await asyncio.sleep(RESTART_S)

    def drain(self, since: float | None = None) -> None:
        """From now on and for good readiness says no, and each answer is the last one of its connection.

        `since`: others have drained since this monotonic time already.
        """
        if self.draining_since is None:
            self.draining_since = self._clock.monotonic() if since is None else since
            self.resources.draining = True
            self.history.note("draining", "sidecar", "warn", "the sidecar began to drain")
            log.info("event=draining")

    def undrain(self) -> bool:
        """Take a drain back. Not once the process is ending: then it says no."""
        if self.stopping:
            return False
        if self.draining_since is not None:
            self.draining_since = None
            self.resources.draining = False
            self.history.note("draining", "sidecar", "good", "the sidecar drains no more")
            log.info("event=not_draining")
        return True

    async def exchange(self, config: Config) -> None:
        """Go on with another configuration, from one request to the next. Raises Unusable: then nothing has changed.

        Keys, connections and what operators added are carried over where their settings did not change.
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

    def reloaded(self, restart_needed: tuple[str, ...]) -> None:
        """The file was read again, and what it holds is in use, but for keys that need a restart."""
        self.telemetry.reloaded("success")
        file = self.file
        file.loaded_at, file.refused, file.restart_needed = self._clock.wall(), None, restart_needed
        file.counted = self.history.now()
        self.history.note(
            "configuration", "", "note", f"the configuration {self.assembly.config.digest} was taken into use"
        )

    def not_reloaded(self, problems: list[Problem], text: str) -> None:
        """The file was read again and refused."""
        self.telemetry.reloaded("failure")
        self.file.refused = Refused(self._clock.wall(), problems, text)
        self.history.note("configuration", "", "bad", f"a changed configuration was refused: {problems[0]}")

    def _keep_fresh(self, assembly: Assembly) -> None:
        for owner in assembly.kept_fresh:
            if owner not in self._tasks:
                self.background(owner.keep_fresh, owner, vital=owner is assembly.denylist)
        self._sources.update(assembly.sources.values())

    async def stop(self, *, at_once: bool = False) -> None:
        """End everything; `at_once` also where spans wait to be sent."""
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
    """How often to look at deadlines: a second, or more often where a timeout is so short that a second would matter."""
    shortest_s = min(timeouts.response_headers_s, timeouts.idle_s, timeouts.request_headers_s, timeouts.keep_alive_s)
    return min(1.0, shortest_s / 4)
