"""Deferred work: every piece gets its turn, and a failing one does not stop the others. The memory budget can be used up."""

import asyncio
from functools import partial

import pytest

from sidecar.proxy.resources import MOST_IN_A_TURN, MOST_TOGETHER, READ_BYTES, SMALL_READ_BYTES, Resources

ON_EVERY_LOOP = True


async def test_a_turn_has_a_limit_of_deferred_work() -> None:
    resources, done = Resources(), list[int]()
    for number in range(2 * MOST_IN_A_TURN + 1):
        resources.defer(partial(done.append, number))
    lengths = []
    for _ in range(4):
        await asyncio.sleep(0)
        lengths.append(len(done))
    assert lengths == [MOST_IN_A_TURN, 2 * MOST_IN_A_TURN, 2 * MOST_IN_A_TURN + 1, 2 * MOST_IN_A_TURN + 1]
    assert done == sorted(done)


async def test_failing_work_is_reported_and_the_rest_is_done() -> None:
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


class Connection:
    """Counts its flushes."""

    def __init__(self, resources: Resources) -> None:
        self.flushed = 0
        resources.flush_soon(self)

    def flush(self) -> None:
        self.flushed += 1


async def test_connections_are_flushed_together_at_the_end_of_a_turn() -> None:
    resources = Resources()
    few = [Connection(resources) for _ in range(MOST_TOGETHER - 1)]
    assert not any(one.flushed for one in few)
    await asyncio.sleep(0)
    assert all(one.flushed == 1 for one in few)


async def test_many_connections_are_flushed_within_a_turn() -> None:
    """The first of them does not wait for all others."""
    resources = Resources()
    many = [Connection(resources) for _ in range(33)]
    assert [one.flushed for one in many] == [1] * 32 + [0]
    await asyncio.sleep(0)
    assert [one.flushed for one in many] == [1] * 33


@pytest.mark.parametrize("number", [3, MOST_TOGETHER])
async def test_a_connection_that_cannot_be_flushed_stops_no_other(number: int) -> None:
    """Neither those that are flushed with it, nor the last one of many, whose bytes flush them all."""
    told: list[tuple[str, type[BaseException]]] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: told.append((context["message"], type(context["exception"])))
    )
    resources = Resources()

    class Broken(Connection):
        def flush(self) -> None:
            raise ValueError

    Broken(resources)
    others = [Connection(resources) for _ in range(number - 1)]
    await asyncio.sleep(0)
    assert [one.flushed for one in others] == [1] * (number - 1)
    assert told == [("bytes could not be sent", ValueError)]
    later = Connection(resources)
    await asyncio.sleep(0)
    assert later.flushed == 1


def test_the_memory_budget_is_exhausted_beyond_its_last_byte() -> None:
    resources = Resources(most_held_bytes=10)
    assert resources.unread_bytes == READ_BYTES
    for held_bytes, unread_bytes in ((10, READ_BYTES), (1, SMALL_READ_BYTES), (-1, READ_BYTES)):
        resources.hold(held_bytes)
        assert resources.unread_bytes == unread_bytes


def test_a_read_is_limited_to_the_free_buffer_and_at_least_one_byte() -> None:
    resources = Resources()
    rooms = [(0, READ_BYTES + 1), (0, READ_BYTES), (1, READ_BYTES), (9, 10), (10, 10), (11, 10)]
    sizes = [len(resources.room(unread, most)) for unread, most in rooms]
    assert sizes == [READ_BYTES, READ_BYTES, READ_BYTES - 1, 1, 1, 1]
