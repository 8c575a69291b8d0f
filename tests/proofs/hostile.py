"""A sidecar between an issuer and a backend of this process, and the hostile bytes from either side.

Whatever it is: nothing reaches the backend that was not authenticated, no request is taken for another's, what the client gets is
HTTP, nothing fails that could be a bug, no token is told, and afterwards no task and no connection is left.
"""

import asyncio
import json
import logging
import time
from collections import Counter
from random import Random
from types import TracebackType
from typing import Any, Self

from sidecar.app.server import build
from sidecar.config import parse
from tests.peers import patience
from tests.peers.backend import RawBackend, Request
from tests.peers.issuer import ScriptedIssuer
from tests.peers.tokens import AUDIENCE
from tests.peers.wire import request, response
from tests.proofs import grammar
from tests.proofs.rules import Answer, Broken, check_seen, meaning, read_answers

NAMES = ("alice", "bob")
QUIET_TURNS = 40  # turns of the loop without a byte, after which no more bytes will come
LATE_TURNS = 8  # turns in which the backend reads the bytes in transit
SMALLEST_LEAK = 12  # characters of a signature in a row
SCRIPTS = ("sized", "sized", "chunked", "until closed", "early", "early", "scripted 500", "204", "304", "103")
ROUTES = [
    {"path": "/public/*", "auth": "none"},
    {"path": "/internal/*", "auth": "deny"},
    {"path": "/admin/*", "require": {"scopes": ["admin"]}},
]


class Tap(asyncio.Protocol):
    """A client that keeps its received bytes."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.closed = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's is no asyncio.Transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> None:
        self.closed = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True

    async def quiet(self) -> None:
        """Wait until the sidecar sends no more bytes."""
        turns, seen = 0, -1
        while not self.closed and turns < QUIET_TURNS:
            turns = turns + 1 if len(self.received) == seen else 0
            seen = len(self.received)
            await asyncio.sleep(0)


class Log(logging.Handler):
    """The log since it was last cleared."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = logging.Formatter().format(record)
        (self.errors if record.levelno >= logging.ERROR else self.lines).append(line)


