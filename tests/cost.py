"""The cost of a request in figures that do not depend on the machine's load: calls, system calls, and a ratio.

    python -m tests.cost              what each kind of request costs, and its most frequent calls
    python -m tests.cost --write      makes that the budget (tests/cost.json), which tests/test_cost.py holds us to
    python -m tests.cost --compare    the ratios alone, once, as JSON

A sidecar listens on loopback and serves one request after the other, in a thread of its own, the only one that is looked at:
client and backend are plain blocking sockets in other threads. Counted are the calls of Python functions (a coroutine that goes
on counts again), the calls from Python into C, and the reads and writes of the kernel: each figure is the same in every run.
What happens inside a function is not seen by that; so the CPU time of the thread is compared, in turns, with that of aiohttp's
`web.Server` answering a constant on the same loop.
"""

import asyncio
import gc
import json
import os
import platform
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from types import CodeType, FrameType
from typing import Any

import uvloop
from aiohttp import web

from sidecar.app.server import build
from sidecar.config import parse
from tests.peers import tokens
from tests.peers.wire import request, response

BUDGET = Path(__file__).with_suffix(".json")
VERSION = ".".join(platform.python_version_tuple()[:2])
"""Each version of Python counts calls differently, so each has its own budget."""
BATCHES = 5
REQUESTS = 20  # in a batch. The smallest batch is taken: in another one a clock may have ticked
TURNS = 10
COMPARED = 100  # requests in a turn. The quickest turn of each is taken: others shared the core
COMPARISONS = 5  # of which a budget is the median
SHOWN = 25

CALLS = ("python calls", "c calls", "reads and writes")
RATIO = "times the CPU time of a constant answer"
Cost = dict[str, float]
"""For one request: CALLS and RATIO."""


@dataclass(frozen=True)
class Kind:
    """Requests whose cost is watched: `head(i)` is the i-th, and is answered with `status`."""

    head: Callable[[int], bytes]
    status: int = 200
    access_log: str = "off"

    def heads(self, number: int) -> list[bytes]:
        """So many of them."""
        return [self.head(i) for i in range(number)]


def _kinds() -> dict[str, Kind]:
    until = int(time.time()) + 86_400  # made when this is imported, and used when the suite gets here
    good, other = tokens.token("RS256", exp=until), tokens.token("RS256", exp=until, jti="other")
    forged = f"{good.rpartition('.')[0]}.{other.rpartition('.')[2]}"
    expired = tokens.token("RS256", exp=0, iat=0)
    few = [("Accept", "*/*"), ("User-Agent", "curl/8.14.1")]
    many = [*few, *((f"X-Header-{i}", "a value of some length") for i in range(8))]  # with Host and Authorization: 12
    users = [tokens.token("RS256", exp=until, sub=f"user-{number}") for number in range(20)]
    browser = [*few, ("Accept-Encoding", "gzip, br"), ("Accept-Language", "en-GB,en;q=0.9")]
    return {
        "the mix": Kind(
            lambda i: request(
                "GET",
                f"/orders/{i}",
                token=users[i % len(users)],
                headers=[*browser, ("Traceparent", f"00-{i + 1:032x}-00f067aa0ba902b7-01")],
            ),
            access_log="json",
        ),
        "a token that is remembered": Kind(lambda _: request(token=good, headers=few)),
        "the same, with its line in the access log": Kind(
            lambda _: request(token=good, headers=few), access_log="json"
        ),
        "the same, 12 headers, the last of 10 rules": Kind(lambda _: request("GET", "/9/x", token=good, headers=many)),
        "the same, each with an id of its own": Kind(
            lambda i: request("GET", "/9/x", token=good, headers=[*many, ("X-Request-Id", f"id-{i}")])
        ),
        "a token that is new": Kind(lambda i: request(token=tokens.token("RS256", jti=str(i)), headers=few)),
        "a forged token": Kind(lambda _: request(token=forged, headers=few), 401),
        "an expired token": Kind(lambda _: request(token=expired, headers=few), 401),
        "no token": Kind(lambda _: request(headers=few), 401),
    }


