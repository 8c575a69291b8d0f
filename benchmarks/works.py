"""The works: what is asked of the proxies, and which figures are taken. A new one is one more function in WORKS."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.issuer import Issuers
from benchmarks.origin import bulk_origin
from benchmarks.peers import Peer
from benchmarks.peers.sidecar import TWO_WORKERS
from benchmarks.process import TWO_CORES
from benchmarks.proxies import Broken, Proxy, await_accepted, serving, started
from benchmarks.setting import BULK_BYTES, Setting
from benchmarks.steady import steady
from benchmarks.transfer import download, upload
from benchmarks.wrk import CONNECTIONS, Load, closed_loop, each_once, users

Figures = dict[str, float]
"""What one round says about one proxy: the name of a column, with its unit, and the figure."""
CPU = "CPU us/request"
RATE = "requests/s"

OURS = "jwt-sidecar"
USERS = 10_000
COLD_TOKENS = 5_000
MEMORY_TOKENS = 10_000
MEMORY_REQUESTS = 1_000_000
STEADY_RATE = 1_000.0
SHARE_OF_MAXIMUM = 0.8
MOST_REQUESTS = 10_000
VERIFYING = (OURS, "envoy", "envoy-cache", "haproxy", "fastify")
SEVERAL_ISSUERS = (OURS, "envoy", "envoy-cache")
BULK = (OURS, "envoy", "nginx")


class NotServed(Exception):
    """A work cannot be measured with what is there; the text says why."""


@dataclass(frozen=True)
class Result:
    """One table: the figures of every round of every proxy. The column `leading` of `mine` is compared with the others'."""

    name: str
    title: str
    leading: str
    mine: str = OURS
    rounds: dict[str, list[Figures]] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """What every work is given."""

    peers: Sequence[Peer]
    directory: Path
    origin: int
    issuers: Issuers
    rounds: int
    seconds: int
    access_log: bool

    def setting(self, algorithm: str = "RS256", name: str = "") -> Setting:
        """One issuer, no routes; `name`, by default the algorithm's, is the directory of its configurations."""
        name = (name or algorithm.lower()) + ("-logged" if self.access_log else "")
        issuer = self.issuers.add(name, algorithm)
        return Setting(self.directory / name, self.origin, (issuer,), access_log=self.access_log)

    def result(self, name: str, title: str, leading: str, mine: str = OURS) -> Result:
        """An empty one; its name and title say whether access logs are on."""
        if self.access_log:
            name, title = f"{name}-logged", f"{title}; access logs on"
        return Result(name, title, leading, mine)

    def only(self, *names: str) -> list[Peer]:
        """The peers of those names that are here."""
        return [peer for peer in self.peers if peer.name in names]

    def interleaved(self, result: Result, proxies: Sequence[Proxy], measure: Callable[[int, Proxy], Figures]) -> Result:
        """Fills `result` from `measure(round, proxy)` for A B C A B C; round 0 warms up and is thrown away."""
        for number in range(self.rounds + 1):
            for proxy in proxies:
                figures = measure(number, proxy)
                if number:
                    result.rounds.setdefault(proxy.peer.name, []).append(figures)
        return result


def cpu(proxy: Proxy, load: Callable[[], Load], accepted: bool = True) -> Figures:
    """CPU time of the proxy per request of `load`, every one of which must be accepted, or refused."""
    before = proxy.process.cpu_s()
    counted = load()
    spent = proxy.process.cpu_s() - before
    if not counted.requests or counted.refused != (0 if accepted else counted.requests):
        raise Broken(f"{proxy.peer.name}: {counted.refused} of {counted.requests} requests were refused")
    return {CPU: spent / counted.requests * 1e6, RATE: counted.rate, "CPU %": spent / counted.seconds * 100}


def mix(bench: Bench) -> Iterator[Result]:
    """What a service gets: many users, no two requests alike, access logs on."""
    bench = replace(bench, access_log=True)
    setting = bench.setting(name="mix")
    tokens = setting.issuers[0].tokens(USERS)
    title = f"The mix: {USERS:,} users by Zipf, path and trace id new in each request, JSON access log"
    result = Result("mix", title, CPU)
    with serving(bench.only(*SEVERAL_ISSUERS), setting) as proxies:
        for proxy in proxies:
            each_once(proxy.url(), tokens)  # who remembers tokens has seen them
        yield bench.interleaved(
            result,
            proxies,
            lambda number, proxy: cpu(proxy, lambda: users(proxy.url(), tokens, bench.seconds, number)),
        )


