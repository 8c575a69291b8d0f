"""What a token says once its signature has been verified, and whether that is acceptable at a given time."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import sha256
from typing import Any

from sidecar.common.errors import Reason, Rejection

LATEST_DATE = 253_402_300_799  # the end of the year 9999 (RFC 3339); a later NumericDate counts in milliseconds
CONFIRMATIONS = ("jkt", "x5t#S256")  # RFC 9449 section 6.1 (DPoP) and RFC 8705 section 3.1 (mutual TLS)

_SAYABLE = re.compile(r"[ !#-\[\]-~]+")  # what error_description may hold: RFC 6750 section 3

Path = Sequence[str]
"""The way to a claim: its name, or the names of the objects around it and its own."""


class Claims:
    """The verified claims of one token. Never made from an unverified payload.

    `valid_from` and `valid_until` are Unix times with the issuer's clock skew already allowed for, so that a remembered
    token is judged by two comparisons. `payload_segment` is the verified payload exactly as it was signed, in base64url.
    `headers` holds the identity headers once they have been rendered for the upstream, `minted` the tokens of our own that stand
    for them, by their mint. `kid` is that of the issuer's key, or the id of an API key.
    """

    __slots__ = (
        "_user_hash", "claims", "headers", "issuer", "kid", "minted", "payload_segment", "valid_from", "valid_until",
    )  # fmt: skip

    def __init__(
        self,
        issuer: str,
        claims: dict[str, Any],
        payload_segment: bytes = b"",
        valid_from: float = float("-inf"),
        valid_until: float = float("inf"),
        kid: str | None = None,
    ) -> None:
        self.issuer = issuer
        self.kid = kid
        self.claims = claims
        self.payload_segment = payload_segment
        self.valid_from = valid_from
        self.valid_until = valid_until
        self.headers: bytes | None = None
        self.minted: dict[Any, Any] = {}
        self._user_hash: str | None = None

    @property
    def user_hash(self) -> str:
        """What stands for the subject where its name should not: the same for the same `iss` and `sub`. Made once for a token."""
        if self._user_hash is None:
            user = f"{self.claims.get('iss', '')} {self.claims.get('sub', '')}"
            self._user_hash = sha256(user.encode(errors="surrogatepass")).hexdigest()[:16]
        return self._user_hash

    def __repr__(self) -> str:
        return f"<Claims of {self.issuer}: {', '.join(self.claims)}>"


def find(claims: Mapping[str, Any], path: Path) -> Any:
    """The claim at `path`, or None. The whole path written as one top-level name wins over nesting."""
    value: Any = claims.get(".".join(path))
    if value is not None:
        return value
    value = claims
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def named(path: Path) -> str:
    """A claim's name for a sentence of an answer; one that cannot stand there is not said."""
    name = ".".join(path)
    return f"{name} claim" if _SAYABLE.fullmatch(name) else "claim"


class Subjects:
    """Which `sub` an issuer is believed for: these, those that begin so, and those that fit a pattern.

    In a pattern `*` stands for any characters, also none, and everything else for itself.
    """

    def __init__(self, exact: Collection[str] = (), prefix: Collection[str] = (), glob: Collection[str] = ()) -> None:
        self._exact = frozenset(exact)
        self._prefixes = tuple(prefix)
        self._globs = tuple(tuple(pattern.split("*")) for pattern in glob)
        assert all(len(pieces) > 1 for pieces in self._globs), "a pattern without * is a subject"

    def __contains__(self, subject: str) -> bool:
        return (
            subject in self._exact
            or subject.startswith(self._prefixes)
            or any(_fits(pieces, subject) for pieces in self._globs)
        )

    def __str__(self) -> str:
        return ", ".join(
            (*sorted(self._exact), *(f"{prefix}*" for prefix in self._prefixes), *map("*".join, self._globs))
        )


