"""Peers as running proxies, checked to do their work."""

import contextlib
import http.client
import json
import os
import shutil
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.certificate import write_certificate
from benchmarks.peers import Peer
from benchmarks.process import Process, reserved_port, running
from benchmarks.setting import CLAIMS_HEADER, SEEN, Setting

START_S = 30.0
UNVERIFIED = ssl.create_default_context()
UNVERIFIED.check_hostname = False
UNVERIFIED.verify_mode = ssl.CERT_NONE

# Compiled .pyc files are part of an installed Python program.
ENVIRON = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


@dataclass(frozen=True)
class Proxy:
    """A peer that runs with some setting and listens on 127.0.0.1."""

    peer: Peer
    process: Process
    port: int
    scheme: str

    def url(self, path: str = "/") -> str:
        """The address of a path."""
        return f"{self.scheme}://127.0.0.1:{self.port}{path}"


class Broken(Exception):
    """A peer does not do what its setting asks for."""


@contextlib.contextmanager
def started(peer: Peer, setting: Setting) -> Iterator[Proxy]:
    """Starts a peer; it may not accept requests yet."""
    directory = setting.directory / peer.name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    if setting.tls:
        write_certificate(directory)
    with reserved_port() as port:
        command = peer.command(setting, port, directory)
        with running(command, directory, setting.cores, ENVIRON) as process:
            yield Proxy(peer, process, port, "https" if setting.tls else "http")


@contextlib.contextmanager
def serving(peers: Sequence[Peer], setting: Setting) -> Iterator[list[Proxy]]:
    """Starts all peers and goes on when each has shown that it accepts, refuses and forwards as the setting says."""
    with contextlib.ExitStack() as stack:
        proxies = [stack.enter_context(started(peer, setting)) for peer in peers]
        for proxy in proxies:
            for issuer in setting.issuers:
                await_accepted(proxy, issuer.token())
            _check(proxy, setting)
        yield proxies


def await_accepted(proxy: Proxy, token: str, pause_s: float = 0.002) -> None:
    """Returns when the first request has been accepted."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and proxy.process.alive():
        with contextlib.suppress(OSError, http.client.HTTPException):
            if _get(proxy, "/", token)[0] == 200:
                return
        time.sleep(pause_s)
    raise Broken(f"{proxy.peer.name} accepted no good token: {_tail(proxy)}")


def _check(proxy: Proxy, setting: Setting) -> None:
    issuer = setting.issuers[0]
    status, body = _get(proxy, SEEN, issuer.token(sub="somebody", scope="one two"))
    _require(proxy, status == 200, f"a good token is answered {status}")
    if not proxy.peer.verifies:
        return
    seen: dict[str, str] = json.loads(body)
    claims = seen.pop(CLAIMS_HEADER.lower())
    _require(proxy, bool(claims) == setting.claims_header, f"the origin sees {CLAIMS_HEADER}: {claims}")
    expected = {"x-jwt-sub": "somebody", "x-jwt-scope": "one two", "authorization": ""}
    _require(proxy, seen == expected, f"the origin sees {seen}")
    bad = {
        "no token": None,
        "an expired token": issuer.expired(),
        "a forged token": issuer.forged(1)[0],
        "another audience": issuer.token(aud="another"),
        "another issuer": issuer.token(iss="http://127.0.0.1/another"),
    }
    for what, token in bad.items():
        status, _ = _get(proxy, SEEN, token)
        _require(proxy, status in (401, 403), f"{what} is answered {status}")
    for prefix, owner in setting.routes:
        for candidate in setting.issuers:
            status, _ = _get(proxy, prefix, candidate.token())
            _require(proxy, (status == 200) == (candidate is owner), f"{prefix} answers {candidate.name} {status}")


def _get(proxy: Proxy, path: str, token: str | None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=START_S)
    if proxy.scheme == "https":
        connection = http.client.HTTPSConnection("127.0.0.1", proxy.port, timeout=START_S, context=UNVERIFIED)
    headers: Mapping[str, str] = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _require(proxy: Proxy, kept: bool, what: str) -> None:
    if not kept:
        raise Broken(f"{proxy.peer.name}: {what}: {_tail(proxy)}")


def _tail(proxy: Proxy) -> str:
    return proxy.process.output.read_text(errors="replace")[-2000:] or "it printed nothing"
