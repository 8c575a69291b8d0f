"""An issuer's keys over time: `JwksSource` keeps its `Jwks` fresh, and knows how long it stays trusted.

The last good keys stay in use while fetches fail, for a bounded time (refresh_schedule). Tokens with an unknown `kid` share one
fetch, and there is one such fetch per cooldown (unknown_kids).
"""

import asyncio
import logging
import random
from collections.abc import Callable, Collection

from sidecar.common.clock import Clock
from sidecar.common.errors import Reason, Rejection, fault
from sidecar.jwt.jwks.algorithms import Key
from sidecar.jwt.jwks.issuer_clock import IssuerClock
from sidecar.jwt.jwks.jwk import MAX_KID_LENGTH, VerificationKey
from sidecar.jwt.jwks.key_set import MAX_KEYS_TRIED, Fetch, FetchFailed, Jwks, KeySet, TooManyKeys
from sidecar.jwt.jwks.refresh_schedule import RefreshSchedule
from sidecar.jwt.jwks.retired_keys import RemovedKeys
from sidecar.jwt.jwks.shared_fetch import KeysAwaited, SharedFetch
from sidecar.jwt.jwks.snapshot import Snapshot, SnapshotUnusable
from sidecar.jwt.jwks.unknown_kids import UnknownKids

LONG_STALE_S = 86_400.0  # a longer max_stale causes a warning: a withdrawn key stays usable for as long

_TOO_MANY_FIT = f"The token names no key (kid), and more than {MAX_KEYS_TRIED} keys of its issuer could have signed it."

_NOT_ASKED_YET = "The sidecar does not know the token's key yet, and fetched the issuer's keys a moment ago. Try again."
log = logging.getLogger("sidecar.jwks")


