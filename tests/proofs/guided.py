"""As `fuzz`, with bytes that coverage of the sidecar's own code chooses (atheris, which is to be installed by hand).

    python -m tests.proofs.guided -max_total_time=600 build/corpus

The arguments are libFuzzer's. It ends with the first case that breaks a rule and writes its bytes to a file; that file as the
argument runs the case again.
"""

import asyncio
import sys
from random import Random

import atheris
import uvloop

with atheris.instrument_imports(include=["sidecar"]):
    from tests.proofs.hostile import Stack
from tests.proofs import grammar, subject

SEED_BYTES = 4  # how the rest is cut into pieces, who sends it, and what the backend does
MOST_BYTES = 16_384
TOLD_EVERY = 10_000  # cases; libFuzzer ends the process without a message


def mutated(data: bytes, most: int, seed: int) -> bytes:
    """Another input: a new one of the grammar, or this one with something turned by the grammar or by libFuzzer."""
    random = Random(seed)
    match random.randrange(4):
        case 0:
            return (random.randbytes(SEED_BYTES) + grammar.requests(random))[:most]
        case 1:
            return (random.randbytes(SEED_BYTES) + grammar.turned(random, data[SEED_BYTES:]))[:most]
    return bytes(atheris.Mutate(data, most))


def main() -> None:
    """Run until libFuzzer ends."""
    print(subject(), flush=True)
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    stack = Stack()
    loop.run_until_complete(stack.__aenter__())

    def one(data: bytes) -> None:
        loop.run_until_complete(stack.requests(Random(data[:SEED_BYTES]), data[SEED_BYTES:]))
        if stack.probes % TOLD_EVERY == 0:
            print(f"{stack.probes} cases; {stack.upstream_requests} requests reached the backend", flush=True)

    atheris.Setup([sys.argv[0], f"-max_len={MOST_BYTES}", "-timeout=60", *sys.argv[1:]], one, custom_mutator=mutated)
    atheris.Fuzz()


main()
