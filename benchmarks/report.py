"""Results as tables for people, JSON for programs and charts."""

import json
import os
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.chart import Spread, bars
from benchmarks.goals import GOALS, Goal
from benchmarks.peers.sidecar import TWO_WORKERS
from benchmarks.works import OURS, Bench, Result

RESULTS = Path(__file__).parent / "results"
SUMMARY = ("warm", "cold-rs256", "reject-signature", "rich-varied")
"""The panels of the chart in the README."""


@dataclass(frozen=True)
class Run:
    """Where, when and with what the figures were taken."""

    date: str
    processor: str
    cores: int
    kernel: str
    rounds: int
    seconds: int
    load: float
    """The machine's load average of the minute before: what else was running."""
    versions: Mapping[str, str]
    skipped: dict[str, str] = field(default_factory=dict)
    """Peers and works that are not in the tables, and why."""


def this_run(rounds: int, seconds: int, versions: Mapping[str, str], skipped: dict[str, str]) -> Run:
    """This machine, now."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    cores = os.cpu_count() or 1
    return Run(date, model, cores, platform.release(), rounds, seconds, os.getloadavg()[0], versions, skipped)


def ratios(result: Result, peer: str) -> list[float]:
    """The compared column of `result.mine` by that of a peer, in each round.

    Taken within a round, so that what slows the machine for a while slows both sides of it.
    """
    return [
        mine[result.leading] / theirs[result.leading]
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
    for logged in ("", "-logged"):
        for goal in GOALS:
            for result in results:
                if result.name == goal.result + logged and (measured := ratios(result, goal.peer)):
                    rows.append(_goal(goal, result, measured))
    return _markdown(rows) if len(rows) > 1 else ""


def _goal(goal: Goal, result: Result, measured: Sequence[float]) -> list[str]:
    reached = "yes" if median(measured) <= goal.most else "no"
    return [result.title, goal.peer, f"<= {goal.most:g}", _middle(measured), _spread(measured), reached]


def write(run: Run, results: Sequence[Result], bench: Bench) -> None:
    """`latest.md`, `latest.json`, every configuration, a chart for each result and one of several, all of this run."""
    shutil.rmtree(RESULTS / "configs", ignore_errors=True)
    (RESULTS / "configs").mkdir(parents=True)
    for chart in RESULTS.glob("*.svg"):
        chart.unlink()
    for peer in (*bench.peers, TWO_WORKERS):
        for config in sorted(bench.directory.glob(f"*/{peer.name}/{peer.config}")):
            setting = config.parent.parent.name
            shutil.copy(config, RESULTS / "configs" / f"{setting}-{peer.name.replace(' ', '-')}{config.suffix}")
    facts = asdict(run)
    (RESULTS / "latest.json").write_text(
        json.dumps({"run": facts, "results": [asdict(result) for result in results]}, indent=1) + "\n"
    )
    text = [
        "# Latest run\n",
        f"{run.date}; {run.processor}, {run.cores} cores, Linux {run.kernel}; medians of {run.rounds} interleaved"
        f" rounds of {run.seconds} s; load average before it began {run.load:.1f}. Only the ratios carry over to other machines.",
        "",
        *(f"- {name}: {version}" for name, version in run.versions.items()),
        *(f"- {name}: skipped, {why}" for name, why in run.skipped.items()),
        "",
        "The configurations are in `configs/`, every round in `latest.json`.",
        "\n## Goals\n",
        goals(results),
    ]
    taken = f"{run.date}, {run.processor}"
    for result in results:
        (RESULTS / f"{result.name}.svg").write_text(
            bars(result.title, f"{result.leading}, {taken}", {result.title: _spreads(result)}, result.mine)
        )
        text += ["", f"## {result.title}", "", f"![{result.title}]({result.name}.svg)", "", table(result)]
    (RESULTS / "latest.md").write_text("\n".join(text) + "\n")
    panels = {result.title: _spreads(result) for result in results if result.name in SUMMARY}
    if panels:
        (RESULTS / "summary.svg").write_text(
            bars("CPU time of the proxy for one request", f"microseconds, {taken}", panels, OURS)
        )


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
