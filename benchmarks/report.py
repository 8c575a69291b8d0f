"""Results as a table for people, JSON for programs and a chart."""

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.chart import chart
from benchmarks.works import Result

RESULTS = Path(__file__).parent / "results"
OURS = "jwt-sidecar"


@dataclass(frozen=True)
class Run:
    """Where, when and with what the figures were taken."""

    date: str
    processor: str
    cores: int
    kernel: str
    rounds: int
    seconds: int
    access_log: bool
    versions: Mapping[str, str]
    skipped: Mapping[str, str]
    """Peers that are not in the tables, and why."""


def this_run(
    rounds: int, seconds: int, access_log: bool, versions: Mapping[str, str], skipped: Mapping[str, str]
) -> Run:
    """This machine, now."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    cores = os.cpu_count() or 1
    return Run(date, model, cores, platform.release(), rounds, seconds, access_log, versions, skipped)


def table(result: Result) -> str:
    """Median and spread of the compared column and of jwt-sidecar's ratio to it, and the medians of the other columns.

    A ratio is taken within each round, so that what slows the machine for a while slows both sides of it.
    """
    columns = [name for name in next(iter(result.rounds.values()))[0] if name != result.leading]
    rows = [["", result.leading, "min - max", f"{OURS} / this", "min - max", *columns]]
    ours = result.rounds.get(OURS, [])
    for name, rounds in result.rounds.items():
        taken = [figures[result.leading] for figures in rounds]
        ratios = [mine[result.leading] / theirs for mine, theirs in zip(ours, taken, strict=False)]
        others = [_middle([figures[column] for figures in rounds]) for column in columns]
        rows.append([name, _middle(taken), _spread(taken), _middle(ratios), _spread(ratios), *others])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |" for row in rows]
    ruler = "| " + " | ".join(["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]) + " |"
    return "\n".join([lines[0], ruler, *lines[1:]])


def write(run: Run, results: Sequence[Result]) -> None:
    """`latest.md`, `latest.json` and one chart for each result, all of this run."""
    RESULTS.mkdir(exist_ok=True)
    facts = asdict(run)
    (RESULTS / "latest.json").write_text(
        json.dumps({"run": facts, "results": [asdict(result) for result in results]}, indent=2) + "\n"
    )
    text = [
        "# Latest run\n",
        f"{run.date}; {run.processor}, {run.cores} cores, Linux {run.kernel}; medians of {run.rounds} interleaved"
        f" rounds of {run.seconds} s; access logs {'on' if run.access_log else 'off'}."
        " Only the ratios carry over to other machines.",
        "",
        *(f"- {name}: {version}" for name, version in run.versions.items()),
        *(f"- {name}: skipped, {why}" for name, why in run.skipped.items()),
        "",
        "The configurations are in `configs/`.",
    ]
    for result in results:
        (RESULTS / f"{result.name}.svg").write_text(
            chart(result.title, f"{result.leading}, {run.date}, {run.processor}", _medians(result), OURS)
        )
        text += ["", f"## {result.title}", "", f"![{result.title}]({result.name}.svg)", "", table(result)]
    (RESULTS / "latest.md").write_text("\n".join(text) + "\n")


def _medians(result: Result) -> dict[str, float]:
    return {name: median(one[result.leading] for one in rounds) for name, rounds in result.rounds.items()}


def _middle(values: Sequence[float]) -> str:
    return _number(median(values)) if values else "-"


def _spread(values: Sequence[float]) -> str:
    return f"{_number(min(values))} - {_number(max(values))}" if values else "-"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
