"""Removed keys and their grace periods, keys that an earlier process saved, and the issuer's clock."""

import asyncio
import json
import logging
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.common.errors import Reason, Rejection
from sidecar.jwt.jwks.algorithms import ALGORITHMS
from sidecar.jwt.jwks.cache import JwksSource
from sidecar.jwt.jwks.key_set import MAX_KEYS, FetchFailed, Jwks, KeySet
from sidecar.jwt.jwks.snapshot import MAX_BYTES, Snapshot, SnapshotUnusable
from tests.peers import tokens
from tests.peers.clock import HandClock, in_its_time
from tests.peers.waiting import keys_for

DOWN = FetchFailed("the issuer is down")
ISS, URI = "https://idp.test/", "https://idp.test/keys"


def key_set(*names: str, alg: str = "EdDSA") -> dict[str, Any]:
    return {"keys": [tokens.public_jwk(alg, name) for name in names]}


class Issuer:
    """A Fetch that returns `answer`, or raises it."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.clock_offset_s: float | None = None
        self.asked = 0

    async def __call__(self) -> KeySet:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return KeySet(self.answer, None, self.clock_offset_s)


@asynccontextmanager
async def kept(clock: HandClock, answer: object, **over: Any) -> AsyncIterator[tuple[JwksSource, Issuer]]:
    """A source whose keep_fresh runs; its refreshes have no jitter."""
    issuer = Issuer(answer)
    source = JwksSource("main", issuer, ALGORITHMS, clock, spread=lambda low, high: (low + high) / 2, **over)
    keeping = asyncio.create_task(source.keep_fresh())
    await asyncio.sleep(0.001)
    try:
        yield source, issuer
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})
        await source.stop()


def kids(source: JwksSource) -> list[str | None]:
    return [] if source.jwks is None else [key.kid for key in source.jwks.keys]


async def refusal(source: JwksSource, kid: str) -> Reason:
    with pytest.raises(Rejection) as caught:
        await keys_for(source, kid, "EdDSA")
    return caught.value.reason


# Removed keys


@in_its_time
async def test_a_removed_key_is_no_longer_trusted(clock: HandClock) -> None:
    async with kept(clock, key_set("a", "b")) as (source, issuer):
        issuer.answer = key_set("b")
        await asyncio.sleep(600)
        assert kids(source) == ["ed25519-b"]


@in_its_time
async def test_a_removed_key_is_trusted_during_its_grace_period(clock: HandClock) -> None:
    async with kept(clock, key_set("a"), removed_key_grace_s=60.0) as (source, issuer):
        issuer.answer = key_set("b")
        await asyncio.sleep(600)
        assert kids(source) == ["ed25519-b", "ed25519-a"]
        assert len(await keys_for(source, "ed25519-a", "EdDSA")) == 1
        await asyncio.sleep(59)
        assert kids(source) == ["ed25519-b", "ed25519-a"]
        await asyncio.sleep(2)
        assert kids(source) == ["ed25519-b"]


@in_its_time
async def test_a_grace_period_ends_while_the_issuer_is_down(clock: HandClock) -> None:
    async with kept(clock, key_set("a"), removed_key_grace_s=700.0) as (source, issuer):
        issuer.answer = key_set("b")
        await asyncio.sleep(600)
        issuer.answer = DOWN
        await asyncio.sleep(699)
        assert kids(source) == ["ed25519-b", "ed25519-a"]
        await asyncio.sleep(2)
        assert kids(source) == ["ed25519-b"]


async def after_a_rotation(clock: HandClock) -> JwksSource:
    """A source before a reload: `b` has replaced `a`, and 10 s of the grace period of 60 s are over."""
    issuer = Issuer(key_set("a"))
    old = JwksSource("main", issuer, ALGORITHMS, clock, removed_key_grace_s=60.0)
    await old.fetch_now()
    issuer.answer = key_set("b")
    await old.fetch_now()
    clock.advance(10)
    return old


@pytest.mark.parametrize(("grace_s", "lasts_s"), [(0.0, 0), (30.0, 30), (60.0, 50), (900.0, 50)])
@in_its_time
async def test_a_new_source_continues_a_grace_period_without_extending_it(
    clock: HandClock, grace_s: float, lasts_s: float
) -> None:
    old = await after_a_rotation(clock)
    async with kept(clock, DOWN, removed_key_grace_s=grace_s) as (new, there):
        new.begin_with(old)
        assert ("ed25519-a" in kids(new)) is bool(lasts_s)
        await new.fetch_now()
        assert kids(old) == ["ed25519-b", "ed25519-a"]
        await asyncio.sleep(max(0.0, lasts_s - 1))
        assert kids(new) == (["ed25519-b", "ed25519-a"] if lasts_s else ["ed25519-b"])
        there.answer = key_set("b")
        await new.fetch_now()
        assert ("ed25519-a" in kids(new)) is bool(lasts_s)
        await asyncio.sleep(2)
        assert kids(new) == ["ed25519-b"]


@pytest.mark.parametrize(("grace_s", "lasts_s"), [(0.0, 0), (30.0, 30), (60.0, 50), (900.0, 50)])
@in_its_time
async def test_a_new_source_that_has_fetched_continues_a_grace_period(
    clock: HandClock, grace_s: float, lasts_s: float
) -> None:
    old = await after_a_rotation(clock)
    async with kept(clock, key_set("b"), removed_key_grace_s=grace_s) as (new, _):
        new.begin_with(old)
        assert kids(old) == ["ed25519-b", "ed25519-a"]
        if lasts_s:
            await asyncio.sleep(lasts_s - 1)
            assert kids(new) == ["ed25519-b", "ed25519-a"]
            await asyncio.sleep(2)
        assert kids(new) == ["ed25519-b"]


@pytest.mark.parametrize("grace_s", [0.0, 60.0])
@in_its_time
async def test_keys_that_only_the_old_source_has_begin_their_grace_period(clock: HandClock, grace_s: float) -> None:
    old = await after_a_rotation(clock)
    async with kept(clock, key_set("c"), removed_key_grace_s=grace_s) as (new, _):
        new.begin_with(old)
        for pause_s, graced in ((49, ["ed25519-a", "ed25519-b"]), (2, ["ed25519-b"]), (10, [])):
            await asyncio.sleep(pause_s)
            assert kids(new) == ["ed25519-c", *(graced if grace_s else [])]


@pytest.mark.parametrize("grace_s", [0.0, 60.0])
@in_its_time
async def test_a_key_that_the_new_source_has_needs_no_grace_period(clock: HandClock, grace_s: float) -> None:
    old = await after_a_rotation(clock)
    async with kept(clock, key_set("a", "b"), removed_key_grace_s=grace_s) as (new, there):
        new.begin_with(old)
        there.answer = DOWN
        await asyncio.sleep(100)
        assert kids(new) == ["ed25519-a", "ed25519-b"]


@in_its_time
async def test_a_grace_period_of_the_new_source_continues_after_the_takeover(clock: HandClock) -> None:
    old = await after_a_rotation(clock)
    async with kept(clock, key_set("x"), removed_key_grace_s=60.0) as (new, there):
        there.answer = key_set("b")
        await new.fetch_now()
        new.begin_with(old)
        assert sorted(map(str, kids(new))) == ["ed25519-a", "ed25519-b", "ed25519-x"]
        await asyncio.sleep(51)
        assert kids(new) == ["ed25519-b", "ed25519-x"]
        await asyncio.sleep(10)
        assert kids(new) == ["ed25519-b"]


@in_its_time
async def test_a_grace_period_continues_in_the_same_source(clock: HandClock) -> None:
    """A reload that does not change the issuer keeps its source."""
    async with kept(clock, key_set("a"), removed_key_grace_s=60.0) as (source, issuer):
        issuer.answer = key_set("b")
        await source.fetch_now()
        source.begin_with(source)
        await asyncio.sleep(59)
        assert kids(source) == ["ed25519-b", "ed25519-a"]
        await asyncio.sleep(2)
        assert kids(source) == ["ed25519-b"]


@in_its_time
async def test_keys_that_are_no_longer_trusted_get_no_grace_period(clock: HandClock) -> None:
    """The issuer is down for longer than max_stale, and returns with other keys, perhaps because the old ones were stolen."""
    issuer = Issuer(key_set("a"))
    sources = [JwksSource("main", issuer, ALGORITHMS, clock, max_stale_s=10.0, removed_key_grace_s=60.0) for _ in "ab"]
    for source in sources:
        await source.fetch_now()
    clock.advance(10_000)
    new = JwksSource("main", issuer, ALGORITHMS, clock, removed_key_grace_s=60.0)
    new.begin_with(sources[0])
    assert not new.usable
    issuer.answer = key_set("b")
    for source in (new, sources[1]):
        await source.fetch_now()
        assert kids(source) == ["ed25519-b"]
    new.begin_with(sources[0])
    assert kids(new) == ["ed25519-b"]


@in_its_time
async def test_a_grace_period_begins_at_the_first_fetch_without_the_key(clock: HandClock) -> None:
    async with kept(clock, key_set("a"), removed_key_grace_s=1500.0) as (source, issuer):
        issuer.answer = key_set("b")
        await asyncio.sleep(600 + 1499)
        assert issuer.asked >= 4
        assert "ed25519-a" in kids(source)
        await asyncio.sleep(2)
        assert kids(source) == ["ed25519-b"]


@in_its_time
async def test_a_returned_key_has_a_new_grace_period_later(clock: HandClock) -> None:
    async with kept(clock, key_set("a"), removed_key_grace_s=900.0) as (source, issuer):
        issuer.answer = key_set("b")
        await asyncio.sleep(601)
        issuer.answer = key_set("a", "b")
        await asyncio.sleep(600)
        assert kids(source) == ["ed25519-a", "ed25519-b"]
        await asyncio.sleep(1200)
        assert kids(source) == ["ed25519-a", "ed25519-b"]
        issuer.answer = key_set("b")
        await asyncio.sleep(600)
        assert kids(source) == ["ed25519-b", "ed25519-a"]


@in_its_time
async def test_the_number_of_removed_keys_in_grace_is_limited(clock: HandClock) -> None:
    def many(generation: int) -> dict[str, Any]:
        return {"keys": [tokens.jwk(tokens.key("EdDSA"), kid=f"{generation}-{n}") for n in range(600)]}

    async with kept(clock, many(0), removed_key_grace_s=1e9) as (source, issuer):
        for generation in range(1, 5):
            issuer.answer = many(generation)
            await asyncio.sleep(600)
        assert len(kids(source)) == 600 + MAX_KEYS
        assert "4-0" in kids(source)
        assert "3-0" in kids(source)
        assert "0-0" not in kids(source)


@pytest.mark.parametrize(("max_stale_s", "warned"), [(86_400.0, False), (86_401.0, True)])
@in_its_time
async def test_a_max_stale_over_a_day_is_logged_as_a_warning(
    max_stale_s: float, warned: bool, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    do = "Set max_stale below 24h: a withdrawn key stays trusted for as long."
    said = f"issuer=main event=max_stale_is_long max_stale_s=86401 do='{do}'"
    async with kept(clock, key_set("a"), max_stale_s=max_stale_s):
        assert caplog.messages == [said] * warned


@in_its_time
async def test_the_remaining_grace_period_of_a_key_is_reported(clock: HandClock) -> None:
    issuer = Issuer(key_set("a"))
    source = JwksSource("main", issuer, ALGORITHMS, clock, removed_key_grace_s=60.0)
    await source.fetch_now()
    issuer.answer = key_set("b")
    await source.fetch_now()
    assert source.jwks is not None
    for pause_s, left_s in ((0, 60), (59.5, 0.5), (10, 0)):
        clock.advance(pause_s)
        assert {key.kid: source.removed.grace_s(key) for key in source.jwks.keys} == {
            "ed25519-b": None,
            "ed25519-a": left_s,
        }


# The issuer's clock


@in_its_time
async def test_a_differing_clock_is_logged_once_an_hour(clock: HandClock, caplog: pytest.LogCaptureFixture) -> None:
    async with kept(clock, key_set("a"), clock_skew_s=60.0) as (source, issuer):
        assert source.issuer_clock.offset_s is None
        for offset_s, warned in ((30.0, 0), (-30.0, 0), (30.5, 1), (45.0, 1), (-31.0, 1)):
            issuer.clock_offset_s = offset_s
            await asyncio.sleep(600)
            assert source.issuer_clock.offset_s == offset_s
            assert caplog.text.count("event=clocks_differ") == warned
        await asyncio.sleep(3600)
        assert caplog.text.count("event=clocks_differ") == 2
        do = "Compare both clocks with a third: tell the issuer, or synchronize the sidecar's clock."
        assert caplog.messages[-1] == f"issuer=main event=clocks_differ issuer_ahead_s=-31 do={do!r}"


@in_its_time
async def test_the_warning_about_a_clock_repeats_after_an_hour(
    clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    issuer = Issuer(key_set("a"))
    issuer.clock_offset_s = 31.0
    source = JwksSource("main", issuer, ALGORITHMS, clock)
    for pause_s, warned in ((0, 1), (3599, 1), (1, 2), (1, 2)):
        clock.advance(pause_s)
        await source.fetch_now()
        assert caplog.text.count("event=clocks_differ") == warned


@pytest.mark.parametrize(("offset_s", "warned"), [(30.0, False), (30.4, True)])
@in_its_time
async def test_a_clock_difference_up_to_30_s_is_not_logged_by_default(
    offset_s: float, warned: bool, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    issuer = Issuer(key_set("a"))
    issuer.clock_offset_s = offset_s
    await JwksSource("main", issuer, ALGORITHMS, clock).fetch_now()
    assert ("event=clocks_differ" in caplog.text) == warned


@in_its_time
async def test_a_clock_difference_of_one_second_is_not_logged_with_clock_skew_0(
    clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The Date header counts whole seconds."""
    async with kept(clock, key_set("a"), clock_skew_s=0.0) as (_, issuer):
        issuer.clock_offset_s = -1.0
        await asyncio.sleep(600)
        assert "event=clocks_differ" not in caplog.text
        issuer.clock_offset_s = -1.1
        await asyncio.sleep(600)
        assert "event=clocks_differ" in caplog.text


