"""Millions of tokens through the whole Verifier: each ends as Claims or as a Rejection, and as Claims only if it was signed.

    python -m tests.proofs.properties [--tokens 1000000] [--examples 10000] [--seed 1]
    python -m tests.proofs.properties --seed 1 --replay 4711     # the token of that number again

1. So many tokens of `odd_tokens`: valid ones with other bytes in them, signed ones that say anything, noise.
2. Each property of tests/test_properties.py with so many inputs that hypothesis makes of random bytes.
"""

import argparse
import sys
import time
import traceback
from collections import Counter
from importlib.metadata import version
from random import Random
from typing import Any

from tests import test_properties
from tests.proofs import subject, verdict
from tests.proofs.odd_tokens import odd_token

PROPERTIES: dict[str, Any] = {name: test for name, test in vars(test_properties).items() if name.startswith("test_")}
ENTROPY_BYTES = 4000  # of one input; with fewer some cannot be finished
MOST_FAILURES = 20


def bulk(seed: str, first: int, last: int) -> int:
    """Judge the tokens of these numbers. Return the number of broken rules."""
    judge = test_properties.judge().judge
    outcomes: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    failures = 0
    began = told = time.monotonic()
    for number in range(first, last + 1):
        odd = odd_token(Random(f"{seed}:{number}"))
        try:
            outcome = judge(odd)
        except Exception:  # noqa: BLE001  # which is what is looked for
            failures += 1
            print(f"token {number} of seed {seed}: {odd}\n{traceback.format_exc()}", flush=True)
            outcome = "FAILED"
        outcomes[outcome] += 1
        kinds[odd.kind] += 1
        if failures == MOST_FAILURES:
            break
        if time.monotonic() - told > 60:
            told = time.monotonic()
            print(f"{number - first + 1} tokens, {failures} failures", flush=True)
    print(f"{outcomes.total()} tokens in {time.monotonic() - began:.0f} s: {dict(kinds.most_common())}")
    print(f"outcomes: {dict(outcomes.most_common())}", flush=True)
    return failures


def inputs(seed: str, examples: int) -> int:
    """Try this many inputs for each property. Return the number of broken rules."""
    failures = 0
    for name, test in PROPERTIES.items():
        began = time.monotonic()
        run = test.hypothesis.fuzz_one_input
        finished = failed = 0
        for number in range(examples):
            try:
                finished += run(Random(f"{seed}:{name}:{number}").randbytes(ENTROPY_BYTES)) is not None
            except Exception:  # noqa: BLE001
                failed += 1
                print(f"input {number} of seed {seed}: {traceback.format_exc()}", flush=True)
            if failed == MOST_FAILURES:
                break
        print(f"{name}: {finished} inputs in {time.monotonic() - began:.0f} s, {failed} failures", flush=True)
        failures += failed
    return failures


def main() -> int:
    """0: no rule was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--replay", type=int, help="only the token of this number")
    options = parser.parse_args()
    libraries = ", ".join(f"{name} {version(name)}" for name in ("python-jose", "cryptography", "hypothesis"))
    print(f"{subject()}, {libraries}", flush=True)
    if options.replay is not None:
        print(odd_token(Random(f"{options.seed}:{options.replay}")))
        return verdict(bulk(options.seed, options.replay, options.replay))
    return verdict(bulk(options.seed, 1, options.tokens) + inputs(options.seed, options.examples))


if __name__ == "__main__":
    sys.exit(main())