class JwksSource:
    """The keys of one issuer, kept fresh in the background. Requests wait only if the key that they need is missing.

    `jwks` is the last good set (None before the first), `trusted_until` the monotonic time at which it becomes too old. Both are
    plain attributes, since every request reads them.

    A key that the issuer removes goes to `removed` and stays trusted for `removed_key_grace_s`. `snapshot` saves the set for
    the next process. If the issuer's clock differs by more than half of `clock_skew_s`, a warning is logged. `want` is called
    with an unknown kid if each key has its own URL; it returns whether such a key may exist. `fixed`: no fetch brings other
    keys.
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
        removed_key_grace_s: float = 0.0,
        clock_skew_s: float = 60.0,
        snapshot: Snapshot | None = None,
        want: Callable[[str], bool] | None = None,
        fixed: bool = False,
        spread: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.name = name
        self.jwks: Jwks | None = None
        self.trusted_until = float("-inf")
        self.fetched_at: float | None = None
        self.next_fetch_at = clock.monotonic()
        self.last_error: str | None = None
        self.skipped: tuple[str, ...] = ()
        self.fetches: dict[tuple[str, str], int] = {}
        self.suppressed = 0
        self.fetch = fetch
        self.algorithms = algorithms
        self._clock = clock
        self._schedule = RefreshSchedule(refresh_interval_s, max_stale_s, spread)
        self.removed = RemovedKeys(removed_key_grace_s, clock)
        self.issuer_clock = IssuerClock(clock_skew_s)
        self._snapshot = snapshot
        self._want = want
        self._fixed = fixed
        self._fetching = SharedFetch(self._refresh, clock)
        self.fetch_durations = self._fetching.durations
        self._unknown = UnknownKids(clock)

    def __repr__(self) -> str:
        return f"<JwksSource {self.name}: {self.jwks!r}, {self._schedule.failures} failures since the last success>"

    @property
    def usable(self) -> bool:
        """Are there keys that are still trusted?"""
        return self.jwks is not None and self._clock.monotonic() < self.trusted_until

    @property
    def state(self) -> str:
        """fresh, stale (the last fetch failed, and earlier keys are in use) or absent (there are no trusted keys)."""
        if not self.usable:
            return "absent"
        return "fresh" if self.last_error is None else "stale"

    async def keep_fresh(self) -> None:
        """Fetch at once; then, until cancelled, when the set is no longer fresh, or after a growing pause when a fetch failed."""
        if self._schedule.max_stale_s > LONG_STALE_S:
            self._warn(
                f"max_stale_is_long max_stale_s={self._schedule.max_stale_s:.0f}",
                "Set max_stale below 24h: a withdrawn key stays trusted for as long.",
            )
        self._restore()
        while True:
            await self.fetch_now()
            while (pause_s := self.next_fetch_at - self._clock.monotonic()) > 0:
                await self._fetching.pause(pause_s)

    async def fetch_now(self) -> None:
        """Fetch the keys, or join the current fetch, and wait for its end. `usable` and `last_error` hold the result."""
        await asyncio.wait({self._fetching.begin("scheduled")})

    def keys_for(
        self,
        kid: str | None,
        algorithm: str,
        awaited: KeysAwaited | None = None,
        thumbprint: str | None = None,
    ) -> list[tuple[VerificationKey, Key]]:
        """The keys that may have signed a token. With `awaited` the caller has waited already, and the present keys decide.

        `thumbprint` is the certificate thumbprint in a token that names no `kid`.

        Raises KeysAwaited if a shared fetch may bring the key. Raises Rejection: key_unknown if the issuer does not have such a
        key, jwks_unavailable (503) if there are no trusted keys, or if no fetch ended since the kid first came. An issuer's
        outage or the sidecar's cooldown never causes a 401.
        """
        if not self.usable:
            if awaited is None and (fetch := self._fetching.awaited()) is not None:
                raise fetch
            raise self._unavailable()
        assert self.jwks is not None
        try:
            if found := self.jwks.find(kid, algorithm, thumbprint):
                return found
        except TooManyKeys:
            raise Rejection(Reason.KEY_UNKNOWN, _TOO_MANY_FIT) from None
        if kid is None or len(kid) > MAX_KID_LENGTH:
            raise Rejection(Reason.KEY_UNKNOWN)
        if self._unknown.is_absent(kid):
            self.suppressed += awaited is None
            raise Rejection(Reason.KEY_UNKNOWN)
        if awaited is None:
            self._ask_for(kid)
        if self._schedule.failures or self._fetching.under_way is not None:
            raise self._unavailable()
        if self._want is not None or self._unknown.is_open(kid):  # a key with its own URL was perhaps not looked up
            asked_again_s = min(self.cooldown_s, self.next_fetch_at - self._clock.monotonic())
            raise Rejection(Reason.JWKS_UNAVAILABLE, _NOT_ASKED_YET, retry_after_s=max(1.0, asked_again_s))
        self._unknown.mark_absent(kid)
        raise Rejection(Reason.KEY_UNKNOWN)

    def _ask_for(self, kid: str) -> None:
        """Raise KeysAwaited for a fetch that may bring this key, unless a fetch on demand began within the cooldown."""
        if self._fixed or (self._want is not None and not self._want(kid)):
            raise Rejection(Reason.KEY_UNKNOWN)
        self._unknown.miss(kid)
        self.reconsider()
        self.suppressed += 1

    def reconsider(self) -> None:
        """Fetch again for a token that no key verifies: the issuer may have given a known kid to a new key.

        Raises KeysAwaited for that fetch, unless a fetch on demand began within the cooldown.
        """
        if not self._fixed and self._fetching.force() is not None:
            raise self._fetching.awaited() or self._unavailable()

    def begin_with(self, old: "JwksSource") -> None:
        """Replace another source of the same issuer: take over its grace periods, and its keys if there are none yet."""
        if not old.usable or old.jwks is None or old.fetched_at is None:
            return  # keys that are no longer trusted get no grace period
        if self.jwks is None:
            self.fetched_at = old.fetched_at
            self.trusted_until = self._schedule.trusted_as_of(old.fetched_at, old._schedule.fresh_s)
        self.jwks = self.removed.taken_over(self.jwks, old.removed, old.jwks)
        self._next_fetch(self.next_fetch_at)
        self._fetching.wake()  # a grace period may end before the next fetch

    async def stop(self) -> None:
        """Cancel the current fetch."""
        await self._fetching.stop()

    def refresh(self, *, force: bool = False) -> "asyncio.Task[None] | None":
        """Fetch now, unless a fetch on demand began within the cooldown. `force` ignores the cooldown.

        Returns the current fetch, or None.
        """
        if force:
            self._fetching.cooldown.end()
        return self._fetching.force()

    @property
    def cooldown_s(self) -> float:
        """Seconds until `refresh` may fetch again."""
        return self._fetching.cooldown.left_s

    def _unavailable(self) -> Rejection:
        return Rejection(Reason.JWKS_UNAVAILABLE, retry_after_s=max(1.0, self.next_fetch_at - self._clock.monotonic()))

    async def _refresh(self, trigger: str) -> None:
        if self.jwks is not None:  # grace periods end on time also while the issuer is down
            self._use(self.removed.ended(self.jwks))
        try:
            key_set = await self.fetch()
            self._succeeded(trigger, await Jwks.of_in_turns(key_set.document, self.algorithms), key_set)
        except FetchFailed as error:
            self._failed(trigger, str(error))
        except Exception as error:  # noqa: BLE001  # a bug: log it, and keep the usual pause
            do = "Please report this line; the last good keys stay in use."
            log.error("issuer=%s event=bug %s do=%r", self.name, fault(error), do)
            self._failed(trigger, "the sidecar has a bug in its fetch of keys")

    def _succeeded(self, trigger: str, jwks: Jwks, key_set: KeySet) -> None:
        now = self._clock.monotonic()
        if self._schedule.failures or self.jwks is None:
            log.info("issuer=%s keys=%d event=keys_loaded", self.name, len(jwks.keys))
        if jwks.skipped and jwks.skipped != self.skipped:
            self._warn(
                f"keys_skipped skipped={'; '.join(jwks.skipped)}",
                "Tell the issuer; tokens that are signed by these keys are refused.",
            )
        self.skipped = jwks.skipped
        self._save(jwks)
        jwks = self.removed.added_to(jwks, self.jwks if self.usable else None)
        self._use(jwks)
        self._unknown.fetched(key_set.looked_up)
        self.last_error = None
        self.fetched_at = now
        next_at, self.trusted_until = self._schedule.after_success(now, key_set.max_age_s)
        self._next_fetch(next_at)
        if self.issuer_clock.measured(key_set.clock_offset_s, now):
            ahead = f"clocks_differ issuer_ahead_s={key_set.clock_offset_s:.0f}"
            self._warn(ahead, "Compare both clocks with a third: tell the issuer, or synchronize the sidecar's clock.")
        self._count(trigger, "success")

    def _use(self, jwks: Jwks) -> None:
        """Use this set. An equal set is ignored, so that remembered tokens stay valid."""
        last = self.jwks
        if last is not None and jwks.same_as(last):
            return
        self.jwks = jwks
        present = {key.kid for key in jwks.keys}
        before = () if last is None else (key.kid for key in last.keys)
        self._unknown.replaced(kid for kid in before if kid is not None and kid not in present)

    def _failed(self, trigger: str, why: str) -> None:
        next_at, pause_s = self._schedule.after_failure(self._clock.monotonic(), usable=self.usable)
        self._next_fetch(next_at)
        if why != self.last_error:
            self._warn(
                f"keys_not_fetched why={why!r} next_in_s={pause_s:.1f}",
                "Find the cause: jwt-sidecar check --online.",
            )
        self.last_error = why
        self._count(trigger, "failure")

    def _next_fetch(self, at: float) -> None:
        self.next_fetch_at = min(at, self.removed.next_end)

    def _restore(self) -> None:
        """Use the keys that an earlier process saved, with their age; never in place of newer keys."""
        if self._snapshot is None or self.jwks is not None:
            return
        try:
            saved = self._snapshot.read()
            if saved is None:
                return
            jwks = Jwks.of(saved.key_set, self.algorithms)
            age_s, max_stale_s = self._clock.wall() - saved.fetched_at, self._schedule.max_stale_s
            if not 0 <= age_s < max_stale_s:
                raise SnapshotUnusable(f"it is {age_s:.0f} s old; max_stale is {max_stale_s:.0f} s")
        except (SnapshotUnusable, FetchFailed) as error:
            self._warn(
                f"snapshot_ignored why={str(error)!r}",
                "Delete the file, and let only the sidecar's user write it.",
            )
            return
        now = self._clock.monotonic()
        self.jwks = jwks
        self.fetched_at = now - age_s
        self.trusted_until = now + max_stale_s - age_s
        log.info("issuer=%s keys=%d event=snapshot_used age_s=%.0f", self.name, len(jwks.keys), age_s)

    def _save(self, jwks: Jwks) -> None:
        if self._snapshot is None:
            return
        try:
            self._snapshot.write([key.jwk() for key in jwks.keys if key.public], self._clock.wall())
        except OSError as error:
            do = "Give the sidecar's user write access to jwks_snapshot_dir."
            self._warn(f"snapshot_not_written why={error.strerror!r}", do)

    def _warn(self, what: str, do: str) -> None:
        log.warning("issuer=%s event=%s do=%r", self.name, what, do)

    def _count(self, trigger: str, result: str) -> None:
        self.fetches[trigger, result] = self.fetches.get((trigger, result), 0) + 1
