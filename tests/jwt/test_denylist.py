"""Revoked tokens: by jti, by sub, by the time of their issue; from a file and from operators."""

import asyncio
import json
import logging
import os
import re
import struct
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.app.server import CannotStart
from sidecar.common.errors import Unusable
from sidecar.jwt.claims import LATEST_DATE
from sidecar.jwt.denied_table import Table, key_of
from sidecar.jwt.denylist import ALWAYS, ENTRIES_AT_A_TIME, MAX_ADDED, PAUSE_S, DenyList, Entry, read_entries
from tests.peers import patience
from tests.peers.clock import EPOCH, HandClock, in_its_time
from tests.peers.raw import Response, fetch
from tests.peers.tokens import ABSENT, claims, public_jwk
from tests.peers.wire import request
from tests.proxy.conftest import Stack, running

NOW = int(EPOCH)
ISS, ALIAS = "https://issuer.test/", "https://alias.test/"
NAMES = {ISS: "main", ALIAS: "main", "https://other.test/": "other"}


@pytest.fixture
def denylist(clock: HandClock) -> DenyList:
    return DenyList(clock, NAMES)


def denied(denylist: DenyList, issuer: str = "main", **over: Any) -> bool:
    """Is a good token with `over` changed denied?"""
    return denylist.denies(issuer, claims(now=NOW, **{"jti": "t1", **over}))


# Entries


@pytest.mark.parametrize(
    ("document", "entry"),
    [
        ({"iss": ISS, "jti": "a"}, Entry(ISS, "jti", "a", ALWAYS, ALWAYS)),
        ({"iss": ISS, "sub": "a"}, Entry(ISS, "sub", "a", ALWAYS, ALWAYS)),
        ({"iss": ISS, "sub": "a", "issued_before": 5}, Entry(ISS, "sub", "a", 5.0, ALWAYS)),
        ({"iss": ISS, "issued_before": 5.5, "until": 9}, Entry(ISS, "", "", 5.5, 9.0)),
        ({"iss": ISS, "issued_before": 0, "until": LATEST_DATE}, Entry(ISS, "", "", 0.0, float(LATEST_DATE))),
        ({"iss": ISS, "jti": "a", "until": "1800000000"}, Entry(ISS, "jti", "a", ALWAYS, 1_800_000_000.0)),
        ({"iss": ISS, "jti": "a", "until": "2027-01-15T08:00:00Z"}, Entry(ISS, "jti", "a", ALWAYS, 1_800_000_000.0)),
        ({"iss": ISS, "jti": "a", "until": "2027-01-15T10:00:00.5+02:00"}, Entry(ISS, "jti", "a", ALWAYS, 1_800_000_000.5)),
    ],
)  # fmt: skip
def test_an_entry_is_read(document: dict[str, Any], entry: Entry) -> None:
    assert Entry.read(document) == entry


