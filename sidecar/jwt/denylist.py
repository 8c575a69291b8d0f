"""Revoked tokens: one by its `jti`, all of a `sub`, or all that were issued before a time.

An entry names the issuer, since `jti` and `sub` mean nothing without it. An entry is never the hash of a token: the holder may
have another token with the same `jti` or `sub`. Entries come from a file, which is read again when it changes, and from
operators. Operators' entries are kept in memory only, also while no configured issuer has their `iss`.
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
from sidecar.common.watched_file import POLL_S, WatchedFile
from sidecar.jwt.claims import LATEST_DATE
from sidecar.jwt.denied_table import Table, key_of
from sidecar.jwt.denylist_reader import NoList, Twice, documents
from sidecar.jwt.examination import Examination
from sidecar.jwt.issuer_templates import IssuerNames

ENTRIES_AT_A_TIME = 128  # of the file; then other threads may run, such as the loop that serves requests
PAUSE_S = 0.0005
MAX_ADDED = 100_000  # entries of operators; a longer list belongs in the file
ALWAYS = float("inf")

_MEMBERS = {"iss", "jti", "sub", "issued_before", "until"}
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")

# The kinds of entries: the claim, and whether the entry has an `issued_before`.
_KINDS = (("jti", "always"), ("sub", "always"), ("sub", "before"), ("", "before"))

log = logging.getLogger("sidecar.denylist")


class Entry(NamedTuple):
    """Refuses tokens of `iss` whose `claim` (`jti`, `sub`, or empty for all tokens) is `value`, until the Unix time `until`.

    Only tokens issued before the Unix time `issued_before` are refused. ALWAYS means no limit for either time.
    """

    iss: str
    claim: str
    value: str
    issued_before: float
    until: float

    @property
    def about(self) -> tuple[str, str, str, str]:
        """Two entries with the same value are about the same tokens."""
        return self.iss, self.claim, "always" if self.issued_before == ALWAYS else "before", self.value

    @classmethod
    def read(cls, document: object) -> "Entry":
        """The entry that a document describes. Raises Unusable."""
        if not isinstance(document, dict):
            raise Unusable("an entry is an object with iss, and jti, sub or issued_before")
        if unknown := document.keys() - _MEMBERS:
            raise Unusable(
                f"{min(unknown, key=str)!r} is not a member of an entry; one of: {', '.join(sorted(_MEMBERS))}"
            )
        for name in ("iss", "jti", "sub"):
            if name in document and (not isinstance(document[name], str) or not document[name]):
                raise Unusable(f"{name} must be text, and not empty")
        if "iss" not in document:
            raise Unusable("iss is missing: jti and sub mean nothing without their issuer")
        if "jti" in document and ("sub" in document or "issued_before" in document):
            raise Unusable("jti names one token; leave out sub and issued_before")
        claim = "jti" if "jti" in document else "sub" if "sub" in document else ""
        if not claim and "issued_before" not in document:
            raise Unusable("jti, sub or issued_before is missing; without them an entry means all tokens")
        return cls(
            document["iss"],
            claim,
            document.get(claim, ""),
            _time(document, "issued_before"),
            _time(document, "until"),
        )


class Filed(NamedTuple):
    """The content of a file: the entries, their number by issuer, and their _KINDS. Expired entries are left out."""

    table: Table
    issuers: Counter[str]
    kinds: set[tuple[str, str]]


NOTHING_FILED = Filed(Table(), Counter(), set())


class DenyList:
    """A check for tokens that are refused although their signature and claims are good. `changes` grows when these may be others.

    `names` maps the `iss` or template of each configured issuer to its name. `path` None: there is no file. Entries of issuers
    that are not configured are kept until such an issuer is configured. `before` is the previous list, whose file content is
    reused.
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
        self.file: WatchedFile[Filed] = WatchedFile([path], self._read, NOTHING_FILED)
        if before is not None and before.file.files == self.file.files:
            self.file = before.file
        self._reads = self.file.reads
        self.found_good_at: float | None = None  # monotonic time of the last check that found a good file
        self._clock = clock
        self._names = IssuerNames(names or {})
        self._added: dict[tuple[str, ...], Entry] = {}
        self._posted: Counter[str] = Counter()  # of them, by iss

    def __len__(self) -> int:
        """The number of entries in force."""
        return sum(number for (_, state), number in self.counts.items() if state == "in_force")

    def __repr__(self) -> str:
        return f"<DenyList: {len(self.file.value.table)} filed, {len(self._added)} added>"

    @property
    def counts(self) -> dict[tuple[str, str], int]:
        """The number of entries by origin (file, posted) and state (in_force, waiting)."""
        numbers: dict[tuple[str, str], int] = {}
        for origin, issuers in (("file", self.file.value.issuers), ("posted", self._posted)):
            waiting = sum(number for iss, number in issuers.items() if iss not in self._names)
            numbers[origin, "in_force"] = issuers.total() - waiting
            numbers[origin, "waiting"] = waiting
        return numbers

    def denies(self, issuer: str, claims: Mapping[str, Any]) -> bool:
        """Are verified claims of the issuer with this name refused now?"""
        table, _, kinds = self.file.value
        if not kinds and not self._added:
            return False
        now, issued = self._clock.wall(), claims.get("iat", 0)
        for iss in self._names.spellings(issuer, claims.get("iss")):
            for claim, kind in _KINDS:
                value = _text(claims.get(claim)) if claim else ""
                if claim and not value:
                    continue
                filed = table[key_of(iss, claim, kind, value)] if (claim, kind) in kinds else None
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
        """Add an operator's entry; it replaces an entry about the same tokens. Raises Unusable."""
        entry = Entry.read(document)
        if entry.iss not in self._names:
            raise Unusable(f"iss is not the iss of a configured issuer; one of: {', '.join(self._names.texts)}")
        if len(self._added) >= MAX_ADDED:
            raise Unusable(f"{MAX_ADDED} entries were added, which is the limit; put further entries into the file")
        self._put(entry)
        self.changes += 1
        log.info("event=denylist_added claim=%s entries=%d", entry.claim or "iat", len(self))

    def _put(self, entry: Entry) -> None:
        """Replace an entry about the same tokens, under any of the issuer's names."""
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
        """The entries that operators have added, in force or waiting."""
        return iter(self._added.values())

    def have_added(self, entries: Iterable[Entry]) -> None:
        """Replace the entries of operators by these."""
        self._added = {}
        self._posted = Counter()
        for entry in entries:
            self._put(entry)
        self.changes += 1

    def tell_waiting(self) -> None:
        """Log the issuers of operators' entries that are not in force, if there are any."""
        if issuers := {entry.iss for entry in self._added.values() if entry.iss not in self._names}:
            do = "Configure an issuer with their iss, or remove the entries; they have no effect until then."
            log.warning("event=denylist_waiting issuers=%r do=%r", sorted(issuers), do)

    async def load(self) -> None:
        """Read the file if it has changed. Raises Unusable, and keeps the previous entries then."""
        await self.file.in_thread(self.file.load)
        self._looked()

    async def keep_fresh(self, poll_s: float = POLL_S) -> None:
        """Until cancelled: read the file when it has changed, and drop expired entries."""
        while True:
            await asyncio.sleep(poll_s)
            now = self._clock.wall()
            for about in [about for about, entry in self._added.items() if entry.until <= now]:
                self._take_out(about)
            await self.file.in_thread(self.file.look)
            self._looked()

    def _read(self, _before: Filed | None, cancelled: threading.Event) -> Filed:
        return read_entries(self.file.path, self._clock.wall(), cancelled)

    def _looked(self) -> None:
        if self._reads != self.file.reads:
            self._reads = self.file.reads
            self.changes += 1
            counts = self.counts
            numbers = counts["file", "in_force"], counts["file", "waiting"]
            log.info("event=denylist_loaded entries=%d of_unknown_issuers=%d", *numbers)
        if self.file.files and self.file.problem is None:
            self.found_good_at = self._clock.monotonic()


