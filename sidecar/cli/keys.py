"""`jwt-sidecar keys`: creates and changes the gateway's files of API keys and of signing keys.

A change holds a lock and replaces the file atomically: no reader sees a part of it, and no concurrent change is lost.
"""

import argparse
import fcntl
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sidecar.cli.status import table
from sidecar.common.errors import Unusable
from sidecar.common.replaced_file import replace
from sidecar.gateway.api_keys import NEVER, ApiKey, Entries
from sidecar.gateway.key_file import members, moment, rfc3339
from sidecar.gateway.key_ring import ALWAYS, KeyRing, TimedKey, rotated

_DURATION = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def new(options: argparse.Namespace) -> None:
    """`keys new`: add an API key and print it once. Raises Unusable."""
    claims = dict(_claim(text) for text in options.claim)
    expires = NEVER if options.expires is None else _until(options.expires, time.time())
    scopes = tuple(scope for words in options.scope for scope in words.split())
    with _changing(options.file) as keys:
        entries = Entries.read(_content(keys))
        try:
            entry, key = ApiKey.new(options.name, scopes, claims, expires)
        except ValueError as error:
            raise Unusable(str(error)) from None
        keys[:] = [known.document() for known, _ in entries.values()] + [entry.document()]
    print(f"The key {entry.id} of {entry.name}. It is shown only now; the file holds its hash.", file=sys.stderr)
    print(key)


def disable(options: argparse.Namespace) -> None:
    """`keys disable`: disable an API key. Raises Unusable."""
    with _changing(options.file) as keys:
        entries = Entries.read(_content(keys))
        if options.id not in entries:
            raise Unusable(f"{options.file}: no key has the id {options.id}; jwt-sidecar keys list shows them")
        left = [known for known, _ in entries.values() if known.state(time.time()) == "on" and known.id != options.id]
        if not left and not options.last:
            text = f"{options.id} is the last enabled key of {options.file}; without it every request with a key is refused"
            raise Unusable(f"{text}; make another with jwt-sidecar keys new first, or add --last")
        keys[:] = [
            (known._replace(enabled=False) if known.id == options.id else known).document()
            for known, _ in entries.values()
        ]
    print(f"The key {options.id} is disabled. Sidecars that use this file refuse it within 5 s.", file=sys.stderr)


def rotate(options: argparse.Namespace) -> None:
    """`keys rotate`: add a signing key that signs after `--ahead`; the previous one is removed `--keep` later.

    Raises Unusable.
    """
    ahead_s, keep_s = _duration(options.ahead), _duration(options.keep)
    with _changing(options.file) as keys:
        ring = rotated(KeyRing.read(_content(keys)), options.algorithm, time.time(), ahead_s, keep_s)
        keys[:] = [timed.document() for timed in ring.keys]
    added = ring.keys[-1]
    print(f"{added.key.kid} signs {options.algorithm} from {rfc3339(added.sign_from)}", file=sys.stderr)


def withdraw(options: argparse.Namespace) -> None:
    """`keys withdraw`: remove a signing key at once; verifiers refuse its tokens after their next fetch. Raises Unusable."""
    with _changing(options.file) as keys:
        ring = KeyRing.read(_content(keys)).keys
        left = [timed for timed in ring if timed.key.kid != options.kid]
        if len(left) == len(ring):
            raise Unusable(f"{options.file}: no key has the kid {options.kid}; jwt-sidecar keys list shows them")
        _check_signer_left(ring, left, options)
        keys[:] = [timed.document() for timed in left]
    print(f"{options.kid} is neither published nor used any more.", file=sys.stderr)


def _check_signer_left(ring: Sequence[TimedKey], left: Sequence[TimedKey], options: argparse.Namespace) -> None:
    """Refuse to remove the last signing key without `--last`. Raises Unusable."""
    now = time.time()
    signed = {timed.key.alg for timed in KeyRing(ring).signers(now)}
    still = {timed.key.alg for timed in KeyRing(left).signers(now)} if left else set()
    if (lost := signed - still) and not options.last:
        text = f"{options.kid} is the last key that signs {', '.join(sorted(lost))} now; without it no such token is signed"
        raise Unusable(f"{text}; add one with jwt-sidecar keys rotate --ahead 0s first, or add --last")


def show(options: argparse.Namespace) -> None:
    """`keys list`: print the keys of either file, without secrets. Raises Unusable."""
    content = _read(options.file)
    now = time.time()
    try:
        signing = any(isinstance(document, dict) and "kty" in document for document in members(content))
        rows = _signing_rows(KeyRing.read(content), now) if signing else _api_rows(Entries.read(content), now)
    except ValueError as error:
        raise Unusable(f"{options.file}: {error}") from None
    print("\n".join(table(next(rows), list(rows))))


def _api_rows(entries: Entries, now: float) -> Iterator[tuple[str, ...]]:
    yield "ID", "NAME", "STATE", "EXPIRES", "SCOPES"
    for entry, _ in entries.values():
        yield entry.id, entry.name, entry.state(now), _time(entry.expires), " ".join(entry.scopes)


def _signing_rows(ring: KeyRing, now: float) -> Iterator[tuple[str, ...]]:
    yield "KID", "SIGNS", "STATE", "PUBLISHED FROM", "SIGNS FROM", "RETIRES"
    signers = ring.signers(now)
    for timed in ring.keys:
        if now >= timed.retire_at:
            state = "retired"
        elif now < timed.sign_from:
            state = "next" if now >= timed.publish_from else "planned"
        else:
            state = "signing" if timed in signers else "previous"
        yield timed.key.kid, timed.key.alg, state, *map(_time, timed[1:])


def _time(moment: float) -> str:
    return "always" if moment == ALWAYS else "never" if moment == NEVER else rfc3339(moment)


def _claim(text: str) -> tuple[str, Any]:
    """Parse name=value; the value is JSON, or else text. Raises Unusable."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise Unusable(f"--claim {text}: write name=value, such as tenant=acme or roles='[\"admin\"]'")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _until(text: str, now: float) -> float:
    """Parse a duration from now such as 90d, or RFC 3339 text. Raises Unusable."""
    with suppress(Unusable):
        return now + _duration(text)
    try:
        return moment(text)
    except ValueError:
        raise Unusable(f"--expires {text}: write 90d, or a time such as 2026-12-31T23:59:59Z") from None


def _duration(text: str) -> float:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise Unusable(f"{text} is not a duration; write a whole number with its unit: 60s, 15m, 1h or 90d")
    return float(int(found[1]) * _UNITS[found[2]])


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Unusable(f"{path}: cannot be read: {error.strerror}") from error


def _content(keys: Iterable[Any]) -> bytes:
    return json.dumps({"keys": list(keys)}, indent=2).encode() + b"\n"


@contextmanager
def _changing(file: str) -> Iterator[list[Any]]:
    """The keys of a file, to be changed in place; a missing file counts as empty. Raises Unusable.

    The lock is on the directory, since the file itself is replaced.
    """
    path = Path(os.path.realpath(file))
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            keys = members(path.read_bytes()) if path.exists() else []
            yield keys
            replace(path, _content(keys), precious=True)
        finally:
            os.close(directory)
    except OSError as error:
        raise Unusable(f"{file}: cannot be changed: {error.strerror}") from error
    except ValueError as error:
        raise Unusable(f"{file}: {error}") from None


WORK = {"new": new, "list": show, "disable": disable, "rotate": rotate, "withdraw": withdraw}
"""The subcommands of `keys`."""
