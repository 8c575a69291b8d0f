"""One key set of an issuer: never changed, only replaced. And what a fetch of one brings, or fails with."""

import asyncio
import json
from collections.abc import Awaitable, Collection, Iterable
from typing import NamedTuple, Protocol

from sidecar.jwt.jwks.jwk import Key, UnusableKey, VerificationKey, public_key, verification_key

MAX_KEYS = 1000  # of one set that are used; the largest seen in the field is about ten
KEYS_IN_A_TURN = 20  # one takes 0.02 to 0.2 ms
MOST_SKIPPED_SHOWN = 20  # keys that are left out, each with its reason
MOST_SHOWN = 40  # characters of an alg or a kid
MAX_KEYS_TRIED = 10  # for a token that names no key: as many signatures are checked, of up to 0.6 ms each


class FetchFailed(Exception):
    """A key set could not be had; the text says why, in words that may be logged and shown to the operator."""


class TooManyKeys(Exception):
    """More keys fit a token than are tried."""


class KeySet(NamedTuple):
    """What a fetch brought: a JWK Set as decoded JSON, or the Jwks itself where the keys are in another form.

    `max_age_s` is how long its sender calls it fresh, `clock_offset_s` how far the sender's clock is ahead of this one; None
    when it does not say.
    """

    document: object
    max_age_s: float | None
    clock_offset_s: float | None = None


class Fetch(Protocol):
    """Where key sets come from. Raises FetchFailed and nothing else."""

    def __call__(self) -> Awaitable[KeySet]: ...


class Jwks:
    """One key set by `kid`. `skipped` says why members of the document were left out.

    `any_kid`: its keys are for every token, whatever `kid` that names, since nobody has named them (PEM, shared secrets).
    """

    def __init__(
        self, keys: Collection[VerificationKey], skipped: Collection[str] = (), *, any_kid: bool = False
    ) -> None:
        self.keys = tuple(keys)
        self.skipped = tuple(skipped)
        self.any_kid = any_kid
        self._by_kid: dict[str | None, list[VerificationKey]] = {}
        self._by_thumbprint: dict[str, list[VerificationKey]] = {}
        for key in self.keys:
            self._by_kid.setdefault(key.kid, []).append(key)
            for thumbprint in key.thumbprints.values():
                self._by_thumbprint.setdefault(thumbprint, []).append(key)

    @classmethod
    def of(cls, document: object, allowed: Collection[str]) -> "Jwks":
        """Read a JWK Set (RFC 7517 section 5) key by key: one bad key never costs the good ones.

        A Jwks is returned as it is. Raises FetchFailed when no usable key is left, so that an empty answer replaces nothing.
        """
        if isinstance(document, Jwks):
            return document
        members = _members(document)
        return cls._usable([_read(*one, allowed) for one in enumerate(members[:MAX_KEYS])], members[MAX_KEYS:])

    @classmethod
    async def of_in_turns(cls, document: object, allowed: Collection[str]) -> "Jwks":
        """The same without holding up the loop: others get their turn after every KEYS_IN_A_TURN keys."""
        if isinstance(document, Jwks):
            return document
        members = _members(document)
        found: list[VerificationKey | str] = []
        for one in enumerate(members[:MAX_KEYS]):
            found.append(_read(*one, allowed))
            if len(found) % KEYS_IN_A_TURN == 0:
                await asyncio.sleep(0)
        return cls._usable(found, members[MAX_KEYS:])

    @classmethod
    def of_members(cls, members: Iterable[object], allowed: Collection[str]) -> "Jwks":
        """The usable keys of a JWK Set that was accepted before: as many as there are, and none where none is."""
        return cls._of([_read(*one, allowed) for one in enumerate(members)])

    @classmethod
    def _of(cls, found: Collection["VerificationKey | str"], more: Collection[object] = ()) -> "Jwks":
        """The set of these keys; what is text says why a key was left out. `more` are members that were not looked at."""
        skipped = [one for one in found if isinstance(one, str)]
        if len(skipped) > MOST_SKIPPED_SHOWN:
            skipped[MOST_SKIPPED_SHOWN:] = [f"{len(skipped) - MOST_SKIPPED_SHOWN} more like these"]
        if more:
            few = [member for member in more if isinstance(member, dict)][:MOST_SKIPPED_SHOWN]
            names = ", ".join(told(member.get("kid"), MOST_SHOWN) for member in few)
            skipped.append(f"{len(more)} keys behind the first {MAX_KEYS}, which are all that are used ({names})")
        return cls([one for one in found if not isinstance(one, str)], skipped)

    @classmethod
    def _usable(cls, found: Collection["VerificationKey | str"], more: Collection[object]) -> "Jwks":
        jwks = cls._of(found, more)
        if not jwks.keys:
            raise FetchFailed(f"the key set has no usable key ({'; '.join(jwks.skipped) or 'it is empty'})")
        return jwks

    def find(self, kid: str | None, algorithm: str, thumbprint: str | None = None) -> list[tuple[VerificationKey, Key]]:
        """The keys that a token with this `kid` and `alg` may have been signed with. Raises TooManyKeys.

        Those of its `kid`; or else those without one, which an issuer that names no keys has. For a token without a `kid` the
        key whose certificate has the token's `thumbprint`; or else every one that fits, but no more than MAX_KEYS_TRIED.
        """
        if kid is not None and not self.any_kid:
            of_kid: list[tuple[VerificationKey, Key]] = []
            for key in self._by_kid.get(kid, ()):  # nearly every token comes this way, so it makes no further call
                if algorithm in key.by_algorithm:
                    of_kid += [(key, key.by_algorithm[algorithm])]
            return of_kid or _few(_fitting(self._by_kid.get(None, ()), algorithm))
        named = _fitting(self._by_thumbprint.get(thumbprint, ()), algorithm) if thumbprint is not None else []
        return named or _few(_fitting(self.keys, algorithm))

    def same_as(self, other: "Jwks") -> bool:
        """Would both find the same keys for every token?"""
        return self.keys == other.keys and self._by_thumbprint == other._by_thumbprint

    def __contains__(self, key: object) -> bool:
        return isinstance(key, VerificationKey) and key in self._by_kid.get(key.kid, ())

    def __repr__(self) -> str:
        return f"<Jwks of {len(self.keys)} keys>"


