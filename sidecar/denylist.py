"""Tokens that are taken back before they expire: one by its `jti`, all of a `sub`, or all that were issued before a time.

An entry names the issuer, since `jti` and `sub` mean nothing without it. No entry is the hash of a token: its holder may have
another one with the same `jti` or `sub`. Entries come from a file, which is read again when it changes, and from operators;
theirs are kept in memory only.
"""

import asyncio
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sidecar.claims import LATEST_DATE
from sidecar.clock import Clock
from sidecar.unusable import Unusable

POLL_S = 5.0  # between two looks at the file
MAX_ADDED = 100_000  # entries of operators; a longer list belongs into the file
ALWAYS = float("inf")

_MEMBERS = {"iss", "jti", "sub", "issued_before", "until"}
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")

# libyaml's is far quicker, where PyYAML was built with it.
_YAML = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

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


class Entries:
    """Entries of configured issuers. `names` is iss -> the issuer's name; what has another iss is not kept."""

    def __init__(self, names: Mapping[str, str], entries: Iterable[Entry] = ()) -> None:
        self._names = names
        self._found: dict[tuple[str, str, bool], dict[str, Entry]] = {}
        for entry in entries:
            self._add_to(entry)

    def __len__(self) -> int:
        return sum(map(len, self._found.values()))

    def __iter__(self) -> Iterator[Entry]:
        return (entry for entries in self._found.values() for entry in entries.values())

    def add(self, entry: Entry) -> None:
        """Take an entry, in place of one about the same."""
        if (issuer := self._names.get(entry.iss)) is not None:
            place = (issuer, entry.claim, entry.issued_before == ALWAYS)
            self._found.setdefault(place, {})[entry.value] = entry

    def _add_to(self, entry: Entry) -> None:
        """Take an entry beside those about the same: the longer and the later limit of them hold."""
        if (issuer := self._names.get(entry.iss)) is not None:
            place = self._found.setdefault((issuer, entry.claim, entry.issued_before == ALWAYS), {})
            if (other := place.get(entry.value)) is not None:
                entry = entry._replace(
                    issued_before=max(entry.issued_before, other.issued_before), until=max(entry.until, other.until)
                )
            place[entry.value] = entry

    def deny(self, issuer: str, claims: Mapping[str, Any], now: float) -> bool:
        """Is there an entry about verified claims of the issuer of this name?"""
        for (name, claim, _), entries in self._found.items():
            if name != issuer:
                continue
            entry = entries.get(_text(claims.get(claim)) if claim else "")
            if entry is not None and now < entry.until and claims.get("iat", 0) < entry.issued_before:
                return True
        return False

    def without_expired(self, now: float) -> "Entries":
        """Those that still refuse something."""
        return Entries(self._names, (entry for entry in self if now < entry.until))


class DenyList:
    """What is refused although its signature and its claims are good. `changes` grows whenever that may have changed.

    `names` is the iss of each configured issuer -> its name. `path` None: there is no file.
    """

    def __init__(self, clock: Clock, names: Mapping[str, str] | None = None, path: Path | None = None) -> None:
        self.changes = 0
        self.path = path
        self._clock = clock
        self._names = names or {}
        self._filed = Entries(self._names)
        self._added = Entries(self._names)
        self._stamp: tuple[int, int, int] | None = None
        self._problem: str | None = None

    def __len__(self) -> int:
        return len(self._filed) + len(self._added)

    def __repr__(self) -> str:
        return f"<DenyList: {len(self._filed)} of {self.path}, {len(self._added)} added>"

    def denies(self, issuer: str, claims: Mapping[str, Any]) -> bool:
        """Are verified claims of the issuer of this name refused at this time?"""
        now = self._clock.wall()
        return self._filed.deny(issuer, claims, now) or self._added.deny(issuer, claims, now)

    def add(self, document: object) -> None:
        """Take an operator's entry; one about the same takes its place. Raises Unusable."""
        entry = Entry.read(document)
        if entry.iss not in self._names:
            raise Unusable(f"iss is not that of a configured issuer; one of: {', '.join(self._names)}")
        if len(self._added) >= MAX_ADDED:
            raise Unusable(f"{MAX_ADDED} entries were added; put them into the file")
        self._added.add(entry)
        self.changes += 1
        log.info("event=denylist_added claim=%s entries=%d", entry.claim or "iat", len(self))

    def added(self) -> Iterator[Entry]:
        """What operators have added."""
        return iter(self._added)

    def have_added(self, entries: Iterable[Entry]) -> None:
        """Take these for what operators have added, as far as their issuers are configured."""
        self._added = Entries(self._names, entries)
        self.changes += 1

    async def load(self) -> None:
        """Read the file if it has changed since the last time. Raises Unusable, and then keeps what it had."""
        if self.path is None:
            return
        stamp = await asyncio.to_thread(_stamp, self.path)
        if stamp == self._stamp:
            return
        entries = await asyncio.to_thread(_read, self.path)
        self._stamp = stamp
        self._filed = Entries(self._names, entries).without_expired(self._clock.wall())
        self.changes += 1
        unknown = sum(entry.iss not in self._names for entry in entries)
        log.info("event=denylist_loaded entries=%d of_unknown_issuers=%d", len(self._filed), unknown)

    async def keep_fresh(self, poll_s: float = POLL_S) -> None:
        """For ever: read the file when it has changed, and forget entries that have expired."""
        while True:
            await asyncio.sleep(poll_s)
            self._added = self._added.without_expired(self._clock.wall())
            try:
                await self.load()
            except Unusable as error:
                if str(error) != self._problem:
                    log.error(
                        "event=denylist_kept why=%r do='The entries read before are used: mend the file.'", str(error)
                    )
                self._problem = str(error)
            else:
                self._problem = None


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes with a file, and with a mounted one that is exchanged under its name."""
    try:
        found = path.stat()
    except OSError as error:
        raise Unusable(f"{path}: cannot be read: {error.strerror}") from error
    return found.st_mtime_ns, found.st_ino, found.st_size


def _read(path: Path) -> list[Entry]:
    """The entries of a file, JSON if its name ends so, else YAML. All of them or none: half a list refuses too little."""
    try:
        text = path.read_bytes()
        # The base loader takes every scalar for text, so that a jti of digits is one.
        documents = json.loads(text) if path.suffix == ".json" else yaml.load(text, _YAML)  # noqa: S506
    except OSError as error:
        raise Unusable(f"{path}: cannot be read: {error.strerror}") from error
    except Exception:  # noqa: BLE001  # whatever the parsers raise: without libyaml an OverflowError for "\UFFFFFFFF"
        raise Unusable(f"{path}: is not {'JSON' if path.suffix == '.json' else 'YAML'}") from None
    if not isinstance(documents, list):
        raise Unusable(f"{path}: must be a list of entries")
    entries: list[Entry] = []
    for number, document in enumerate(documents):
        try:
            entries.append(Entry.read(document))
        except Unusable as error:
            raise Unusable(f"{path}: entry {number}: {error}") from None
    return entries


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
