"""The sidecar's own work for a request, without sockets and without a kernel: all of it, and its parts.

    python -m benchmarks.in_memory [mix|warm|new|forged|none ...]

CPU time of the quickest of several batches. The transports are stand-ins, so uvloop's share is left out too.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count, cycle
from pathlib import Path

import uvloop

from benchmarks.issuer import AUDIENCE, Issuer
from benchmarks.setting import CLAIM_HEADERS
from benchmarks.wrk import users_requests
from sidecar.app.builder.components import client_limits
from sidecar.app.server import Sidecar, build
from sidecar.common.errors import Rejection
from sidecar.config import parse
from sidecar.http.message_reader import MessageReader
from sidecar.http.request_head import parse_request_head
from sidecar.jwt.compact_jws import parse as parse_jws
from sidecar.jwt.token_cache import digest
from sidecar.observability.access_lines import json_line
from sidecar.proxy.client_connection import ClientConnection
from sidecar.proxy.listener import Listener
from sidecar.proxy.upstream_connection import UpstreamConnection

USERS = 10_000
BATCHES = 5
REQUESTS = 2_000
WARM_UP = 20_000
SETTLED_S = 5.0
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Mon, 30 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json\r\n"
    b'Content-Length: 20\r\nConnection: keep-alive\r\n\r\n{"message": "hello"}'
)


class Transport(asyncio.Transport):
    """A connection that takes every byte."""

    def __init__(self) -> None:
        super().__init__(extra={"peername": ("127.0.0.1", 50_000)})
        self.sent = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent = bytes(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None: ...
    def abort(self) -> None: ...


class Ends:
    """A client's connection and one to the backend, both in memory."""

    def __init__(self, sidecar: Sidecar) -> None:
        live = sidecar.live
        self.handler = live.assembly.handler
        limits = client_limits(live.assembly.config)
        listener = Listener(self.handler, limits, sidecar.clock, live.deadlines, live.resources, "http")
        self.limits = limits
        self.transport = Transport()
        self.client = listener()
        self.client.connection_made(self.transport)
        pool = self.handler.upstreams["default"]
        self.upstream = UpstreamConnection(pool)
        self.upstream.connection_made(Transport())
        pool.keep(self.upstream, time.monotonic())

    def serve(self, requests: list[bytes], *, accepted: bool) -> None:
        """One request after the other, each with its answer."""
        for request in requests:
            _give(self.client, request)
            self.client.resources.flush()
            if accepted:
                _give(self.upstream, ANSWER)
                self.client.resources.flush()


def _give(connection: ClientConnection | UpstreamConnection, data: bytes) -> None:
    connection.get_buffer(65536)[: len(data)] = data
    connection.buffer_updated(len(data))


def _requests(work: str, issuer: Issuer) -> Iterator[bytes]:
    if work == "mix":
        tokens = issuer.tokens(USERS)
        yield from (_request(f"Authorization: Bearer {token}\r\n") for token in tokens)  # so that none is new
        yield from users_requests(tokens)
    if work == "none":
        yield from cycle([_request("")])
    if work == "warm":
        yield from cycle([_request(f"Authorization: Bearer {issuer.token()}\r\n")])
    for _ in count():
        for token in issuer.tokens(100) if work == "new" else issuer.forged(100):
            yield _request(f"Authorization: Bearer {token}\r\n")


def _request(line: str) -> bytes:
    return f"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n{line}\r\n".encode()