class Pem(NamedTuple):
    """A member of a set that has PEM by kid, as Google writes it."""

    kid: str
    text: str


def _members(document: object) -> list[object]:
    if isinstance(document, dict):
        members = document.get("keys")
        if isinstance(members, list):  # a SPIFFE bundle has certificates of services beside the keys of tokens
            return [one for one in members if not (isinstance(one, dict) and one.get("use") == "x509-svid")]
        if document and all(isinstance(text, str) and text.startswith("-----BEGIN ") for text in document.values()):
            return [Pem(kid, text) for kid, text in document.items()]
    raise FetchFailed("the document is not a JWK Set: it has no list of keys")


def _read(position: int, member: object, allowed: Collection[str]) -> VerificationKey | str:
    try:
        if isinstance(member, Pem):
            return public_key(member.text.encode(), member.kid, allowed)
        return verification_key(member, allowed)
    except UnusableKey as error:
        return f"key {position}{_names(member)}: {error}"


def _fitting(keys: Iterable[VerificationKey], algorithm: str) -> list[tuple[VerificationKey, Key]]:
    return [(key, key.by_algorithm[algorithm]) for key in keys if algorithm in key.by_algorithm]


def _few(keys: list[tuple[VerificationKey, Key]]) -> list[tuple[VerificationKey, Key]]:
    if len(keys) > MAX_KEYS_TRIED:
        raise TooManyKeys
    return keys


def _names(member: object) -> str:
    """What a member of a key set calls itself, and what it says that it signs with."""
    members = member if isinstance(member, dict) else {}
    names = [f"{name} {told(members[name], MOST_SHOWN)}" for name in ("kid", "alg") if members.get(name)]
    return f" ({', '.join(names)})" if names else ""


def told(value: object, most: int) -> str:
    """A part of somebody's document for a log: nothing in it can break a line, and a long one is cut."""
    try:
        text = json.dumps(value)
    except RecursionError:
        return "nested too deeply"
    return text if len(text) <= most else f"{text[:most]}..."