KINDS = _kinds()
COMPARED_KINDS = (
    "the mix",
    "a token that is remembered",
    "the same, 12 headers, the last of 10 rules",
    "the same, each with an id of its own",
    "no token",
)
"""Those without a signature to verify: that one's share of the time is another one on another processor."""


def count() -> tuple[dict[str, Cost], dict[str, "Counter[str]"]]:
    """The cost of each kind in CALLS, and the number of calls of each function for 100 requests."""
    costs, calls = {}, {}
    for name, kind in KINDS.items():
        with serving(kind.access_log) as sidecar, _connected(sidecar.address) as client:
            _exchange(client, kind.heads(REQUESTS), kind.status)  # what only the first one does: connect, fill caches
            batches: list[Counted] = []
            for _ in range(BATCHES):
                heads = [kind.head(len(batches) * REQUESTS + i) for i in range(REQUESTS, 2 * REQUESTS)]
                with sidecar.counting() as counted:
                    _exchange(client, heads, kind.status)
                batches.append(counted)
            least = min(batches, key=lambda counted: (counted.calls.total(), counted.system_calls))
            costs[name], calls[name] = least.cost(), least.named()
    return costs, calls


def compare() -> dict[str, Cost]:
    """The cost of each of COMPARED_KINDS in RATIO."""
    costs = {}
    constant = [request(headers=[("Accept", "*/*")])] * COMPARED
    for name in COMPARED_KINDS:
        kind, ours, theirs = KINDS[name], [], []
        heads = kind.heads(TURNS * COMPARED)
        with (
            serving(kind.access_log) as sidecar,
            _connected(sidecar.address) as client,
            _connected(sidecar.reference) as other,
        ):
            for at in range(0, len(heads), COMPARED):
                ours.append(sidecar.cpu_s(client, heads[at : at + COMPARED], kind.status))
                theirs.append(sidecar.cpu_s(other, constant, 200))
            costs[name] = {RATIO: round(min(ours) / min(theirs), 2)}
    return costs


