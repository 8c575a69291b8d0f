"""A whole sidecar on free ports, in this process, between a real issuer and a real backend.

async with running(routes=[{"path": "/public/*", "auth": "none"}]) as stack:
    answer = await stack.fetch(stack.good("GET", "/protected"))
    assert (await stack.backend.received()).get("x-jwt-sub") == "alice"
"""

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.app.server import Sidecar, build
from sidecar.common.clock import Clock
from sidecar.config import parse
from sidecar.http.head_cache import HeadCache
from tests.peers import patience
from tests.peers.backend import RawBackend, Request
from tests.peers.issuer import ScriptedIssuer
from tests.peers.raw import RawClient, Response, fetch
from tests.peers.tokens import AUDIENCE
from tests.peers.wire import Truncated, request, response

TAIL = request("GET", "/tail", headers=[("Connection", "close")])
"""A request without a token, for behind the one that is looked at: it ends the connection, and never reaches a backend."""
FEEDS = ("whole", "byte by byte", "with a tail")
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
try:
    import uvloop
except ImportError:
    pass
else:
    LOOPS["uvloop"] = uvloop.new_event_loop
MOST_TOLD = 65536  # bytes of an answer that are searched for tokens
SMALLEST_LEAK = 12  # characters of a token in a row: fewer come together by chance


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop where there is one, as the product does; a module that says ON_EVERY_LOOP is tested on asyncio's too."""
    module = item.getparent(pytest.Module)
    if module is not None and getattr(module.obj, "ON_EVERY_LOOP", False):
        return LOOPS
    name = list(LOOPS)[-1]
    return {name: LOOPS[name]}


FORGETFUL = os.environ.get("JWT_SIDECAR_FORGETFUL") == "1"
"""Everything is tested without the memories of heads and of their lines: they may make no difference."""


class _Forgetful(dict[bytes, Any]):
    def __setitem__(self, key: bytes, value: Any) -> None:
        pass


def forget_heads(sidecar: Sidecar) -> None:
    """Take the memories out of a sidecar that has not been started."""
    handler = sidecar.assembly.handler
    handler.heads = HeadCache(0)
    handler.header_policy.known = _Forgetful()
    for upstream in handler.upstreams.values():
        upstream.heads = HeadCache(0)
        upstream.header_policy.known = _Forgetful()


async def ok(request: Request, writer: asyncio.StreamWriter) -> None:
    """The handler of the backend: 200, with no body for HEAD."""
    answer = response(200, b'{"ok":true}', [("Content-Type", "application/json")])
    writer.write(answer.partition(b"{")[0] if request.method == "HEAD" else answer)


