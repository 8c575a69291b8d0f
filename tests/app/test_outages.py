"""What clients see during an issuer's outage, and for how long. docs/understand/issuer-outages.md has the table.

Everything runs over real sockets in a loop whose time goes on when nothing is left to do, so that hours take seconds and a
duration is exact.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sidecar.app.server import Sidecar, build
from sidecar.common.errors import Reason, Rejection
from sidecar.config import parse
from sidecar.jwt.jwks.cache import JwksSource
from sidecar.jwt.jwks.key_server import TOTAL_S
from sidecar.jwt.jwks.key_set import KeySet
from sidecar.jwt.jwks.refresh_schedule import RETRY_MOST_EMPTY_S
from sidecar.jwt.jwks.shared_fetch import WAIT_S
from sidecar.jwt.jwks.unknown_kids import COOLDOWN_S, UNKNOWN_KIDS
from tests.peers import tokens
from tests.peers.backend import RawBackend
from tests.peers.clock import HandClock, in_its_time, in_its_time_with_sockets
from tests.peers.issuer import Answer, ScriptedIssuer
from tests.peers.raw import RawClient, fetch
from tests.peers.tokens import AUDIENCE, public_jwk
from tests.peers.waiting import keys_for
from tests.peers.wire import request

PAGE = Path(__file__).parents[2] / "docs" / "understand" / "issuer-outages.md"
REFRESH_S, STALE_S = 20.0, 30.0  # short, for the tests of single faults
JITTERED = 1.1  # of a refresh interval, at most


class Seen(NamedTuple):
    """One answer: the time of its request, what it was, and how long it took."""

    at_s: float
    what: str
    took_s: float


class World:
    """A sidecar between an issuer that a test breaks and a healthy backend."""

    def __init__(self, clock: HandClock, issuer: ScriptedIssuer, sidecar: Sidecar) -> None:
        self.clock = clock
        self.issuer = issuer
        self.sidecar = sidecar
        self.began_at = clock.monotonic()

    async def restart(self) -> None:
        """Another process with the same configuration."""
        await self.sidecar.stop()
        self.sidecar = build(self.sidecar.config, self.clock)
        await self.sidecar.start()

    @property
    def source(self) -> JwksSource:
        return self.sidecar.assembly.sources["main"]

    @property
    def now_s(self) -> float:
        """Seconds since the sidecar was started."""
        return self.clock.monotonic() - self.began_at

    def token(self, name: str | None = None, **over: Any) -> str:
        """A good token, signed with the issuer's present key or with the key of this name."""
        return self.issuer.token("EdDSA", name=name, **{"now": self.clock.wall(), "exp": 2**33, **over})

    async def ask(self, token: str | None, path: str = "/") -> Seen:
        """One request on its own connection."""
        asked_at = self.now_s
        answer = await fetch(self.sidecar.proxy_address, request("GET", path, token=token))
        if answer.status == 503:
            assert int(answer.get("retry-after") or "") >= 1
        what = str(answer.status) if answer.status == 200 else f"{answer.status} {answer.json()['code']}"
        return Seen(asked_at, what, self.now_s - asked_at)

    async def watch(self, token: str, seconds: float, step_s: float = 5.0) -> list[Seen]:
        """The answers that a client gets for repeated requests."""
        end_s = self.now_s + seconds
        seen = []
        while self.now_s < end_s:
            seen.append(await self.ask(token))
            await asyncio.sleep(step_s)
        return seen

    async def until(self, token: str, what: str, step_s: float = 0.1) -> float:
        """Ask until this is the answer. Return how long that took."""
        began_s = self.now_s
        while (await self.ask(token)).what != what:
            assert self.now_s < began_s + 7200, f"never {what}"
            await asyncio.sleep(step_s)
        return self.now_s - began_s

    async def health(self, path: str) -> int:
        return (await fetch(self.sidecar.health_address, request("GET", path))).status


