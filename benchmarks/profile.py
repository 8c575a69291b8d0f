"""Samples a jwt-sidecar process under load with py-spy or perf, whichever is installed."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.bench import OURS, Bench
from benchmarks.proxies import serving
from benchmarks.wrk import closed_loop

if TYPE_CHECKING:
    from benchmarks.report import Run

RESULTS = Path(__file__).parent / "results"


def profile(bench: Bench, _run: "Run", _record: bool) -> int:
    """Writes results/profile.svg (py-spy) or results/profile.txt (perf) of a warm run; 1 when neither is installed."""
    py_spy = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    perf = shutil.which("perf")
    setting = bench.setting("profile")
    token = setting.issuers[0].token()
    RESULTS.mkdir(exist_ok=True)
    with serving(bench.only(OURS), setting) as (proxy,):
        pid, seconds = str(proxy.process.pid), str(bench.seconds)
        if py_spy:
            written = RESULTS / "profile.svg"
            command = [py_spy, "record", "--native", "-r", "500", "-d", seconds, "-o", str(written), "-p", pid]
        elif perf:
            written = RESULTS / "profile.txt"
            command = [perf, "record", "-q", "-o", str(setting.directory / "perf.data"), "-p", pid, "sleep", seconds]
        else:
            print("benchmarks: neither py-spy nor perf is installed", file=sys.stderr)
            return 1
        sampler = subprocess.Popen(command)
        closed_loop(proxy.url(), token, bench.seconds + 1)
        sampler.wait()
        if not py_spy:
            data = ["-i", str(setting.directory / "perf.data"), "--stdio"]
            reports = [
                subprocess.run([str(perf), "report", *data, *by], capture_output=True, text=True, check=True).stdout
                for by in (["--sort", "dso"], [])
            ]
            written.write_text("".join(reports))
    print(written)
    return 0
