"""The input and the result of every work: figures of each round of each proxy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.issuer import Issuers
from benchmarks.peers import Peer
from benchmarks.proxies import Broken, Proxy
from benchmarks.setting import Setting
from benchmarks.wrk import Load

Figures = dict[str, float]
"""The figures of one proxy in one round: name of the column, with its unit -> figure."""
CPU = "CPU us/request"
RATE = "requests/s"

OURS = "jwt-sidecar"
VERIFYING = (OURS, "envoy", "envoy-cache", "haproxy", "fastify")
JWT_AUTHN = (OURS, "envoy", "envoy-cache")
FLOOR = "relay"
"""What any proxy on this event loop costs."""


class NotServed(Exception):
    """A work cannot be measured with what is there; the text says why."""


@dataclass(frozen=True)
class Result:
    """One table: the figures of every round of every proxy. The column `leading` of `mine` is compared with the others'."""

    name: str
    title: str
    leading: str = CPU
    mine: str = OURS
    rounds: dict[str, list[Figures]] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    """The machine, the time and the versions of the figures."""


@dataclass(frozen=True)
class Bench:
    """The peers, the origin behind them, and how long each is measured."""

    peers: Sequence[Peer]
    directory: Path
    origin: int
    issuers: Issuers
    rounds: int
    seconds: int

    def setting(self, name: str, algorithm: str = "RS256", *, access_log: bool = False, tls: bool = False) -> Setting:
        """One issuer, no routes; `name` is the directory of its configurations."""
        issuer = self.issuers.add(name, algorithm)
        return Setting(self.directory / name, self.origin, (issuer,), access_log=access_log, tls=tls)

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
    before, before_in_kernel = proxy.process.cpu_s(), proxy.process.system_s()
    counted = load()
    spent, in_kernel = proxy.process.cpu_s() - before, proxy.process.system_s() - before_in_kernel
    if not counted.requests or counted.refused != (0 if accepted else counted.requests):
        raise Broken(f"{proxy.peer.name}: {counted.refused} of {counted.requests} requests were refused")
    return {
        CPU: spent / counted.requests * 1e6,
        "in the kernel us": in_kernel / counted.requests * 1e6,
        RATE: counted.rate,
        "CPU %": spent / counted.seconds * 100,
    }