class AheadClock(Clock):
    """The real time plus the seconds that a test adds."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def wall(self) -> float:
        return super().wall() + self.ahead_s

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


class Client(RawClient):
    """A client that records every answer and checks it for tokens."""

    secrets: "Secrets"

    async def response(self, method: str = "GET") -> Response:
        response = await super().response(method)
        self.secrets.told(response.raw[:MOST_TOLD].decode("latin-1"))
        return response

    async def closed(self) -> bytes:
        received = await super().closed()
        self.secrets.told(received[:MOST_TOLD].decode("latin-1"))
        return received

    async def answers(self, *methods: str) -> list[Response]:
        """Every answer until the sidecar closes the connection; `methods` of the first requests, GET for the rest."""
        answers: list[Response] = []
        while (answer := await self.answer(*methods[len(answers) : len(answers) + 1])) is not None:
            answers.append(answer)
        return answers

    async def answer(self, method: str = "GET") -> Response | None:
        """The next answer; None when the connection ends instead."""
        try:
            return await self.response(method)
        except Truncated as truncated:
            if truncated.part:
                raise
        return None


class Secrets(logging.Handler):
    """The tokens of a test. No answer or log line may hold a part of them, and no log line may report a bug."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: set[str] = set()
        self.errors: list[str] = []
        self._told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = logging.Formatter().format(record)
        self.told(text)
        if record.levelno >= logging.ERROR:
            self.errors.append(text)

    def told(self, text: str) -> None:
        """Record a text that has left the sidecar."""
        self._told.append(text)

    def leaked(self) -> list[str]:
        """The texts that hold a part of a token."""
        parts = {token[at : at + SMALLEST_LEAK] for token in self.tokens for at in range(len(token) - SMALLEST_LEAK)}
        return [text for text in self._told if any(text[at : at + SMALLEST_LEAK] in parts for at in range(len(text)))]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Record everything that is logged."""
        root = logging.getLogger()
        before = root.level
        root.addHandler(self)
        root.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            root.setLevel(before)
            root.removeHandler(self)


class Stack:
    """A running sidecar and its peers. `good` makes requests of alice, whose token is `alice`."""

    def __init__(self, sidecar: Sidecar, issuer: ScriptedIssuer, backend: RawBackend, clock: AheadClock) -> None:
        self.sidecar = sidecar
        self.issuer = issuer
        self.backend = backend
        self.clock = clock
        self.secrets = Secrets()
        self.alice = self.token()

    def token(self, alg: str = "EdDSA", **over: Any) -> str:
        """A token of the issuer, as `tokens.token`. No answer or log line may hold it."""
        token = self.issuer.token(alg, **over)
        self.secrets.tokens.add(token)
        return token

    def good(self, method: str = "GET", target: str = "/", **rest: Any) -> bytes:
        """A request of alice, as `wire.request`."""
        return request(method, target, **{"token": self.alice, **rest})

    def raw(self, text: str | bytes) -> bytes:
        """A request written by hand, `\\n` for the ends of lines; `ALICE` becomes her credentials."""
        raw = text.encode("latin-1") if isinstance(text, str) else text
        return raw.replace(b"\n", b"\r\n").replace(b"ALICE", self.credentials)

    @property
    def credentials(self) -> bytes:
        """The header line of alice's token."""
        return b"Authorization: Bearer " + self.alice.encode()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A connection to the proxy."""
        async with Client.to(self.sidecar.proxy_address) as client:
            client.secrets = self.secrets
            yield client

    async def fetch(self, raw: bytes) -> Response:
        """One request on its own connection."""
        async with self.client() as client:
            return await client.request(raw)

    async def converse(self, raw: bytes, feed: str = "whole", *, tail: bytes = TAIL) -> list[Response]:
        """Send bytes in one of the FEEDS, then the tail, and read every answer until the sidecar closes the connection."""
        async with self.client() as client:
            method = raw.partition(b" ")[0].decode("latin-1")
            if feed == "with a tail":
                await client.send(raw, tail=tail)
                return await client.answers(method)
            await client.send(raw, bytewise=feed == "byte by byte")
            first = await client.answer(method)
            if first is None:
                return []
            if first.get("connection") != "close":
                await client.send(tail)
            return [first, *await client.answers()]

    def wait(self, seconds: float) -> None:
        """Let this time pass for the sidecar, and check its deadlines."""
        self.clock.ahead_s += seconds
        self.sidecar.live.deadlines.tick()

    async def health(self, path: str) -> Response:
        """An answer of the health listener."""
        return await fetch(self.sidecar.health_address, request("GET", path))


def _with(config: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Add the settings; None removes a key."""
    return {name: value for name, value in (config | settings).items() if value is not None}


@asynccontextmanager
async def running(
    *,
    issuer: ScriptedIssuer | None = None,
    backend: RawBackend | None = None,
    file: Path | None = None,
    **settings: Any,
) -> AsyncIterator[Stack]:
    """Start everything with these settings. At the end check that nothing is left running and that no secret has left.

    With `file` the sidecar reads its configuration from there.
    """
    tasks = asyncio.all_tasks()
    async with issuer or ScriptedIssuer(algs=["EdDSA"]) as issuer, backend or RawBackend(ok) as backend:
        config = {
            "listen": "127.0.0.1:0",
            "health": {"listen": "127.0.0.1:0"},
            "admin": {"listen": "127.0.0.1:0"},
            "issuers": {"main": {"issuer": issuer.issuer, "audiences": [AUDIENCE]}},
            "upstream": backend.url,
            "access_log": "off",
        }
        clock = AheadClock()
        text = json.dumps(_with(config, settings))  # JSON is YAML
        if file is not None:
            file.write_text(text)
        sidecar = build(parse(text), clock, file)
        if FORGETFUL:
            forget_heads(sidecar)
        stack = Stack(sidecar, issuer, backend, clock)
        with stack.secrets.listening():
            try:
                await sidecar.start()
                yield stack
            finally:
                async with patience("the sidecar to stop"):
                    await sidecar.stop()
    for _ in range(10):  # turns for the cancelled tasks to end
        await asyncio.sleep(0)
    assert asyncio.all_tasks() - tasks - {asyncio.current_task()} == set()
    assert stack.secrets.errors == []
    assert stack.secrets.leaked() == []


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    """A sidecar with the smallest configuration: a valid token for everything."""
    async with running() as stack:
        yield stack
