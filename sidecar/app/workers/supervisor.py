"""Starts a worker for each place, checks that each is alive, and replaces workers that died or do not answer.

Each worker does everything else itself. The supervisor keeps the operators' changes, so that a later worker has them before it
serves.
"""

import asyncio
import json
import logging
from contextlib import suppress
from typing import Any, NamedTuple

import aiohttp

from sidecar.app.server import CannotStart
from sidecar.app.workers.fork import ForkServer, Gone, Process
from sidecar.app.workers.metrics import Counted
from sidecar.app.workers.worker import CONFIGURATION, FINISH, Begin
from sidecar.common.clock import Clock
from sidecar.config import Config
from sidecar.jwt.denylist import MAX_ADDED, Entry

BEGIN_S = 30.0  # for a worker to start
ALIVE_S = 5.0  # for an answer of a worker; a slower one is replaced
ASK_EVERY_S = 1.0
ANSWER_S = 60.0  # for operators' requests; a stuck worker ends sooner
PAUSE_S = 1.0  # pause after a worker could not start or lived shorter than LIVED_S
LIVED_S = 10.0
NO_FORKER = "the process that makes workers has ended"

log = logging.getLogger("sidecar.workers")


class Silent(Exception):
    """A worker does not answer."""


class Answer(NamedTuple):
    """The answer of a worker."""

    status: int
    headers: dict[str, str]
    body: bytes


class Worker:
    """A worker, as the supervisor sees it."""

    def __init__(self, place: int, process: Process, control: str) -> None:
        self.place = place
        self.process = process
        self._session = aiohttp.ClientSession("http://localhost", connector=aiohttp.UnixConnector(path=control))

    async def ask(self, method: str, path: str, body: bytes | None = None, within_s: float = ANSWER_S) -> Answer:
        """Send a request to the worker. Raises Silent."""
        try:
            async with (
                asyncio.timeout(within_s),
                self._session.request(
                    method, path, data=body, headers={"Content-Type": "application/json"}, allow_redirects=False
                ) as answer,
            ):
                return Answer(answer.status, dict(answer.headers), await answer.read())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Silent from error

    async def answer(self, path: str, within_s: float) -> Answer | None:
        """The same to a GET; None as soon as its process has ended."""
        asked = asyncio.create_task(self.ask("GET", path, within_s=within_s))
        either: set[asyncio.Future[Any]] = {asked, self.process.ended}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return None if self.process.ended.done() else await asked
        finally:
            asked.cancel()

    async def close(self) -> None:
        """Close the client of this worker."""
        await self._session.close()