class Counted:
    """The events of one batch."""

    def __init__(self) -> None:
        self.calls: Counter[CodeType | str] = Counter()
        self.system_calls = 0

    def event(self, frame: FrameType, event: str, function: Any) -> None:
        """As sys.setprofile wants it."""
        if event == "call":
            self.calls[frame.f_code] += 1
        elif event == "c_call":
            self.calls[getattr(function, "__qualname__", repr(function))] += 1

    def cost(self) -> Cost:
        """Of a request; what the counting itself adds to a batch is less than one for each, and goes by rounding down."""
        in_c = sum(times for called, times in self.calls.items() if isinstance(called, str))
        figures = (self.calls.total() - in_c, in_c, self.system_calls)
        return {name: figure // REQUESTS for name, figure in zip(CALLS, figures, strict=True)}

    def named(self) -> "Counter[str]":
        """Function -> its calls for 100 requests."""
        names: Counter[str] = Counter()
        for called, times in self.calls.items():
            name = called if isinstance(called, str) else f"{Path(called.co_filename).stem}: {called.co_qualname}"
            names[name] += times * 100 // REQUESTS
        return names


class Serving:
    """A sidecar and a server of a constant answer, both in one loop in a thread of its own."""

    def __init__(self, backend: tuple[str, int], keys: Path, access_log: str) -> None:
        config = {
            "listen": "127.0.0.1:0",
            "health": {"listen": "127.0.0.1:0"},
            "admin": {"listen": "127.0.0.1:0"},
            "issuers": {"main": {"issuer": tokens.ISSUER, "audiences": [tokens.AUDIENCE], "jwks_file": str(keys)}},
            "upstream": "http://{}:{}".format(*backend),
            "access_log": access_log,
            "routes": [{"path": "/"}, *({"path": f"/{i}/*"} for i in range(1, 10))],
        }
        self._sidecar = build(parse(json.dumps(config)))
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        """Return when both accept requests."""
        self._thread.start()
        self._in_loop(self._sidecar.start())
        self.address = self._sidecar.proxy_address
        self._constant = self._in_loop(_constant())
        self.reference = self._constant.addresses[0]
        self._clock = time.pthread_getcpuclockid(self._thread.ident or 0)
        while not _ready(self._sidecar.health_address):
            time.sleep(0.01)

    def stop(self) -> None:
        """End both."""
        self._in_loop(self._constant.cleanup())
        self._in_loop(self._sidecar.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @contextmanager
    def counting(self) -> Iterator[Counted]:
        """Count what the thread does within the block; nothing may be under way at its ends."""
        counted = Counted()
        before = self._system_calls()
        self._profile(counted.event)
        try:
            yield counted
        finally:
            self._profile(None)
            counted.system_calls = self._system_calls() - before

    def cpu_s(self, client: socket.socket, heads: Sequence[bytes], status: int) -> float:
        """The CPU time that the thread spends on these requests, all of which are answered with `status`."""
        before = time.clock_gettime(self._clock)
        _exchange(client, heads, status)
        return time.clock_gettime(self._clock) - before

    def _profile(self, event: Callable[[FrameType, str, Any], None] | None) -> None:
        done = threading.Event()
        self._loop.call_soon_threadsafe(sys.setprofile, event)  # called by the loop itself: no function of ours counts
        self._loop.call_soon_threadsafe(done.set)
        done.wait()

    def _system_calls(self) -> int:
        lines = Path(f"/proc/self/task/{self._thread.native_id}/io").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("sysc"))

    def _in_loop(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


@contextmanager
def serving(access_log: str) -> Iterator[Serving]:
    """A `Serving` with a backend, its access log thrown away.

    The garbage collector waits: somebody's callback of it is not a request's.
    """
    with tempfile.TemporaryDirectory() as directory, _backend() as backend, _silent():
        keys = Path(directory, "keys.json")
        keys.write_text(json.dumps({"keys": [tokens.public_jwk("RS256")]}))
        served = Serving(backend, keys, access_log)
        served.start()
        gc.collect()
        gc.disable()
        try:
            yield served
        finally:
            gc.enable()
            served.stop()


@contextmanager
def _silent() -> Iterator[None]:
    """The access log goes to descriptor 1."""
    sys.stdout.flush()
    kept = os.dup(1)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


async def _constant() -> web.ServerRunner:
    async def handler(_: web.BaseRequest) -> web.Response:
        return web.Response(text='{"message":"hello"}', content_type="application/json")

    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner


@contextmanager
def _backend() -> Iterator[tuple[str, int]]:
    """Answers every request with the same 200, on one connection after the other; its address."""
    answer = response(200, b'{"message":"hello"}', [("Content-Type", "application/json")])

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # the end
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection:
                while head := connection.recv(65536):
                    assert head.endswith(b"\r\n\r\n"), "one request at a time, in one piece"
                    connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[:2]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _ready(health: tuple[str, int]) -> bool:
    with closing(HTTPConnection(*health)) as connection:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200


@contextmanager
def _connected(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_connection(address) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield client


def _exchange(client: socket.socket, heads: Sequence[bytes], status: int) -> None:
    for head in heads:
        client.sendall(head)
        received = b""
        while b"\r\n\r\n" not in received or not received.endswith(b"}"):
            piece = client.recv(65536)
            assert piece, "the connection was closed"
            received += piece
        assert received.startswith(b"HTTP/1.1 %d " % status), received[:60]


def main() -> int:
    """Print what requests cost; with --write, hold the test to it."""
    if "--compare" in sys.argv:
        print(json.dumps(compare()))
        return 0
    costs, calls = count()
    ratios = [compare() for _ in range(COMPARISONS)]
    for name in COMPARED_KINDS:
        costs[name][RATIO] = median(ratio[name][RATIO] for ratio in ratios)
    for name in costs:
        print(f"\n{name}: " + ", ".join(f"{figure:g} {what}" for what, figure in costs[name].items()))
        for called, times in calls[name].most_common(SHOWN):
            print(f"{times / 100:8g}  {called}")
    if "--write" in sys.argv:
        budgets = json.loads(BUDGET.read_text()) if BUDGET.exists() else {}
        BUDGET.write_text(json.dumps({**budgets, VERSION: costs}, indent=2) + "\n")
        print(f"\nwritten: {os.path.relpath(BUDGET)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