class ClaimRules:
    """What one issuer's claims must be: RFC 7519 section 4.1, RFC 8725 section 3.9, and what its configuration adds.

    - `audiences` None switches the audience check off; `all_audiences` asks for every one of them. They are looked for in
      the first of `audience_claims` that the token has.
    - `clock_skew_s` is allowed on `exp`, `nbf` and `iat` alike.
    - `max_lifetime_s`: `exp` less `iat` may be no more, or `exp` less the time of the check where there is no `iat`.
    - `required` and `rejected` are claims that a token must and must not have. `subjects` None: every one, or none at all.
    - `lenient` are those of `sub` and `jti` that may be a whole number: from then on it is the text of its digits.
    - `reject_bound` refuses a token that only the holder of a key may use: as a plain bearer token it may be a stolen one.

    `checks` are those that these rules ask for, by name, in their order.
    """

    def __init__(
        self,
        audiences: Collection[str] | None,
        *,
        all_audiences: bool = False,
        audience_claims: Sequence[str] = ("aud",),
        clock_skew_s: float = 60.0,
        require_exp: bool = True,
        max_lifetime_s: float | None = None,
        required: Sequence[Path] = (),
        rejected: Sequence[Path] = (),
        subjects: Subjects | None = None,
        reject_bound: bool = True,
        lenient: Collection[str] = (),
    ) -> None:
        self.audiences = None if audiences is None else frozenset(audiences)
        self.all_audiences = all_audiences
        self.audience_claims = tuple(audience_claims)
        self.clock_skew_s = clock_skew_s
        self.require_exp = require_exp
        self.max_lifetime_s = max_lifetime_s
        self.required = tuple(required)
        self.rejected = tuple(rejected)
        self.subjects = subjects
        self.lenient = tuple(lenient)
        self.checks: tuple[tuple[str, Callable[[dict[str, Any], float], None]], ...] = tuple(
            (name, check)
            for name, check, wanted in (
                ("exp", self._check_exp, True),
                ("nbf", self._check_nbf, True),
                ("iat", self._check_iat, True),
                ("lifetime", self._check_lifetime, max_lifetime_s is not None),
                ("aud", self._check_audience, audiences is not None),
                ("names", _check_names, True),
                ("required", self._check_required, bool(required)),
                ("rejected", self._check_rejected, bool(rejected)),
                ("sub", self._check_subject, subjects is not None),
                ("cnf", self._check_unbound, reject_bound),
            )
            if wanted
        )

    def check(self, claims: dict[str, Any], now: float, begun: list[str] | None = None) -> tuple[float, float]:
        """Return (valid_from, valid_until), skew included. Raises Rejection; `iss` has chosen these rules already.

        `begun` is told the name of each check as it begins. A number in a claim of `lenient` becomes text.
        """
        for name in self.lenient:
            if type(claims.get(name)) is int:  # bool is an int to Python
                claims[name] = str(claims[name])
        for name, check in self.checks:
            if begun is not None:
                begun.append(name)
            check(claims, now)
        # Numbers or missing: the checks of exp, nbf and iat have seen to that.
        starts = max(claims.get("nbf", 0.0), claims.get("iat", 0.0))
        return starts - self.clock_skew_s, self.ends(claims)

    def ends(self, claims: dict[str, Any]) -> float:
        """The Unix time when a token of these claims has expired, skew included; its `exp` has been checked."""
        return float(claims.get("exp", float("inf")) + self.clock_skew_s)

    def expired(self, valid_until: float, now: float) -> Rejection:
        """The refusal of a token that was valid until then, skew included."""
        return _expired(now - (valid_until - self.clock_skew_s))

    def _check_exp(self, claims: dict[str, Any], now: float) -> None:
        expires = _numeric_date(claims, "exp")
        if expires is None:
            if self.require_exp:
                raise Rejection(Reason.CLAIM_MISSING, "The token has no exp claim.")
        elif now >= expires + self.clock_skew_s:  # at exp itself it is already expired: section 4.1.4
            raise _expired(now - expires)

    def _check_nbf(self, claims: dict[str, Any], now: float) -> None:
        not_before = _numeric_date(claims, "nbf")
        if not_before is not None and now < not_before - self.clock_skew_s:
            raise Rejection(Reason.TOKEN_NOT_YET_VALID, f"The token is not valid for another {ago(not_before - now)}.")

    def _check_iat(self, claims: dict[str, Any], now: float) -> None:
        issued = _numeric_date(claims, "iat")
        if issued is not None and now < issued - self.clock_skew_s:
            raise Rejection(
                Reason.TOKEN_ISSUED_IN_FUTURE, f"The token says it was issued {ago(issued - now)} from now."
            )

    def _check_lifetime(self, claims: dict[str, Any], now: float) -> None:
        assert self.max_lifetime_s is not None
        expires = _numeric_date(claims, "exp")
        if expires is None:
            raise Rejection(Reason.CLAIM_MISSING, "The token has no exp claim.")
        issued = _numeric_date(claims, "iat")
        lifetime_s = expires - (now + self.clock_skew_s if issued is None else issued)
        if lifetime_s > self.max_lifetime_s:
            raise Rejection(Reason.CLAIM_INVALID, "The token is valid for longer than is accepted.")

    def audience_of(self, claims: dict[str, Any]) -> tuple[str, Any]:
        """The first of `audience_claims` that the token has, and what it holds; one that is empty names no audience."""
        for name in self.audience_claims:
            if (audience := claims.get(name)) not in (None, "", []):
                return name, audience
        return self.audience_claims[0], None

    def _check_audience(self, claims: dict[str, Any], _now: float) -> None:
        assert self.audiences is not None
        name, audience = self.audience_of(claims)
        if audience is None:
            raise Rejection(Reason.AUDIENCE_MISMATCH, f"The token has no {' or '.join(self.audience_claims)} claim.")
        meant = [audience] if isinstance(audience, str) else audience
        if not isinstance(meant, list) or not all(isinstance(one, str) for one in meant):
            raise Rejection(
                Reason.AUDIENCE_MISMATCH, f"The token's {name} claim is neither a string nor a list of strings."
            )
        if self.audiences.isdisjoint(meant) or (self.all_audiences and not self.audiences.issubset(meant)):
            raise Rejection(Reason.AUDIENCE_MISMATCH)

    def _check_required(self, claims: dict[str, Any], _now: float) -> None:
        for path in self.required:
            if find(claims, path) is None:
                raise Rejection(Reason.CLAIM_MISSING, f"The token has no {named(path)}.")

    def _check_rejected(self, claims: dict[str, Any], _now: float) -> None:
        for path in self.rejected:
            if find(claims, path) is not None:
                raise Rejection(Reason.CLAIM_INVALID, f"The token's {named(path)} is not accepted here.")

    def _check_subject(self, claims: dict[str, Any], _now: float) -> None:
        assert self.subjects is not None
        subject = claims.get("sub")
        if subject is None:
            raise Rejection(Reason.CLAIM_MISSING, "The token has no sub claim.")
        if subject not in self.subjects:
            raise Rejection(Reason.CLAIM_MISMATCH, "The token's subject is not accepted here.")

    def _check_unbound(self, claims: dict[str, Any], _now: float) -> None:
        confirmation = claims.get("cnf")
        if confirmation is None:
            return
        if not isinstance(confirmation, dict):  # RFC 7800 section 3.1
            raise Rejection(Reason.CLAIM_INVALID, "The token's cnf claim is not an object.")
        if not confirmation.keys().isdisjoint(CONFIRMATIONS):
            raise Rejection(
                Reason.CLAIM_INVALID, "The token is bound to a key of its client and is no plain bearer token."
            )


