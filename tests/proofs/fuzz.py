"""Nearly valid HTTP from a client and from a backend, against a whole sidecar; the rules are those of `hostile.Stack`.

    python -m tests.proofs.fuzz --seconds 1800
    python -m tests.proofs.fuzz --seed 1 --replay 4711     # the case of that number again

`guided` does the same with bytes that coverage chooses.
"""

import argparse
import asyncio
import math
import sys
import time
from random import Random

import uvloop

from tests.proofs import subject, verdict
from tests.proofs.hostile import Stack
from tests.proofs.running import memory_mib

MOST_FAILURES = 20
WARM_CASES = 5000
TELL_S = 60.0


async def run(seconds: float, seed: str, first: int, last: float) -> int:
    """Run cases of a seed, from a number on. Return the number of broken rules."""
    failures, number = 0, first
    began = told = time.monotonic()
    async with Stack() as stack:
        warm_mib = math.nan
        while time.monotonic() - began < seconds and number <= last and failures < MOST_FAILURES:
            try:
                await stack.one(Random(f"{seed}:{number}"))
            except AssertionError as error:
                failures += 1
                print(f"case {number} of seed {seed}: {str(error)[:3000]}\n  {stack.what[:3000]}", flush=True)
                stack.forget()
            number += 1
            if number == first + WARM_CASES:
                warm_mib = memory_mib("self", "VmRSS")
            if time.monotonic() - told > TELL_S:
                told = time.monotonic()
                print(f"{number - first} cases, {failures} failures", flush=True)
        print(f"seed {seed}: {number - first} cases in {time.monotonic() - began:.0f} s, {failures} failures")
        print(f"{stack.upstream_requests} requests reached the backend, and {stack.probes} ordinary ones in between")
        print(f"memory {warm_mib:.0f} MiB after {WARM_CASES} cases, {memory_mib('self', 'VmRSS'):.0f} MiB at the end")
        print(f"answers by status: {dict(sorted(stack.statuses.items()))}")
        if first == last:
            print(stack.what)
    return failures


def main() -> int:
    """0: no rule was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--replay", type=int, help="only the case of this number")
    options = parser.parse_args()
    print(subject(), flush=True)
    first, last = (0, float("inf")) if options.replay is None else (options.replay, options.replay)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return verdict(runner.run(run(options.seconds, options.seed, first, last)))


if __name__ == "__main__":
    sys.exit(main())