def phases(seen: list[Seen]) -> list[str]:
    """The answers in their order, each run of equal ones once."""
    answers = [one.what for one in seen]
    return [what for place, what in enumerate(answers) if place == 0 or answers[place - 1] != what]


@asynccontextmanager
async def world(
    clock: HandClock, fault: "Fault | None" = None, *, settings: dict[str, Any] | None = None, **over: Any
) -> AsyncIterator[World]:
    """Start everything, with the issuer in this state; `over` are keys of the issuer, `settings` those of the file."""
    async with ScriptedIssuer(algs=["EdDSA"], now=clock.wall) as issuer, RawBackend() as backend:
        if fault is not None:
            await fault.begin(issuer)
        listen = {"listen": "127.0.0.1:0"}
        config = {
            **listen, "health": listen, "admin": listen, "access_log": "off", "upstream": backend.url,
            "issuers": {"main": {"issuer": issuer.issuer, "audiences": [AUDIENCE], "jwks_uri": issuer.jwks_uri, **over}},
            "routes": [{"path": "/public", "auth": "none"}],
            **(settings or {}),
        }  # fmt: skip
        sidecar = build(parse(json.dumps(config)), clock)
        await sidecar.start()
        here = World(clock, issuer, sidecar)
        try:
            yield here
        finally:
            issuer.release()
            await here.sidecar.stop()


# The key set's endpoint fails in one way or another


class Fault(NamedTuple):
    """A way for the endpoint to fail: `begin` breaks a healthy issuer, `end` repairs it."""

    begin: Callable[[ScriptedIssuer], Awaitable[None]]
    end: Callable[[ScriptedIssuer], Awaitable[None]]


def answering(answer: Answer) -> Fault:
    async def begin(issuer: ScriptedIssuer) -> None:
        issuer.on_jwks = answer

    async def end(issuer: ScriptedIssuer) -> None:
        issuer.on_jwks = None

    return Fault(begin, end)


async def hang(issuer: ScriptedIssuer) -> None:
    issuer.hang()


async def release(issuer: ScriptedIssuer) -> None:
    issuer.release()


GOOD = json.dumps({"keys": [public_jwk("EdDSA")]}).encode()
FAULTS = {
    "down: connections are refused": Fault(ScriptedIssuer.go_down, ScriptedIssuer.come_back),
    "no answer": Fault(hang, release),
    "an answer that drips for minutes": answering(Answer(200, GOOD, drip_s=1.0)),
    "a reset": answering(Answer(200, GOOD, cut=20, by_reset=True)),
    "half a body": answering(Answer(200, GOOD, cut=20)),
    "500": answering(Answer(500)),
    "503": answering(Answer(503)),
    "429": answering(Answer(429)),
    "404": answering(Answer(404)),
    "204": answering(Answer(204)),
    "HTML with 200": answering(Answer.html()),
    "an empty body": answering(Answer(200, b"")),
    "invalid JSON": answering(Answer(200, GOOD[:-1])),
    "deeply nested JSON": answering(Answer(200, b"[" * 100_000)),
    "bad UTF-8": answering(Answer(200, b'{"keys":"\xff"}')),
    "an empty key set": answering(Answer.json({"keys": []})),
    "`null`, a list, an object without keys": answering(Answer.json(None)),
    "keys of a wrong type": answering(Answer.json({"keys": {"a": GOOD.decode()}})),
    "an error object": answering(Answer.json({"error": "not found"})),
    "only keys that cannot be used": answering(Answer.json({"keys": [{"kty": "AKP"}, tokens.jwk(b"x" * 32), 5]})),
    "30 MB": answering(Answer(200, b" " * 1024, times=30 * 1024)),
    "a gzip bomb": answering(Answer.gzipped(b" " * 10_000_000)),
    "a redirect to another host": answering(Answer.redirect("http://localhost:1/keys")),
    "an endless redirect": answering(Answer.redirect("/.well-known/jwks.json")),
}


