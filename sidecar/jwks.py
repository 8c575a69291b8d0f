"""An issuer's keys: `Jwks` is one set, never changed, only replaced. `JwksSource` keeps it fresh.

The issuer's bad day is nobody's outage: the last good keys stay through every failure, for a bounded time. Nothing a client
sends can aim the sidecar at the issuer: unknown `kid`s share one fetch, and there is one such fetch per cooldown.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from traceback import extract_tb
from typing import NamedTuple, Protocol

from cachetools import TTLCache
from jose.backends.base import Key

from sidecar.clock import Clock
from sidecar.keys import UnusableKey, VerificationKey, verification_key
from sidecar.rejections import Reason, Rejection

MAX_KEYS = 100  # of one set; the largest seen in the field is about ten
MAX_KEYS_WITHOUT_KID = 4  # signatures tried for a token that names no key
UNKNOWN_KIDS = 256  # remembered unknown kids of one issuer
UNKNOWN_KID_S = 60.0  # for how long
COOLDOWN_S = 30.0  # between two fetches that tokens have forced
WAIT_S = 2.0  # what one request waits for keys
RETRY_FIRST_S, RETRY_MOST_S = 1.0, 60.0  # backoff after failures, with full jitter
RETRY_MOST_EMPTY_S = 5.0  # while there is no usable key every request fails, so the issuer is asked sooner
MIN_REFRESH_S, MAX_REFRESH_S = 60.0, 3600.0  # a key set's own max-age is believed between these
JITTER = 0.1  # of the refresh interval, so that replicas do not ask together

log = logging.getLogger("sidecar.jwks")


class FetchFailed(Exception):
    """A key set could not be had; the text says why, in words that may be logged and shown to the operator."""


class KeySet(NamedTuple):
    """What a fetch brought: the decoded JSON, and how long its sender calls it fresh (None when it does not say)."""

    document: object
    max_age_s: float | None


class Fetch(Protocol):
    """Where key sets come from. Raises FetchFailed and nothing else."""

    def __call__(self) -> Awaitable[KeySet]: ...


class Jwks:
    """One key set by `kid`. `skipped` says why members of the document were left out."""

    def __init__(self, keys: Collection[VerificationKey], skipped: Collection[str] = ()) -> None:
        self.keys = tuple(keys)
        self.skipped = tuple(skipped)
        self._by_kid: dict[str | None, list[VerificationKey]] = {}
        for key in self.keys:
            self._by_kid.setdefault(key.kid, []).append(key)

    @classmethod
    def of(cls, document: object, allowed: Collection[str]) -> "Jwks":
        """Read a JWK Set (RFC 7517 section 5) key by key: one bad key never costs the good ones.

        Raises FetchFailed when no usable key is left, so that an empty answer replaces nothing.
        """
        members = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(members, list):
            raise FetchFailed("the document is not a JWK Set: it has no list of keys")
        if len(members) > MAX_KEYS:
            raise FetchFailed(f"the key set has {len(members)} keys; at most {MAX_KEYS} are accepted")
        keys: list[VerificationKey] = []
        skipped: list[str] = []
        for position, member in enumerate(members):
            try:
                keys.append(verification_key(member, allowed))
            except UnusableKey as error:
                skipped.append(f"key {position}: {error}")
        if not keys:
            raise FetchFailed(f"the key set has no usable key ({'; '.join(skipped) or 'it is empty'})")
        return cls(keys, skipped)

    def find(self, kid: str | None, algorithm: str) -> list[tuple[VerificationKey, Key]]:
        """The keys that a token with this `kid` and `alg` may have been signed with, best first.

        A token without a `kid` may try every fitting key, but no more than MAX_KEYS_WITHOUT_KID.
        """
        candidates = self.keys if kid is None else self._by_kid.get(kid, ())
        fitting = [(key, key.by_algorithm[algorithm]) for key in candidates if algorithm in key.by_algorithm]
        return fitting[:MAX_KEYS_WITHOUT_KID]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, VerificationKey) and key in self._by_kid.get(key.kid, ())

    def __repr__(self) -> str:
        return f"<Jwks of {len(self.keys)} keys>"


class JwksSource:
    """The keys of one issuer, kept fresh in the background; requests only wait when the key they need is not there.

    `jwks` is the last good set (None before the first), `trusted_until` the monotonic time after which it is too old to be
    believed. Both are plain attributes, since every request reads them.
    """

    def __init__(
        self,
        name: str,
        fetch: Fetch,
        algorithms: Collection[str],
        clock: Clock,
        *,
        refresh_interval_s: float = 600.0,
        max_stale_s: float = 3600.0,
        spread: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.name = name
        self.jwks: Jwks | None = None
        self.trusted_until = float("-inf")
        self.fetched_at: float | None = None
        self.next_fetch_at = clock.monotonic()
        self.last_error: str | None = None
        self.fetches: dict[tuple[str, str], int] = {}
        self.fetch = fetch
        self.algorithms = algorithms
        self._clock = clock
        self._refresh_interval_s = refresh_interval_s
        self._max_stale_s = max_stale_s
        self._spread = spread
        self._failures = 0
        self._forced_at = float("-inf")
        self._flight: asyncio.Task[None] | None = None
        self._landed = asyncio.Event()
        self._unknown: TTLCache[str, None] = TTLCache(UNKNOWN_KIDS, UNKNOWN_KID_S, timer=clock.monotonic)
        self._skipped: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<JwksSource {self.name}: {self.jwks!r}, {self._failures} failures since the last success>"

    @property
    def usable(self) -> bool:
        """Are there keys that may still be believed?"""
        return self.jwks is not None and self._clock.monotonic() < self.trusted_until

    async def keep_fresh(self) -> None:
        """Fetch at once, then for ever: when the set's freshness ends, or after a growing pause when a fetch failed."""
        while True:
            await asyncio.wait({self._start("scheduled")})
            while (pause_s := self.next_fetch_at - self._clock.monotonic()) > 0:
                self._landed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._landed.wait()  # a fetch on demand has moved the next one

    async def keys_for(self, kid: str | None, algorithm: str) -> list[tuple[VerificationKey, Key]]:
        """The keys that fit, after at most one shared fetch and WAIT_S seconds.

        Raises Rejection: key_unknown when the issuer does not have such a key, jwks_unavailable (503) when its keys cannot
        be had or are too old, since the issuer's outage is never the client's 401.
        """
        if not self.usable:
            await self._wait(self._flight)
            if not self.usable:
                raise self._unavailable()
        assert self.jwks is not None
        if found := self.jwks.find(kid, algorithm):
            return found
        if kid is None or kid in self._unknown:
            raise Rejection(Reason.KEY_UNKNOWN)
        flight = self._flight or self._force()
        await self._wait(flight)
        if found := self.jwks.find(kid, algorithm):
            return found
        if self._failures or self._flight is not None:
            raise self._unavailable()
        if flight is not None:  # within the cooldown nobody has asked: the issuer may well have this key
            self._unknown[kid] = None
        raise Rejection(Reason.KEY_UNKNOWN)

    async def stop(self) -> None:
        """Give up a fetch that is under way."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait({self._flight})

    def refresh(self) -> bool:
        """Ask the issuer now unless it was asked on demand within the cooldown; says whether a fetch is under way."""
        return (self._flight or self._force()) is not None

    def _force(self) -> "asyncio.Task[None] | None":
        now = self._clock.monotonic()
        if now - self._forced_at < COOLDOWN_S:
            return None
        self._forced_at = now  # stamped at the attempt: a failing issuer is not asked more often than a healthy one
        return self._start("forced")

    async def _wait(self, flight: "asyncio.Task[None] | None") -> None:
        if flight is not None:  # wait() leaves the fetch alone when the waiting client goes away
            await asyncio.wait({flight}, timeout=WAIT_S)

    def _unavailable(self) -> Rejection:
        return Rejection(Reason.JWKS_UNAVAILABLE, retry_after_s=max(1.0, self.next_fetch_at - self._clock.monotonic()))

    def _start(self, trigger: str) -> "asyncio.Task[None]":
        if self._flight is None:
            self._flight = asyncio.create_task(self._refresh(trigger), name=f"keys of {self.name}")
        return self._flight

    async def _refresh(self, trigger: str) -> None:
        try:
            key_set = await self.fetch()
            jwks = Jwks.of(key_set.document, self.algorithms)
        except FetchFailed as error:
            self._failed(trigger, str(error))
        except Exception as error:  # noqa: BLE001  # a bug: said in the log, and the issuer is not asked any faster for it
            at = extract_tb(error.__traceback__)[-1]
            log.error("issuer=%s event=bug type=%s at=%s:%s", self.name, type(error).__name__, at.filename, at.lineno)
            self._failed(trigger, "the fetch met a bug of the sidecar")
        else:
            self._succeeded(trigger, jwks, key_set.max_age_s)
        finally:
            self._flight = None
            self._landed.set()

    def _succeeded(self, trigger: str, jwks: Jwks, max_age_s: float | None) -> None:
        now = self._clock.monotonic()
        if self._failures or self.jwks is None:
            log.info("issuer=%s keys=%d event=keys_loaded", self.name, len(jwks.keys))
        if jwks.skipped and jwks.skipped != self._skipped:
            log.warning("issuer=%s event=keys_skipped skipped=%s", self.name, "; ".join(jwks.skipped))
        self._skipped = jwks.skipped
        if self.jwks is None or jwks.keys != self.jwks.keys:
            self.jwks = jwks  # an equal set is kept, so that what it verified stays remembered
            self._unknown.clear()
        self._failures = 0
        self.last_error = None
        self.fetched_at = now
        fresh_s = self._refresh_interval_s
        if max_age_s is not None:
            fresh_s = min(max(max_age_s, MIN_REFRESH_S), MAX_REFRESH_S)
        self.trusted_until = now + fresh_s + self._max_stale_s
        self.next_fetch_at = min(now + fresh_s * self._spread(1 - JITTER, 1 + JITTER), self.trusted_until)
        self._count(trigger, "success")

    def _failed(self, trigger: str, why: str) -> None:
        now = self._clock.monotonic()
        most_s = RETRY_MOST_S if now < self.trusted_until else RETRY_MOST_EMPTY_S
        pause_s = min(RETRY_FIRST_S * 2.0 ** min(self._failures, 10), most_s)
        self._failures += 1
        self.next_fetch_at = now + self._spread(0.0, pause_s)
        if why != self.last_error:
            log.warning("issuer=%s event=keys_not_fetched why=%r next_in_s=%.1f", self.name, why, pause_s)
        self.last_error = why
        self._count(trigger, "failure")

    def _count(self, trigger: str, result: str) -> None:
        self.fetches[trigger, result] = self.fetches.get((trigger, result), 0) + 1
