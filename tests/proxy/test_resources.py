"""Deferred work: every piece gets its turn, and a failing one does not stop the others."""

import asyncio

from sidecar.proxy.resources import MOST_IN_A_TURN, Resources

ON_EVERY_LOOP = True


async def test_so_much_is_done_in_a_turn_and_the_rest_in_the_next() -> None:
    resources, done = Resources(), []
    for number in range(2 * MOST_IN_A_TURN + 1):
        resources.defer(lambda number=number: done.append(number))
    lengths = []
    for _ in range(4):
        await asyncio.sleep(0)
        lengths.append(len(done))
    assert lengths == [MOST_IN_A_TURN, 2 * MOST_IN_A_TURN, 2 * MOST_IN_A_TURN + 1, 2 * MOST_IN_A_TURN + 1]
    assert done == sorted(done)


async def test_work_that_fails_is_reported_to_the_loop_and_the_rest_is_done() -> None:
    told: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    resources, done = Resources(), []

    def fail() -> None:
        raise ValueError

    for work in (fail, lambda: done.append(1)):
        resources.defer(work)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    resources.defer(lambda: done.append(2))
    await asyncio.sleep(0)
    assert done == [1, 2]
    assert [type(error) for error in told] == [ValueError]
