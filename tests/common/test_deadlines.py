"""A passed deadline expires once; others do not."""

import asyncio

import pytest

from sidecar.common.deadlines import NEVER, Deadlines
from tests.peers.clock import HandClock, in_its_time


class Egg:
    """An object with a deadline; `boiled` counts how often it expired."""

    def __init__(self, deadline: float = NEVER) -> None:
        self.deadline = deadline
        self.boiled = 0

    def expire(self) -> None:
        self.boiled += 1


def test_a_passed_deadline_expires_once(clock: HandClock) -> None:
    deadlines, egg = Deadlines(clock), Egg(clock.monotonic() + 3)
    deadlines.watched.add(egg)
    clock.advance(2.5)
    deadlines.tick()
    assert egg.boiled == 0
    clock.advance(0.5)
    deadlines.tick()
    deadlines.tick()
    assert (egg.boiled, egg.deadline) == (1, NEVER)


def test_without_a_deadline_nothing_expires(clock: HandClock) -> None:
    deadlines, egg = Deadlines(clock), Egg()
    deadlines.watched.add(egg)
    clock.advance(1e9)
    deadlines.tick()
    assert egg.boiled == 0


def test_an_expiry_may_remove_other_watched_objects(clock: HandClock) -> None:
    deadlines, other = Deadlines(clock), Egg(clock.monotonic())

    class Leaving(Egg):
        def expire(self) -> None:
            super().expire()
            deadlines.watched.clear()

    leaving = Leaving(clock.monotonic())
    deadlines.watched |= {leaving, other}
    deadlines.tick()
    assert (leaving.boiled, other.boiled) == (1, 1)


def test_an_expiry_may_extend_another_deadline(clock: HandClock) -> None:
    deadlines, eggs = Deadlines(clock), list[Egg]()

    class Generous(Egg):
        def expire(self) -> None:
            super().expire()
            for egg in eggs:
                egg.deadline = clock.monotonic() + 5

    eggs += [Generous(clock.monotonic()) for _ in range(2)]
    deadlines.watched.update(eggs)
    deadlines.tick()
    assert sorted(egg.boiled for egg in eggs) == [0, 1]


@in_its_time
async def test_deadlines_are_checked_every_tick(clock: HandClock) -> None:
    deadlines, egg = Deadlines(clock, tick_s=0.25), Egg(clock.monotonic() + 10)
    deadlines.watched.add(egg)
    watching = asyncio.create_task(deadlines.watch())
    await asyncio.sleep(9.9)
    assert egg.boiled == 0
    await asyncio.sleep(0.4)
    assert egg.boiled == 1
    watching.cancel()


def test_a_failing_expiry_does_not_stop_the_others(clock: HandClock, caplog: pytest.LogCaptureFixture) -> None:
    deadlines, other = Deadlines(clock), Egg(clock.monotonic())

    class Broken(Egg):
        def expire(self) -> None:
            super().expire()
            raise AttributeError("secret")

    broken = Broken(clock.monotonic())
    deadlines.watched |= {broken, other}
    deadlines.tick()
    assert (broken.boiled, other.boiled) == (1, 1)
    assert [record.getMessage().partition(" at=")[0] for record in caplog.records] == ["event=bug type=AttributeError"]
    assert "secret" not in caplog.text