def read_entries(path: Path, now: float, cancelled: threading.Event) -> Filed:
    """The entries of a file, all or none: half a list refuses too little. Stops when `cancelled` is set.

    Two entries about the same tokens get the later times.
    """
    filed, number = Filed(Table(), Counter(), set()), -1
    try:
        for number, document in enumerate(documents(path)):
            if number % ENTRIES_AT_A_TIME == 0 and cancelled.wait(PAUSE_S):
                raise asyncio.CancelledError
            try:
                entry = Entry.read(document)
            except Unusable as error:
                raise Unusable(f"{path}: entry {number}: {error}") from None
            if now < entry.until:
                before = len(filed.table)
                filed.table.raise_to(key_of(*entry.about), entry.issued_before, entry.until)
                filed.kinds.add(entry.about[1:3])
                filed.issuers[entry.iss] += len(filed.table) - before
    except (Unusable, OSError):
        raise
    except Twice:
        raise Unusable(f"{path}: entry {number + 1}: has a name twice; write two entries") from None
    except NoList:
        raise Unusable(f"{path}: must be a list of entries") from None
    except Exception:  # noqa: BLE001  # parsers raise many types: without libyaml an OverflowError for "\UFFFFFFFF"
        raise Unusable(f"{path}: is not {'JSON' if path.suffix == '.json' else 'YAML'}") from None
    return filed


def _text(value: object) -> str:
    """A `jti` or `sub` of an entry: text (RFC 7519 section 4.1), or a number as some issuers write it; else empty."""
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
