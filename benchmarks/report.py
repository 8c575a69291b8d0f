"""Results as tables for people, JSON for programs and charts."""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bench import OURS, Bench, Result
from benchmarks.chart import Spread, bars, growth
from benchmarks.goals import CACHED, GOALS, Goal
from benchmarks.peers.sidecar import TWO_WORKERS

RESULTS = Path(__file__).parent / "results"
STORED = RESULTS / "latest.json"
PAGE = Path(__file__).parents[1] / "docs" / "understand" / "performance.md"
"""It has the goals and the table of the mix."""
SUMMARY = ("mix", "warm")
"""The panels of the chart in the README."""
USERS = "users-"
"""Begins the names of the results that the chart of users shows."""


@dataclass(frozen=True)
class Run:
    """The machine, the time and the versions of the figures."""

    date: str
    commit: str
    command: str
    processor: str
    cores: int
    kernel: str
    rounds: int
    seconds: int
    load: float
    """The machine's load average of the minute before: what else was running."""
    versions: Mapping[str, str]


def this_run(rounds: int, seconds: int, versions: Mapping[str, str]) -> Run:
    """This machine, now."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    head = ["git", "-C", str(RESULTS.parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(head, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    return Run(
        time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        commit,
        f"python -m benchmarks {' '.join(sys.argv[1:])}",
        model,
        os.cpu_count() or 1,
        platform.release(),
        rounds,
        seconds,
        os.getloadavg()[0],
        versions,
    )


def ratios(result: Result, peer: str, column: str = "") -> list[float]:
    """The compared column of `result.mine`, or another one, by that of a peer, in each round.

    Taken within a round, so that what slows the machine for a while slows both sides of it.
    """
    column = column or result.leading
    return [
        mine[column] / theirs[column]
        for mine, theirs in zip(result.rounds.get(result.mine, []), result.rounds.get(peer, []), strict=False)
    ]


def table(result: Result) -> str:
    """Median and spread of the compared column and of the ratio to it, and the medians of the other columns."""
    columns = [name for name in next(iter(result.rounds.values()))[0] if name != result.leading]
    rows = [["", result.leading, "min - max", f"{result.mine} / this", "min - max", *columns]]
    for name, rounds in result.rounds.items():
        taken, ratio = [figures[result.leading] for figures in rounds], ratios(result, name)
        others = [_middle([figures[column] for figures in rounds]) for column in columns]
        rows.append([name, _middle(taken), _spread(taken), _middle(ratio), _spread(ratio), *others])
    return _markdown(rows)


def goals(results: Sequence[Result]) -> str:
    """Every goal beside what was measured."""
    rows = [["", "against", "goal", "measured", "min - max", "reached"]]
    for goal in GOALS:
        for result in results:
            if result.name == goal.result and (measured := ratios(result, goal.peer, goal.column)):
                rows.append(_goal(goal, result, measured))
    return _markdown(rows) if len(rows) > 1 else ""


def _goal(goal: Goal, result: Result, measured: Sequence[float]) -> list[str]:
    reached = "yes" if median(measured) <= goal.most else "no"
    title = f"{result.title}: {goal.column}" if goal.column else result.title
    return [title, goal.peer, f"<= {goal.most:g}", _middle(measured), _spread(measured), reached]


def write(run: Run, taken: Sequence[Result], bench: Bench) -> None:
    """Adds results to those that are stored, in place of older ones, and makes the page and the charts anew."""
    (RESULTS / "configs").mkdir(parents=True, exist_ok=True)
    for peer in (*bench.peers, TWO_WORKERS):
        for config in sorted(bench.directory.glob(f"*/{peer.name}/{peer.config}")):
            setting = config.parent.parent.name
            shutil.copy(config, RESULTS / "configs" / f"{setting}-{peer.name.replace(' ', '-')}{config.suffix}")
    stored = {one["name"]: Result(**one) for one in json.loads(STORED.read_text())} if STORED.exists() else {}
    stored |= {result.name: replace(result, run=asdict(run)) for result in taken}
    STORED.write_text(json.dumps([asdict(result) for result in stored.values()], indent=1) + "\n")
    draw(list(stored.values()))


def draw(results: Sequence[Result]) -> None:
    """The page and the charts of what is stored."""
    for chart in RESULTS.glob("*.svg"):
        chart.unlink()
    results = sorted(results, key=lambda result: _place(result.name))
    versions: dict[str, Any] = {}
    for result in results:
        versions |= result.run["versions"]
    text = [
        "# The recorded run\n",
        "Medians of interleaved rounds. Only the ratios carry over to other machines. The configurations are in `configs/`, every"
        " round in `latest.json`.",
        "",
        *(f"- {name}: {version}" for name, version in versions.items()),
        "\n## Goals\n",
        goals(results),
    ]
    for result in results:
        run = result.run
        (RESULTS / f"{result.name}.svg").write_text(
            bars(result.title, f"{result.leading}, {_taken(result)}", {result.title: _spreads(result)}, result.mine)
        )
        text += [
            "",
            f"## {result.title}",
            "",
            f"{run['date']}, commit {run['commit']}, `{run['command']}`: {run['rounds']} rounds of {run['seconds']} s;"
            f" {run['processor']}, {run['cores']} cores, Linux {run['kernel']}; load average before it {run['load']:.1f}.",
            "",
            f"![{result.title}]({result.name}.svg)",
            "",
            table(result),
        ]
    (RESULTS / "latest.md").write_text("\n".join(text) + "\n")
    _fill_in("goals", goals(results))
    _fill_in("mix", "\n".join(table(result) for result in results if result.name == "mix"))
    summary = [result for result in results if result.name in SUMMARY]
    if summary:
        panels = {result.title: _spreads(result) for result in summary}
        title = "CPU time of the proxy for one request"
        (RESULTS / "summary.svg").write_text(bars(title, f"microseconds, {_taken(summary[0])}", panels, OURS))
    users: dict[float, dict[str, Spread]] = {
        int(result.name.removeprefix(USERS)): _spreads(result) for result in results if result.name.startswith(USERS)
    }
    if users:
        names = [name for name in next(iter(users.values())) if name in (OURS, CACHED)]
        series = {name: {number: spreads[name] for number, spreads in sorted(users.items())} for name in names}
        (RESULTS / "users.svg").write_text(
            growth(
                "How the cost of the mix grows with its users",
                "microseconds of CPU time for one request",
                {"users": series},
            )
        )


def _fill_in(name: str, text: str) -> None:
    """Puts a table between two comments of PAGE."""
    begin, end = f"<!-- {name}, by --record -->\n\n", f"\n\n<!-- end of {name} -->"
    before, _, rest = PAGE.read_text().partition(begin)
    PAGE.write_text(before + begin + text + end + rest.partition(end)[2])


def _place(name: str) -> int:
    """Results in the order of the goals; those without one come last."""
    names = [goal.result for goal in GOALS]
    return names.index(name) if name in names else len(names)


def _taken(result: Result) -> str:
    return f"{result.run['date']}, {result.run['processor']}"


def _spreads(result: Result) -> dict[str, Spread]:
    taken = {name: [figures[result.leading] for figures in rounds] for name, rounds in result.rounds.items()}
    return {name: (median(values), min(values), max(values)) for name, values in taken.items()}


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |" for row in rows]
    ruler = "| " + " | ".join(["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]) + " |"
    return "\n".join([lines[0], ruler, *lines[1:]])


def _middle(values: Sequence[float]) -> str:
    return _number(median(values)) if values else "-"


def _spread(values: Sequence[float]) -> str:
    return f"{_number(min(values))} - {_number(max(values))}" if values else "-"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