def rows(heading: str) -> dict[str, list[str]]:
    """The table below this heading of the page: first cell -> the others."""
    section = PAGE.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")
    ]
    return {first: rest for first, *rest in cells[2:]}


def codes(cell: str) -> list[str]:
    """The answers in a cell, in order."""
    return re.findall(r"`(\d{3}[a-z_ ]*)`", cell)


def within_s(cell: str) -> float:
    """The longest time that a cell promises."""
    found = re.search(r"within (\d+) s", cell)
    assert found is not None, cell
    return float(found[1])


FAULT_ROWS = rows("The key set cannot be fetched")


def test_the_page_has_a_row_for_each_fault() -> None:
    assert list(FAULT_ROWS) == list(FAULTS)


@pytest.mark.parametrize("name", FAULTS)
@in_its_time_with_sockets
async def test_a_fault_of_an_issuer_has_the_documented_effect(name: str, clock: HandClock) -> None:
    """The cells of a row: at start, afterwards, later, and for unknown keys."""
    fault = FAULTS[name]
    at_start, healed, later, unknown = FAULT_ROWS[name]
    async with world(clock, fault, refresh_interval=f"{REFRESH_S:.0f}s", max_stale=f"{STALE_S:.0f}s") as here:
        good, stranger = here.token(), here.token("b")

        seen = await here.watch(good, 20)
        assert phases(seen) == codes(at_start)
        assert max(one.took_s for one in seen) <= WAIT_S
        assert (await here.ask(None)).what == "401 token_missing"
        assert (await here.ask(tokens.sign(b"x" * 32, "HS256", None, tokens.claims(iss=here.issuer.issuer)))).what == (
            "401 algorithm_not_allowed"
        )
        assert (await here.ask(None, "/public")).what == "200"
        assert [await here.health(path) for path in ("/livez", "/readyz")] == [200, 503]

        await fault.end(here.issuer)
        assert await here.until(good, "200") <= within_s(healed)
        assert codes(healed) == ["200"]
        assert await here.health("/readyz") == 200

        assert here.source.fetched_at is not None
        fetched_s = here.source.fetched_at - here.began_at
        await fault.begin(here.issuer)
        assert (await here.ask(stranger)).what == codes(unknown)[0]
        seen = await here.watch(good, REFRESH_S + STALE_S + 20)
        assert phases(seen) == codes(later)
        first_refused = next(one for one in seen if one.what != "200")
        assert 0 <= first_refused.at_s - (fetched_s + REFRESH_S + STALE_S) <= 5.0
        assert max(one.took_s for one in seen if one.what == "200") == 0
        assert await here.health("/readyz") == 200, "an outage of the issuer takes no replica out of service"

        await fault.end(here.issuer)
        assert await here.until(good, "200") <= within_s(healed)


def test_recovery_takes_as_long_as_the_documented_pauses() -> None:
    assert RETRY_MOST_EMPTY_S == 5.0
    assert TOTAL_S == 5.0
    assert {within_s(healed) for _, healed, _, _ in FAULT_ROWS.values()} == {
        RETRY_MOST_EMPTY_S,
        RETRY_MOST_EMPTY_S + TOTAL_S,
    }


@in_its_time_with_sockets
async def test_clients_do_not_notice_an_outage_of_70_minutes_by_default(clock: HandClock) -> None:
    async with world(clock) as here:
        good = here.token()
        await here.until(good, "200")
        await here.issuer.go_down()
        seen = await here.watch(good, 4300, step_s=20.0)
        assert phases(seen) == ["200", "503 jwks_unavailable"]
        first_refused = next(one for one in seen if one.what != "200")
        assert 4200 <= first_refused.at_s <= 4220.1
        assert here.issuer.jwks_fetches == 1


@in_its_time_with_sockets
async def test_with_max_stale_0_keys_are_trusted_only_while_fresh(clock: HandClock) -> None:
    async with world(clock, refresh_interval="20s", max_stale="0s") as here:
        good = here.token()
        await here.until(good, "200")
        await here.issuer.go_down()
        seen = await here.watch(good, 30, step_s=1.0)
        assert phases(seen) == ["200", "503 jwks_unavailable"]
        assert sum(one.what == "200" for one in seen) in (20, 21)


