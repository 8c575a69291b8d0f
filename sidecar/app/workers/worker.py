"""A worker process: a data plane of its own, with the keys that the supervisor has fetched. It ends when that goes away."""

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from sidecar.app.builder.key_sources import key_source
from sidecar.app.data_plane import DataPlane
from sidecar.app.state import Live
from sidecar.app.workers.channel import (
    Channel,
    Count,
    Counted,
    Finish,
    Keys,
    Message,
    Refresh,
    Reply,
    Shared,
    Use,
)
from sidecar.common.clock import Clock
from sidecar.common.errors import Unusable
from sidecar.config import Issuer
from sidecar.jwt.jwks.cache import JwksSource
from sidecar.jwt.jwks.key_server import Session
from sidecar.jwt.jwks.key_set import FetchFailed, Jwks, KeySet

log = logging.getLogger("sidecar.worker")


class SharedSource(JwksSource):
    """An issuer's keys as the supervisor has them. Nothing is fetched here: for an unknown kid the supervisor is asked."""

    def __init__(self, issuer: Issuer, clock: Clock, ask: Callable[[Refresh], None]) -> None:
        super().__init__(issuer.name, _nothing, issuer.algorithms, clock)
        self._ask = ask
        self._answered = asyncio.Event()

    async def keep_fresh(self) -> None:
        """Nothing to do, for ever: keys come by themselves. The first requests wait for the first ones."""
        if self.jwks is None:
            self._start("scheduled")
        await asyncio.Event().wait()

    async def fetch_now(self) -> None:
        """What the supervisor has is here already."""

    def take(self, keys: Keys) -> None:
        """Go on with what the supervisor has now."""
        if keys.jwks is not None:
            # No bound and no refusal: the supervisor has more keys in a grace, or none for new `algorithms` during an outage.
            jwks = Jwks.of_members(keys.jwks, self.algorithms)
            if self.jwks is None or not jwks.same_as(self.jwks):
                self.jwks = jwks
                self._unknown.clear()
        self.trusted_until = keys.trusted_until
        self.fetched_at = keys.fetched_at
        self.next_fetch_at = keys.next_fetch_at
        self._forced_at = keys.forced_at
        self._failures = keys.failures
        self._answered.set()

    async def _refresh(self, trigger: str) -> None:
        self._answered.clear()
        if trigger == "forced":
            self._ask(Refresh(self.name))
        try:
            await self._answered.wait()
        finally:
            self._flight = None


async def _nothing() -> KeySet:
    raise FetchFailed("a worker fetches no keys")


class Worker:
    """Does what the supervisor says. `ended` ends when there is nothing left to do."""

    def __init__(self, clock: Clock) -> None:
        self.ended = asyncio.Event()
        self._clock = clock
        self._channel: Channel | None = None
        self._live: Live | None = None
        self._plane: DataPlane | None = None
        self._keys: dict[str, Keys] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def work(self, end: socket.socket) -> None:
        """Be a worker until the supervisor says that it is enough, or has gone."""
        self._channel = await Channel.over(end, self._received)
        self._channel.closed.add_done_callback(lambda _: self.ended.set())
        await self.ended.wait()
        for task in self._tasks:
            task.cancel()
        if self._plane is not None:
            await self._plane.stop()
        if self._live is not None:
            await self._live.stop()
        self._channel.close()

    def _received(self, message: Message) -> None:
        match message:
            case Keys():
                self._keys[message.issuer] = message
                self._take(message)
            case Use():
                self._keys = {keys.issuer: keys for keys in message.keys}
                self._begin(self._use(message))
            case Shared():
                self._share(message)
                self._say(Reply())
            case Count():
                self._say(Reply(counted=self._counted()))
            case Finish():
                self._begin(self._finish())
            case _:
                raise ValueError(f"no message for a worker: {type(message).__name__}")

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _say(self, message: Message) -> None:
        assert self._channel is not None
        self._channel.send(message)

    async def _use(self, message: Use) -> None:
        config = message.configuration()
        try:
            if self._live is None:
                self._live = Live(config, self._clock, self._source)
                await self._live.prepare()
                self._live.begin()
                assert self._live.failed is not None
                self._live.failed.add_done_callback(self._failed)
                self._plane = DataPlane(self._live, self._clock)
                self._share(message.shared)
                await self._plane.listen(message.addresses)
            else:
                assert self._plane is not None
                await self._live.exchange(config)
                self._share(message.shared)
                await self._plane.use(self._live.assembly)
        except Unusable as error:
            self._say(Reply(why=str(error)))
        else:
            self._say(Reply())

    def _source(self, issuer: Issuer, clock: Clock, session: Session, snapshot_dir: Path | None) -> JwksSource:
        if not issuer.fetched_once:
            return key_source(issuer, clock, session, snapshot_dir)
        source = SharedSource(issuer, clock, self._say)
        if issuer.name in self._keys:
            source.take(self._keys[issuer.name])
        return source

    def _take(self, keys: Keys) -> None:
        source = None if self._live is None else self._live.assembly.sources.get(keys.issuer)
        if isinstance(source, SharedSource):
            source.take(keys)

    def _share(self, shared: Shared) -> None:
        assert self._live is not None
        self._live.assembly.denylist.have_added(shared.denied)
        if shared.draining:
            self._live.drain()
        else:
            self._live.undrain()

    def _counted(self) -> Counted:
        assert self._live is not None
        telemetry, verifier = self._live.telemetry, self._live.assembly.handler.verifier
        return Counted(
            telemetry.counts(),
            verifier.cache,
            {name: source.suppressed for name, source in self._live.assembly.sources.items()},
            telemetry.refusals.total,
            telemetry.refusals.plain(),
        )

    async def _finish(self) -> None:
        assert self._plane is not None
        await self._plane.finish()
        self._say(Reply(counted=self._counted()))
        self.ended.set()

    def _failed(self, failed: "asyncio.Future[None]") -> None:
        log.error("event=bug type=%s do='Another worker takes its place; please report it.'", type(failed.exception()))
        self.ended.set()
