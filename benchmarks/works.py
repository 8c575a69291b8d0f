"""The works: the load on the proxies and the figures to take. A new work is one more function in WORKS."""

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks import gateway as legs
from benchmarks import websocket as sockets
from benchmarks.bench import CPU, FLOOR, JWT_AUTHN, OURS, RATE, VERIFYING, Bench, Figures, NotServed, Result, cpu
from benchmarks.origin import bulk_origin
from benchmarks.peers.sidecar import TWO_WORKERS
from benchmarks.process import TWO_CORES
from benchmarks.proxies import Proxy, await_accepted, serving, started
from benchmarks.setting import BULK_BYTES
from benchmarks.steady import steady
from benchmarks.transfer import download, upload
from benchmarks.wrk import CONNECTIONS, closed_loop, each_once, users, users_requests

USERS = 10_000
COLD_TOKENS = 5_000
POST_BYTES = 2048
MEMORY_REQUESTS = 1_000_000
STEADY_RATE = 1_000.0
SHARE_OF_MAXIMUM = 0.8
MOST_REQUESTS = 10_000
BULK = (OURS, "envoy", "nginx")

Works = Iterator[Result]


def mix(bench: Bench) -> Works:
    """The traffic of a service: many users, no two equal requests, access logs on."""
    yield from _users(bench, "mix", USERS)


def mix_tls(bench: Bench) -> Works:
    """The same, with TLS between the client and the proxy."""
    yield from _users(bench, "mix-tls", USERS, tls=True)


def mix_users(bench: Bench) -> Works:
    """How the cost of the mix grows with the users."""
    yield from _users(bench, "users", 100, 1_000, 10_000, 100_000)


def _users(bench: Bench, name: str, *numbers: int, tls: bool = False) -> Works:
    setting = bench.setting(name, access_log=True, tls=tls)
    tokens = setting.issuers[0].tokens(max(numbers))
    with serving(bench.only(*JWT_AUTHN, FLOOR), setting) as proxies:
        for number in numbers:
            title = f"The mix: {number:,} users by Zipf, path and trace id new in each request, JSON access log"
            result = Result(name if len(numbers) == 1 else f"{name}-{number}", title + (", over TLS" if tls else ""))
            some = tokens[:number]
            for proxy in proxies:
                each_once(proxy.url(), some)  # who remembers tokens has seen them
            yield bench.interleaved(
                result,
                proxies,
                lambda turn, proxy, some=some: cpu(proxy, lambda: users(proxy.url(), some, bench.seconds, turn)),  # type: ignore[misc]
            )


def warm(bench: Bench) -> Works:
    """One RS256 token that every proxy has seen."""
    setting = bench.setting("warm")
    token = setting.issuers[0].token()
    result = Result("warm", f"The best case: one RS256 token again and again, {CONNECTIONS} connections")
    with serving(bench.peers, setting) as proxies:
        yield bench.interleaved(
            result, proxies, lambda _, proxy: cpu(proxy, lambda: closed_loop(proxy.url(), token, bench.seconds))
        )


def none(bench: Bench) -> Works:
    """Requests that bring no token."""
    yield from _refused(bench, Result("none", "No token"), with_token=False)


def expired(bench: Bench) -> Works:
    """The requests of a client in a loop."""
    yield from _refused(bench, Result("expired", "The same expired RS256 token again and again"), with_token=True)


def _refused(bench: Bench, result: Result, *, with_token: bool) -> Works:
    setting = bench.setting(result.name)
    token = setting.issuers[0].expired() if with_token else None
    with serving(bench.only(*VERIFYING), setting) as proxies:
        yield bench.interleaved(
            result,
            proxies,
            lambda _, proxy: cpu(proxy, lambda: closed_loop(proxy.url(), token, bench.seconds), accepted=False),
        )


def cold_rs256(bench: Bench) -> Works:
    """RS256 tokens that are seen once."""
    yield from _each_once(bench, Result("cold-rs256", f"{COLD_TOKENS:,} distinct RS256 tokens a round, each once"))