TIME = "must be a Unix time in seconds, or written like 2026-12-31T23:59:59Z"


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (None, "an entry is an object with iss, and jti, sub or issued_before"),
        ([], "an entry is an object with iss, and jti, sub or issued_before"),
        ({}, "iss is missing: jti and sub mean nothing without their issuer"),
        ({"jti": "a"}, "iss is missing: jti and sub mean nothing without their issuer"),
        (
            {"iss": ISS},
            "jti, sub or issued_before is missing; without them an entry means all tokens",
        ),
        (
            {"iss": ISS, "until": 5},
            "jti, sub or issued_before is missing; without them an entry means all tokens",
        ),
        ({"iss": ISS, "jti": "a", "sub": "b"}, "jti names one token; leave out sub and issued_before"),
        ({"iss": ISS, "jti": "a", "issued_before": 5}, "jti names one token; leave out sub and issued_before"),
        ({"iss": 5, "jti": "a"}, "iss must be text, and not empty"),
        ({"iss": "", "jti": "a"}, "iss must be text, and not empty"),
        ({"iss": ISS, "jti": 5}, "jti must be text, and not empty"),
        ({"iss": ISS, "sub": ""}, "sub must be text, and not empty"),
        ({"iss": ISS, "sub": None}, "sub must be text, and not empty"),
        ({"iss": ISS, "sub": ["a"]}, "sub must be text, and not empty"),
        ({"iss": ISS, "Sub": "a"}, "'Sub' is not a member of an entry; one of: iss, issued_before, jti, sub, until"),
        (
            {"iss": ISS, "jti": "a", "exp": 5},
            "'exp' is not a member of an entry; one of: iss, issued_before, jti, sub, until",
        ),
        ({"iss": ISS, "jti": "a", "until": None}, f"until {TIME}"),
        ({"iss": ISS, "jti": "a", "until": True}, f"until {TIME}"),
        ({"iss": ISS, "jti": "a", "until": -1}, f"until {TIME}"),
        ({"iss": ISS, "jti": "a", "until": NOW * 1000}, f"until {TIME}"),
        ({"iss": ISS, "jti": "a", "until": float("nan")}, f"until {TIME}"),
        ({"iss": ISS, "jti": "a", "until": 10**400}, f"until {TIME}"),
        ({"iss": ISS, "jti": "a", "until": ""}, f"until {TIME}"),
        ({"iss": ISS, "jti": "a", "until": "tomorrow"}, f"until {TIME}"),
        ({"iss": ISS, "jti": "a", "until": "2026-12-31"}, f"until {TIME}"),
        ({"iss": ISS, "jti": "a", "until": "2026-12-31T23:59:59"}, f"until {TIME}"),
        ({"iss": ISS, "sub": "a", "issued_before": "now"}, f"issued_before {TIME}"),
    ],
    ids=str,
)
def test_an_invalid_entry_is_refused_with_the_valid_form(document: object, problem: str) -> None:
    with pytest.raises(Unusable) as caught:
        Entry.read(document)
    assert str(caught.value) == problem


# Denied tokens


def test_an_empty_list_denies_nothing(denylist: DenyList) -> None:
    assert not denied(denylist)


def test_a_jti_is_denied_only_with_its_issuer(denylist: DenyList) -> None:
    denylist.add({"iss": ISS, "jti": "t1"})
    assert denied(denylist)
    assert not denied(denylist, "other")
    for jti in ("t2", "T1", "t1 ", "", ABSENT, None, 5, ["t1"], {"t1": 1}):
        assert not denied(denylist, jti=jti)
    assert not denied(denylist, sub="t1", jti="t2")


def test_a_jti_that_is_a_whole_number_is_compared_as_text(denylist: DenyList) -> None:
    for text in ("5", "True", "None", "[]"):
        denylist.add({"iss": ISS, "jti": text})
    assert denied(denylist, jti=5)
    for jti in (True, None, [], 5.0, ["5"]):
        assert not denied(denylist, jti=jti)


def test_a_subject_is_denied_only_with_its_issuer_in_every_token(denylist: DenyList) -> None:
    denylist.add({"iss": ISS, "sub": "alice"})
    for jti in ("t1", "t2", ABSENT):
        assert denied(denylist, jti=jti)
    assert not denied(denylist, "other")
    for sub in ("bob", "Alice", ABSENT, 5, ["alice"]):
        assert not denied(denylist, sub=sub)
    assert not denied(denylist, sub="bob", jti="alice")


def test_an_entry_with_an_alias_applies_to_every_name_of_the_issuer(denylist: DenyList) -> None:
    denylist.add({"iss": ALIAS, "jti": "t1"})
    assert denied(denylist, iss=ISS)
    assert denied(denylist, iss=ALIAS)


def test_a_token_without_iss_matches_no_tenant(clock: HandClock) -> None:
    denylist = DenyList(clock, {"https://login.test/{tid}/": "main", ISS: "main"})
    denylist.add({"iss": "https://login.test/a/", "sub": "alice"})
    for iss in (ABSENT, None, ["https://login.test/a/"]):
        assert not denied(denylist, iss=iss)
    denylist.add({"iss": ISS, "sub": "alice"})
    assert denied(denylist, iss=ABSENT)


@pytest.mark.parametrize("epoch", [{"sub": "alice"}, {}], ids=["an entry for a subject", "an entry for an issuer"])
def test_tokens_that_were_issued_before_a_time_are_denied(denylist: DenyList, epoch: dict[str, str]) -> None:
    denylist.add({"iss": ISS, "issued_before": NOW, **epoch})
    assert denied(denylist, iat=NOW - 1)
    assert denied(denylist, iat=0)
    assert denied(denylist, iat=NOW - 0.5)
    assert denied(denylist, iat=ABSENT), "a token without iat is denied"
    assert not denied(denylist, iat=NOW)
    assert not denied(denylist, iat=NOW + 1)
    assert denied(denylist, iat=NOW - 1, sub="bob") is (not epoch)
    assert not denied(denylist, "other", iat=NOW - 1)