def _expired(ago_s: float) -> Rejection:
    return Rejection(Reason.TOKEN_EXPIRED, f"The token expired {ago(ago_s)} ago.")


def _fits(pieces: Sequence[str], text: str) -> bool:
    """Does the text fit a pattern that was split at its `*`? In time linear in the text for each piece."""
    first, *between, last = pieces
    if not text.startswith(first):
        return False
    at = len(first)
    for piece in between:
        at = text.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return len(text) - at >= len(last) and text.endswith(last)


def _check_names(claims: dict[str, Any], _now: float) -> None:
    """RFC 7519 sections 4.1.2 and 4.1.7. As a header a list of one name would look like the name itself."""
    for name in ("sub", "jti"):
        if not isinstance(claims.get(name), str | None):
            raise Rejection(Reason.CLAIM_INVALID, f"The token's {name} claim is not a string.")


def _numeric_date(claims: dict[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 section 2), or None when the claim is absent. Rejection when it is anything but a number."""
    if name not in claims:
        return None
    value = claims[name]
    if type(value) not in (int, float):  # bool is an int to Python; text is not a date whatever int() makes of it
        raise Rejection(Reason.CLAIM_INVALID, f"The token's {name} claim is not a number.")
    if not -LATEST_DATE <= value <= LATEST_DATE:
        raise Rejection(Reason.CLAIM_INVALID, f"The token's {name} claim is not a time in seconds.")
    return float(value)


def ago(seconds: float) -> str:
    """A span for people: `12 s`, `5 min`, `3 h`, `2 d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
