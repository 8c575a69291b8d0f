"""How the cost of a request grows: each run increases one thing and keeps the others small."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.bench import CPU, OURS, Bench, cpu
from benchmarks.chart import Spread
from benchmarks.chart import growth as chart
from benchmarks.origin import BYTES, bulk_origin
from benchmarks.proxies import Proxy, serving
from benchmarks.setting import Setting
from benchmarks.wrk import Load, closed_loop, each_once

if TYPE_CHECKING:
    from benchmarks.report import Run

CHART = Path(__file__).parents[1] / "docs" / "growth.svg"
FIGURES = Path(__file__).parent / "results" / "growth.json"
TURN_REQUESTS = 10_000

Points = Mapping[float, tuple[Proxy, Callable[[], Load]]]
"""How many there are -> who is measured, and the load."""


@contextlib.contextmanager
def _one(bench: Bench) -> Iterator[tuple[Proxy, str]]:
    """A proxy with one issuer, and a token that it accepts."""
    setting = bench.setting("growth")
    with serving(bench.only(OURS), setting) as (proxy,):
        yield proxy, setting.issuers[0].token()


@contextlib.contextmanager
def _tokens(bench: Bench) -> Iterator[Points]:
    setting = bench.setting("growth")
    tokens = setting.issuers[0].tokens(10_000)
    with serving(bench.only(OURS), setting) as (proxy,):
        yield {number: (proxy, _in_turn(proxy, tokens[:number])) for number in (1, 10, 100, 1_000, 10_000)}


@contextlib.contextmanager
def _rules(bench: Bench) -> Iterator[Points]:
    base = bench.setting("growth")
    issuer = base.issuers[0]
    token = issuer.token()

    def setting(number: int) -> Setting:
        return replace(base, routes=tuple((f"/area{i}/", issuer) for i in range(number)))

    with _each(bench, (1, 10, 100, 1_000), setting) as proxies:
        yield {number: (proxy, _load(bench, proxy, token, f"/area{number - 1}/x")) for number, proxy in proxies.items()}


@contextlib.contextmanager
def _issuers(bench: Bench) -> Iterator[Points]:
    base = bench.setting("growth")
    issuers = tuple(bench.issuers.add(f"growth-{i}") for i in range(100))
    tokens = [issuer.token() for issuer in issuers]
    with _each(bench, (1, 10, 100), lambda number: replace(base, issuers=issuers[:number])) as proxies:
        yield {number: (proxy, _in_turn(proxy, tokens[:number])) for number, proxy in proxies.items()}


@contextlib.contextmanager
def _headers(bench: Bench) -> Iterator[Points]:
    with _one(bench) as (proxy, token):
        more = {f"X-Header-{i}": "a value of some length" for i in range(76)}
        yield {
            number: (proxy, _load(bench, proxy, token, varied=True, headers=dict(islice(more.items(), number - 4))))
            for number in (4, 10, 20, 40, 80)
        }


@contextlib.contextmanager
def _connections(bench: Bench) -> Iterator[Points]:
    with _one(bench) as (proxy, token):
        yield {number: (proxy, _load(bench, proxy, token, connections=number)) for number in (1, 8, 32, 128, 512)}


@contextlib.contextmanager
def _answers(bench: Bench) -> Iterator[Points]:
    with _one(bench) as (proxy, token):
        yield {number: (proxy, _load(bench, proxy, token, f"{BYTES}{number}")) for number in SIZES}


@contextlib.contextmanager
def _bodies(bench: Bench) -> Iterator[Points]:
    with bulk_origin() as origin, _one(replace(bench, origin=origin)) as (proxy, token):  # nginx would not read them
        yield {number: (proxy, _load(bench, proxy, token, body=number)) for number in SIZES}


def _load(bench: Bench, proxy: Proxy, token: str, path: str = "/", **more: Any) -> Callable[[], Load]:
    return lambda: closed_loop(proxy.url(path), token, bench.seconds, **more)


def _in_turn(proxy: Proxy, tokens: Sequence[str]) -> Callable[[], Load]:
    return lambda: each_once(proxy.url(), tokens, TURN_REQUESTS)


SIZES = (1 << 10, 1 << 14, 1 << 17, 1 << 20)
AXES = {
    "tokens in use": _tokens,
    "rules, the last one taken": _rules,
    "issuers, a token of each": _issuers,
    "request headers, two new": _headers,
    "connections": _connections,
    "bytes of the answer's body": _answers,
    "bytes of the request's body": _bodies,
}


@contextlib.contextmanager
def _each(bench: Bench, numbers: tuple[int, ...], setting: Callable[[int], Setting]) -> Iterator[dict[int, Proxy]]:
    """A proxy for every number, each in a directory of its own."""
    with contextlib.ExitStack() as stack:
        yield {
            number: stack.enter_context(
                serving(bench.only(OURS), replace(setting(number), directory=bench.directory / f"growth-{number}"))
            )[0]
            for number in numbers
        }


def growth(bench: Bench, run: "Run", record: bool) -> int:
    """Measures every axis, its numbers in turns, and prints them; writes the chart and the figures with `record`."""
    panels: dict[str, dict[float, Spread]] = {}
    for title, axis in AXES.items():
        with axis(bench) as points:
            taken: dict[float, list[float]] = {number: [] for number in points}
            for turn in range(bench.rounds + 1):
                for number, (proxy, load) in points.items():
                    figure = cpu(proxy, load)[CPU]
                    if turn:  # the first one warms up
                        taken[number].append(figure)
        panels[title] = {number: (median(values), min(values), max(values)) for number, values in taken.items()}
        print(f"\n{CPU} by {title}", flush=True)
        for number, (middle, least, most) in panels[title].items():
            print(f"{number:>12,} {middle:>10,.1f}   ({least:,.1f} - {most:,.1f})", flush=True)
    if record:
        subtitle = (
            f"microseconds of CPU time for one request; median and spread of {run.rounds} interleaved turns; {run.date}"
        )
        CHART.write_text(
            chart(
                "How the cost of a request grows", subtitle, {title: {OURS: points} for title, points in panels.items()}
            )
        )
        FIGURES.write_text(json.dumps({"run": asdict(run), "panels": panels}, indent=1) + "\n")
    return 0