def test_a_token_without_iat_counts_as_issued_in_1970(denylist: DenyList) -> None:
    for issued_before, expected in ((0, False), (1, True)):
        denylist.add({"iss": ISS, "issued_before": issued_before})
        assert denied(denylist, iat=ABSENT) is expected


def test_an_entry_ends_at_its_until(denylist: DenyList, clock: HandClock) -> None:
    denylist.add({"iss": ISS, "jti": "t1", "until": NOW + 10})
    clock.advance(9.9)
    assert denied(denylist)
    clock.advance(0.1)
    assert not denied(denylist)


def test_an_entry_replaces_an_earlier_one_about_the_same_tokens(denylist: DenyList) -> None:
    denylist.add({"iss": ISS, "sub": "alice"})
    denylist.add({"iss": ISS, "sub": "alice", "until": NOW})
    assert not denied(denylist)
    denylist.add({"iss": ISS, "sub": "alice", "issued_before": NOW + 1})
    denylist.add({"iss": ISS, "sub": "alice", "until": NOW})
    assert denied(denylist), "a time and no time are different entries"
    assert len(denylist) == 2


def test_an_operators_entry_with_an_unknown_issuer_is_refused(denylist: DenyList) -> None:
    with pytest.raises(Unusable) as caught:
        denylist.add({"iss": "https://issuer.test", "jti": "t1"})
    expected = f"iss is not the iss of a configured issuer; one of: {ISS}, {ALIAS}, https://other.test/"
    assert str(caught.value) == expected
    assert (len(denylist), denylist.changes) == (0, 0)


def test_the_number_of_operators_entries_is_limited(denylist: DenyList) -> None:
    for number in range(MAX_ADDED):
        denylist.add({"iss": ISS, "jti": str(number)})
    with pytest.raises(Unusable) as caught:
        denylist.add({"iss": ISS, "jti": "more"})
    assert str(caught.value) == "100000 entries were added, which is the limit; put further entries into the file"


def test_every_change_is_counted(denylist: DenyList) -> None:
    denylist.add({"iss": ISS, "jti": "t1"})
    denylist.add({"iss": ISS, "jti": "t2"})
    assert denylist.changes == 2
    assert repr(denylist) == "<DenyList: 0 filed, 2 added>"


# The file

YAML_LIST = f"""
- {{iss: {ISS}, jti: 12345, until: 2027-01-15T08:00:10Z}}   # digits are text here
- iss: {ISS}
  sub: bob
- iss: {ISS}
  issued_before: {NOW - 100}
- {{iss: {ISS}, jti: old, until: {NOW}}}
- {{iss: https://unknown.test/, jti: t1}}
"""


def written(path: Path, content: str) -> Path:
    """Replace a file under its name, as a kubelet does with a ConfigMap."""
    new = path.with_name("new")
    new.write_text(content)
    return new.replace(path)


async def loaded(path: Path, clock: HandClock, content: str) -> DenyList:
    denylist = DenyList(clock, NAMES, written(path, content))
    await denylist.load()
    return denylist


async def test_a_yaml_file_is_read(tmp_path: Path, clock: HandClock) -> None:
    denylist = await loaded(tmp_path / "denied.yaml", clock, YAML_LIST)
    assert denied(denylist, jti="12345")
    assert denied(denylist, sub="bob")
    assert denied(denylist, iat=NOW - 101)
    assert not denied(denylist)
    assert len(denylist) == 3, "expired entries and those of unknown issuers are not kept"
    clock.advance(10)
    assert not denied(denylist, jti="12345")