@in_its_time_with_sockets
async def test_a_restart_during_an_outage_keeps_the_keys_of_the_snapshot(clock: HandClock, tmp_path: Path) -> None:
    async with world(clock, settings={"jwks_snapshot_dir": str(tmp_path)}, max_stale="120s") as here:
        good = here.token()
        await here.until(good, "200")
        await here.issuer.go_down()
        await asyncio.sleep(60)
        await here.restart()
        assert await here.health("/readyz") == 200
        assert (await here.ask(good)).what == "200"
        assert (await here.ask(here.token("b"))).what == "503 jwks_unavailable"
        seen = await here.watch(good, 70)
        assert phases(seen) == ["200", "503 jwks_unavailable"]
        assert 120 <= next(one.at_s for one in seen if one.what != "200") <= 125.1
        await here.restart()
        assert (await here.ask(good)).what == "503 jwks_unavailable"
        assert await here.health("/readyz") == 503
        await here.issuer.come_back()
        assert await here.until(good, "200") <= RETRY_MOST_EMPTY_S


@in_its_time_with_sockets
async def test_without_a_snapshot_a_restart_during_an_outage_has_no_keys(clock: HandClock) -> None:
    async with world(clock) as here:
        good = here.token()
        await here.until(good, "200")
        await here.issuer.go_down()
        await here.restart()
        assert phases(await here.watch(good, 60)) == ["503 jwks_unavailable"]


# An issuer that is slow, flaps, or rotates its keys

STORY_ROWS = rows("The key set changes, or comes and goes")
Story = Callable[[HandClock], Awaitable[dict[str, list[str]]]]


async def slow(clock: HandClock) -> dict[str, list[str]]:
    slowly = answering(Answer(200, GOOD, drip_s=3.0 / len(GOOD)))
    async with world(clock, slowly) as here:
        good = here.token()
        first = await here.ask(good)
        assert first.took_s == WAIT_S
        assert await here.until(good, "200") <= 1.5
        here.issuer.rotate(overlap=True)
        here.issuer.on_jwks = Answer(200, json.dumps({"keys": here.issuer.keys}).encode(), drip_s=0.01)
        new = here.token()
        refused = await here.ask(new)
        known = await here.ask(good)
        assert (refused.took_s, known.took_s) == (WAIT_S, 0)
        await here.until(new, "200")
        return {"known": [first.what, known.what], "new": [refused.what, (await here.ask(new)).what]}


async def flapping(clock: HandClock) -> dict[str, list[str]]:
    async with world(clock, refresh_interval="60s", max_stale="600s") as here:
        good = here.token()
        await here.until(good, "200")

        async def flap() -> None:
            while True:
                here.issuer.on_jwks = None if here.issuer.on_jwks else Answer(500)
                await asyncio.sleep(7)

        flaps = asyncio.create_task(flap())
        try:
            known = await here.watch(good, 400)
            # Because of jitter all fetches may have seen the same state.
            while {result for _, result in here.source.fetches} != {"success", "failure"}:
                known += await here.watch(good, 100)
        finally:
            flaps.cancel()
        here.issuer.on_jwks = Answer(500)
        here.issuer.rotate()
        await asyncio.sleep(61)
        new = (await here.ask(here.token())).what
        here.issuer.on_jwks = None
        await here.until(here.token(), "200")
        return {"known": phases(known), "new": [new, "200"]}


async def with_overlap(clock: HandClock) -> dict[str, list[str]]:
    async with world(clock, refresh_interval="20s") as here:
        old = here.token()
        await here.until(old, "200")
        here.issuer.rotate(overlap=True)
        new = await here.ask(here.token())
        known = await here.watch(old, 100, step_s=20)
        assert here.source.fetches["forced", "success"] == 1
        return {"known": phases(known), "new": [new.what]}