class Supervisor:
    """Keeps a worker in each place. `controls` are the names of their sockets. `failed` ends when no worker can be replaced.

    `workers` are the serving ones. `denied` and `draining_since` are the operators' changes; `denied` changes only while no
    worker starts (`changing`).
    """

    def __init__(self, config: Config, fork_server: ForkServer, controls: list[str]) -> None:
        self.workers: list[Worker] = []
        self.places = len(controls)
        self.counted = Counted()
        self.changing = asyncio.Lock()
        self.denied: dict[tuple[str, ...], Entry] = {}
        self.draining_since: float | None = None
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._clock = Clock()
        self._fork_server = fork_server
        self._controls = controls
        self._ending = False
        self._digest = config.digest
        self._text: str | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start all workers. Raises CannotStart."""
        await self._fork_server.begin()
        self._fork_server.gone.add_done_callback(self._forker_gone)
        try:
            first = await self._begin(0)  # alone: the others would fail for the same reason
            if first is None:
                raise CannotStart("no worker could start; the line above says why")
            others = await asyncio.gather(*(self._begin(place) for place in range(1, self.places)))
        except Gone:
            raise CannotStart(NO_FORKER) from None
        for place, worker in enumerate([first, *others]):
            self._tasks.add(asyncio.create_task(self._keep(place, worker)))

    def _forker_gone(self, *_: object) -> None:
        if not self._ending and not self.failed.done():
            log.error("event=forker_died do='Start the sidecar again; it ends, since it could not replace workers.'")
            self.failed.set_exception(CannotStart(NO_FORKER))

    async def _begin(self, place: int) -> Worker | None:
        """Start a worker; None if it failed, which it has logged. Raises Gone."""
        for answer in (await self.ask_all("GET", f"{CONFIGURATION}?but={self._digest}", within_s=ASK_EVERY_S)).values():
            self._learn(answer)
        denied = [entry for entry in self.denied.values() if entry.until > self._clock.wall()]
        since = self.draining_since
        process = await self._fork_server.fork(Begin(place, self._text, denied, since))
        worker = Worker(place, process, self._controls[place])
        with suppress(Silent):
            if await worker.answer("/livez", BEGIN_S) is not None:
                self.workers.append(worker)
                if since is None and self.draining_since is not None:
                    await worker.ask("POST", "/drain", within_s=ALIVE_S)
                self.counted.workers = len(self.workers)
                return worker
        await self._end(worker)
        return None

    async def _end(self, worker: Worker) -> None:
        if worker in self.workers:
            self.workers.remove(worker)
        self.counted.workers = len(self.workers)
        self.counted.lost(worker.process.pid)
        self._fork_server.kill(worker.process)
        await worker.close()
        await asyncio.wait({worker.process.ended}, timeout=BEGIN_S)

    async def _keep(self, place: int, worker: Worker | None) -> None:
        """Until cancelled: keep a worker in this place, and replace it when it ends."""
        loop = asyncio.get_running_loop()
        while not self._ending:
            began = loop.time()
            if worker is not None:
                why = await self._until_lost(worker)
                await self._end(worker)
                if self._ending:
                    return
                self.counted.replaced[why] += 1
                do = "Check the memory limit if this repeats; the worker is replaced."
                log.error("event=worker_%s worker=%d pid=%d do=%r", why, place + 1, worker.process.pid, do)
            if loop.time() - began < LIVED_S:
                await asyncio.sleep(PAUSE_S)
            async with self.changing:
                try:
                    worker = await self._begin(place)
                except Gone:
                    self._forker_gone()
                    return
            if worker is not None:
                log.info("event=worker_replaced worker=%d pid=%d", place + 1, worker.process.pid)

    async def _until_lost(self, worker: Worker) -> str:
        """Check the worker repeatedly; returns `died`, or `silent` if it does not answer in time."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.wait({worker.process.ended}, timeout=ASK_EVERY_S)
            self._fork_server.go_on()
            asked = loop.time()
            try:
                answer = await worker.answer(f"{CONFIGURATION}?but={self._digest}", ALIVE_S)
            except Silent as silent:
                late = loop.time() - asked > 1.5 * ALIVE_S  # this process did not run either: the container was paused
                if isinstance(silent.__cause__, TimeoutError) and not late:
                    return "silent"
                continue  # it is ending, or the supervisor has no descriptor left, which is not the worker's fault
            if answer is None:
                return "died"
            self._learn(answer)

    def _learn(self, answer: Answer | None) -> None:
        """Keep the configuration that a worker uses, for later workers."""
        if answer is not None and answer.status == 200:
            told = json.loads(answer.body)
            self._digest, self._text = told["digest"], told["text"]

    def keep_denied(self, entry: Entry) -> None:
        """Keep an operator's entry of the deny list for later workers."""
        if len(self.denied) >= MAX_ADDED:
            now = self._clock.wall()
            self.denied = {about: kept for about, kept in self.denied.items() if kept.until > now}
        self.denied.pop(entry.about, None)  # the later of two entries counts in a later worker too, so it comes last
        self.denied[entry.about] = entry

    async def ask_all(
        self, method: str, path: str, body: bytes | None = None, within_s: float = ANSWER_S
    ) -> dict[int, Answer | None]:
        """Place -> the worker's answer; None if it does not answer."""

        async def ask(worker: Worker) -> tuple[int, Answer | None]:
            try:
                return worker.place, await worker.ask(method, path, body, within_s)
            except Silent:
                return worker.place, None

        return dict(await asyncio.gather(*map(ask, self.workers)))

    async def drain(self) -> None:
        """Let every worker drain, and end."""
        self._ending = True
        self.begin_to_drain()
        await self.ask_all("POST", FINISH)
        await asyncio.gather(*self._tasks)

    def begin_to_drain(self) -> None:
        """Keep for later workers that the sidecar drains."""
        if self.draining_since is None:
            self.draining_since = self._clock.monotonic()

    async def stop(self) -> None:
        """End all at once."""
        self._ending = True
        for task in self._tasks:
            task.cancel()
        self._fork_server.close()
        for worker in self.workers:
            await worker.close()