# Snapshots


def snapshot(directory: Path, issuer: str = ISS, keys_from: str = URI) -> Snapshot:
    return Snapshot(directory / "main.json", issuer, keys_from)


@in_its_time
async def test_a_restart_during_an_outage_begins_with_the_last_good_keys(clock: HandClock, tmp_path: Path) -> None:
    async with kept(clock, key_set("a", "b"), snapshot=snapshot(tmp_path)) as (source, _):
        before = source.jwks
    clock.advance(1800)
    async with kept(clock, DOWN, snapshot=snapshot(tmp_path)) as (source, _):
        assert before is not None
        assert source.jwks is not None
        assert source.jwks.keys == before.keys
        assert len(await keys_for(source, "ed25519-a", "EdDSA")) == 1
        assert await refusal(source, "other") is Reason.JWKS_UNAVAILABLE
        assert source.fetched_at is not None
        assert clock.monotonic() - source.fetched_at == pytest.approx(1800, abs=0.1)
        await asyncio.sleep(1700)
        assert source.usable
        await asyncio.sleep(200)
        assert await refusal(source, "ed25519-a") is Reason.JWKS_UNAVAILABLE


@in_its_time
async def test_restarts_do_not_extend_the_life_of_saved_keys(clock: HandClock, tmp_path: Path) -> None:
    async with kept(clock, key_set("a"), snapshot=snapshot(tmp_path)):
        pass
    for _ in range(3):
        clock.advance(1000)
        async with kept(clock, DOWN, snapshot=snapshot(tmp_path)) as (source, _):
            assert source.usable
    clock.advance(601)
    async with kept(clock, DOWN, snapshot=snapshot(tmp_path)) as (source, _):
        assert source.jwks is None