def warm(bench: Bench) -> Iterator[Result]:
    """One RS256 token that every proxy has seen."""
    setting = bench.setting()
    token = setting.issuers[0].token()
    result = bench.result("warm", f"One warm RS256 token, {CONNECTIONS} connections", CPU)
    with serving(bench.peers, setting) as proxies:
        yield bench.interleaved(
            result, proxies, lambda _, proxy: cpu(proxy, lambda: closed_loop(proxy.url(), token, bench.seconds))
        )


def cold(bench: Bench) -> Iterator[Result]:
    """Tokens that are seen once."""
    for algorithm in ("RS256", "ES256"):
        setting = bench.setting(algorithm)
        title = f"{COLD_TOKENS:,} distinct {algorithm} tokens a round, each once"
        yield _each_once(
            bench, setting, bench.result(f"cold-{algorithm.lower()}", title, CPU), setting.issuers[0].tokens
        )


def reject(bench: Bench) -> Iterator[Result]:
    """Tokens that are refused, each sent once."""
    setting = bench.setting()
    issuer = setting.issuers[0]
    for name, title, make in (
        ("signature", "with another token's signature", issuer.forged),
        ("expired", "that ended an hour ago", lambda count: [issuer.expired() for _ in range(count)]),
    ):
        result = bench.result(f"reject-{name}", f"{COLD_TOKENS:,} distinct RS256 tokens a round {title}", CPU)
        yield _each_once(bench, setting, result, make, accepted=False)


def _each_once(
    bench: Bench, setting: Setting, result: Result, make: Callable[[int], list[str]], accepted: bool = True
) -> Result:
    batches = [make(COLD_TOKENS + CONNECTIONS) for _ in range(bench.rounds + 1)]
    with serving(bench.only(*VERIFYING), setting) as proxies:
        return bench.interleaved(
            result,
            proxies,
            lambda number, proxy: cpu(proxy, lambda: each_once(proxy.url(), batches[number]), accepted),
        )


