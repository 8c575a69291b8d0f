"""Both ends of the channel, each with a scripted other end: the keys that a worker is told, and what a new worker is told."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from sidecar.app.health import Health
from sidecar.app.state import Live
from sidecar.app.workers.channel import Channel, Count, Counted, Finish, Keys, Message, Refresh, Reply, Use
from sidecar.app.workers.fork import Forker
from sidecar.app.workers.supervisor import Gone, Workers, _Worker
from sidecar.app.workers.worker import SharedSource
from sidecar.common.errors import Reason, Rejection, Unusable
from sidecar.common.histogram import Histogram
from sidecar.config import Config, parse
from sidecar.jwt.jwks.key_set import MAX_KEYS
from sidecar.jwt.verifier import TokenCacheUse
from sidecar.observability.counters import Counts
from tests.peers import patience
from tests.peers.clock import HandClock
from tests.peers.tokens import kid, public_jwk
from tests.peers.waiting import keys_for

ALG = "EdDSA"


def config(routes: str = "[]", issuer: str = "http://127.0.0.1:1") -> Config:
    return parse(
        f"issuers: {{main: {{issuer: '{issuer}', audiences: any, required: false}}}}\n"
        f"upstream: 'http://127.0.0.1:1'\nlisten: '127.0.0.1:0'\naccess_log: 'off'\nworkers: 2\nroutes: {routes}"
    )


# Keys in a worker


class Source(SharedSource):
    """What it asks the supervisor is in `asked`."""

    def __init__(self, clock: HandClock) -> None:
        self.asked: list[Refresh] = []
        super().__init__(config().issuers["main"], clock, self.asked.append)
        self.clock = clock

    def told(self, *names: str, forced_ago_s: float = 1e9, trusted_for_s: float = 100.0, failures: int = 0) -> None:
        """The supervisor tells of the keys of these names, or that there are none."""
        now = self.clock.monotonic()
        jwks = [public_jwk(ALG, name) for name in names] or None
        self.take(Keys("main", jwks, now + trusted_for_s, now, now + 10, now - forced_ago_s, failures))

    async def key(self, name: str) -> str:
        """`found`, or the code of the refusal."""
        try:
            await keys_for(self, kid(ALG, name), ALG)
        except Rejection as rejection:
            return rejection.reason.code
        return "found"


@pytest.fixture
async def source() -> AsyncIterator[Source]:
    source = Source(HandClock())
    fresh = asyncio.create_task(source.keep_fresh())
    await turns()
    yield source
    fresh.cancel()
    await source.stop()


async def turns() -> None:
    """Let everybody go on who can."""
    for _ in range(5):
        await asyncio.sleep(0)


UNKNOWN, UNAVAILABLE = Reason.KEY_UNKNOWN.code, Reason.JWKS_UNAVAILABLE.code


@pytest.mark.parametrize(("names", "expected"), [(("a",), "found"), ((), UNAVAILABLE)])
async def test_the_first_requests_wait_for_what_the_supervisor_has(
    source: Source, names: tuple[str, ...], expected: str
) -> None:
    waiting = asyncio.create_task(source.key("a"))
    await turns()
    source.told(*names)
    assert await waiting == expected
    assert source.asked == []


async def test_an_unknown_key_is_asked_for_once(source: Source) -> None:
    source.told("a")
    await turns()
    waiting = [asyncio.create_task(source.key(name)) for name in "bbc"]
    await turns()
    assert source.asked == [Refresh("main")]
    source.told("a", "b", forced_ago_s=0)
    assert [await one for one in waiting] == ["found", "found", UNKNOWN]
    assert await source.key("d") == UNKNOWN
    assert source.asked == [Refresh("main")]


async def test_the_cooldown_is_that_of_all_workers(source: Source) -> None:
    source.told("a", forced_ago_s=1)  # by another worker
    await turns()
    assert await source.key("b") == UNKNOWN
    assert source.asked == []
    source.told("a", "b")
    assert await source.key("b") == "found"


async def test_an_unknown_key_is_remembered_until_the_keys_change(source: Source) -> None:
    source.told("a")
    await turns()
    asking = asyncio.create_task(source.key("b"))
    await turns()
    source.told("a", forced_ago_s=0)
    assert await asking == UNKNOWN
    source.clock.advance(31)
    assert await source.key("b") == UNKNOWN
    assert len(source.asked) == 1
    source.told("c")
    asyncio.get_running_loop().call_soon(lambda: asyncio.get_running_loop().call_soon(source.told, "b"))
    assert await source.key("b") == "found"
    assert len(source.asked) == 2


async def test_while_the_issuer_fails_an_unknown_key_is_not_the_clients_fault(source: Source) -> None:
    source.told("a")
    await turns()
    asking = asyncio.create_task(source.key("b"))
    await turns()
    source.told("a", forced_ago_s=0, failures=1)
    assert await asking == UNAVAILABLE


async def test_keys_are_believed_as_long_as_the_supervisor_does(source: Source) -> None:
    source.told("a", trusted_for_s=50)
    source.clock.advance(49)
    assert await source.key("a") == "found"
    source.clock.advance(2)
    assert await source.key("a") == UNAVAILABLE


async def test_an_equal_set_stays_the_same_object(source: Source) -> None:
    source.told("a")
    before = source.jwks
    source.told("a")
    assert source.jwks is before


async def test_more_keys_than_one_set_may_have_are_taken(source: Source) -> None:
    """As the supervisor has them while removed keys are in their grace."""
    names = [f"{number}" for number in range(2 * MAX_KEYS)]
    source.told(*names)
    assert await source.key(names[0]) == await source.key(names[-1]) == "found"


async def test_keys_that_fit_no_algorithm_of_a_new_configuration_are_none(source: Source) -> None:
    """As the supervisor has them while the issuer is down."""
    source.algorithms = ["RS256"]
    source.told("a")
    assert source.usable
    asking = asyncio.create_task(source.key("a"))
    await turns()
    source.told("a", forced_ago_s=0, failures=1)
    assert await asking == UNAVAILABLE


# The supervisor


class Peer:
    """A worker that says what the test says. `heard` is what it was told."""

    def __init__(self) -> None:
        self.heard: list[Message] = []
        self.channel: Channel
        self._grown = asyncio.Event()

    async def begin(self, end: socket.socket) -> None:
        self.channel = await Channel.over(end, self._hear)

    def _hear(self, message: Message) -> None:
        self.heard.append(message)
        self._grown.set()

    def say(self, why: str | None = None) -> None:
        self.channel.send(Reply(why))

    async def used(self, number: int) -> Config:
        """The configuration that it was told to serve by, the one of this number."""
        async with patience(f"{number} configurations"):
            while len(uses := [message for message in self.heard if isinstance(message, Use)]) < number:
                self._grown.clear()
                await self._grown.wait()
        return uses[number - 1].configuration()


class Peers:
    """Makes Peers where a Forker makes processes."""

    def __init__(self) -> None:
        self.made: list[Peer] = []
        self._beginning: set[asyncio.Task[None]] = set()

    def fork(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        self.made.append(Peer())
        task = asyncio.create_task(self.made[-1].begin(theirs))
        self._beginning.add(task)
        return ours

    def close(self) -> None:
        pass

    async def number(self, number: int) -> Peer:
        """The peer of this number, once it is made."""
        async with patience(f"{number} workers"):
            while len(self.made) < number:
                await asyncio.sleep(0.001)
        return self.made[number - 1]


@asynccontextmanager
async def supervising() -> AsyncIterator[tuple[Live, Workers, Peers]]:
    live, peers = Live(config(), HandClock()), Peers()
    workers = Workers(live, cast(Forker, peers), 1)
    await live.prepare()
    live.begin()
    try:
        yield live, workers, peers
    finally:
        await workers.stop()
        await live.stop()


async def test_a_worker_that_begins_while_the_configuration_changes_serves_by_the_new_one() -> None:
    async with supervising() as (live, workers, peers):
        listening = asyncio.create_task(workers.listen())
        peer = await peers.number(1)
        assert (await peer.used(1)).routes == ()
        await live.exchange(config("[{path: /open, auth: none}]"))
        await workers.use(live.assembly)
        peer.say()
        assert [route.path for route in (await peer.used(2)).routes] == ["/open"]
        assert not listening.done()
        peer.say()
        await listening
        assert live.telemetry.workers == 1


async def test_a_worker_that_cannot_take_a_configuration_is_replaced_and_readiness_tells() -> None:
    async with supervising() as (live, workers, peers):
        listening = asyncio.create_task(workers.listen())
        peer = await peers.number(1)
        await peer.used(1)
        peer.say()
        await listening
        health: Any = Health(live, HandClock())
        assert (await health._ready(None)).status == 200
        await live.exchange(config("[{path: /open, auth: none}]"))
        using = asyncio.create_task(workers.use(live.assembly))
        await peer.used(2)
        peer.say("there is no room")
        await using
        second = await peers.number(2)
        assert [route.path for route in (await second.used(1)).routes] == ["/open"]
        answer = await health._ready(None)
        assert (answer.status, answer.text) == (503, "no worker serves\n")
        second.say()
        async with patience("readiness"):
            while (await health._ready(None)).status != 200:
                await asyncio.sleep(0.001)


async def test_the_last_fetch_of_a_source_that_was_replaced_is_not_told() -> None:
    async with supervising() as (live, workers, peers):
        listening = asyncio.create_task(workers.listen())
        peer = await peers.number(1)
        await peer.used(1)
        peer.say()
        await listening
        old = live.assembly.sources["main"]
        await old.fetch_now()
        told = [message for message in peer.heard if isinstance(message, Keys)]
        await live.exchange(config(issuer="http://127.0.0.1:2"))
        using = asyncio.create_task(workers.use(live.assembly))
        await peer.used(2)
        peer.say()
        await using
        await old.fetch_now()
        await live.assembly.sources["main"].fetch_now()
        await turns()
        later = [message for message in peer.heard if isinstance(message, Keys)]
        assert len(told) >= 1
        assert len(later) == len(told) + 1


async def test_why_a_worker_could_not_begin_is_said() -> None:
    async with supervising() as (_, workers, peers):
        listening = asyncio.create_task(workers.listen())
        peer = await peers.number(1)
        await peer.used(1)
        peer.say("there is no room")
        with pytest.raises(Unusable, match=r"^there is no room$"):
            await listening


# What a worker says is not believed


def counted(**of_counts: Any) -> Counted:
    return Counted(Counts(**of_counts), TokenCacheUse(), {}, 0, [])


REFUSAL = (0.0, "id", "GET", "/", "/*", "none", (), 401, "TOKEN_MISSING", "", "", False)


@pytest.mark.parametrize(
    "wrong",
    [
        counted(overhead=Histogram((1.0,))),
        counted(loop_lag=Histogram(Counts().loop_lag.bounds, [1])),
        counted(durations={"/*": Histogram((1.0,))}),
        counted(upstream_durations={"/*": Histogram((1.0,))}),
        Counted(Counts(), TokenCacheUse(), {}, 1, [(*REFUSAL[:8], "NO_SUCH_REASON", *REFUSAL[9:])]),
        Counted(Counts(), TokenCacheUse(), {}, 101, [REFUSAL] * 101),
    ],
    ids=["overhead", "loop_lag", "durations", "upstream_durations", "reason", "refusals"],
)
async def test_what_cannot_have_been_counted_is_not_added_up(wrong: Counted) -> None:
    worker = _Worker(lambda *_: None)
    good = Counted(Counts(), TokenCacheUse(), {}, 1, [REFUSAL])
    worker.received(Reply(counted=good))
    with pytest.raises(ValueError, match=r"histogram|refusals"):
        worker.received(Reply(counted=wrong))
    assert worker.counted is good


async def test_a_reply_that_comes_too_late_answers_no_other_question() -> None:
    ours, theirs = socket.socketpair()
    worker, peer = _Worker(lambda *_: None), Peer()
    worker.channel = await Channel.over(ours, worker.received)
    await peer.begin(theirs)
    with pytest.raises(Gone):
        await worker.ask(Count(), within_s=0.001)
    asking = asyncio.create_task(worker.ask(Finish()))
    await turns()
    peer.say()  # to the first question
    peer.say("cannot")
    async with patience("the reply"):
        assert (await asking).why == "cannot"
    worker.channel.close()
    peer.channel.close()


async def test_a_message_that_is_too_long_is_not_waited_for() -> None:
    channel = Channel(lambda _: None, most_bytes=10)
    channel.data_received(b"\x00\x00\x00\x06")
    with pytest.raises(ValueError, match="too long"):
        Channel(lambda _: None, most_bytes=10).data_received(b"\x00\x00\x00\x07")