def cold_es256(bench: Bench) -> Works:
    """ES256 tokens that are seen once."""
    yield from _each_once(
        bench, Result("cold-es256", f"{COLD_TOKENS:,} distinct ES256 tokens a round, each once"), "ES256"
    )


def forged(bench: Bench) -> Works:
    """Tokens with another token's signature."""
    title = f"{COLD_TOKENS:,} distinct RS256 tokens a round with another token's signature"
    yield from _each_once(bench, Result("forged", title), accepted=False)


def _each_once(bench: Bench, result: Result, algorithm: str = "RS256", *, accepted: bool = True) -> Works:
    setting = bench.setting(result.name, algorithm)
    issuer = setting.issuers[0]
    make = issuer.tokens if accepted else issuer.forged
    batches = [make(COLD_TOKENS + CONNECTIONS) for _ in range(bench.rounds + 1)]
    with serving(bench.only(*VERIFYING), setting) as proxies:
        yield bench.interleaved(
            result,
            proxies,
            lambda number, proxy: cpu(proxy, lambda: each_once(proxy.url(), batches[number]), accepted),
        )


def post(bench: Bench) -> Works:
    """Requests with a body."""
    setting = bench.setting("post")
    token = setting.issuers[0].token()
    result = Result("post", f"POST of {POST_BYTES:,} bytes, one warm RS256 token")
    with serving(bench.only(*JWT_AUTHN), setting) as proxies:
        yield bench.interleaved(
            result,
            proxies,
            lambda _, proxy: cpu(proxy, lambda: closed_loop(proxy.url(), token, bench.seconds, body=POST_BYTES)),
        )


def gateway(bench: Bench) -> Works:
    """Both ends of our own pair: an API key in and a minted token out, and that token in."""
    for algorithm in ("EdDSA", "RS256"):
        title = f"The gateway (API key in, minted {algorithm} token out) beside the sidecar, both warm"
        result = Result(f"gateway-{algorithm.lower()}", title, mine="gateway")
        with tempfile.TemporaryDirectory() as directory:
            costs = legs.measure(Path(directory, algorithm), algorithm, bench.rounds, bench.seconds)
        result.rounds.update({leg: [{CPU: cost} for cost in taken] for leg, taken in costs.items()})
        yield result


def transfer(bench: Bench) -> Works:
    """One body of a gigabyte, each way."""
    with bulk_origin() as origin:
        setting = replace(bench.setting("transfer"), origin=origin)
        token = setting.issuers[0].token()
        with serving(bench.only(*BULK), setting) as proxies:
            for name, move in (("download", download), ("upload", upload)):

                def measure(_: int, proxy: Proxy, move: Callable[[int, str], None] = move) -> Figures:
                    before, began = proxy.process.cpu_s(), time.monotonic()
                    move(proxy.port, token)
                    seconds = time.monotonic() - began
                    return {"CPU ms": (proxy.process.cpu_s() - before) * 1e3, "MiB/s": BULK_BYTES / 2**20 / seconds}

                yield bench.interleaved(Result(name, f"One {name} of 1 GiB", "CPU ms"), proxies, measure)


def websocket(bench: Bench) -> Works:
    """Small messages, each answered before the next is sent."""
    setting = bench.setting("websocket")
    title = (
        f"WebSocket: {sockets.CONNECTIONS} connections, {sockets.MESSAGES:,} messages of {sockets.BYTES} bytes each way on each,"
        " one at a time"
    )
    result = Result("websocket", title, "CPU us/message")
    with sockets.echo_origin() as origin:
        setting = replace(setting, origin=origin)
        token = setting.issuers[0].token()
        with serving(bench.only(OURS, "envoy", FLOOR), setting) as proxies:

            def measure(_: int, proxy: Proxy) -> Figures:
                before, began = proxy.process.cpu_s(), time.monotonic()
                messages = sockets.talk(proxy.port, token)
                spent, seconds = proxy.process.cpu_s() - before, time.monotonic() - began
                return {"CPU us/message": spent / messages * 1e6, "messages/s": messages / seconds}

            yield bench.interleaved(result, proxies, measure)


