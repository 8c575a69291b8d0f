"""The keys of an issuer over time: kept through outages, and fetched no more often than necessary."""

import asyncio
import logging
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from sidecar.common.errors import Reason, Rejection
from sidecar.jwt.jwks.algorithms import ALGORITHMS
from sidecar.jwt.jwks.cache import JwksSource
from sidecar.jwt.jwks.fetcher import FixedKeySet
from sidecar.jwt.jwks.jwk import MAX_KID_LENGTH
from sidecar.jwt.jwks.key_set import FetchFailed, Jwks, KeySet
from sidecar.jwt.jwks.refresh_schedule import MAX_REFRESH_S, MIN_REFRESH_S, RETRY_MOST_EMPTY_S, RETRY_MOST_S
from sidecar.jwt.jwks.shared_fetch import MOST_WAITING, WAIT_S, KeysAwaited
from sidecar.jwt.jwks.unknown_kids import COOLDOWN_S, UNKNOWN_KID_S, UNKNOWN_KIDS, UnknownKids
from tests.peers import tokens
from tests.peers.clock import HandClock, in_its_time
from tests.peers.waiting import keys_for

REFRESH_S = 600.0
STALE_S = 3600.0


def key_set(*names: str, alg: str = "EdDSA") -> dict[str, Any]:
    return {"keys": [tokens.public_jwk(alg, name) for name in names]}


