"""An issuer over real sockets that a test can rotate, take down, hang, and make answer anything.

async with ScriptedIssuer() as issuer:
    good = issuer.token(sub="alice")
    issuer.rotate()
    issuer.on_jwks = Answer(500)
    await issuer.fetched(2)
"""

import asyncio
import gzip
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Self

from tests.peers import Tally, tokens
from tests.peers.backend import RawBackend, Request
from tests.peers.tls import server_tls
from tests.peers.wire import reset, response


@dataclass(frozen=True)
class Answer:
    """The answer to a fetch. The default is a valid answer with an empty body."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)
    times: int = 1
    """Send the body this many times: a huge body that is never in memory."""
    cut: int | None = None
    """Send this many bytes of the body, then close the connection."""
    by_reset: bool = False
    """End with a TCP reset; the client may see a part of the sent bytes or none."""
    drip_s: float | None = None
    """Send the body byte by byte with pauses of this many seconds."""

    @classmethod
    def json(cls, value: Any, status: int = 200) -> Self:
        """A JSON value."""
        return cls(status, json.dumps(value).encode())

    @classmethod
    def html(cls, status: int = 200) -> Self:
        """The page of a proxy or of a login portal."""
        return cls(status, b"<!doctype html><title>Sign in</title>", (("Content-Type", "text/html"),))

    @classmethod
    def gzipped(cls, body: bytes) -> Self:
        """The body with Content-Encoding: gzip."""
        headers = (("Content-Type", "application/json"), ("Content-Encoding", "gzip"))
        return cls(200, gzip.compress(body), headers)

    @classmethod
    def redirect(cls, location: str, status: int = 302) -> Self:
        """A redirect."""
        return cls(status, b"", (("Location", location),))


class ScriptedIssuer(RawBackend):
    """An issuer as an async context manager; it is a RawBackend, so `requests`, `go_down`, `come_back` are there too.

    `issuer` is its `iss`, and `path` the path of that URL. It publishes `keys` at `jwks_uri`: at first the public keys
    of `tokens.key(alg, "a")` for each of `algs`. `on_jwks` and `on_discovery` replace the right answer until they are
    None again; `discovery=False` is an `on_discovery` of 404.
    """

    def __init__(
        self,
        *,
        path: str = "",
        algs: Iterable[str] = ("RS256", "ES256", "EdDSA"),
        jwks_path: str | None = None,
        discovery: bool = True,
        tls: bool = False,
        cache_control: str | None = None,
        date_offset_s: float = 0.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(self._handle, tls=server_tls() if tls else None)
        self.algs = tuple(algs)
        self.name = "a"
        """Of the keys that sign now; `rotate` goes on to the next letter."""
        self.keys: list[Any] = [tokens.public_jwk(alg, self.name) for alg in self.algs]
        self.path = path
        self.jwks_path = jwks_path or f"{path}/.well-known/jwks.json"
        self.discovery_path = f"{path}/.well-known/openid-configuration"
        self.on_jwks: Answer | None = None
        self.on_discovery: Answer | None = None if discovery else Answer(404)
        self.cache_control = cache_control
        self.date_offset_s = date_offset_s
        """How far its clock is ahead: shows in the Date header."""
        self.now = now
        self.fetches: Counter[str] = Counter()
        """How often each path has been asked for."""
        self._fetches: defaultdict[str, Tally] = defaultdict(lambda: Tally("fetches"))
        self._answering = asyncio.Event()
        self._answering.set()

    @property
    def issuer(self) -> str:
        """The `iss` of its tokens."""
        return f"{self.url}{self.path}"

    @property
    def jwks_uri(self) -> str:
        """The URL of its key set."""
        return f"{self.url}{self.jwks_path}"

    def token(self, alg: str = "RS256", *, name: str | None = None, **over: Any) -> str:
        """A good token of this issuer, signed with its present key; the rest as `tokens.token`."""
        return tokens.token(alg, name=name or self.name, **{"iss": self.issuer, **over})

    def rotate(self, *, overlap: bool = False) -> None:
        """Sign with new keys from now on and publish them; `overlap` keeps the old ones published."""
        self.name = chr(ord(self.name) + 1)
        new = [tokens.public_jwk(alg, self.name) for alg in self.algs]
        self.keys = [*new, *self.keys] if overlap else new

    def hang(self) -> None:
        """Accept and read, and answer nothing until `release`."""
        self._answering.clear()

    def release(self) -> None:
        """Answer the hanging requests and all later ones."""
        self._answering.set()

    @property
    def jwks_fetches(self) -> int:
        """The number of requests for the key set."""
        return self.fetches[self.jwks_path]

    @property
    def discovery_fetches(self) -> int:
        """The number of requests for the discovery document."""
        return self.fetches[self.discovery_path]

    async def fetched(self, n: int = 1, path: str | None = None) -> None:
        """Return when the n-th fetch of the key set, or of another path, has arrived; its answer may be incomplete."""
        await self._fetches[path or self.jwks_path].reach(n)

    async def _handle(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.fetches[request.target] += 1
        self._fetches[request.target].add()
        await self._answering.wait()
        answer = self._answer_to(request.target)
        writer.write(response(answer.status, headers=self._headers(answer), sized=False))
        await _send_body(answer, writer)
        if answer.by_reset:
            reset(writer)
        elif answer.cut is not None:
            writer.close()

    def _answer_to(self, target: str) -> Answer:
        if target == self.jwks_path:
            return self.on_jwks or Answer.json({"keys": self.keys})
        if target == self.discovery_path:
            return self.on_discovery or Answer.json({"issuer": self.issuer, "jwks_uri": self.jwks_uri})
        return Answer(404)

    def _headers(self, answer: Answer) -> list[tuple[str, str]]:
        headers = [*answer.headers, ("Date", formatdate(self.now() + self.date_offset_s, usegmt=True))]
        if self.cache_control is not None:
            headers.append(("Cache-Control", self.cache_control))
        if answer.status not in (204, 304):
            headers.append(("Content-Length", str(len(answer.body) * answer.times)))
        return headers


async def _send_body(answer: Answer, writer: asyncio.StreamWriter) -> None:
    if answer.drip_s is not None:
        for i in range(len(answer.body)):
            writer.write(answer.body[i : i + 1])
            await writer.drain()
            await asyncio.sleep(answer.drip_s)
    elif answer.cut is not None:
        writer.write(answer.body[: answer.cut])
    else:
        for _ in range(answer.times):
            writer.write(answer.body)
            await writer.drain()