async def test_a_json_file_is_read(tmp_path: Path, clock: HandClock) -> None:
    entries = [{"iss": ISS, "jti": "t1", "until": NOW + 5}, {"iss": ISS, "sub": "bob"}]
    denylist = await loaded(tmp_path / "denied.json", clock, json.dumps(entries))
    assert denied(denylist)
    assert denied(denylist, jti="t2", sub="bob")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.json", "[", "is not JSON"),
        ("a.json", "", "is not JSON"),
        ("a.json", "\xff", "is not JSON"),
        ("a.json", "[" * 100_000, "is not JSON"),
        ("a.yaml", "[", "is not YAML"),
        ("a.yaml", "- !!python/object:os.system {}", "entry 0: iss is missing"),
        ("a.yaml", "\0", "is not YAML"),
        ("a.yaml", "", "must be a list of entries"),
        ("a.yaml", "entries: []", "must be a list of entries"),
        ("a.json", '{"iss": "a"}', "must be a list of entries"),
        ("a.json", "null", "must be a list of entries"),
        ("a.yaml", f"- {{iss: {ISS}, jti: a}}\n- {{iss: {ISS}}}", "entry 1: jti, sub or issued_before is missing"),
        ("a.yaml", f"- {{iss: {ISS}, jti: }}", "entry 0: jti must be text, and not empty"),
        ("a.json", '["t1"]', "entry 0: an entry is an object"),
        ("a.yaml", "- {iss: [[a], b], jti: t1}", "entry 0: iss must be text, and not empty"),
        (
            "a.yaml",
            f"- {{iss: {ISS}, jti: a}}\n- {{iss: {ISS}, jti: a, jti: b}}",
            "entry 1: has a name twice; write two entries",
        ),
        ("a.json", f'[{{"iss": "{ISS}", "sub": "a", "sub": "b"}}]', "entry 0: has a name twice; write two entries"),
        ("a.yaml", f"- {{iss: {ISS}, jti: a}}\n---\n- x", "is not YAML"),
    ],
)
async def test_a_file_with_any_invalid_entry_is_not_used(
    tmp_path: Path, clock: HandClock, name: str, content: str, problem: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(Unusable) as caught:
        await DenyList(clock, NAMES, path).load()
    assert str(caught.value).startswith(f"{path}: {problem}")


async def test_a_missing_file_is_an_error(tmp_path: Path, clock: HandClock) -> None:
    with pytest.raises(Unusable, match=r"^[^:]+: cannot be read: No such file or directory"):
        await DenyList(clock, NAMES, tmp_path / "none.json").load()
    with pytest.raises(Unusable, match="cannot be read: Is a directory"):
        await DenyList(clock, NAMES, tmp_path).load()


async def test_a_file_is_read_again_only_after_a_change(tmp_path: Path, clock: HandClock) -> None:
    path = tmp_path / "denied.json"
    denylist = await loaded(path, clock, json.dumps([{"iss": ISS, "jti": "t1"}]))
    await denylist.load()
    assert denylist.changes == 1
    written(path, json.dumps([{"iss": ISS, "jti": "t2"}]))
    await denylist.load()
    assert denylist.changes == 2
    assert not denied(denylist)
    assert denied(denylist, jti="t2")


async def test_a_file_that_becomes_invalid_keeps_the_previous_list(tmp_path: Path, clock: HandClock) -> None:
    path = tmp_path / "denied.json"
    denylist = await loaded(path, clock, json.dumps([{"iss": ISS, "jti": "t1"}]))
    for spoil in (lambda: written(path, "["), path.unlink):
        spoil()
        with pytest.raises(Unusable):
            await denylist.load()
        assert denied(denylist)
    written(path, "[]")
    await denylist.load()
    assert not denied(denylist)


async def test_operators_entries_survive_a_change_of_the_file(tmp_path: Path, clock: HandClock) -> None:
    path = tmp_path / "denied.json"
    denylist = await loaded(path, clock, "[]")
    denylist.add({"iss": ISS, "jti": "t1"})
    written(path, "[ ]")
    await denylist.load()
    assert denied(denylist)


def test_entries_in_one_part_of_a_table_keep_their_own_later_times() -> None:
    table = Table()
    one, other = (b"part" + bytes(11) + bytes((last,)) for last in (1, 2))
    table.raise_to(one, 1.0, 2.0)
    table.raise_to(other, 3.0, 4.0)
    table.raise_to(other, 2.0, 5.0)
    assert (table[one], table[other], len(table)) == ((1.0, 2.0), (3.0, 5.0), 2)


class Errors(logging.Handler):
    """Counts the logged errors; a test can wait for one."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []
        self.came = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        self.came.set()


async def test_a_bad_file_is_noticed_in_the_background_and_logged_once(tmp_path: Path, clock: HandClock) -> None:
    path = tmp_path / "denied.json"
    denylist = await loaded(path, clock, json.dumps([{"iss": ISS, "jti": "t1"}]))
    denylist.add({"iss": ISS, "jti": "t3", "until": NOW + 1})
    good_at = clock.monotonic()
    clock.advance(1)
    errors = Errors()
    logging.getLogger("sidecar.files").addHandler(errors)
    task = asyncio.create_task(denylist.keep_fresh(poll_s=0.001))
    try:
        async with patience("the deny list"):
            written(path, "[")
            await errors.came.wait()
            await asyncio.sleep(0.05)  # some more checks of the file
            assert denied(denylist)
            while len(denylist) > 1:  # the expired entry
                await asyncio.sleep(0.001)
            assert (denylist.changes, denylist.found_good_at) == (2, good_at)
            clock.advance(1)
            written(path, json.dumps([{"iss": ISS, "jti": "t2"}]))
            while denylist.changes == 2:
                await asyncio.sleep(0.001)
            assert denied(denylist, jti="t2")
            assert (denylist.changes, denylist.found_good_at) == (3, clock.monotonic())
    finally:
        task.cancel()
        logging.getLogger("sidecar.files").removeHandler(errors)
    [text] = errors.texts
    assert text.startswith(f"event=file_kept_as_it_was why='{path}: is not JSON' do=")


class Asked(threading.Event):
    """Is set after so many waits, and records how long each of them may take."""

    def __init__(self, waits: int) -> None:
        super().__init__()
        self.left = waits
        self.timeouts: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.timeouts.append(timeout)
        self.left -= 1
        return self.left < 0


def test_reading_a_long_list_pauses_and_ends_when_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "denied.json"
    path.write_text(json.dumps([{"iss": ISS, "jti": str(number)} for number in range(2 * ENTRIES_AT_A_TIME + 1)]))
    patient, impatient = Asked(waits=9), Asked(waits=1)
    assert len(read_entries(path, NOW, patient).table) == 2 * ENTRIES_AT_A_TIME + 1
    assert patient.timeouts == [PAUSE_S] * 3
    with pytest.raises(asyncio.CancelledError):
        read_entries(path, NOW, impatient)
    assert len(impatient.timeouts) == 2


@in_its_time
async def test_expired_entries_of_operators_are_dropped_at_the_next_check(clock: HandClock) -> None:
    denylist = DenyList(clock, NAMES)
    denylist.add({"iss": ISS, "jti": "t1", "until": NOW + 1})
    task = asyncio.create_task(denylist.keep_fresh(poll_s=5))
    await asyncio.sleep(4)
    assert len(denylist) == 1
    await asyncio.sleep(2)
    assert len(denylist) == 0
    assert denylist.found_good_at is None, "there is no file"
    task.cancel()


def test_entries_that_wait_for_their_issuer_are_logged(
    denylist: DenyList, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    denylist.add({"iss": "https://other.test/", "jti": "t1"})
    denylist.add({"iss": ISS, "jti": "t1"})
    denylist.tell_waiting()
    assert caplog.messages == []
    renamed = DenyList(clock, {"https://other.test/": "other"}, None, denylist)
    renamed.have_added(denylist.added())
    renamed.tell_waiting()
    do = "Configure an issuer with their iss, or remove the entries; they have no effect until then."
    assert caplog.messages == [f"event=denylist_waiting issuers=['{ISS}'] do='{do}'"]


async def test_a_file_changed_in_place_is_read_again(tmp_path: Path, clock: HandClock) -> None:
    path = tmp_path / "denied.json"
    denylist = await loaded(path, clock, "[]")
    path.write_text(json.dumps([{"iss": ISS, "jti": "t1"}]))
    os.utime(path, ns=(1, 1))
    await denylist.load()
    assert denied(denylist)


@pytest.mark.parametrize("name", ["long.json", "long.yaml"])
async def test_a_long_list_is_read_completely(tmp_path: Path, clock: HandClock, name: str) -> None:
    """The list is longer than one read, and has characters of several bytes at the borders of reads."""
    jtis = [f"{number}-{'é' * (number % 7)}" for number in range(6000)]
    documents = [{"iss": ISS, "jti": jti, "until": NOW + 5} for jti in jtis]
    content = (
        json.dumps(documents, ensure_ascii=False, indent=1)
        if name.endswith("json")
        else "".join(f"- {{iss: {ISS}, jti: {jti}}}\n" for jti in jtis)
    )
    denylist = await loaded(tmp_path / name, clock, content)
    assert len(denylist) == 6000
    assert all(denied(denylist, jti=jti) for jti in jtis)
    assert not denied(denylist, jti="6000-é")


async def test_a_json_list_needs_no_blanks(tmp_path: Path, clock: HandClock) -> None:
    documents = [{"iss": ISS, "jti": "t1"}, {"iss": ISS, "sub": "bob"}]
    denylist = await loaded(tmp_path / "a.json", clock, json.dumps(documents, separators=(",", ":")))
    assert denied(denylist)
    assert len(denylist) == 2


async def test_a_yaml_file_may_use_aliases(tmp_path: Path, clock: HandClock) -> None:
    denylist = await loaded(
        tmp_path / "a.yaml", clock, f"- &one {{iss: &iss {ISS}, jti: a}}\n- {{iss: *iss, jti: t1}}\n- *one"
    )
    assert denied(denylist)
    assert len(denylist) == 2


@pytest.mark.parametrize(
    "content",
    [
        "[1",
        "[E",
        "[E E]",
        "[E,",
        "[E}",
        "[E][E]",
        "[,E]",
        "[E,]",
        "[,]",
        '[E,{"iss": "' + "a" * 200_000,
        "[E] x",
        "[E]x",
        "[]x",
    ],
)
async def test_an_incomplete_or_invalid_json_list_is_not_used(tmp_path: Path, clock: HandClock, content: str) -> None:
    entry = json.dumps({"iss": ISS, "jti": "t1"})
    with pytest.raises(Unusable):
        await loaded(tmp_path / "a.json", clock, content.replace("E", entry))


@given(st.dictionaries(st.text(min_size=1), st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=50), st.text())
def test_a_table_keeps_the_later_times_of_each_key(entries: dict[str, tuple[int, int]], other: str) -> None:
    table = Table()
    for text, (first, second) in entries.items():
        table.raise_to(key_of(text), first, 5)
        table.raise_to(key_of(text), 5, second)
    for text in {*entries, other}:
        times = entries.get(text)
        assert table[key_of(text)] == (times and tuple(max(one, 5.0) for one in times))
    assert len(table) == len(entries)


def test_a_key_is_not_found_across_two_entries() -> None:
    """In the bytes of a table, half of one key and half of the next look like a key."""
    table = Table()
    keys = [b"\0\0" + bytes([number] * 14) for number in range(1, 4)]
    for key in keys:
        table.raise_to(key, 1.0, 2.0)
    held = b"".join(key + struct.pack("<dd", 1.0, 2.0) for key in keys)
    for place in range(1, len(held) - 16):
        if place % 32 and held[place : place + 2] == b"\0\0":
            assert table[held[place : place + 16]] is None
    assert table[keys[1]] == (1.0, 2.0)


def test_a_key_is_found_after_times_with_the_same_ending() -> None:
    table = Table()
    table.raise_to(b"\0\0" + b"\1" * 14, 1.0, 5e-324)  # seven bytes of zero
    table.raise_to(bytes(16), 3.0, 4.0)
    assert table[bytes(16)] == (3.0, 4.0)


def test_the_keys_of_a_large_table_are_in_many_parts() -> None:
    table = Table()
    for number in range(20_000):
        table.raise_to(key_of(str(number)), 1.0, 2.0)
    keys, parts = map(int, re.findall(r"\d+", repr(table)))
    assert keys == 20_000
    assert 8_000 < parts <= 2**14


def test_a_text_of_any_characters_has_a_key() -> None:
    assert len({key_of("\ud800"), key_of("\udc00"), key_of("\\ud800"), key_of("é"), key_of("")}) == 5


def test_different_texts_make_different_keys() -> None:
    assert len({key_of("ab", "c"), key_of("a", "bc"), key_of("abc"), key_of("", "abc"), key_of("abc", "")}) == 5


async def test_an_entry_of_a_file_takes_less_than_150_bytes(tmp_path: Path, clock: HandClock) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"iss": ISS, "jti": f"{number:032}", "until": NOW + 5} for number in range(50_000)]))
    denylist = DenyList(clock, NAMES, path)
    tracemalloc.start()
    try:
        await denylist.load()
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 150 * 50_000, "this includes the table's own parts, however full they are"
    assert peak < held + 2**20, "the whole file is never in memory"
    assert len(denylist) == 50_000


async def test_the_event_loop_continues_while_a_list_is_read(tmp_path: Path, clock: HandClock) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"iss": ISS, "jti": str(number)} for number in range(5000)]))
    denylist = DenyList(clock, NAMES, path)
    turns = 0
    reading = asyncio.create_task(denylist.load())
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1
    await reading
    assert turns > 5000 / ENTRIES_AT_A_TIME


async def test_a_new_list_takes_over_the_entries_of_an_unchanged_file(tmp_path: Path, clock: HandClock) -> None:
    path = tmp_path / "denied.json"
    content = json.dumps([{"iss": ISS, "jti": "t1"}, {"iss": "https://new.test/", "jti": "t1"}])
    before = await loaded(path, clock, content)
    stamp = path.stat()
    path.write_text("x" * len(content))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # the file looks unchanged
    names = NAMES | {"https://new.test/": "new"}
    after = DenyList(clock, names, path, before)
    await after.load()
    assert after.changes == 0
    assert denied(after)
    assert denied(after, "new"), "the entry waits until its issuer is configured"
    assert (len(before), len(after)) == (1, 2)
    elsewhere = DenyList(clock, names, tmp_path / "other.json", before)
    assert len(elsewhere) == 0


def test_entries_of_a_removed_issuer_wait_for_its_return(denylist: DenyList, clock: HandClock) -> None:
    denylist.add({"iss": ISS, "jti": "t1"})
    mistyped = DenyList(clock, {"https://isuer.test/": "main"}, None, denylist)
    mistyped.have_added(denylist.added())
    assert (mistyped.counts["posted", "waiting"], mistyped.changes) == (1, 1)
    assert (len(mistyped), denied(mistyped)) == (0, False)
    mended = DenyList(clock, NAMES, None, mistyped)
    mended.have_added(mistyped.added())
    assert mended.counts["posted", "waiting"] == 0
    assert denied(mended)


def test_an_entry_with_an_alias_replaces_the_entry_with_the_issuers_name(denylist: DenyList) -> None:
    denylist.add({"iss": ISS, "sub": "alice"})
    denylist.add({"iss": ALIAS, "sub": "alice", "until": NOW})
    assert not denied(denylist)
    assert len(denylist) == 1


# Through the proxy


async def post(stack: Stack, entry: dict[str, Any]) -> Response:
    body = json.dumps(entry).encode()
    headers = [("Content-Type", "application/json")]
    return await fetch(
        stack.sidecar.admin_address, request("POST", "/denylist", host="localhost", headers=headers, body=body)
    )


def revoked(answer: Response) -> bool:
    assert answer.status in (200, 401)
    if answer.status == 401:
        assert answer.json()["code"] == "token_revoked"
        assert answer.json()["details"] == "The token has been revoked."
        assert 'error="invalid_token"' in (answer.get("www-authenticate") or "")
    return answer.status == 401


async def test_a_revoked_token_is_refused_at_once() -> None:
    async with running() as stack, stack.client() as client:
        token, other = stack.token(jti="t1"), stack.token(jti="t2")
        good = request("GET", "/", token=token)
        for _ in range(2):  # first verified, then remembered
            assert not revoked(await client.request(good))
        assert stack.sidecar.assembly.handler.authentication.verifier.hits == 1
        answer = await post(stack, {"iss": stack.issuer.issuer, "jti": "t1"})
        assert (answer.status, answer.json()) == (200, {"entries": 1})
        for _ in range(2):
            assert revoked(await client.request(good))
        assert not revoked(await client.request(request("GET", "/", token=other)))
        assert len(stack.backend.requests) == 3


async def test_a_subject_and_all_earlier_tokens_can_be_revoked() -> None:
    async with running() as stack:
        issued = int(stack.clock.wall())
        old, new, bob = stack.token(iat=issued - 50), stack.token(iat=issued), stack.token(sub="bob", iat=issued)
        good = {name: request("GET", "/", token=token) for name, token in (("old", old), ("new", new), ("bob", bob))}
        for raw in good.values():
            assert not revoked(await stack.fetch(raw))
        await post(stack, {"iss": stack.issuer.issuer, "issued_before": issued})
        assert [revoked(await stack.fetch(raw)) for raw in good.values()] == [True, False, False]
        await post(stack, {"iss": stack.issuer.issuer, "sub": "bob"})
        assert [revoked(await stack.fetch(raw)) for raw in good.values()] == [True, False, True]


async def test_a_token_is_accepted_again_after_the_end_of_its_entry() -> None:
    async with running() as stack:
        entry = {"iss": stack.issuer.issuer, "sub": "alice", "until": stack.clock.wall() + 100}
        await post(stack, entry)
        assert revoked(await stack.fetch(stack.good()))
        stack.clock.ahead_s = 101
        assert not revoked(await stack.fetch(stack.good()))


INLINE = {"main": {"issuer": ISS, "audiences": ["my-api"], "jwks_inline": {"keys": [public_jwk("EdDSA")]}}}


async def test_the_metrics_have_the_number_and_age_of_entries(tmp_path: Path) -> None:
    path = tmp_path / "denied.yaml"
    path.write_text(f"- {{iss: {ISS}, jti: t1}}\n- {{iss: https://unknown.test/, jti: t1}}")
    async with running(denylist_file=str(path), issuers=INLINE) as stack:
        stack.clock.ahead_s += 100
        lines = (await stack.health("/metrics")).body.decode().splitlines()
        for sample in (
            'entries{origin="file",state="in_force"} 1.0',
            'entries{origin="file",state="waiting"} 1.0',
            'entries{origin="posted",state="in_force"} 0.0',
        ):
            assert f"jwt_sidecar_denylist_{sample}" in lines
        [age] = [line for line in lines if line.startswith("jwt_sidecar_denylist_age_seconds ")]
        assert float(age.split()[1]) >= 0


async def test_the_deny_list_applies_to_the_first_request(tmp_path: Path) -> None:
    path = tmp_path / "denied.yaml"
    path.write_text(f"- {{iss: {ISS}, jti: t1}}")
    async with running(denylist_file=str(path), issuers=INLINE) as stack:
        assert revoked(await stack.fetch(request("GET", "/", token=stack.token(iss=ISS, jti="t1"))))
        assert not revoked(await stack.fetch(request("GET", "/", token=stack.token(iss=ISS, jti="t2"))))


@pytest.mark.parametrize("content", ["[", None], ids=["bad", "missing"])
async def test_the_sidecar_does_not_start_with_a_bad_or_missing_deny_list(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "denied.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CannotStart, match=r"denied\.json: "):
        async with running(denylist_file=str(path)):
            raise AssertionError("it serves")


async def test_remembered_tokens_are_not_verified_again_after_another_revocation() -> None:
    async with running() as stack, stack.client() as client:
        for _ in range(3):
            assert not revoked(await client.request(stack.good()))
        await post(stack, {"iss": stack.issuer.issuer, "jti": "of another token"})
        for _ in range(3):
            assert not revoked(await client.request(stack.good()))
        verifier = stack.sidecar.assembly.handler.authentication.verifier
        assert (verifier.misses, verifier.hits) == (1, 5), "the token is verified only once"


async def test_of_two_entries_about_the_same_tokens_the_stricter_one_applies(tmp_path: Path, clock: HandClock) -> None:
    read = [
        {"iss": ISS, "sub": "alice", "issued_before": NOW + 20},
        {"iss": ISS, "sub": "alice", "issued_before": NOW + 10},
        {"iss": ISS, "jti": "x"},
        {"iss": ISS, "jti": "x", "until": NOW + 5},
        {"iss": ISS, "jti": "y", "until": NOW + 5},
        {"iss": ALIAS, "jti": "y"},
    ]
    denylist = await loaded(tmp_path / "denied.json", clock, json.dumps(read))
    clock.advance(10)
    assert denied(denylist, iat=NOW + 15)
    assert denied(denylist, jti="x", sub="bob")
    assert denied(denylist, jti="y", sub="bob")