def rich(bench: Bench) -> Iterator[Result]:
    """What a grown configuration costs: the request takes the last of ten routes."""
    issuers = tuple(bench.issuers.add(f"rich-{number}") for number in range(3))
    routes = tuple((f"/area{number}/", issuers[number % 3]) for number in range(10))
    setting = replace(bench.setting(name="rich"), issuers=issuers, routes=routes, claims_header=True)
    headers = {
        "Accept": "application/json, text/plain, */*",
        "Accept-Encoding": "gzip, deflate, br",
        "Accept-Language": "en-GB,en;q=0.9,de;q=0.7",
        "Cache-Control": "no-cache",
        "Cookie": "session=4bb7d0c21e9a4f0f; theme=dark; consent=yes",
        "Origin": "https://app.example",
        "Referer": "https://app.example/orders/overview",
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "X-Request-Id": "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0",
        "Traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    }  # with Host and Authorization: 12
    prefix, owner = routes[-1]
    token = owner.token()
    title = "10 routes, 3 issuers, 12 headers, claims header"
    result = bench.result("rich", title, CPU)
    varied = bench.result("rich-varied", f"{title}; path and ids new in each request", CPU)
    with serving(bench.only(*SEVERAL_ISSUERS), setting) as proxies:

        def measure(proxy: Proxy, varied: bool) -> Figures:
            url = proxy.url(f"{prefix}orders/17")
            return cpu(proxy, lambda: closed_loop(url, token, bench.seconds, headers, varied=varied))

        yield bench.interleaved(result, proxies, lambda _, proxy: measure(proxy, False))
        yield bench.interleaved(varied, proxies, lambda _, proxy: measure(proxy, True))


def latency(bench: Bench) -> Iterator[Result]:
    """Open loop: at a fixed rate, and at a share of what each proxy can do at most."""
    setting = bench.setting()
    token = setting.issuers[0].token()
    fixed = bench.result("latency", f"Latency at a steady {STEADY_RATE:,.0f} requests/s", "p99 ms")
    share = bench.result("latency-share", f"Latency at {SHARE_OF_MAXIMUM:.0%} of each one's own maximum", "p99 ms")
    with serving(bench.peers, setting) as proxies:

        def measure(proxy: Proxy, rate: float) -> Figures:
            taken = steady(proxy.port, token, rate, int(rate * bench.seconds))
            return {"p99 ms": taken.p99, "p50 ms": taken.p50, RATE: rate, "client's lag p99 ms": taken.lag_p99}

        def most(proxy: Proxy) -> float:
            # By the same client and in the same round: what it cannot send is no proxy's maximum.
            return steady(proxy.port, token, math.inf, MOST_REQUESTS).rate

        yield bench.interleaved(fixed, proxies, lambda _, proxy: measure(proxy, STEADY_RATE))
        yield bench.interleaved(share, proxies, lambda _, proxy: measure(proxy, most(proxy) * SHARE_OF_MAXIMUM))


def transfer(bench: Bench) -> Iterator[Result]:
    """One body of a gigabyte, and the CPU time of passing it on."""
    setting = bench.setting()
    token = setting.issuers[0].token()
    with bulk_origin() as origin, serving(bench.only(*BULK), replace(setting, origin=origin)) as proxies:
        for name, move in (("download", download), ("upload", upload)):

            def measure(_: int, proxy: Proxy, move: Callable[[int, str], None] = move) -> Figures:
                before, began = proxy.process.cpu_s(), time.monotonic()
                move(proxy.port, token)
                seconds = time.monotonic() - began
                return {"CPU ms": (proxy.process.cpu_s() - before) * 1e3, "MiB/s": BULK_BYTES / 2**20 / seconds}

            yield bench.interleaved(bench.result(name, f"One {name} of 1 GiB", "CPU ms"), proxies, measure)


def memory(bench: Bench) -> Iterator[Result]:
    """Resident memory at rest and after a million requests; one round, because it is not the machine's speed."""
    setting = bench.setting()
    tokens = setting.issuers[0].tokens(MEMORY_TOKENS)
    title = f"Resident memory after {MEMORY_REQUESTS:,} requests with {MEMORY_TOKENS:,} RS256 tokens"
    result = bench.result("memory", title, "MiB")
    with serving(bench.only(*SEVERAL_ISSUERS), setting) as proxies:
        for proxy in proxies:
            at_rest = proxy.process.resident_bytes()
            cpu(proxy, lambda proxy=proxy: each_once(proxy.url(), tokens, MEMORY_REQUESTS))  # type: ignore[misc]
            after = proxy.process.resident_bytes()
            result.rounds[proxy.peer.name] = [{"MiB": after / 2**20, "MiB at rest": at_rest / 2**20}]
    yield result


def start(bench: Bench) -> Iterator[Result]:
    """From the start of the process to the first request that it accepted, asked every millisecond or so."""
    setting = bench.setting()
    token = setting.issuers[0].token()
    result = bench.result("start", "Process start to the first accepted request", "ms")
    for number in range(bench.rounds + 1):
        for peer in bench.only(*VERIFYING):
            began = time.monotonic()
            with started(peer, setting) as proxy:
                await_accepted(proxy, token, pause_s=0.001)
                took = time.monotonic() - began
                cpu = proxy.process.cpu_s()
            if number:
                result.rounds.setdefault(peer.name, []).append({"ms": took * 1e3, "CPU ms": cpu * 1e3})
    yield result


def workers(bench: Bench) -> Iterator[Result]:
    """Two workers on two cores and one worker that may use either; the load shares the cores, and its CPU time is not counted."""
    setting = replace(bench.setting(name="workers"), cores=TWO_CORES)
    token = setting.issuers[0].token()
    result = bench.result("workers", "One and two workers on two cores, one warm RS256 token", CPU, TWO_WORKERS.name)
    with serving([*bench.only(OURS), TWO_WORKERS], setting) as proxies:
        if len(proxies[-1].process.pids()) < 2:
            raise NotServed("asked for two workers, jwt-sidecar runs as one process")
        yield bench.interleaved(
            result, proxies, lambda _, proxy: cpu(proxy, lambda: closed_loop(proxy.url(), token, bench.seconds))
        )


WORKS: dict[str, Callable[[Bench], Iterator[Result]]] = {
    work.__name__: work for work in (mix, warm, cold, reject, rich, latency, transfer, memory, start, workers)
}
LOGGED = ("warm", "cold", "reject", "rich")
"""Those that are measured with access logs on as well."""