class Issuer:
    """A scripted Fetch: `answer` is a document or an exception; a fetch hangs while `hanging`."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.max_age_s: float | None = None
        self.asked_at: list[float] = []
        self.cancelled = 0
        self._answering = asyncio.Event()
        self._answering.set()
        self.clock: HandClock

    async def __call__(self) -> KeySet:
        self.asked_at.append(self.clock.monotonic() - 1000)
        try:
            await self._answering.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.answer, Exception):
            raise self.answer
        return KeySet(self.answer, self.max_age_s)

    def hang(self) -> None:
        self._answering.clear()

    def release(self) -> None:
        self._answering.set()

    @property
    def asked(self) -> int:
        return len(self.asked_at)


Spread = Callable[[float, float], float]


def middle(low: float, high: float) -> float:
    return (low + high) / 2


def latest(low: float, high: float) -> float:
    return high


class Kept:
    """A source whose keep_fresh runs, as an async context manager."""

    def __init__(self, clock: HandClock, answer: object, spread: Spread = latest, **over: Any) -> None:
        self.clock = clock
        self.issuer = Issuer(answer)
        self.issuer.clock = clock
        over = {"refresh_interval_s": REFRESH_S, "max_stale_s": STALE_S, **over}
        self.source = JwksSource("zuplo", self.issuer, ALGORITHMS, clock, spread=spread, **over)

    async def __aenter__(self) -> tuple[JwksSource, Issuer]:
        self._task = asyncio.create_task(self.source.keep_fresh())
        await soon()
        return self.source, self.issuer

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})
        assert self._task.cancelled()
        await self.source.stop()


async def soon() -> None:
    """Let all tasks run as far as they can."""
    await asyncio.sleep(0.001)


async def until(clock: HandClock, seconds: float) -> None:
    """Move the clock to this many seconds after the beginning."""
    await asyncio.sleep(seconds - (clock.monotonic() - 1000))


async def found(source: JwksSource, name: str) -> bool:
    keys = await keys_for(source, f"ed25519-{name}", "EdDSA")
    return [key.kid for key, _ in keys] == [f"ed25519-{name}"]


async def refusal(source: JwksSource, kid: str | None = "unknown", alg: str = "EdDSA") -> Rejection:
    with pytest.raises(Rejection) as caught:
        await keys_for(source, kid, alg)
    return caught.value


DOWN = FetchFailed("the issuer is down")


@in_its_time
async def test_keys_are_fetched_at_start(clock: HandClock) -> None:
    async with Kept(clock, key_set("a")) as (source, issuer):
        assert await found(source, "a")
        assert (issuer.asked, source.usable, source.last_error) == (1, True, None)
        assert source.fetched_at == 1000.0
        assert repr(source) == "<JwksSource zuplo: <Jwks of 1 keys>, 0 failures since the last success>"


@in_its_time
async def test_a_source_has_no_keys_before_the_first_answer(clock: HandClock) -> None:
    source = Kept(clock, key_set("a")).source
    assert (source.usable, source.jwks, source.fetched_at) == (False, None, None)
    assert (await refusal(source)).reason is Reason.JWKS_UNAVAILABLE


@in_its_time
async def test_simultaneous_requests_share_one_fetch(clock: HandClock) -> None:
    kept = Kept(clock, key_set("a"))
    kept.issuer.hang()
    async with kept as (source, issuer):
        herd = [asyncio.create_task(found(source, "a")) for _ in range(40)]
        await soon()
        issuer.release()
        assert all(await asyncio.gather(*herd))
        assert issuer.asked == 1


@in_its_time
async def test_a_cancelled_client_does_not_cancel_the_fetch(clock: HandClock) -> None:
    kept = Kept(clock, key_set("a"))
    kept.issuer.hang()
    async with kept as (source, issuer):
        first, second = (asyncio.create_task(found(source, "a")) for _ in range(2))
        await soon()
        first.cancel()
        await soon()
        assert first.cancelled()
        issuer.release()
        assert await second
        assert (issuer.asked, issuer.cancelled) == (1, 0)


@in_its_time
async def test_a_request_waits_at_most_2_s_for_the_first_keys(clock: HandClock) -> None:
    kept = Kept(clock, key_set("a"))
    kept.issuer.hang()
    async with kept as (source, issuer):
        before = clock.monotonic()
        rejection = await refusal(source)
        assert clock.monotonic() - before == pytest.approx(WAIT_S)
        assert WAIT_S == 2
        assert (rejection.reason, rejection.retry_after_s) == (Reason.JWKS_UNAVAILABLE, 1.0)
        issuer.release()
        await soon()
        assert await found(source, "a")


@in_its_time
async def test_stopping_cancels_a_running_fetch(clock: HandClock) -> None:
    kept = Kept(clock, key_set("a"))
    kept.issuer.hang()
    async with kept as (_, issuer):
        pass
    assert issuer.cancelled == 1


@pytest.mark.parametrize(
    "answer",
    [DOWN, {"keys": []}, {"keys": [{}]}, {"error": "x"}, [], None],
    ids=["down", "empty", "no usable key", "error", "[]", "null"],
)
@in_its_time
async def test_a_request_without_keys_is_refused_at_once_as_jwks_unavailable(clock: HandClock, answer: object) -> None:
    async with Kept(clock, answer) as (source, _):
        before = clock.monotonic()
        rejection = await refusal(source)
        assert clock.monotonic() == before
        assert rejection.reason is Reason.JWKS_UNAVAILABLE
        assert rejection.retry_after_s == pytest.approx(1.0)
        assert source.jwks is None
        assert source.last_error is not None


@in_its_time
async def test_a_source_without_keys_fetches_again_within_seconds(clock: HandClock) -> None:
    async with Kept(clock, DOWN) as (source, issuer):
        await until(clock, 20)
        assert issuer.asked_at == pytest.approx([0, 1, 3, 7, 12, 17])
        assert repr(source) == "<JwksSource zuplo: None, 6 failures since the last success>"
        assert RETRY_MOST_EMPTY_S == 5
        assert (await refusal(source)).retry_after_s == pytest.approx(2.0)
        issuer.answer = key_set("a")
        await until(clock, 23)
        assert await found(source, "a")
        assert source.last_error is None


@in_its_time
async def test_keys_are_refreshed_in_the_background(clock: HandClock) -> None:
    async with Kept(clock, key_set("a"), middle) as (source, issuer):
        issuer.answer = key_set("b")
        await until(clock, REFRESH_S - 1)
        assert await found(source, "a")
        await until(clock, REFRESH_S + 1)
        assert await found(source, "b")
        await until(clock, 3 * REFRESH_S + 1)
        assert issuer.asked_at == pytest.approx([0, 600, 1200, 1800])


@in_its_time
async def test_fetches_are_spread_so_that_replicas_do_not_coincide(clock: HandClock) -> None:
    bounds: list[tuple[float, float]] = []

    def spread(low: float, high: float) -> float:
        bounds.append((low, high))
        return high

    async with Kept(clock, key_set("a"), spread) as (source, issuer):
        assert source.next_fetch_at == pytest.approx(1000 + 660)
        issuer.answer = DOWN
        await until(clock, 660 + 8)
    assert bounds == [(0.9, 1.1), (0.0, 1.0), (0.0, 2.0), (0.0, 4.0), (0.0, 8.0)]


@in_its_time
async def test_the_default_spread_is_random_within_its_bounds(clock: HandClock) -> None:
    issuer = Issuer(key_set("a"))
    issuer.clock = clock
    pauses = set[float]()
    for _ in range(5):
        source = JwksSource("zuplo", issuer, ALGORITHMS, clock)
        source.refresh()
        await soon()
        pauses.add(source.next_fetch_at - (source.fetched_at or 0))
    assert len(pauses) > 1
    assert all(540 <= seconds <= 660 for seconds in pauses)


@pytest.mark.parametrize(
    ("max_age_s", "fresh_s"),
    [(None, REFRESH_S), (0, MIN_REFRESH_S), (59, MIN_REFRESH_S), (90, 90), (7200, MAX_REFRESH_S)],
)
@in_its_time
async def test_a_max_age_is_used_within_bounds(clock: HandClock, max_age_s: float | None, fresh_s: float) -> None:
    kept = Kept(clock, key_set("a"), middle)
    kept.issuer.max_age_s = max_age_s
    async with kept as (source, _):
        assert source.next_fetch_at == pytest.approx(1000 + fresh_s)
        assert source.trusted_until == pytest.approx(1000 + fresh_s + STALE_S)
    assert (MIN_REFRESH_S, MAX_REFRESH_S) == (60, 3600)


# Outages of the issuer

FAULTS = pytest.mark.parametrize(
    "fault",
    [DOWN, {"keys": []}, {"keys": [{}]}, {"error": "x"}, [], None, ValueError("a bug")],
    ids=["down", "empty", "no usable key", "error", "[]", "null", "bug"],
)


@FAULTS
@in_its_time
async def test_the_last_good_keys_survive_failures_for_a_limited_time(clock: HandClock, fault: object) -> None:
    async with Kept(clock, key_set("a"), middle) as (source, issuer):
        issuer.answer = fault
        await until(clock, REFRESH_S + STALE_S - 1)
        assert issuer.asked > 10
        assert source.usable
        assert await found(source, "a")
        await until(clock, REFRESH_S + STALE_S)
        assert not source.usable
        assert (await refusal(source, "ed25519-a")).reason is Reason.JWKS_UNAVAILABLE
        issuer.answer = key_set("a")
        await until(clock, REFRESH_S + STALE_S + RETRY_MOST_S)
        assert await found(source, "a")


@in_its_time
async def test_the_pause_grows_with_failures_up_to_a_limit_and_a_success_resets_it(clock: HandClock) -> None:
    async with Kept(clock, key_set("a")) as (source, issuer):
        issuer.answer = DOWN
        await until(clock, 1000)
        failed = issuer.asked_at[1:]
        pauses = [after - before for before, after in pairwise(failed)]
        assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60, 60])
        assert RETRY_MOST_S == 60
        issuer.answer = key_set("b")
        await until(clock, 1100)
        issuer.answer = DOWN
        fetched = len(issuer.asked_at)
        await until(clock, 1100 + 660 + 8)
        pauses = [after - before for before, after in pairwise(issuer.asked_at[fetched:])]
        assert pauses[:2] == pytest.approx([1, 2])
        assert await found(source, "b")


@in_its_time
async def test_the_pause_stays_finite_after_hours_of_failures(clock: HandClock) -> None:
    async with Kept(clock, DOWN) as (source, issuer):
        await until(clock, 7200)
        assert issuer.asked > 1100
        assert (await refusal(source)).reason is Reason.JWKS_UNAVAILABLE


@in_its_time
async def test_keys_with_max_stale_0_are_refreshed_before_they_expire(clock: HandClock) -> None:
    async with Kept(clock, key_set("a"), latest, max_stale_s=0.0) as (source, issuer):
        for seconds in range(100, 3000, 100):
            await until(clock, seconds)
            assert await found(source, "a")
        assert issuer.asked_at[:3] == pytest.approx([0, 600, 1200])


@in_its_time
async def test_a_request_with_expired_keys_waits_for_the_running_fetch(clock: HandClock) -> None:
    async with Kept(clock, key_set("a"), middle, max_stale_s=0.0) as (source, issuer):
        issuer.hang()
        await until(clock, REFRESH_S + 1)
        assert not source.usable
        waiting = asyncio.create_task(found(source, "a"))
        await soon()
        issuer.release()
        assert await waiting


@in_its_time
async def test_a_bug_in_a_fetch_is_logged_and_does_not_shorten_the_pause(
    clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with Kept(clock, ValueError("eyJ.secret.text")) as (source, issuer):
        await until(clock, 8)
        assert issuer.asked_at == pytest.approx([0, 1, 3, 7])
        assert source.last_error == "the sidecar has a bug in its fetch of keys"
    assert f"event=bug type=ValueError at={__file__}:" in caplog.text
    assert " do='Please report this line; the last good keys stay in use.'\n" in caplog.text
    assert "secret" not in caplog.text


# Tokens with an unknown kid


@in_its_time
async def test_an_unknown_kid_forces_one_fetch_and_finds_a_new_key(clock: HandClock) -> None:
    async with Kept(clock, key_set("a")) as (source, issuer):
        issuer.answer = key_set("a", "b")
        assert await found(source, "b")
        assert issuer.asked == 2
        assert source.fetches == {("scheduled", "success"): 1, ("forced", "success"): 1}


@in_its_time
async def test_a_kid_that_a_fetch_does_not_bring_is_key_unknown(clock: HandClock) -> None:
    async with Kept(clock, key_set("a")) as (source, issuer):
        assert (await refusal(source)).reason is Reason.KEY_UNKNOWN
        assert issuer.asked == 2


@in_its_time
async def test_many_unknown_kids_cause_one_fetch(clock: HandClock) -> None:
    async with Kept(clock, key_set("a")) as (source, issuer):
        storm = [refusal(source, f"random-{n}") for n in range(100)]
        assert {rejection.reason for rejection in await asyncio.gather(*storm)} == {Reason.KEY_UNKNOWN}
        for n in range(100):
            assert (await refusal(source, f"more-{n}")).reason is Reason.JWKS_UNAVAILABLE
        assert issuer.asked == 2


@in_its_time
async def test_the_cooldown_begins_with_the_attempt(clock: HandClock) -> None:
    async with Kept(clock, key_set("a")) as (source, issuer):
        issuer.hang()
        first = asyncio.create_task(refusal(source, "x"))
        await asyncio.sleep(1)
        issuer.release()
        await first
        await until(clock, COOLDOWN_S - 0.5)
        await refusal(source, "y")
        assert issuer.asked == 2
        await until(clock, COOLDOWN_S + 0.5)
        await refusal(source, "z")
        assert issuer.asked == 3


@FAULTS
@in_its_time
async def test_a_failing_issuer_gets_no_more_forced_fetches_than_a_healthy_one(clock: HandClock, fault: object) -> None:
    async with Kept(clock, key_set("a"), lambda low, high: 400.0) as (source, issuer):
        source.next_fetch_at = float("inf")
        issuer.answer = fault
        for n in range(20):
            assert (await refusal(source, f"random-{n}")).reason is Reason.JWKS_UNAVAILABLE
            assert await found(source, "a")
        assert issuer.asked == 2


@in_its_time
async def test_a_failed_forced_fetch_is_repeated_in_the_background(clock: HandClock) -> None:
    async with Kept(clock, key_set("a")) as (source, issuer):
        await until(clock, 100)
        issuer.answer = DOWN
        said = await refusal(source, "ed25519-b")
        assert (said.reason, said.details) == (Reason.JWKS_UNAVAILABLE, Reason.JWKS_UNAVAILABLE.details)
        issuer.answer = key_set("b")
        await until(clock, 102)
        assert issuer.asked_at == pytest.approx([0, 100, 101])
        assert await found(source, "b")


@in_its_time
async def test_a_successful_forced_fetch_delays_the_scheduled_one(clock: HandClock) -> None:
    async with Kept(clock, key_set("a"), middle) as (source, issuer):
        await until(clock, 100)
        await refusal(source)
        await until(clock, REFRESH_S + 200)
        assert issuer.asked_at == pytest.approx([0, 100, 700])


@in_its_time
async def test_an_unknown_kid_is_remembered_for_a_limited_time(clock: HandClock) -> None:
    async with Kept(clock, key_set("a")) as (source, issuer):
        await refusal(source, "x")
        await until(clock, COOLDOWN_S + 1)
        await refusal(source, "x")
        assert (issuer.asked, source.suppressed) == (2, 1)
        await until(clock, UNKNOWN_KID_S + 1)
        await refusal(source, "x")
        assert issuer.asked == 3
    assert (COOLDOWN_S, UNKNOWN_KID_S) == (30, 60)


@in_its_time
async def test_suppressed_fetches_are_counted(clock: HandClock) -> None:
    async with Kept(clock, key_set("a")) as (source, issuer):
        for kid, suppressed in (("x", 0), ("x", 1), ("y", 2), ("y", 3)):
            await refusal(source, kid)
            assert (issuer.asked, source.suppressed) == (2, suppressed)


@in_its_time
async def test_an_unknown_kid_within_the_cooldown_is_jwks_unavailable(clock: HandClock) -> None:
    """A made-up kid just before a rotation refuses good tokens only until the next fetch: their clients may try again."""
    async with Kept(clock, key_set("a")) as (source, issuer):
        await refusal(source, "x")
        issuer.answer = key_set("a", "b")
        await until(clock, 10)
        said = await refusal(source, "ed25519-b")
        assert (said.reason.status, said.reason) == (503, Reason.JWKS_UNAVAILABLE)
        assert said.retry_after_s == pytest.approx(COOLDOWN_S - 10, abs=0.1)
        assert said.details == (
            "The sidecar does not know the token's key yet, and fetched the issuer's keys a moment ago. Try again."
        )
        for next_s, retry_s in ((5.0, 5.0), (0.5, 1.0)):
            source.next_fetch_at = clock.monotonic() + next_s
            assert (await refusal(source, "ed25519-b")).retry_after_s == pytest.approx(retry_s)
        await until(clock, COOLDOWN_S + 1)
        assert await found(source, "b")


@in_its_time
async def test_a_kid_is_key_unknown_after_any_fetch_without_it(clock: HandClock) -> None:
    async with Kept(clock, key_set("a"), middle, refresh_interval_s=60.0) as (source, issuer):
        await until(clock, 50)
        await refusal(source, "x")
        await until(clock, 55)
        assert (await refusal(source, "y")).reason is Reason.JWKS_UNAVAILABLE
        source.next_fetch_at = clock.monotonic()
        await source.fetch_now()
        assert (await refusal(source, "y")).reason is Reason.KEY_UNKNOWN
        assert issuer.asked == 3


@in_its_time
async def test_an_unknown_kid_of_fixed_keys_is_key_unknown_at_once(clock: HandClock) -> None:
    source = JwksSource("main", FixedKeySet({"keys": [tokens.public_jwk("EdDSA")]}), ["EdDSA"], clock, fixed=True)
    await source.fetch_now()
    for kid in ("x", "y"):
        assert (await refusal(source, kid)).reason is Reason.KEY_UNKNOWN
    source.reconsider()


@in_its_time
async def test_a_failed_signature_forces_one_fetch_per_cooldown(clock: HandClock) -> None:
    async with Kept(clock, key_set("a")) as (source, issuer):
        with pytest.raises(KeysAwaited) as caught:
            source.reconsider()
        await caught.value.landed()
        source.reconsider()
        assert issuer.asked == 2
        await until(clock, COOLDOWN_S + 1)
        with pytest.raises(KeysAwaited):
            source.reconsider()


@in_its_time
async def test_no_more_than_so_many_requests_wait_for_a_fetch(clock: HandClock) -> None:
    async with Kept(clock, key_set("a")) as (source, issuer):
        issuer.hang()
        waiting = [asyncio.create_task(refusal(source)) for _ in range(MOST_WAITING)]
        await soon()
        assert (await refusal(source, "another")).reason is Reason.JWKS_UNAVAILABLE
        with pytest.raises(Rejection) as forged:
            source.reconsider()
        assert forged.value.reason is Reason.JWKS_UNAVAILABLE
        assert not any(task.done() for task in waiting)
        assert await found(source, "a")
        await until(clock, WAIT_S + 1)
        assert {(await task).reason for task in waiting} == {Reason.JWKS_UNAVAILABLE}
        before = clock.monotonic()
        await refusal(source)
        assert clock.monotonic() - before == pytest.approx(WAIT_S), "there is room again"
        waiting = [asyncio.create_task(refusal(source)) for _ in range(MOST_WAITING)]
        await soon()
        before = clock.monotonic()
        await refusal(source, "another")
        assert clock.monotonic() == before, "and for no more than before"
        await asyncio.wait(waiting)


@in_its_time
async def test_unknown_kids_are_forgotten_when_the_set_changes(clock: HandClock) -> None:
    async with Kept(clock, key_set("a"), middle, refresh_interval_s=40.0) as (source, issuer):
        await refusal(source, "ed25519-c")
        issuer.answer = key_set("a", "b")
        await until(clock, 41)
        issuer.answer = key_set("a", "b", "c")
        assert UNKNOWN_KID_S > 41
        assert await found(source, "c")


def test_a_kid_that_was_never_missed_is_neither_open_nor_absent(clock: HandClock) -> None:
    kids = UnknownKids(clock)
    assert not kids.is_open("x")
    assert not kids.is_absent("x")


@in_its_time
async def test_a_kid_that_a_changed_set_lacks_stays_key_unknown(clock: HandClock) -> None:
    async with Kept(clock, key_set("a")) as (source, issuer):
        issuer.answer = key_set("a", "b")
        for _ in range(2):
            assert (await refusal(source, "x")).reason is Reason.KEY_UNKNOWN
        assert issuer.asked == 2


@in_its_time
async def test_a_key_that_stays_in_a_changed_set_is_not_absent(clock: HandClock) -> None:
    async with Kept(clock, key_set("a"), middle) as (source, issuer):
        issuer.answer = key_set("a", "b")
        await until(clock, REFRESH_S + 1)
        issuer.answer = {"keys": [{**tokens.public_jwk("RS256"), "kid": "ed25519-a"}]}
        assert await keys_for(source, "ed25519-a", "RS256")
        assert issuer.asked == 3


@in_its_time
async def test_the_number_of_remembered_unknown_kids_is_limited(clock: HandClock) -> None:
    async with Kept(clock, key_set("a")) as (source, issuer):
        issuer.hang()
        many = [asyncio.create_task(refusal(source, f"{n}")) for n in range(UNKNOWN_KIDS + 1)]
        await soon()
        issuer.release()
        await asyncio.gather(*many)
        await until(clock, COOLDOWN_S + 1)
        for n in range(1, UNKNOWN_KIDS + 1):
            await refusal(source, f"{n}")
        assert issuer.asked == 2
        await refusal(source, "0")
        assert issuer.asked == 3
    assert UNKNOWN_KIDS == 256


@in_its_time
async def test_a_token_without_a_kid_forces_no_fetch(clock: HandClock) -> None:
    async with Kept(clock, key_set("a")) as (source, issuer):
        assert (await refusal(source, None, "RS256")).reason is Reason.KEY_UNKNOWN
        assert issuer.asked == 1


@in_its_time
async def test_an_overlong_kid_forces_no_fetch(clock: HandClock) -> None:
    async with Kept(clock, key_set("a")) as (source, issuer):
        assert (await refusal(source, "x" * (MAX_KID_LENGTH + 1))).reason is Reason.KEY_UNKNOWN
        assert issuer.asked == 1
        assert (await refusal(source, "x" * MAX_KID_LENGTH)).reason is Reason.KEY_UNKNOWN
        assert issuer.asked == 2


@in_its_time
async def test_a_known_kid_with_another_algorithm_is_key_unknown(clock: HandClock) -> None:
    async with Kept(clock, key_set("a")) as (source, _):
        assert (await refusal(source, "ed25519-a", "RS256")).reason is Reason.KEY_UNKNOWN
        assert await found(source, "a")


@in_its_time
async def test_a_hanging_forced_fetch_delays_only_unknown_kids(clock: HandClock) -> None:
    async with Kept(clock, key_set("a")) as (source, issuer):
        issuer.hang()
        waiting = asyncio.create_task(refusal(source))
        await soon()
        before = clock.monotonic()
        assert await found(source, "a")
        assert clock.monotonic() == before
        assert (await waiting).reason is Reason.JWKS_UNAVAILABLE
        assert clock.monotonic() - before == pytest.approx(WAIT_S, abs=0.01)


@in_its_time
async def test_an_unknown_kid_waits_for_the_running_fetch(clock: HandClock) -> None:
    async with Kept(clock, key_set("a"), middle) as (source, issuer):
        issuer.answer = key_set("b")
        issuer.hang()
        await until(clock, REFRESH_S + 1)
        waiting = asyncio.create_task(found(source, "b"))
        await soon()
        issuer.release()
        assert await waiting
        assert issuer.asked == 2
        assert (await refusal(source, "x")).reason is Reason.KEY_UNKNOWN  # so the cooldown has not begun
        assert issuer.asked == 3


@in_its_time
async def test_a_scheduled_fetch_is_left_out_during_a_running_one(clock: HandClock) -> None:
    async with Kept(clock, key_set("a"), middle) as (source, issuer):
        await until(clock, REFRESH_S - 1)
        issuer.hang()
        await refusal(source)
        await until(clock, REFRESH_S + 5)
        assert issuer.asked_at == pytest.approx([0, REFRESH_S - 1])


# The changes that a fetch makes


@in_its_time
async def test_an_equal_key_set_keeps_the_object_in_use(clock: HandClock) -> None:
    async with Kept(clock, key_set("a", "b"), middle) as (source, issuer):
        before = source.jwks
        issuer.answer = {"keys": [{**member, "x5c": ["new"]} for member in key_set("a", "b")["keys"]]}
        await until(clock, REFRESH_S + 1)
        assert source.jwks is before
        assert source.fetched_at == pytest.approx(1000 + REFRESH_S)


@pytest.mark.parametrize(
    "other",
    [key_set("a", "b"), key_set("b"), {"keys": [{**key_set("a")["keys"][0], "kid": "x"}]}],
    ids=["added", "replaced", "renamed"],
)
@in_its_time
async def test_another_key_set_replaces_the_old_one_completely(clock: HandClock, other: object) -> None:
    async with Kept(clock, key_set("a"), middle) as (source, issuer):
        before = source.jwks
        issuer.answer = other
        await until(clock, REFRESH_S + 1)
        assert source.jwks is not before
        assert source.jwks is not None
        assert source.jwks.keys == Jwks.of(other, ALGORITHMS).keys


@in_its_time
async def test_refresh_fetches_once_in_a_cooldown_and_reports_whether_it_does(clock: HandClock) -> None:
    issuer = Issuer(key_set("a"))
    issuer.clock = clock
    source = JwksSource("zuplo", issuer, ALGORITHMS, clock)
    assert source.refresh()
    assert source.refresh()
    await source.fetch_now()
    clock.advance(COOLDOWN_S - 1)
    assert not source.refresh()
    clock.advance(1)
    assert source.refresh()
    await source.fetch_now()
    assert issuer.asked == 2


@in_its_time
async def test_a_forced_refresh_restarts_the_cooldown(clock: HandClock) -> None:
    issuer = Issuer(key_set("a"))
    issuer.clock = clock
    source = JwksSource("zuplo", issuer, ALGORITHMS, clock)
    assert source.cooldown_s == 0
    for asked in (1, 2):
        assert source.refresh(force=True)
        await source.fetch_now()
        assert (issuer.asked, source.cooldown_s, source.refresh()) == (asked, COOLDOWN_S, None)
        clock.advance(10)
        assert source.cooldown_s == COOLDOWN_S - 10
    clock.advance(COOLDOWN_S)
    assert source.cooldown_s == 0


@in_its_time
async def test_the_durations_of_fetches_are_counted_in_a_histogram(clock: HandClock) -> None:
    steps = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
    times = [step * part for step in steps for part in (0.95, 1.05)]
    left = list(times)

    async def fetch() -> KeySet:
        clock.advance(left.pop())
        return KeySet(key_set("a"), None)

    source = JwksSource("zuplo", fetch, ALGORITHMS, clock)
    for _ in times:
        await source.fetch_now()
    assert source.fetch_durations.counts == [1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1]
    assert source.fetch_durations.sum == pytest.approx(sum(times))


@in_its_time
async def test_by_default_keys_are_fresh_for_ten_minutes_and_trusted_for_an_hour_more(clock: HandClock) -> None:
    issuer = Issuer(key_set("a"))
    issuer.clock = clock
    source = JwksSource("zuplo", issuer, ALGORITHMS, clock, spread=middle)
    await source.fetch_now()
    assert (source.next_fetch_at, source.trusted_until) == (1000 + 600, 1000 + 600 + 3600)


# Keys of another source of the same issuer


def sources(clock: HandClock, *refresh_intervals_s: float) -> list[JwksSource]:
    """Sources of an issuer with one key. The test tells each of them to fetch."""
    issuer = Issuer(key_set("a"))
    issuer.clock = clock
    return [
        JwksSource("zuplo", issuer, ALGORITHMS, clock, refresh_interval_s=interval_s, max_stale_s=100.0)
        for interval_s in refresh_intervals_s
    ]


@pytest.mark.parametrize(("old_s", "new_s", "trusted_s"), [(600, 60, 160), (60, 600, 160), (60, 60, 160)])
@in_its_time
async def test_a_new_source_takes_keys_over_with_the_shorter_freshness(
    clock: HandClock, old_s: float, new_s: float, trusted_s: float
) -> None:
    old, new = sources(clock, old_s, new_s)
    await old.fetch_now()
    clock.advance(30)
    new.begin_with(old)
    assert new.jwks is old.jwks
    assert (new.fetched_at, new.trusted_until) == (1000, 1000 + trusted_s)
    assert await found(new, "a")


@pytest.mark.parametrize("max_stale_s", [0.0, 100.0, 7200.0])
@in_its_time
async def test_keys_that_a_new_source_takes_over_have_its_max_stale(clock: HandClock, max_stale_s: float) -> None:
    """An operator who raises `max_stale` during an outage gains time, also by a second reload."""
    [last] = sources(clock, 60)
    await last.fetch_now()
    clock.advance(30)
    for _ in range(2):
        new = JwksSource("zuplo", last.fetch, ALGORITHMS, clock, refresh_interval_s=600, max_stale_s=max_stale_s)
        new.begin_with(last)
        assert new.trusted_until == 1000 + 60 + max_stale_s
        last = new


@in_its_time
async def test_a_source_with_keys_keeps_them_at_a_takeover(clock: HandClock) -> None:
    old, new = sources(clock, 600, 60)
    await old.fetch_now()
    clock.advance(30)
    await new.fetch_now()
    own = new.jwks
    new.begin_with(old)
    assert new.jwks is own
    assert (new.fetched_at, new.trusted_until) == (1030, 1030 + 160)


@in_its_time
async def test_a_source_takes_nothing_over_from_one_without_keys(clock: HandClock) -> None:
    old, new = sources(clock, 600, 60)
    new.begin_with(old)
    assert (new.jwks, new.fetched_at, new.usable) == (None, None, False)


# The log


@in_its_time
async def test_the_log_names_each_change_once(clock: HandClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sidecar.jwks")
    odd = {"keys": [*key_set("a")["keys"], 5, "x"]}
    async with Kept(clock, DOWN, middle) as (source, issuer):
        await until(clock, 5)
        issuer.answer = odd
        await until(clock, 2000)
        issuer.answer = FetchFailed("another fault")
        await until(clock, 3000)
        assert source.fetches["scheduled", "failure"] > 5
    retry = "do='Find the cause: jwt-sidecar check --online.'"
    assert [record.getMessage() for record in caplog.records] == [
        f"issuer=zuplo event=keys_not_fetched why='the issuer is down' next_in_s=1.0 {retry}",
        "issuer=zuplo keys=1 event=keys_loaded",
        "issuer=zuplo event=keys_skipped skipped=key 1: it is not an object; key 2: it is not an object "
        "do='Tell the issuer; tokens that are signed by these keys are refused.'",
        f"issuer=zuplo event=keys_not_fetched why='another fault' next_in_s=1.0 {retry}",
    ]


@in_its_time
async def test_only_new_keys_are_logged(clock: HandClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sidecar.jwks")
    async with Kept(clock, key_set("a")) as (_, issuer):
        await until(clock, 2 * REFRESH_S)
        assert issuer.asked > 1
    assert [record.getMessage() for record in caplog.records] == ["issuer=zuplo keys=1 event=keys_loaded"]