async def _measure(work: str, directory: Path, said: Callable[[str], None]) -> None:
    issuer = Issuer("main", "RS256", "http://127.0.0.1:1")
    (directory / "keys.json").write_text(json.dumps(issuer.jwks))
    trusted = {"issuer": issuer.iss, "audiences": [AUDIENCE], "jwks_file": str(directory / "keys.json")}
    config = {
        **{name: {"listen": "127.0.0.1:0"} for name in ("health", "admin")},
        "listen": "127.0.0.1:0",
        "issuers": {"main": trusted},
        "upstream": "http://127.0.0.1:9",
        "identity_headers": CLAIM_HEADERS,
        "claims_header": "off",
        "access_log": "json" if work == "mix" else "off",
    }
    sidecar = build(parse(json.dumps(config)))
    await sidecar.start()
    ends, requests = Ends(sidecar), _requests(work, issuer)
    accepted = work in ("mix", "warm", "new")
    until = time.monotonic() + SETTLED_S
    while ends.transport.sent[9:12] != (b"200" if accepted else b"401") and time.monotonic() < until:
        await asyncio.sleep(0.05)
        with suppress(AssertionError):  # the keys are not read yet
            ends.serve([next(requests)], accepted=accepted)
    if work in ("mix", "warm", "none"):
        ends.serve([next(requests) for _ in range(WARM_UP)], accepted=accepted)
    batches = []
    for _ in range(BATCHES):
        batch = [next(requests) for _ in range(REQUESTS)]
        await asyncio.sleep(0.2)  # lines of the access log are written
        began = time.process_time()
        ends.serve(batch, accepted=accepted)
        batches.append((time.process_time() - began) / REQUESTS * 1e6)
    said(f"{work:<44} {min(batches):6.2f}")
    for name, part in _parts(ends, next(requests)).items() if work == "mix" else ():
        said(f"  {name:<42} {_cost(part):6.2f}")
    await sidecar.stop()


def _parts(ends: Ends, raw: bytes) -> dict[str, Callable[[], object]]:
    handler, client, limits = ends.handler, ends.client, ends.limits
    head = parse_request_head(raw, handler.header_policy, limits.header_bytes, limits.headers)
    token = handler.tokens.take(head.special, head.target)
    assert token is not None
    issuer = handler.authentication.verifier.issuers.all[0]
    key = next(iter(issuer.source.jwks.keys)).by_algorithm["RS256"] if issuer.source.jwks else None
    assert key is not None
    jws, claims = parse_jws(token), handler.authentication.verifier.verify(token)
    exchange = handler.exchange(head, client.forwarded, client, raw)
    exchange.route = route = handler.routes.match("GET", head.target, head.host)
    exchange.claims, exchange.status = claims, 200
    exchange.sent = exchange.answered = exchange.started
    identity = handler.authentication.authenticate(exchange, route)
    upstream = handler.upstreams["default"]
    bad = jws.signature[:-1] + bytes([jws.signature[-1] ^ 1])

    def rendered() -> bytes:
        claims.headers = None
        return handler.authentication.authenticate(exchange, route)

    def found() -> bytes | None:
        reader = MessageReader(limits.head_bytes)
        reader.feed(raw)
        return reader.head()

    return {
        "find the end of the head": found,
        "parse the head": lambda: parse_request_head(raw, handler.header_policy, limits.header_bytes, limits.headers),
        "begin the exchange": lambda: handler.exchange(head, client.forwarded, client, raw),
        "match the route": lambda: handler.routes.match("GET", head.target, head.host),
        "SHA-256 of the token": lambda: digest(token),
        "find a remembered token, and authorize": lambda: handler.authentication.authenticate(exchange, route),
        "the head for the backend": lambda: handler.request_head(exchange, route, identity, upstream),
        "count it, with its line in the access log": lambda: handler.telemetry.ended(exchange, exchange.started),
        "the text of that line": lambda: json_line(exchange, 0.001),
        "a new token: base64url and JSON": lambda: parse_jws(token),
        "a new token: its key": lambda: issuer.key.candidates(jws, "main", "RS256", None),
        "a new token: RS256, good": lambda: key.verify(jws.signing_input, jws.signature),
        "a new token: RS256, forged": lambda: key.verify(jws.signing_input, bad),
        "a new token: rules for claims": lambda: issuer.rules.check(jws.payload, time.time(), []),
        "a new token: all of verify": lambda: handler.authentication.verifier.verify(token),
        "a new token: identity headers": rendered,
    }


def _cost(part: Callable[[], object]) -> float:
    batches = []
    for _ in range(BATCHES):
        began = time.process_time()
        for _ in range(REQUESTS):
            with suppress(Rejection):
                part()
        batches.append((time.process_time() - began) / REQUESTS * 1e6)
    return min(batches)


def main() -> None:
    """Print a table, in microseconds. The access log, which goes to standard output, is thrown away."""
    kept = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with tempfile.TemporaryDirectory() as directory, os.fdopen(kept, "w") as output:
        for work in sys.argv[1:] or ("mix", "new", "warm", "none", "forged"):
            uvloop.run(_measure(work, Path(directory), lambda line: print(line, file=output, flush=True)))


if __name__ == "__main__":
    main()
