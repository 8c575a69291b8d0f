"""Compares this tree with another one: the cost of a request in each, in one interleaved run.

    python -m benchmarks.versions OTHER_TREE [--rounds 5] [--seconds 2] [WORK ...]

OTHER_TREE is another checkout; both run with this interpreter and its packages.
"""

import argparse
import contextlib
import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.bench import CPU, cpu
from benchmarks.issuer import serving_issuers
from benchmarks.origin import bulk_origin, nginx_origin
from benchmarks.peers import Peer
from benchmarks.peers.sidecar import command
from benchmarks.process import LOAD_CORE
from benchmarks.proxies import Proxy, serving
from benchmarks.setting import Setting
from benchmarks.transfer import download, upload
from benchmarks.wrk import CONNECTIONS, closed_loop, each_once

NEW_TOKENS = 5_000
POST_BYTES = 2048

Measure = Callable[[Proxy], float]


def tree(name: str, directory: Path) -> Peer:
    """The sidecar of a checkout."""

    def started(setting: Setting, port: int, own: Path) -> list[str]:
        _, *arguments = command(1, setting, port, own)
        return ["env", f"PYTHONPATH={directory}", sys.executable, "-m", "sidecar", *arguments]

    return Peer(name, str(directory), "sidecar.yaml", lambda: str(directory), started)


def main() -> int:
    """Print the table: medians of the rounds, and the ratio of this tree to the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.versions", description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("works", nargs="*", help="some of the works (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    arguments = parser.parse_args()
    here = Path(__file__).parents[1]
    peers = [tree("this", here), tree("other", arguments.other.resolve())]
    os.sched_setaffinity(0, {int(LOAD_CORE)})
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="versions-")))
        directory.chmod(0o755)
        origin = stack.enter_context(nginx_origin(directory / "origin"))
        issuer = stack.enter_context(serving_issuers()).add("rs256", "RS256")
        setting = Setting(directory / "small", origin, (issuer,))
        proxies = stack.enter_context(serving(peers, setting))
        bulk = replace(setting, directory=directory / "bulk", origin=stack.enter_context(bulk_origin()))
        bulky = stack.enter_context(serving(peers, bulk))
        token = issuer.token()

        def loop(proxy: Proxy, token: str | None = token, body: int = 0) -> float:
            load = functools.partial(closed_loop, proxy.url(), token, arguments.seconds, body=body)
            return cpu(proxy, load, accepted=token is not None)[CPU]

        def new(proxy: Proxy) -> float:
            tokens = issuer.tokens(NEW_TOKENS + CONNECTIONS)
            return cpu(proxy, lambda: each_once(proxy.url(), tokens))[CPU]

        def moved(move: Callable[[int, str], None], proxy: Proxy) -> float:
            before = proxy.process.cpu_s()
            move(proxy.port, token)
            time.sleep(0.05)
            return (proxy.process.cpu_s() - before) * 1e3

        works: dict[str, tuple[str, list[Proxy], Measure]] = {
            "warm": ("one warm token, us", proxies, loop),
            "new": ("each token new, us", proxies, new),
            "none": ("no token, us", proxies, lambda proxy: loop(proxy, None)),
            "post": ("POST of 2 KB, us", proxies, lambda proxy: loop(proxy, body=POST_BYTES)),
            "download": ("1 GiB down, ms", bulky, functools.partial(moved, download)),
            "upload": ("1 GiB up, ms", bulky, functools.partial(moved, upload)),
        }
        print("| work | this | other | ratio | ratios of the rounds |\n| --- | --- | --- | --- | --- |")
        for name in arguments.works or works:
            title, ones, measure = works[name]
            rounds = [[measure(proxy) for proxy in ones] for _ in range(arguments.rounds + 1)][1:]
            this, other = (median(column) for column in zip(*rounds, strict=True))
            ratios = " ".join(f"{one / two:.2f}" for one, two in sorted(rounds))
            print(f"| {title} | {this:.1f} | {other:.1f} | {this / other:.2f} | {ratios} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
