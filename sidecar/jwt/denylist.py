"""Tokens that are taken back before they expire: one by its `jti`, all of a `sub`, or all that were issued before a time.

An entry names the issuer, since `jti` and `sub` mean nothing without it. No entry is the hash of a token: its holder may have
another one with the same `jti` or `sub`. Entries come from a file, which is read again when it changes, and from operators;
theirs are kept in memory only, also while no configured issuer has their iss.
"""

import asyncio
import logging
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from sidecar.common.clock import Clock
from sidecar.common.errors import Unusable
from sidecar.jwt.claims import LATEST_DATE
from sidecar.jwt.denied_table import Table, key_of
from sidecar.jwt.denylist_reader import NoList, documents
from sidecar.jwt.examination import Examination
from sidecar.jwt.issuer_names import IssuerNames

POLL_S = 5.0  # between two looks at the file
ENTRIES_AT_A_TIME = (
    128  # of the file; then whoever else wants the interpreter gets it, as the loop that serves requests
)
PAUSE_S = 0.0005
MAX_ADDED = 100_000  # entries of operators; a longer list belongs into the file
ALWAYS = float("inf")

_MEMBERS = {"iss", "jti", "sub", "issued_before", "until"}
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")

# What an entry may be about: a claim, and whether only tokens issued before a time are meant.
_KINDS = (("jti", "always"), ("sub", "always"), ("sub", "before"), ("", "before"))

log = logging.getLogger("sidecar.denylist")


class Entry(NamedTuple):
    """Tokens of `iss` whose `claim` (`jti`, `sub`, or none: of all) is `value`, refused until the Unix time `until`.

    Only those issued before the Unix time `issued_before`; ALWAYS stands for no such limit, and for no end.
    """

    iss: str
    claim: str
    value: str
    issued_before: float
    until: float

    @property
    def about(self) -> tuple[str, str, str, str]:
        """Two entries with the same are about the same tokens."""
        return self.iss, self.claim, "always" if self.issued_before == ALWAYS else "before", self.value

    @classmethod
    def read(cls, document: object) -> "Entry":
        """The entry that a document describes. Raises Unusable."""
        if not isinstance(document, dict):
            raise Unusable("an entry is an object with iss, and jti, sub or issued_before")
        if unknown := document.keys() - _MEMBERS:
            raise Unusable(f"unknown member {min(unknown, key=str)!r}; one of: {', '.join(sorted(_MEMBERS))}")
        for name in ("iss", "jti", "sub"):
            if name in document and (not isinstance(document[name], str) or not document[name]):
                raise Unusable(f"{name} must be text, and not empty")
        if "iss" not in document:
            raise Unusable("iss is missing: jti and sub mean nothing without their issuer")
        if "jti" in document and ("sub" in document or "issued_before" in document):
            raise Unusable("jti names one token; leave out sub and issued_before")
        claim = "jti" if "jti" in document else "sub" if "sub" in document else ""
        if not claim and "issued_before" not in document:
            raise Unusable("jti, sub or issued_before is missing: all tokens of an issuer are never meant")
        return cls(
            document["iss"],
            claim,
            document.get(claim, ""),
            _time(document, "issued_before"),
            _time(document, "until"),
        )


class Filed(NamedTuple):
    """What a file holds: the entries, how many name which issuer, and of which _KINDS they are. Expired ones are left out."""

    table: Table
    issuers: Counter[str]
    kinds: set[tuple[str, str]]
    stamp: tuple[int, int, int] | None = None