async def without_overlap(clock: HandClock) -> dict[str, list[str]]:
    async with world(clock) as here:
        old = here.token()
        before = await here.ask(old)
        here.issuer.rotate()
        new = await here.ask(here.token())
        after = await here.ask(old)
        assert here.source.fetches["forced", "success"] == 1
        return {"known": [before.what, after.what], "new": [new.what]}


async def unnoticed(clock: HandClock) -> dict[str, list[str]]:
    async with world(clock, refresh_interval="60s") as here:
        old = here.token()
        await here.until(old, "200")
        here.issuer.rotate()
        took_s = await here.until(old, "401 key_unknown", step_s=1.0)
        assert took_s <= 60 * JITTERED + 1.0
        return {"known": ["200", "401 key_unknown"], "new": [(await here.ask(here.token())).what]}


async def within_the_cooldown(clock: HandClock) -> dict[str, list[str]]:
    async with world(clock) as here:
        old = here.token()
        await here.until(old, "200")
        assert (
            await here.ask(here.token("z"))
        ).what == "401 key_unknown"  # any client may force a fetch, once in a cooldown
        here.issuer.rotate()
        new = here.token()
        refused = await here.ask(new)
        assert await here.until(new, "200") <= COOLDOWN_S + 0.1
        return {"known": ["200", (await here.ask(old)).what], "new": [refused.what, "200"]}


async def during_an_outage(clock: HandClock) -> dict[str, list[str]]:
    async with world(clock) as here:
        old = here.token()
        await here.until(old, "200")
        here.issuer.rotate()
        here.issuer.on_jwks = Answer(500)
        new = here.token()
        refused = await here.watch(new, 120)
        known = await here.watch(old, 120)
        here.issuer.on_jwks = None
        assert await here.until(new, "200") <= 60 + 0.1
        return {"known": [*phases(known), (await here.ask(old)).what], "new": [*phases(refused), "200"]}


async def with_grace(clock: HandClock) -> dict[str, list[str]]:
    async with world(clock, removed_key_grace="90s") as here:
        old = here.token()
        await here.until(old, "200")
        here.issuer.rotate()
        new = await here.ask(here.token())
        assert 90 <= await here.until(old, "401 key_unknown", step_s=0.5) <= 91
        return {"known": ["200", "401 key_unknown"], "new": [new.what]}


async def stolen(clock: HandClock) -> dict[str, list[str]]:
    """The issuer stays healthy and removes a key. A token with another key forces the fetch that shows it."""
    async with world(clock) as here:
        old = here.token()
        await here.until(old, "200")
        here.issuer.rotate()
        assert here.source.refresh()
        await here.issuer.fetched(2)
        await asyncio.sleep(0.1)
        return {"known": ["200", (await here.ask(old)).what], "new": [(await here.ask(here.token())).what]}


STORIES: dict[str, Story] = {
    "slow: 3 s for an answer": slow,
    "flapping: well and broken every 7 s": flapping,
    "rotating, the old key stays published": with_overlap,
    "rotating, the old key goes": without_overlap,
    "rotating, and no token of the new key comes": unnoticed,
    "rotating less than 30 s after a forced fetch": within_the_cooldown,
    "rotating while the endpoint is down": during_an_outage,
    "rotating, with `removed_key_grace: 90s`": with_grace,
    "a key is withdrawn and the keys are refreshed": stolen,
}


def test_the_page_has_a_row_for_each_change_at_an_issuer() -> None:
    assert list(STORY_ROWS) == list(STORIES)


@pytest.mark.parametrize("name", STORIES)
@in_its_time_with_sockets
async def test_a_change_at_an_issuer_has_the_documented_effect(name: str, clock: HandClock) -> None:
    known, new = STORY_ROWS[name]
    assert await STORIES[name](clock) == {"known": codes(known), "new": codes(new)}


# Many clients at once

with_a_crowd = partial(in_its_time, quiet_s=0.05)
"""A thousand connections at once keep a busy machine silent for longer."""


