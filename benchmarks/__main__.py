"""The command line: the works to run, the duration, and the place of the results."""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks import report
from benchmarks.bench import Bench, NotServed, Result
from benchmarks.growth import growth
from benchmarks.issuer import serving_issuers
from benchmarks.origin import nginx_origin
from benchmarks.peers import Missing, Peer, peers
from benchmarks.process import LOAD_CORE
from benchmarks.profile import profile
from benchmarks.proxies import Broken
from benchmarks.works import WORKS

ALONE = {"growth": growth, "profile": profile}
"""Commands that measure jwt-sidecar by itself."""


def main() -> int:
    """0: measured; 1: a proxy did not do its work somewhere, or something indispensable is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "works", nargs="*", help=f"some of {', '.join(WORKS)} (default: all of them), or one of {', '.join(ALONE)}"
    )
    parser.add_argument("--peers", default="all", help="all, or names with commas between (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seconds", type=int, default=2, help="length of one proxy's turn (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write tables, JSON and charts into the repository")
    arguments = parser.parse_args()
    works = arguments.works or list(WORKS)
    if (unknown := set(works) - set(WORKS)) and works not in [[name] for name in ALONE]:
        parser.error(f"no such work: {', '.join(sorted(unknown))}")
    # Ended from outside: leave through the `with` blocks that stop every process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with contextlib.ExitStack() as stack:
        try:
            found, versions = _found(arguments.peers)
            os.sched_setaffinity(0, {int(LOAD_CORE)})
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-")))
            directory.chmod(0o755)  # a worker of nginx may run as another user
            bench = Bench(
                found,
                directory,
                stack.enter_context(nginx_origin(directory / "origin")),
                stack.enter_context(serving_issuers()),
                arguments.rounds,
                arguments.seconds,
            )
            run = report.this_run(arguments.rounds, arguments.seconds, versions)
            if works[0] in ALONE:
                return ALONE[works[0]](bench, run, arguments.record)
            results: list[Result] = []
            good = True
            for work in works:
                good &= _measure(work, bench, results)
                if arguments.record:
                    report.write(run, results, bench)
            print(f"\nGoals\n\n{report.goals(results)}")
        except (Broken, Missing) as error:
            print(f"benchmarks: {error}", file=sys.stderr)
            return 1
    return 0 if good else 1


def _measure(work: str, bench: Bench, results: list[Result]) -> bool:
    """False: a proxy did not do its work. The other works are measured all the same."""
    try:
        for result in WORKS[work](bench):
            print(f"\n{result.title}\n\n{report.table(result)}", flush=True)
            results.append(result)
    except (NotServed, Broken, ConnectionError) as why:
        print(f"\n{work}: skipped, {why}", flush=True)
        return isinstance(why, NotServed)
    return True


def _found(names: str) -> tuple[list[Peer], dict[str, str]]:
    """The peers that can be run, and their versions."""
    found, versions = [], {}
    for peer in peers():
        if names == "all" or peer.name in names.split(","):
            try:
                versions[peer.name] = f"{peer.about}; {peer.version()}"
                found.append(peer)
                print(f"{peer.name}: {versions[peer.name]}", flush=True)
            except Missing as error:
                print(f"{peer.name}: skipped, {error}", flush=True)
    return found, versions


sys.exit(main())