class DenyList:
    """A check for tokens that are refused although their signature and claims are good. `changes` grows when these may be others.

    `names` is the iss of each configured issuer, or the template of many, -> its name. `path` None: there is no file. Entries of
    issuers that are not configured are kept, and wait for them. `before`: the list in use so far, whose file need not be read
    again.
    """

    name = "denylist"

    def __init__(
        self,
        clock: Clock,
        names: Mapping[str, str] | None = None,
        path: Path | None = None,
        before: "DenyList | None" = None,
    ) -> None:
        self.changes = 0
        self.path = path
        self.found_good_at: float | None = None  # when the file was last seen, and was as it had been read; monotonic
        self._clock = clock
        self._names = IssuerNames(names or {})
        self._filed = Filed(Table(), Counter(), set())
        if before is not None and before.path == path:
            self._filed, self.found_good_at = before._filed, before.found_good_at
        self._added: dict[tuple[str, ...], Entry] = {}
        self._posted: Counter[str] = Counter()  # of them, by iss
        self.problem: str | None = None

    def __len__(self) -> int:
        """How many are in force."""
        return sum(number for (_, state), number in self.counts.items() if state == "in_force")

    def __repr__(self) -> str:
        return f"<DenyList: {len(self._filed.table)} of {self.path}, {len(self._added)} added>"

    @property
    def counts(self) -> dict[tuple[str, str], int]:
        """How many entries there are, by where they are from (file, posted) and what they are (in_force, waiting)."""
        numbers: dict[tuple[str, str], int] = {}
        for origin, issuers in (("file", self._filed.issuers), ("posted", self._posted)):
            waiting = sum(number for iss, number in issuers.items() if iss not in self._names)
            numbers[origin, "in_force"] = issuers.total() - waiting
            numbers[origin, "waiting"] = waiting
        return numbers

    def denies(self, issuer: str, claims: Mapping[str, Any]) -> bool:
        """Are verified claims of the issuer of this name refused at this time?"""
        if not self._filed.kinds and not self._added:
            return False
        now, issued = self._clock.wall(), claims.get("iat", 0)
        for iss in self._names.spellings(issuer, claims.get("iss")):
            for claim, kind in _KINDS:
                value = _text(claims.get(claim)) if claim else ""
                if claim and not value:
                    continue
                known = (claim, kind) in self._filed.kinds
                filed = self._filed.table[key_of(iss, claim, kind, value)] if known else None
                added = self._added.get((iss, claim, kind, value))
                for limits in (filed, added and (added.issued_before, added.until)):
                    if limits is not None and issued < limits[0] and now < limits[1]:
                        return True
        return False

    def expected(self, _seen: Examination) -> str:
        return ""

    def found(self, seen: Examination, _now: float) -> str:
        return "is on it" if self.denies(str(seen.issuer), seen.payload) else "not on it"

    def add(self, document: object) -> None:
        """Take an operator's entry; one about the same takes its place. Raises Unusable."""
        entry = Entry.read(document)
        if entry.iss not in self._names:
            raise Unusable(f"iss is not that of a configured issuer; one of: {', '.join(self._names.texts)}")
        if len(self._added) >= MAX_ADDED:
            raise Unusable(f"{MAX_ADDED} entries were added; put them into the file")
        self._put(entry)
        self.changes += 1
        log.info("event=denylist_added claim=%s entries=%d", entry.claim or "iat", len(self))

    def _put(self, entry: Entry) -> None:
        """In place of one about the same, under whichever name of the issuer."""
        iss, *rest = entry.about
        name = self._names.name_of(iss)
        for spelling in [iss] if name is None else self._names.spellings(name, iss):
            self._take_out((spelling, *rest))
        self._added[entry.about] = entry
        self._posted[iss] += 1

    def _take_out(self, about: tuple[str, ...]) -> None:
        if self._added.pop(about, None) is not None:
            self._posted[about[0]] -= 1

    def added(self) -> Iterator[Entry]:
        """What operators have added, whether it is in force or waits."""
        return iter(self._added.values())

    def have_added(self, entries: Iterable[Entry]) -> None:
        """Take these for what operators have added."""
        self._added = {}
        self._posted = Counter()
        for entry in entries:
            self._put(entry)
        self.changes += 1

    def tell_waiting(self) -> None:
        """Say in the log what operators have added and what is not in force, if there is such."""
        if issuers := {entry.iss for entry in self._added.values() if entry.iss not in self._names}:
            do = "No issuer of the configuration has their iss: they are kept, and hold again when one does."
            log.warning("event=denylist_waiting issuers=%r do=%r", sorted(issuers), do)

    async def load(self) -> None:
        """Read the file if it has changed since the last time. Raises Unusable, and then keeps what it had."""
        if self.path is None:
            return
        stamp = await asyncio.to_thread(_stamp, self.path)
        if stamp != self._filed.stamp:
            cancelled = threading.Event()
            try:
                self._filed = await asyncio.to_thread(_read, self.path, stamp, self._clock.wall(), cancelled)
            finally:
                cancelled.set()
            self.changes += 1
            counts = self.counts
            numbers = counts["file", "in_force"], counts["file", "waiting"]
            log.info("event=denylist_loaded entries=%d of_unknown_issuers=%d", *numbers)
        self.found_good_at = self._clock.monotonic()

    async def keep_fresh(self, poll_s: float = POLL_S) -> None:
        """For ever: read the file when it has changed, and forget entries that have expired."""
        while True:
            await asyncio.sleep(poll_s)
            now = self._clock.wall()
            for about in [about for about, entry in self._added.items() if entry.until <= now]:
                self._take_out(about)
            try:
                await self.load()
            except Unusable as error:
                if str(error) != self.problem:
                    log.error(
                        "event=denylist_kept why=%r do='The entries read before are used: mend the file.'", str(error)
                    )
                self.problem = str(error)
            else:
                self.problem = None


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes with a file, and with a mounted one that is exchanged under its name."""
    try:
        found = path.stat()
    except OSError as error:
        raise Unusable(f"{path}: cannot be read: {error.strerror}") from error
    return found.st_mtime_ns, found.st_ino, found.st_size


def _read(path: Path, stamp: tuple[int, int, int], now: float, cancelled: threading.Event) -> Filed:
    """The entries of a file. All of them or none: half a list refuses too little. Of two about the same the later limits hold."""
    filed = Filed(Table(), Counter(), set(), stamp)
    try:
        for number, document in enumerate(documents(path)):
            if number % ENTRIES_AT_A_TIME == 0 and cancelled.wait(PAUSE_S):
                break
            try:
                entry = Entry.read(document)
            except Unusable as error:
                raise Unusable(f"{path}: entry {number}: {error}") from None
            if now < entry.until:
                before = len(filed.table)
                filed.table.raise_to(key_of(*entry.about), entry.issued_before, entry.until)
                filed.kinds.add(entry.about[1:3])
                filed.issuers[entry.iss] += len(filed.table) - before
    except Unusable:
        raise
    except OSError as error:
        raise Unusable(f"{path}: cannot be read: {error.strerror}") from error
    except NoList:
        raise Unusable(f"{path}: must be a list of entries") from None
    except Exception:  # noqa: BLE001  # whatever the parsers raise: without libyaml an OverflowError for "\UFFFFFFFF"
        raise Unusable(f"{path}: is not {'JSON' if path.suffix == '.json' else 'YAML'}") from None
    return filed


def _text(value: object) -> str:
    """A `jti` or `sub` as an entry has it: text (RFC 7519 section 4.1), or a number as some issuers write it. Else nothing."""
    return str(value) if type(value) in (str, int) else ""


def _time(document: dict[str, Any], name: str) -> float:
    """A Unix time in seconds, or RFC 3339 text; ALWAYS when the member is missing. Raises Unusable."""
    value = document.get(name, ALWAYS)
    if value == ALWAYS:
        return ALWAYS
    try:
        if isinstance(value, str):
            if _NUMBER.fullmatch(value):
                return float(value)
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is not None:
                return moment.timestamp()
        elif type(value) in (int, float) and 0 <= value <= LATEST_DATE:
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise Unusable(f"{name} must be a Unix time in seconds, or written like 2026-12-31T23:59:59Z")
