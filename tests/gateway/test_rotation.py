"""Two replicas of a gateway share signing keys and change them under load, in front of a sidecar that follows their key set.

Everything runs in one loop whose clock the test moves: hours pass in seconds. The replicas get a changed file one after the
other, as from a mounted Secret.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from sidecar.app.server import Sidecar, build
from sidecar.config import parse
from sidecar.gateway.key_ring import KeyRing, TimedKey, rotated
from sidecar.gateway.local_endpoints import MAX_AGE_S
from sidecar.gateway.signing_key import SigningKey
from sidecar.jwt.jwks.refresh_schedule import JITTER
from tests.peers.backend import RawBackend
from tests.peers.clock import HandClock, in_its_time_with_sockets
from tests.peers.forward import Balancer
from tests.peers.gateway import AUDIENCE, ISSUER, Keys
from tests.peers.raw import fetch
from tests.peers.wire import request
from tests.proxy.conftest import ok

LATE_S = 30.0  # of the second replica's copy of a file
LOOK_S = 5.0  # between two checks of a file
LEARNED_S = LOOK_S + MAX_AGE_S * (1 + JITTER)  # the promise of docs/how/gateway.md
AHEAD_S, KEEP_S, TTL_S = LATE_S + LEARNED_S + 5, 120.0, 60
STEP_S = 3.0
LISTENERS = {name: {"listen": "127.0.0.1:0"} for name in ("health", "admin")}


class World:
    """Two gateways behind a balancer, whose files of keys are `replicas`, and a sidecar; `told` counts the answers.

    The sidecar asks for keys through a balancer of its own, `keys`.
    """

    def __init__(self, clock: HandClock, replicas: list[Keys], key: str) -> None:
        self.clock = clock
        self.replicas = replicas
        self.key = key
        self.told: Counter[str] = Counter()
        self.balancer: Balancer
        self.keys: Balancer
        self.sidecar: Sidecar

    async def ask(self) -> str:
        """The answer to a request with the API key, through gateway and sidecar."""
        answer = await fetch(self.balancer.address, request("GET", "/", token=self.key))
        what = str(answer.status) if answer.status == 200 else f"{answer.status} {answer.json()['code']}"
        self.told[what] += 1
        return what

    async def load(self, seconds: float) -> None:
        """Requests at both gateways, all the time."""
        ends = self.clock.monotonic() + seconds
        while self.clock.monotonic() < ends:
            await asyncio.gather(*(self.ask() for _ in range(4)))
            await asyncio.sleep(STEP_S)

    async def hand_out(self, ring: KeyRing, late_s: float = LATE_S) -> None:
        """Write the keys for the first replica, and later for the second one."""
        self.replicas[0].sign_with(*ring.keys)
        await self.load(late_s)
        self.replicas[1].sign_with(*ring.keys)

    async def accepts(self, token: str) -> bool:
        """Does the sidecar accept this token?"""
        return (await fetch(self.sidecar.proxy_address, request("GET", "/", token=token))).status == 200


@asynccontextmanager
async def world(clock: HandClock, tmp_path: Path, asked: slice = slice(None)) -> AsyncIterator[World]:
    """`asked` are the replicas that give the sidecar its keys."""
    replicas = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        replicas.append(Keys(tmp_path / name))
    key = replicas[0].new("alice")
    replicas[1].entries = replicas[0].entries
    replicas[1].write()
    here = World(clock, replicas, key)
    first = TimedKey(SigningKey.generate("EdDSA"), clock.wall(), clock.wall())
    async with AsyncExitStack() as running:
        backend = await running.enter_async_context(RawBackend(ok))
        here.balancer = await running.enter_async_context(Balancer())
        here.keys = await running.enter_async_context(Balancer())
        jwks_uri = f"{here.keys.url}/__gw/issuer/.well-known/jwks.json"
        issuer = {"issuer": ISSUER, "audiences": [AUDIENCE], "jwks_uri": jwks_uri, "clock_skew": "0s"}
        here.sidecar = sidecar(clock, issuers={"gateway": issuer}, upstream=backend.url)
        await here.sidecar.start()
        running.push_async_callback(here.sidecar.stop)
        await here.sidecar.assembly.sources["gateway"].fetch_now()  # fails: which replica the next one meets is known
        host, port = here.sidecar.proxy_address
        token = {"audience": AUDIENCE, "ttl": f"{TTL_S}s"}
        for replica in replicas:
            replica.sign_with(first)
            upstreams = {"main": {"url": f"http://{host}:{port}", "token": token}}
            settings = replica.settings("x", upstreams=upstreams)
            gateway = sidecar(clock, **{name: value for name, value in settings.items() if value is not None})
            await gateway.start()
            running.push_async_callback(gateway.stop)
            here.balancer.places.append(gateway.proxy_address)
        here.keys.places = here.balancer.places[asked]
        await here.sidecar.assembly.sources["gateway"].fetch_now()
        yield here


def sidecar(clock: HandClock, **settings: Any) -> Sidecar:
    return build(parse(json.dumps({"listen": "127.0.0.1:0", **LISTENERS, "access_log": "off", **settings})), clock)


@in_its_time_with_sockets
async def test_a_rotation_fails_no_request(clock: HandClock, tmp_path: Path) -> None:
    async with world(clock, tmp_path) as here:
        await here.load(20)
        before = KeyRing(here.replicas[0].keys)
        after = rotated(before, "EdDSA", clock.wall(), AHEAD_S, KEEP_S)
        await here.hand_out(after)
        await here.load(AHEAD_S + KEEP_S)
        assert here.told.keys() == {"200"}
        assert here.told["200"] > 300
        await here.load(MAX_AGE_S * (1 + JITTER))
        jwks = here.sidecar.assembly.sources["gateway"].jwks
        assert jwks is not None
        assert [key.kid for key in jwks.keys] == [
            after.keys[1].key.kid
        ]  # the rotation is complete, the first key is gone
        assert here.told.keys() == {"200"}


@in_its_time_with_sockets
async def test_a_key_that_signs_too_early_fails_requests(clock: HandClock, tmp_path: Path) -> None:
    async with world(clock, tmp_path, asked=slice(1, 2)) as here:  # the replica that learns of the new key last
        await here.load(20)
        after = rotated(KeyRing(here.replicas[0].keys), "EdDSA", clock.wall(), 0, KEEP_S)
        await here.hand_out(after, late_s=TTL_S)  # in this time each identity needs a new token
        assert here.told["401 key_unknown"] > 0


@in_its_time_with_sockets
async def test_a_withdrawn_key_stops_being_accepted_within_the_documented_time(
    clock: HandClock, tmp_path: Path
) -> None:
    async with world(clock, tmp_path) as here:
        stolen = here.replicas[0].keys[0].key
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "evil", "exp": clock.wall() + 9e4}
        forged = [stolen.sign(claims | {"jti": str(number)}) for number in range(60)]
        assert await here.accepts(forged.pop())
        remembered = forged.pop()
        assert await here.accepts(remembered)

        after = KeyRing(rotated(KeyRing(here.replicas[0].keys), "EdDSA", clock.wall(), 0, KEEP_S).keys[1:])
        for replica in here.replicas:
            replica.sign_with(*after.keys)
        began = clock.monotonic()
        while await here.accepts(forged.pop()):
            await asyncio.sleep(2)
        assert clock.monotonic() - began <= LEARNED_S
        assert not await here.accepts(remembered)
        assert await here.ask() == "200"