@with_a_crowd
async def test_a_thousand_clients_with_a_new_key_share_one_fetch(clock: HandClock) -> None:
    async with world(clock) as here:
        await here.until(here.token(), "200")
        here.issuer.rotate()
        here.issuer.hang()
        seen = await crowd(here, [here.token()] * 1000)
        assert seen == {"200": 1000}
        assert here.issuer.jwks_fetches == 2


@with_a_crowd
async def test_a_thousand_clients_with_unknown_keys_share_one_fetch(clock: HandClock) -> None:
    async with world(clock) as here:
        await here.until(here.token(), "200")
        here.issuer.hang()
        strangers = [here.token(header={"kid": f"unknown-{number}"}) for number in range(1000)]
        assert await crowd(here, strangers) == {"401 key_unknown": 1000}
        assert here.issuer.jwks_fetches == 2


@with_a_crowd
async def test_a_thousand_first_clients_share_the_first_fetch(clock: HandClock) -> None:
    async with world(clock, Fault(hang, release)) as here:
        assert await crowd(here, [here.token()] * 1000) == {"200": 1000}
        assert here.issuer.jwks_fetches == 1


@with_a_crowd
async def test_clients_that_share_a_fetch_are_served_after_the_first_leaves(clock: HandClock) -> None:
    async with world(clock) as here:
        await here.until(here.token(), "200")
        here.issuer.rotate()
        here.issuer.hang()
        first = await RawClient.connect(here.sidecar.proxy_address)
        await first.send(request("GET", "/", token=here.token()))
        await in_flight(here, 1)
        first.abort()
        assert await crowd(here, [here.token()] * 10) == {"200": 10}
        assert here.issuer.jwks_fetches == 2


async def crowd(here: World, of: list[str]) -> dict[str, int]:
    """All clients ask; when all wait, the issuer answers. Return the count of each answer."""
    asking = [asyncio.create_task(here.ask(token)) for token in of]
    await in_flight(here, len(of))
    here.issuer.release()
    seen: dict[str, int] = {}
    for one in await asyncio.gather(*asking):
        seen[one.what] = seen.get(one.what, 0) + 1
    return seen


async def in_flight(here: World, number: int) -> None:
    while here.sidecar.live.resources.requests_in_flight < number:
        await asyncio.sleep(0)  # in this loop no time passes meanwhile


@in_its_time
async def test_many_unknown_keys_cause_one_fetch_per_cooldown_and_use_limited_memory(clock: HandClock) -> None:
    """100,000 distinct kids in ten cooldowns."""
    fetched_at: list[float] = []
    reasons: Counter[Reason] = Counter()

    async def publish() -> KeySet:
        fetched_at.append(clock.monotonic())
        return KeySet({"keys": [public_jwk("EdDSA")]}, None)

    source = JwksSource("main", publish, ["EdDSA"], clock)
    keeping = asyncio.create_task(source.keep_fresh())
    await asyncio.sleep(0.001)
    for number in range(100_000):
        with pytest.raises(Rejection) as caught:
            await keys_for(source, f"unknown-{number}", "EdDSA")
        reasons[caught.value.reason] += 1
        clock.advance(10 * COOLDOWN_S / 100_000)
    assert reasons == {Reason.KEY_UNKNOWN: 10, Reason.JWKS_UNAVAILABLE: 100_000 - 10}
    assert [key.kid for key, _ in await keys_for(source, "ed25519-a", "EdDSA")] == ["ed25519-a"]
    keeping.cancel()
    await asyncio.wait({keeping})
    _, *forced = fetched_at
    assert len(forced) == 10
    assert min(after - before for before, after in pairwise(forced)) >= COOLDOWN_S
    assert len(source._unknown) <= UNKNOWN_KIDS
    grown = [name for name, value in vars(source).items() if hasattr(value, "__len__") and len(value) > UNKNOWN_KIDS]
    assert grown == []
