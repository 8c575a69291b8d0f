"""An immutable key set of one issuer, and the result or failure of a fetch."""

import asyncio
import json
from collections.abc import Awaitable, Collection, Iterable
from typing import NamedTuple, Protocol

from sidecar.jwt.jwks.algorithms import Key
from sidecar.jwt.jwks.jwk import UnusableKey, VerificationKey, public_key, verification_key

MAX_KEYS = 1000  # used keys of one set; real sets have about ten at most
KEYS_IN_A_TURN = 20  # one takes 0.02 to 0.2 ms
MOST_SKIPPED_SHOWN = 20  # skipped keys that are listed with a reason
MOST_SHOWN = 40  # characters of an alg or a kid
MAX_KEYS_TRIED = 10  # for a token without kid: each try is a signature check of up to 0.6 ms


class FetchFailed(Exception):
    """A fetch of a key set failed; the text says why and may be logged and shown to the operator."""


class TooManyKeys(Exception):
    """More keys than MAX_KEYS_TRIED may have signed a token."""


class KeySet(NamedTuple):
    """The result of a fetch: a JWK Set as decoded JSON, or a Jwks if the keys were in another form.

    `max_age_s` is its freshness in seconds, `clock_offset_s` how many seconds the server's clock is ahead; None if unknown.
    `looked_up` are the kids that were looked up one by one; None if the server lists all of its keys.
    """

    document: object
    max_age_s: float | None
    clock_offset_s: float | None = None
    looked_up: Collection[str] | None = None


class Fetch(Protocol):
    """Fetches a key set. Raises FetchFailed and nothing else."""

    def __call__(self) -> Awaitable[KeySet]: ...


class Jwks:
    """One key set by `kid`. `skipped` lists the members of the document that were left out, with reasons.

    `any_kid`: the keys have no kid (PEM, shared secrets), so they apply to a token with any `kid`.
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
        """Parse a JWK Set (RFC 7517 section 5) key by key: an unusable key does not spoil the others.

        A Jwks is returned unchanged. Raises FetchFailed if no key is usable, so that an empty answer replaces nothing.
        """
        if isinstance(document, Jwks):
            return document
        members = _members(document)
        return cls._usable([_read(*one, allowed) for one in enumerate(members[:MAX_KEYS])], members[MAX_KEYS:])

    @classmethod
    async def of_in_turns(cls, document: object, allowed: Collection[str]) -> "Jwks":
        """`of` without blocking the loop: other work may run after every KEYS_IN_A_TURN keys."""
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
    def _usable(cls, found: Collection["VerificationKey | str"], more: Collection[object]) -> "Jwks":
        """Make a set of keys. A text in `found` says why a key was skipped. `more` are members beyond MAX_KEYS."""
        skipped = [one for one in found if isinstance(one, str)]
        if len(skipped) > MOST_SKIPPED_SHOWN:
            skipped[MOST_SKIPPED_SHOWN:] = [f"{len(skipped) - MOST_SKIPPED_SHOWN} more like these"]
        if more:
            few = [member for member in more if isinstance(member, dict)][:MOST_SKIPPED_SHOWN]
            names = ", ".join(quoted(member.get("kid"), MOST_SHOWN) for member in few)
            skipped.append(f"{len(more)} keys after the first {MAX_KEYS}, which is the limit ({names})")
        jwks = cls([one for one in found if not isinstance(one, str)], skipped)
        if not jwks.keys:
            raise FetchFailed(f"the key set has no usable key ({'; '.join(jwks.skipped) or 'it is empty'})")
        return jwks

    def find(self, kid: str | None, algorithm: str, thumbprint: str | None = None) -> list[tuple[VerificationKey, Key]]:
        """The keys that may have signed a token with this `kid` and `alg`. Raises TooManyKeys.

        They are the keys with its `kid`, or else the keys without a kid. For a token without a `kid` it is the key whose
        certificate has the token's `thumbprint`, or else every key for the `alg`, but no more than MAX_KEYS_TRIED.
        """
        if kid is not None and not self.any_kid:
            of_kid: list[tuple[VerificationKey, Key]] = []
            for key in self._by_kid.get(kid, ()):  # the common case, without a further call
                if algorithm in key.by_algorithm:
                    of_kid += [(key, key.by_algorithm[algorithm])]
            return of_kid or _few(_fitting(self._by_kid.get(None, ()), algorithm))
        named = _fitting(self._by_thumbprint.get(thumbprint, ()), algorithm) if thumbprint is not None else []
        return named or _few(_fitting(self.keys, algorithm))

    def same_as(self, other: "Jwks") -> bool:
        """Do both sets find the same keys for every token?"""
        return self.keys == other.keys and self._by_thumbprint == other._by_thumbprint

    def __contains__(self, key: object) -> bool:
        return isinstance(key, VerificationKey) and key in self._by_kid.get(key.kid, ())

    def __repr__(self) -> str:
        return f"<Jwks of {len(self.keys)} keys>"


class Pem(NamedTuple):
    """A member of a set of PEM by kid, as Google writes it."""

    kid: str
    text: str


def _members(document: object) -> list[object]:
    if isinstance(document, dict):
        members = document.get("keys")
        if isinstance(members, list):  # a SPIFFE bundle has certificates of services besides the keys of tokens
            return [one for one in members if not (isinstance(one, dict) and one.get("use") == "x509-svid")]
        if document and all(isinstance(text, str) and text.startswith("-----BEGIN ") for text in document.values()):
            return [Pem(kid, text) for kid, text in document.items()]
    raise FetchFailed("the document is not a JWK Set: it has no list `keys`")


def _read(position: int, member: object, allowed: Collection[str]) -> VerificationKey | str:
    try:
        if isinstance(member, Pem):
            return public_key(member.text.encode(errors="replace"), member.kid, allowed)
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
    """The kid and the algorithm of a member of a key set, for a message."""
    members = member if isinstance(member, dict) else {}
    names = [f"{name} {quoted(members[name], MOST_SHOWN)}" for name in ("kid", "alg") if members.get(name)]
    return f" ({', '.join(names)})" if names else ""


def quoted(value: object, most: int) -> str:
    """A value of a foreign document for a log: line breaks are escaped, and long values are cut."""
    try:
        text = json.dumps(value)
    except RecursionError:
        return "nested too deeply"
    return text if len(text) <= most else f"{text[:most]}..."