@in_its_time
async def test_newly_published_keys_replace_the_snapshot(clock: HandClock, tmp_path: Path) -> None:
    async with kept(clock, key_set("a"), snapshot=snapshot(tmp_path)):
        pass
    async with kept(clock, key_set("b"), snapshot=snapshot(tmp_path)) as (source, _):
        assert kids(source) == ["ed25519-b"]
    async with kept(clock, DOWN, snapshot=snapshot(tmp_path)) as (source, _):
        assert kids(source) == ["ed25519-b"]


@in_its_time
async def test_a_failed_or_empty_answer_saves_nothing(clock: HandClock, tmp_path: Path) -> None:
    async with kept(clock, key_set("a"), snapshot=snapshot(tmp_path)) as (_, issuer):
        saved = (tmp_path / "main.json").read_bytes()
        answers: list[Any] = [DOWN, {"keys": []}, {"keys": [5]}, None]
        for answer in answers:
            issuer.answer = answer
            await asyncio.sleep(700)
        assert (tmp_path / "main.json").read_bytes() == saved


@in_its_time
async def test_removed_keys_are_not_saved(clock: HandClock, tmp_path: Path) -> None:
    async with kept(clock, key_set("a"), snapshot=snapshot(tmp_path), removed_key_grace_s=1e6) as (source, issuer):
        issuer.answer = key_set("b")
        await asyncio.sleep(600)
        assert len(kids(source)) == 2
    async with kept(clock, DOWN, snapshot=snapshot(tmp_path)) as (source, _):
        assert kids(source) == ["ed25519-b"]


