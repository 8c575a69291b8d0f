"""What runs behind the listeners, over time: the assembly in use, and what outlives it when a reload exchanges it."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any
from weakref import WeakSet

from sidecar.app.builder.assembly import Assembly, SourceOf
from sidecar.app.builder.key_sources import key_source
from sidecar.common.clock import Clock
from sidecar.common.deadlines import Deadlines
from sidecar.config import Config, Timeouts
from sidecar.jwt.jwks.cache import JwksSource
from sidecar.jwt.verifier import TokenCache
from sidecar.observability.access_log import LINES, AccessLog
from sidecar.observability.telemetry import Telemetry
from sidecar.proxy.resources import Resources

FIRST_KEYS_S = 5.0  # a reload waits so long for the keys of new issuers, so that their first requests need not

log = logging.getLogger("sidecar.live")


class Live:
    """The assembly in use now, which a reload exchanges whole; the counts that outlive it; and the work in the background.

    Whoever answers operators holds a Live, and reads it anew each time it is asked. `failed` ends when work that runs for ever
    has ended: a bug, with which the sidecar would slowly go wrong. Raises Unusable.
    """

    def __init__(self, config: Config, clock: Clock, source_of: SourceOf = key_source) -> None:
        self.deadlines = Deadlines(clock, tick_s=_tick_s(config.timeouts))
        self.resources = Resources()
        self._access_log = AccessLog(LINES["json"])
        self.telemetry = Telemetry(clock, self._log_as(config.access_log))
        self.assembly = Assembly(config, clock, self.deadlines, self.resources, self.telemetry, None, source_of)
        self.failed: asyncio.Future[None] | None = None
        self.draining_since: float | None = None
        self.cache_of_workers: TokenCache | None = None
        self._clock = clock
        self._source_of = source_of
        self._tasks: dict[object, asyncio.Task[None]] = {}
        self._sources: WeakSet[JwksSource] = WeakSet()

    @property
    def token_cache(self) -> TokenCache:
        """How remembering tokens goes, here or in all workers."""
        return self.cache_of_workers or self.assembly.handler.verifier.cache

    async def prepare(self) -> None:
        """Read the deny list, without which what was taken back would be accepted. Raises Unusable."""
        self.failed = asyncio.get_running_loop().create_future()
        await self.assembly.denylist.load()

    def begin(self) -> None:
        """Fetch keys, and do all else that is done in the background."""
        self.background(self.deadlines.watch(), "deadlines")
        self.background(self.telemetry.watch_loop(), "event loop lag")
        self._keep_fresh(self.assembly)

    def background(self, work: Coroutine[Any, Any, None], owner: object) -> None:
        """Do work that runs for ever, until the end or until its owner is not needed any more."""
        task = self._tasks[owner] = asyncio.create_task(work, name=str(owner))
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and self.failed is not None and not self.failed.done():
            self.failed.set_exception(task.exception() or RuntimeError(f"{task.get_name()} ended"))

    def drain(self) -> None:
        """From now on and for good readiness says no, and each answer is the last one of its connection."""
        if self.draining_since is None:
            self.draining_since = self._clock.monotonic()
            self.telemetry.draining = True
            log.info("event=draining")

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
        self.telemetry.access_log = self._log_as(config.access_log)
        for owner in {*old.kept_fresh} - {*new.kept_fresh}:
            self._tasks.pop(owner).cancel()
        for upstream in {*old.upstreams.values()} - {*new.upstreams.values()}:
            upstream.retire()

    def _keep_fresh(self, assembly: Assembly) -> None:
        for owner in assembly.kept_fresh:
            if owner not in self._tasks:
                self.background(owner.keep_fresh(), owner)
        self._sources.update(assembly.sources.values())

    async def stop(self) -> None:
        """End everything at once."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for source in list(self._sources):
            await source.stop()
        await self.assembly.close()
        self._access_log.close()

    def _log_as(self, form: str) -> AccessLog | None:
        if form == "off":
            return None
        self._access_log.line = LINES[form]
        return self._access_log


def _tick_s(timeouts: Timeouts) -> float:
    """How often to look at deadlines: a second, or more often where a timeout is so short that a second would matter."""
    shortest_s = min(timeouts.response_headers_s, timeouts.idle_s, timeouts.request_headers_s, timeouts.keep_alive_s)
    return min(1.0, shortest_s / 4)
