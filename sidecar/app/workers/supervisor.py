"""Several processes that serve clients at one port, in place of one data plane; this one supervises them.

The kernel deals new connections out among their sockets (SO_REUSEPORT). All that must happen once happens here: keys are fetched
and told to every worker, the file is watched, operators are answered for all of them. A worker that dies is replaced, and takes
with it only its own connections: those that it served, and those that waited to be accepted by it.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from aiohttp import web

from sidecar.app.builder.assembly import Assembly
from sidecar.app.sockets import bound, reserved_sockets
from sidecar.app.state import Live
from sidecar.app.workers.channel import Channel, Count, Counted, Finish, Keys, Message, Refresh, Reply, Shared, Use
from sidecar.app.workers.fork import Forker
from sidecar.common.errors import Reason, Unusable
from sidecar.config import Address
from sidecar.jwt.jwks.cache import JwksSource
from sidecar.jwt.verifier import TokenCacheUse
from sidecar.observability.counters import BUCKETS_S, Counts, total
from sidecar.observability.rejection_log import KEPT

BEGIN_S = 30.0  # for a worker to serve by a configuration
REPLY_S = 5.0  # a worker that says nothing for so long is busy or stuck; nobody waits longer for it
MOST_BYTES = 8 * 1024 * 1024  # of a message of a worker: far above what the counts of a thousand routes need
LIVED_S = 10.0  # one that lived shorter is not replaced at once, or a bug would become a storm
PAUSE_S = 1.0
PROBES = ("/livez", "/startupz", "/readyz", "/probe/")

log = logging.getLogger("sidecar.workers")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gone(Exception):
    """The worker has ended, or does not answer."""


class _Worker:
    """One worker, seen from here. `counted` is what it said the last time that it was asked."""

    def __init__(self, refresh: Callable[["_Worker", str], None]) -> None:
        self.channel: Channel
        self.counted: Counted | None = None
        self.serving = False
        self._refresh = refresh
        self._reply: asyncio.Future[Reply] | None = None
        self._given_up = 0  # replies that may still come, and that nobody waits for
        self._turn = asyncio.Lock()

    def received(self, message: Message) -> None:
        """A worker has said this. Raises ValueError for what no worker says."""
        match message:
            case Refresh():
                self._refresh(self, message.issuer)
            case Reply():
                if message.counted is not None:
                    self.counted = _checked(message.counted)
                if self._given_up:
                    self._given_up -= 1
                elif self._reply is not None and not self._reply.done():
                    self._reply.set_result(message)
            case _:
                raise ValueError(f"no message of a worker: {type(message).__name__}")

    async def ask(self, message: Message, within_s: float = REPLY_S) -> Reply:
        """Its reply. Raises Gone."""
        async with self._turn:
            reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
            self._reply = reply
            self.channel.send(message)
            either: set[asyncio.Future[Any]] = {reply, self.channel.closed}
            await asyncio.wait(either, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
            self._reply = None
            if not reply.done():
                self._given_up += 1
                raise Gone
            return reply.result()


class Workers:
    """Serves clients by so many processes that `forker` makes. Its methods are those of a DataPlane."""

    def __init__(self, live: Live, forker: Forker, number: int) -> None:
        self._live = live
        self._forker = forker
        self._number = number
        self._workers: set[_Worker] = set()
        self._gone = Counted(Counts(), TokenCacheUse(), {}, 0, [])
        self._shared = self._to_share()
        self._sharing = asyncio.Lock()
        self._reserved: list[socket.socket] = []
        self._ending = False

    async def listen(self) -> list[Address]:
        """Begin all workers; where they accept connections. Raises Unusable."""
        self._live.telemetry.workers = 0
        # They hold the ports without listening, so that workers come and go.
        self._reserved = await asyncio.to_thread(reserved_sockets, "listen", self._live.assembly.config.listen)
        self._follow(self._live.assembly)
        for worker in await asyncio.gather(*(self._begin() for _ in range(self._number))):
            self._live.background(self._keep(worker), f"worker {id(worker)}")
        return bound(self._reserved)

    async def _begin(self) -> _Worker:
        """A worker that serves. Raises Unusable."""
        worker = _Worker(self._refresh)
        worker.channel = await Channel.over(self._forker.fork(), worker.received, MOST_BYTES)
        self._workers.add(worker)  # from now on it is told what is new, and what it begins with is what is now
        assembly = shared = None
        while assembly is not self._live.assembly or shared != self._shared:  # they may change while it begins
            assembly, shared = self._live.assembly, self._shared
            try:
                reply = await worker.ask(self._use(assembly), within_s=BEGIN_S)
            except Gone:
                reply = Reply(why="a worker has ended, or did not begin; the log has more")
            if reply.why is not None:
                self._lose(worker)
                raise Unusable(reply.why)
        worker.serving = True
        self._live.telemetry.workers += 1
        return worker

    async def _keep(self, worker: _Worker) -> None:
        """For ever: replace a worker that has died."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await asyncio.shield(worker.channel.closed)
            self._lose(worker)
            if self._ending:
                await asyncio.Event().wait()
            log.error("event=worker_died do='It is replaced; if it comes again, look at the memory limit.'")
            if loop.time() - began < LIVED_S:
                await asyncio.sleep(PAUSE_S)
            worker = await self._another()
            log.info("event=worker_replaced")

    async def _another(self) -> _Worker:
        while True:
            try:
                return await self._begin()
            except Unusable as error:
                log.error("event=worker_not_replaced why=%r do='It is tried again; mend what it names.'", str(error))
                await asyncio.sleep(PAUSE_S)

    def _lose(self, worker: _Worker) -> None:
        worker.channel.close()
        self._workers.discard(worker)
        self._live.telemetry.workers -= worker.serving
        worker.serving = False
        if worker.counted is not None:
            self._gone = _without_what_is_now(_sum([self._gone, worker.counted]))

    # Keys

    def _follow(self, assembly: Assembly) -> None:
        for name, source in assembly.sources.items():
            if assembly.config.issuers[name].fetched_once:
                source.on_landed = partial(self._landed, source)

    def _landed(self, source: JwksSource) -> None:
        if self._live.assembly.sources.get(source.name) is source:  # not one that a reload has replaced meanwhile
            self._tell(keys_of(source))

    def _tell(self, message: Message) -> None:
        for worker in self._workers:
            worker.channel.send(message)

    def _refresh(self, worker: _Worker, issuer: str) -> None:
        """A token of this issuer names a key that is not known. All workers together may ask as often as one."""
        source = self._live.assembly.sources.get(issuer)
        if source is not None and source.refresh() is None:
            worker.channel.send(keys_of(source))

    # Configuration, and what operators do

    def _use(self, assembly: Assembly) -> Use:
        keys = [
            keys_of(source) for name, source in assembly.sources.items() if assembly.config.issuers[name].fetched_once
        ]
        return Use.of(assembly.config, keys, self._to_share(), bound(self._reserved))

    async def use(self, assembly: Assembly) -> None:
        """Let every worker serve by another assembly. One that cannot is replaced."""
        self._follow(assembly)
        for worker, reply in await self._ask_all(self._use(assembly), BEGIN_S):
            if reply is None or reply.why is not None:
                log.error("event=worker_not_reloaded why=%r do='It is replaced.'", reply and reply.why)
                worker.channel.close()

    def _to_share(self) -> Shared:
        return Shared(self._live.telemetry.draining, list(self._live.assembly.denylist.added()))

    async def share(self) -> None:
        """Tell all workers what operators have done, if that has changed. Once it ends, none serves that does not know it."""
        async with self._sharing:  # also who finds nothing new waits until all have heard of it
            shared = self._to_share()
            if shared != self._shared:
                self._shared = shared
                for worker, reply in await self._ask_all(shared):
                    if reply is None:
                        log.error("event=worker_not_told do='It is replaced.'")
                        worker.channel.close()

    async def collect(self) -> None:
        """Bring the counts up to date: the sum of all workers, and of what those had counted that have ended."""
        await self._ask_all(Count())
        counted = _sum([self._gone, *(worker.counted for worker in self._workers if worker.counted is not None)])
        telemetry = self._live.telemetry
        telemetry.become(counted.counts)
        telemetry.refusals.become(counted.refused, counted.refusals)
        self._live.cache_of_workers = counted.cache
        for name, source in self._live.assembly.sources.items():
            source.suppressed = counted.suppressed.get(name, 0)

    async def _ask_all(self, message: Message, within_s: float = REPLY_S) -> list[tuple[_Worker, Reply | None]]:
        async def ask(worker: _Worker) -> tuple[_Worker, Reply | None]:
            try:
                return worker, await worker.ask(message, within_s)
            except Gone:
                return worker, None

        return await asyncio.gather(*(ask(worker) for worker in self._workers if worker.serving))

    @web.middleware
    async def for_all(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Around an answer to operators: what all workers have counted before, what was changed told to all after."""
        if not request.path.startswith(PROBES):
            await self.collect()
        response = await handler(request)
        await self.share()
        return response

    # The end

    async def finish(self) -> None:
        """Let every worker accept no more, finish what is in flight, and end."""
        self._ending = True
        ends = [worker.channel.closed for worker in self._workers]
        self._tell(Finish())
        if ends:
            await asyncio.wait(ends, timeout=self._live.assembly.config.timeouts.shutdown_s + REPLY_S)

    async def stop(self) -> None:
        """End every worker at once: it does when nobody is there any more to tell it anything."""
        self._ending = True
        for worker in list(self._workers):
            worker.channel.close()
        self._forker.close()
        for reserved in self._reserved:
            reserved.close()


def keys_of(source: JwksSource) -> Keys:
    """What a source has now."""
    return Keys(
        source.name,
        None if source.jwks is None else [key.jwk() for key in source.jwks.keys],
        source.trusted_until,
        source.fetched_at,
        source.next_fetch_at,
        source._forced_at,
        source._failures,
    )


def _sum(all_counted: list[Counted]) -> Counted:
    suppressed = [counted.suppressed for counted in all_counted]
    caches = [counted.cache for counted in all_counted]
    return Counted(
        total([counted.counts for counted in all_counted]),
        TokenCacheUse(*map(sum, zip(*caches, strict=True))),
        {name: sum(one.get(name, 0) for one in suppressed) for name in set().union(*suppressed)},
        sum(counted.refused for counted in all_counted),
        sorted((one for counted in all_counted for one in counted.refusals), key=lambda one: one[0])[-KEPT:],
    )


def _checked(counted: Counted) -> Counted:
    """What a worker has counted, if it can be added to anybody's. Raises ValueError."""
    known = Counts()
    of_routes = (*counted.counts.durations.values(), *counted.counts.upstream_durations.values())
    for own, bounds in (
        *((histogram, BUCKETS_S) for histogram in of_routes),
        (counted.counts.overhead, known.overhead.bounds),
        (counted.counts.loop_lag, known.loop_lag.bounds),
    ):
        if own.bounds != bounds or len(own.counts) != len(bounds) + 1:
            raise ValueError("a histogram of other buckets")
    if len(counted.refusals) > KEPT or not Reason.__members__.keys() >= {refusal[8] for refusal in counted.refusals}:
        raise ValueError("refusals that cannot be")
    return counted


def _without_what_is_now(counted: Counted) -> Counted:
    """What stays of a worker that has gone."""
    counted.counts.connections = counted.counts.requests_in_flight = 0
    counted.cache = counted.cache._replace(entries=0)
    return counted