def latency(bench: Bench) -> Works:
    """The mix in an open loop: at a fixed rate, and at a share of what each proxy can do at most."""
    setting = bench.setting("latency", access_log=True)
    requests = users_requests(setting.issuers[0].tokens(1_000))
    fixed = Result("latency", f"The mix at a steady {STEADY_RATE:,.0f} requests/s", "p99 ms")
    share = Result("latency-share", f"The mix at {SHARE_OF_MAXIMUM:.0%} of each one's own maximum", "p99 ms")
    with serving(bench.only(*JWT_AUTHN), setting) as proxies:

        def measure(proxy: Proxy, rate: float) -> Figures:
            taken = steady(proxy.port, requests, rate, int(rate * bench.seconds))
            return {"p99 ms": taken.p99, "p50 ms": taken.p50, RATE: rate, "client's lag p99 ms": taken.lag_p99}

        def most(proxy: Proxy) -> float:
            # By the same client and in the same round: what it cannot send is no proxy's maximum.
            return steady(proxy.port, requests, math.inf, MOST_REQUESTS).rate

        yield bench.interleaved(fixed, proxies, lambda _, proxy: measure(proxy, STEADY_RATE))
        yield bench.interleaved(share, proxies, lambda _, proxy: measure(proxy, SHARE_OF_MAXIMUM * most(proxy)))


def memory(bench: Bench) -> Works:
    """Resident memory at rest and after a million requests; one round, because it is not the machine's speed."""
    setting = bench.setting("memory", access_log=True)
    tokens = setting.issuers[0].tokens(USERS)
    title = f"Resident memory after {MEMORY_REQUESTS:,} requests of the mix"
    result = Result("memory", title, "MiB")
    with serving(bench.only(*JWT_AUTHN), setting) as proxies:
        for proxy in proxies:
            at_rest = proxy.process.resident_bytes()
            each_once(proxy.url(), tokens)
            cpu(proxy, lambda proxy=proxy: users(proxy.url(), tokens, 3600, 1, MEMORY_REQUESTS))  # type: ignore[misc]
            after = proxy.process.resident_bytes()
            result.rounds[proxy.peer.name] = [{"MiB": after / 2**20, "MiB at rest": at_rest / 2**20}]
    yield result


def start(bench: Bench) -> Works:
    """From the start of the process to the first request that it accepted, asked every millisecond or so."""
    setting = bench.setting("start")
    token = setting.issuers[0].token()
    result = Result("start", "Process start to the first accepted request", "ms")
    for number in range(bench.rounds + 1):
        for peer in bench.only(*VERIFYING):
            began = time.monotonic()
            with started(peer, setting) as proxy:
                await_accepted(proxy, token, pause_s=0.001)
                took = time.monotonic() - began
                spent = proxy.process.cpu_s()
            if number:
                result.rounds.setdefault(peer.name, []).append({"ms": took * 1e3, "CPU ms": spent * 1e3})
    yield result


def workers(bench: Bench) -> Works:
    """Two workers on two cores and one worker that may use either; the load shares the cores, and its CPU time is not counted."""
    setting = replace(bench.setting("workers"), cores=TWO_CORES)
    token = setting.issuers[0].token()
    result = Result("workers", "One and two workers on two cores, one warm RS256 token", mine=TWO_WORKERS.name)
    with serving([*bench.only(OURS), TWO_WORKERS], setting) as proxies:
        if len(proxies[-1].process.pids()) < 2:
            raise NotServed("asked for two workers, jwt-sidecar runs as one process")
        yield bench.interleaved(
            result, proxies, lambda _, proxy: cpu(proxy, lambda: closed_loop(proxy.url(), token, bench.seconds))
        )


WORKS: dict[str, Callable[[Bench], Works]] = {
    "mix": mix,
    "mix-tls": mix_tls,
    "warm": warm,
    "cold-rs256": cold_rs256,
    "cold-es256": cold_es256,
    "none": none,
    "forged": forged,
    "expired": expired,
    "post": post,
    "gateway": gateway,
    "transfer": transfer,
    "websocket": websocket,
    "latency": latency,
    "memory": memory,
    "start": start,
    "workers": workers,
    "users": mix_users,
}