class Stack:
    """The sidecar, its peers, and the cases. `what` says which one is under way."""

    def __init__(self) -> None:
        self.issuer = ScriptedIssuer(algs=["EdDSA"])
        self.backend = RawBackend(self.handle, read_bodies=False)
        self.log = Log()
        self.what = ""
        self.script = "sized"
        self.scripted = b""
        self.statuses: Counter[int] = Counter()
        self.upstream_requests = 0
        self.probes = 0

    async def __aenter__(self) -> Self:
        await self.issuer.__aenter__()
        await self.backend.__aenter__()
        config = {
            "listen": "127.0.0.1:0",
            "health": {"listen": "127.0.0.1:0"},
            "admin": {"listen": "127.0.0.1:0"},
            "issuers": {"main": {"issuer": self.issuer.issuer, "audiences": [AUDIENCE]}},
            "upstream": self.backend.url,
            "access_log": "off",
            "routes": ROUTES,
        }
        logging.getLogger().addHandler(self.log)
        logging.getLogger().setLevel(logging.INFO)
        asyncio.get_running_loop().set_exception_handler(self._failed)
        self.sidecar = build(parse(json.dumps(config)))  # JSON is YAML
        await self.sidecar.start()
        lasting = int(time.time()) + 86_400
        self.tokens = {name: self.issuer.token("EdDSA", sub=name, exp=lasting).encode() for name in (*NAMES, "prober")}
        self.bad_tokens = {
            b"{forged}": self.issuer.token("EdDSA", header={"kid": "ed25519-a"}, name="b", sub="alice", exp=lasting),
            b"{expired}": self.issuer.token("EdDSA", sub="alice", exp=lasting - 2 * 86_400),
            b"{elsewhere}": self.issuer.token("EdDSA", sub="alice", exp=lasting, aud="elsewhere"),
        }
        signatures = [token.rpartition(b".")[2].decode() for token in self.tokens.values()]
        self.secrets = [sign[at : at + SMALLEST_LEAK] for sign in signatures for at in range(len(sign) - SMALLEST_LEAK)]
        await self.sidecar.assembly.sources["main"].fetch_now()
        self.tasks = self._own_tasks()
        await self.probe()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with patience("the sidecar to stop"):
            await self.sidecar.stop()
        self.backend.failures.clear()
        await self.backend.__aexit__(None, None, None)
        await self.issuer.__aexit__(None, None, None)

    def _failed(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.log.errors.append(f"the loop was told: {context['message']} {context.get('exception')!r}")

    # The backend

    async def handle(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Answer as the case says. The answer holds the request, so that an answer to another request is detected."""
        sub = request.get("x-jwt-sub") or "nobody"
        if sub == "prober":
            writer.write(response(200, request.target.encode()))
            return
        if self.script == "answer":
            writer.write(self.scripted)
            await writer.drain()
            if len(self.scripted) % 2:
                writer.close()
            await request.read()
            return
        if self.script != "early":
            await request.read()
        if request.all("upgrade") and len(self.scripted) % 2 == 0:
            await _speak_something_else(request, writer, sub)
            return
        interim, answer = _answer(self.script, sub)
        writer.write(interim)
        writer.write(answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if request.method == "HEAD" else answer)
        if self.script == "until closed":
            await writer.drain()
            writer.close()

    # The cases

    async def one(self, random: Random) -> None:
        """A case of either kind. Raises Broken."""
        if random.random() < 0.2:
            await self.answer(random, grammar.answers(random))
        else:
            await self.requests(random, grammar.requests(random))

    async def requests(self, random: Random, raw: bytes) -> None:
        """Send these bytes, with TOKEN replaced, to a well-behaved backend. Raises Broken."""
        name = random.choice(NAMES)
        self.script, self.scripted = random.choice(SCRIPTS), raw
        self.what = f"{name}, {self.script}: {raw!r}"
        sent = raw.replace(grammar.TOKEN, self.tokens[name])
        for placeholder, token in self.bad_tokens.items():
            sent = sent.replace(placeholder, token.encode())
        if random.random() < 0.1:
            sent = grammar.turned(random, sent)  # within a token too
        sent_in = grammar.pieces(random, sent)
        reset = random.random() < 0.2
        received, closed = await self._converse(sent_in, reset=reset, in_turns=grammar.CUT in sent)
        whole = closed and self.script != "early"
        for answer in await read_answers(received, head=b"HEAD" in sent):
            self.statuses[answer.status] += 1
            if answer.body is None:
                if whole:
                    raise Broken(f"an answer broke off: {received[-500:]!r}")
            elif answer.get("x-jwt-sidecar") is not None:
                # A token with changed bytes may name an unknown key, which causes one fetch in a cooldown.
                if answer.status >= 500 and b'"jwks_unavailable"' not in answer.body:
                    raise Broken(f"refused: {answer}")
            elif answer.status >= 200 and answer.get("x-seen-sub") not in (name, "nobody"):
                raise Broken(f"an answer for another: {answer}")
        await self._check_rest(name, sent.count(self.tokens[name]), received)
        if sent_in == [sent] and not reset and self.script != "early":
            await self._again(name, sent, received)

    async def _again(self, name: str, sent: bytes, first: bytes) -> None:
        """Equal bytes get equal answers, whether or not they are remembered. Raises Broken."""
        expected = [_told(answer) for answer in await read_answers(first, head=b"HEAD" in sent)]
        for _ in range(2):
            received, _ = await self._converse([sent], reset=False)
            if (found := [_told(answer) for answer in await read_answers(received, head=b"HEAD" in sent)]) != expected:
                raise Broken(f"at first {expected}, and then {found}")
            await self._check_rest(name, sent.count(self.tokens[name]), received)

    async def answer(self, random: Random, raw: bytes) -> None:
        """Send a good request to a backend that answers these bytes. Raises Broken."""
        name = random.choice(NAMES)
        self.script, self.scripted = "answer", raw
        method = random.choice(("GET", "GET", "POST", "HEAD"))
        self.what = f"{name}, {method} answered {raw!r}"
        sent = request(method, "/x", token=self.tokens[name].decode(), body=b"hello" if method == "POST" else None)
        received, _ = await self._converse([sent], reset=False)
        meant = await meaning(raw, method)
        for answer in await read_answers(received, head=method == "HEAD"):
            self.statuses[answer.status] += 1
            if answer.get("x-jwt-sidecar") is not None:
                if answer.status != 502:
                    raise Broken(f"refused: {answer}")
            elif answer.status >= 200 and answer.body is not None and meant is not None and answer.body != meant.body:
                raise Broken(f"not what the backend said: {answer}")
        await self._check_rest(name, 2, received)  # a request whose connection ended at once may be sent again

    async def probe(self) -> None:
        """An ordinary request, which gets its own answer after any earlier event. Raises Broken."""
        self.probes += 1
        target = f"/probe/{self.probes}"
        raw = request("GET", target, token=self.tokens["prober"].decode())
        received, _ = await self._converse([raw], reset=False, expect=target.encode())
        if not received.startswith(b"HTTP/1.1 200 ") or not received.endswith(b"\r\n\r\n" + target.encode()):
            raise Broken(f"an ordinary request after it got {received!r}")
        self.backend.requests.clear()
        self.backend.incomplete.clear()

    async def _converse(
        self, pieces: list[bytes], *, reset: bool, expect: bytes = b"", in_turns: bool = False
    ) -> tuple[bytes, bool]:
        """Send these pieces on a new connection: (what came until nothing more did, whether the sidecar closed it).

        `in_turns`: each piece when nothing more comes of the one before.
        """
        _, tap = await asyncio.get_running_loop().create_connection(Tap, *self.sidecar.proxy_address)
        try:
            for piece in pieces:
                if tap.closed:
                    break
                tap.transport.write(piece)
                for _ in range(3 * (len(pieces) > 1)):
                    await asyncio.sleep(0)
                if in_turns:
                    await tap.quiet()
            await tap.quiet()
            while not tap.closed and self._own_tasks() != self.tasks:  # a fetch of keys, once in a cooldown
                await asyncio.sleep(0.001)
                await tap.quiet()
            if expect and expect not in tap.received:  # the first verification, or a running fetch of keys
                async with patience(f"{expect!r}, and got {bytes(tap.received)!r}"):
                    while expect not in tap.received and not tap.closed:
                        await asyncio.sleep(0.01)
            return bytes(tap.received), tap.closed
        finally:
            if reset:
                tap.transport.abort()
            else:
                tap.transport.close()

    async def _check_rest(self, name: str, tokens: int, received: bytes) -> None:
        """Assert that nothing is left, leaked or failed, the backend got only allowed requests, and the next one is served."""
        async with patience("what the case left behind to end"):
            while self._own_tasks() != self.tasks or self.sidecar.live.resources.requests_in_flight:
                await asyncio.sleep(0)
        for _ in range(LATE_TURNS):
            await asyncio.sleep(0)
        self.upstream_requests += len(self.backend.requests)
        check_seen(self.backend.requests, name, tokens)
        if self.backend.failures:
            raise Broken(f"the backend met {self.backend.failures}")
        told = "".join(self.log.lines) + (received.decode("latin-1") if self.script != "answer" else "")
        if any(secret in told for secret in self.secrets):
            raise Broken(f"a token was told: {told!r}")
        if self.log.errors:
            raise Broken(f"{self.log.errors}")
        self.log.lines.clear()
        await self.probe()

    def forget(self) -> None:
        """Clear the state that a broken case left."""
        self.backend.requests.clear()
        self.backend.failures.clear()
        self.log.lines.clear()
        self.log.errors.clear()

    def _own_tasks(self) -> Counter[str]:
        """The sidecar's tasks, by their coroutine. Those of the backend and the issuer do not count."""
        running = [task.get_coro() for task in asyncio.all_tasks()]
        return Counter(name for one in running if (name := _name(one)))


def _name(coroutine: Any) -> str:
    """The name of a coroutine of the sidecar, empty for any other. A compiled one has its own type, and no code."""
    code = getattr(coroutine, "cr_code", None)
    if code is None:
        return type(coroutine).__name__
    return coroutine.__qualname__ if "/sidecar/" in code.co_filename else ""


def _told(answer: Answer) -> tuple[object, ...]:
    """An answer without its changing parts: the request id, and the seconds in a sentence."""
    own = answer.get("x-jwt-sidecar") is not None
    body = json.loads(answer.body)["code"] if own and answer.body else answer.body
    differing = ("x-request-id", "content-length", "www-authenticate") if own else ("x-request-id",)
    return answer.status, body, sorted((name, value) for name, value in answer.headers if name.lower() not in differing)


def _answer(script: str, sub: str) -> tuple[bytes, bytes]:
    """An interim answer, if any, and the final one."""
    seen = [("X-Seen-Sub", sub)]
    match script:
        case "chunked":
            return b"", response(200, headers=seen, chunks=[b"seen ", sub.encode()], trailers=[("X-Dropped", "1")])
        case "until closed":
            return b"", response(200, b"seen", seen, sized=False)
        case "scripted 500":
            return b"", response(500, b"seen", seen)
        case "204" | "304":
            return b"", response(int(script), headers=seen)
        case "103":
            return response(103, sized=False, headers=[("Link", "</a>")]), response(200, b"seen", seen)
    return b"", response(200, b"seen", seen)


async def _speak_something_else(request: Request, writer: asyncio.StreamWriter, sub: str) -> None:
    upgrade = [("X-Seen-Sub", sub), ("Connection", "Upgrade"), ("Upgrade", "websocket")]
    writer.write(response(101, headers=upgrade, sized=False))
    while data := await request.reader.read(65536):
        writer.write(b"%d bytes\n" % len(data))
    writer.close()