@in_its_time
async def test_a_snapshot_never_replaces_keys_in_memory(clock: HandClock, tmp_path: Path) -> None:
    snapshot(tmp_path).write([tokens.public_jwk("EdDSA", "old")], clock.wall())
    source = JwksSource("main", Issuer(DOWN), ALGORITHMS, clock, snapshot=snapshot(tmp_path))
    source.jwks = newer = Jwks.of(key_set("b"), ALGORITHMS)
    keeping = asyncio.create_task(source.keep_fresh())
    await asyncio.sleep(0.001)
    assert source.jwks is newer
    keeping.cancel()
    await asyncio.wait({keeping})


@pytest.mark.parametrize("max_stale_s", [0.0, 60.0, 3600.0])
@pytest.mark.parametrize("age_s", [-1.0, 0.0, 59.0, 61.0, 3599.0, 3601.0])
@in_its_time
async def test_a_snapshot_is_used_within_max_stale_of_its_fetch(
    max_stale_s: float, age_s: float, clock: HandClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot(tmp_path).write([tokens.public_jwk("EdDSA")], clock.wall() - age_s)
    async with kept(clock, DOWN, snapshot=snapshot(tmp_path), max_stale_s=max_stale_s) as (source, _):
        used = 0 <= age_s < max_stale_s
        assert source.usable == used
        ignored = f"event=snapshot_ignored why='it is {age_s:.0f} s old; max_stale is {max_stale_s:.0f} s'"
        assert (ignored in caplog.text) == (not used)


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_restored_key_equals_the_saved_one(alg: str, tmp_path: Path) -> None:
    """So does a key for one algorithm alone, without kid, or published with its private half."""
    published = {
        "keys": [
            tokens.public_jwk(alg),
            {**tokens.public_jwk(alg, "b"), "alg": alg},
            tokens.jwk(tokens.key(alg, "c")),
            tokens.private_jwk(tokens.key(alg, "d"), kid="d", x5c=["MII"]),
        ]
    }
    keys = Jwks.of(published, ALGORITHMS).keys
    snapshot(tmp_path).write([key.jwk() for key in keys], 5.0)
    saved = snapshot(tmp_path).read()
    assert saved is not None
    assert saved.fetched_at == 5.0
    assert Jwks.of(saved.key_set, ALGORITHMS).keys == keys
    members = {name for member in json.loads((tmp_path / "main.json").read_text())["keys"] for name in member}
    assert members <= {"kty", "kid", "alg", "n", "e", "crv", "x", "y"}


def test_keys_of_disallowed_algorithms_are_not_restored(tmp_path: Path) -> None:
    snapshot(tmp_path).write([tokens.public_jwk("RS256")], 5.0)
    saved = snapshot(tmp_path).read()
    assert saved is not None
    with pytest.raises(FetchFailed):
        Jwks.of(saved.key_set, ["EdDSA"])


def test_a_snapshot_is_written_whole_with_mode_600(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        for names in ("a", "ab"):
            snapshot(tmp_path).write([tokens.public_jwk("EdDSA", name) for name in names], 5.0)
            assert stat.S_IMODE((tmp_path / "main.json").stat().st_mode) == 0o600
            assert os.listdir(tmp_path) == ["main.json"]
    finally:
        os.umask(umask)


def test_a_missing_file_is_no_snapshot(tmp_path: Path) -> None:
    assert snapshot(tmp_path).read() is None
    assert snapshot(tmp_path / "nowhere").read() is None


GOOD = {"issuer": ISS, "keys_from": URI, "fetched_at": 5.0, "keys": [tokens.public_jwk("EdDSA")]}

FOREIGN: dict[str, Any] = {
    "list": [],
    "null": None,
    "another issuer": {**GOOD, "issuer": "https://evil.test/"},
    "another source of keys": {**GOOD, "keys_from": "discovery"},
    "no time": {name: GOOD[name] for name in GOOD if name != "fetched_at"},
    "time as text": {**GOOD, "fetched_at": "5"},
    "time as boolean": {**GOOD, "fetched_at": True},
    "keys as object": {**GOOD, "keys": {}},
    "a bare key set": key_set("a"),
}


def unusable(directory: Path) -> str:
    with pytest.raises(SnapshotUnusable) as caught:
        snapshot(directory).read()
    return str(caught.value).removeprefix(f"{directory / 'main.json'}: ")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(b"", "not JSON", id="empty"),
        pytest.param(json.dumps(GOOD).encode()[:-1], "not JSON", id="cut"),
        pytest.param(b"\xff", "not JSON", id="bad UTF-8"),
        pytest.param(b"[" * 100_000, "not JSON", id="deep"),
        pytest.param(b" " * MAX_BYTES, "not JSON", id="exactly at the size limit"),
        pytest.param(b" " * (MAX_BYTES + 1), "larger than 4096 KiB", id="huge"),
        *(
            pytest.param(json.dumps(value).encode(), "belongs to another issuer or another jwks_uri", id=name)
            for name, value in FOREIGN.items()
        ),
    ],
)
def test_a_corrupt_or_foreign_snapshot_is_reported_with_its_fault(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "main.json"
    file.touch(0o600)
    file.write_bytes(content)
    assert unusable(tmp_path) == why


@in_its_time
async def test_keys_of_a_snapshot_that_another_source_takes_over_keep_their_age(
    clock: HandClock, tmp_path: Path
) -> None:
    snapshot(tmp_path).write([tokens.public_jwk("EdDSA")], clock.wall() - 100)
    async with kept(clock, DOWN, snapshot=snapshot(tmp_path), max_stale_s=3600.0) as (old, _):
        assert old.trusted_until == 1000 + 3500
        new = JwksSource("main", Issuer(DOWN), ALGORITHMS, clock, max_stale_s=3600.0)
        new.begin_with(old)
        assert new.trusted_until == 1000 + 3500


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755])
def test_a_snapshot_names_its_issuer_and_only_its_owner_may_write_it(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "main.json"
    file.write_text(json.dumps(GOOD))
    file.chmod(mode)
    assert snapshot(tmp_path).read() == ({"keys": GOOD["keys"]}, 5.0)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused_as_snapshot(tmp_path: Path, mode: int) -> None:
    snapshot(tmp_path).write([tokens.public_jwk("EdDSA")], 5.0)
    (tmp_path / "main.json").chmod(mode)
    assert unusable(tmp_path) == "not a file that only this user may write"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused_as_snapshot(tmp_path: Path) -> None:
    snapshot(tmp_path).write([tokens.public_jwk("EdDSA")], 5.0)
    os.chown(tmp_path / "main.json", 12345, 12345)
    assert unusable(tmp_path) == "not a file that only this user may write"


def test_only_a_plain_file_is_accepted_as_snapshot(tmp_path: Path) -> None:
    snapshot(tmp_path / "..").write([tokens.public_jwk("EdDSA")], 5.0)
    (tmp_path / "main.json").symlink_to(tmp_path / ".." / "main.json")
    assert unusable(tmp_path) == "Too many levels of symbolic links"
    (tmp_path / "main.json").unlink()
    os.mkfifo(tmp_path / "main.json", 0o600)
    assert unusable(tmp_path) == "not a file that only this user may write"
    (tmp_path / "main.json").unlink()
    (tmp_path / "main.json").mkdir()
    assert unusable(tmp_path) in ("Is a directory", "not a file that only this user may write")


@in_its_time
async def test_an_untrusted_snapshot_is_logged_and_ignored(
    clock: HandClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "main.json").write_bytes(b"corrupt")
    async with kept(clock, key_set("a"), snapshot=snapshot(tmp_path)) as (source, _):
        assert kids(source) == ["ed25519-a"]
    [said] = caplog.messages
    assert said.startswith("issuer=main event=snapshot_ignored why=")
    assert said.endswith(' do="Delete the file, and let only the sidecar\'s user write it."')
    saved = snapshot(tmp_path).read()
    assert saved is not None, "the file is replaced"


@in_its_time
async def test_a_snapshot_that_cannot_be_written_leaves_the_keys_in_use(
    clock: HandClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with kept(clock, key_set("a"), snapshot=snapshot(tmp_path / "nowhere")) as (source, issuer):
        assert kids(source) == ["ed25519-a"]
        await asyncio.sleep(600)
        assert issuer.asked == 2
        assert source.fetches == {("scheduled", "success"): 2}
    do = "Give the sidecar's user write access to jwks_snapshot_dir."
    assert f"issuer=main event=snapshot_not_written why='No such file or directory' do={do!r}" in caplog.messages


def test_a_failed_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    """The rename fails: a directory is in the way."""
    (tmp_path / "main.json").mkdir()
    with pytest.raises(OSError, match="directory"):
        snapshot(tmp_path).write([tokens.public_jwk("EdDSA")], 5.0)
    assert os.listdir(tmp_path) == ["main.json"]
