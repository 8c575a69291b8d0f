"""The command line: which works, how long, and where the results go."""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks import report
from benchmarks.issuer import serving_issuers
from benchmarks.origin import nginx_origin
from benchmarks.peers import Missing, Peer, peers
from benchmarks.process import LOAD_CORE
from benchmarks.profile import profile
from benchmarks.proxies import Broken
from benchmarks.works import WORKS, Bench


def main() -> int:
    """0: measured; 1: a proxy did not do its work or something indispensable is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("command", nargs="?", choices=["run", "profile"], default="run")
    parser.add_argument("--works", default="warm", help=f"all, or some of {','.join(WORKS)} (default: %(default)s)")
    parser.add_argument("--peers", default="all", help="all, or names with commas between (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    parser.add_argument("--seconds", type=int, default=2, help="length of one proxy's turn (default: %(default)s)")
    parser.add_argument("--access-log", action="store_true", help="switch the access log of every proxy on")
    arguments = parser.parse_args()
    works = list(WORKS) if arguments.works == "all" else arguments.works.split(",")
    if unknown := set(works) - set(WORKS):
        parser.error(f"no such work: {', '.join(sorted(unknown))}")
    # Ended from outside: leave through the `with` blocks that stop every process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with contextlib.ExitStack() as stack:
        try:
            found, versions, skipped = _found(arguments.peers)
            os.sched_setaffinity(0, {LOAD_CORE})
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-")))
            directory.chmod(0o755)  # a worker of nginx may run as another user
            origin = stack.enter_context(nginx_origin(directory / "origin"))
            bench = Bench(
                found,
                directory,
                origin,
                stack.enter_context(serving_issuers()),
                arguments.rounds,
                arguments.seconds,
                arguments.access_log,
            )
            if arguments.command == "profile":
                return profile(bench)
            run = report.this_run(arguments.rounds, arguments.seconds, arguments.access_log, versions, skipped)
            results = []
            for work in works:
                for result in WORKS[work](bench):
                    print(f"\n{result.title}\n\n{report.table(result)}", flush=True)
                    results.append(result)
            report.write(run, results)
        except (Broken, Missing) as error:
            print(f"benchmarks: {error}", file=sys.stderr)
            return 1
    return 0


def _found(names: str) -> tuple[list[Peer], dict[str, str], dict[str, str]]:
    """The peers that can be run, their versions, and the others with the reason."""
    found, versions, skipped = [], {}, {}
    for peer in peers():
        if names == "all" or peer.name in names.split(","):
            try:
                versions[peer.name] = f"{peer.about}; {peer.version()}"
                found.append(peer)
                print(f"{peer.name}: {versions[peer.name]}", flush=True)
            except Missing as error:
                skipped[peer.name] = str(error)
                print(f"{peer.name}: skipped, {error}", flush=True)
    return found, versions, skipped


sys.exit(main())
