"""CPU time of a call, for tests that compare two inputs and assert no seconds."""

import time
import timeit
from collections.abc import Callable


def least_cpu_s(call: Callable[[], object], number: int = 1, repeat: int = 20) -> float:
    """Return the CPU seconds of this thread for `number` calls, the least of `repeat` runs, without garbage collection.

    Time in which other programs have the processor does not count.
    """
    return min(timeit.repeat(call, timer=time.thread_time, number=number, repeat=repeat))
