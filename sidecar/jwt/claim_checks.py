"""The checks of a token's claims, by RFC 7519 section 4.1 and the configuration of the issuer.

Each check decides by the claims and the time, and tells operators what it expects and what it found.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from sidecar.common.clock import ago
from sidecar.common.errors import Reason, Rejection
from sidecar.jwt.claims import LATEST_DATE, Path, find, named
from sidecar.jwt.examination import Examination, several, shown
from sidecar.jwt.subjects import Subjects

CONFIRMATIONS: Final = ("jkt", "x5t#S256")  # RFC 9449 section 6.1 (DPoP) and RFC 8705 section 3.1 (mutual TLS)


class NotExpired:
    """`exp`. `required`: a token that never expires is refused."""

    name = "exp"

    def __init__(self, skew_s: float, *, required: bool) -> None:
        self._skew_s = skew_s
        self._required = required

    def judge(self, claims: dict[str, Any], now: float) -> None:
        expires = numeric_date(claims, "exp")
        if expires is None:
            if self._required:
                raise Rejection(Reason.CLAIM_MISSING, "The token has no exp claim.")
        elif now >= expires + self._skew_s:  # a token is expired at exp itself: section 4.1.4
            raise expired(now - expires)

    def expected(self, _seen: Examination) -> str:
        return f"a time in the future, with {self._skew_s:g} s of skew"

    def found(self, seen: Examination, now: float) -> str:
        return _date(seen.payload, "exp", now)


class Past:
    """A time that must be in the past: `nbf` or `iat`. `details` is the sentence of the refusal."""

    def __init__(self, name: str, skew_s: float, reason: Reason, details: str) -> None:
        self.name = name
        self._skew_s = skew_s
        self._reason = reason
        self._details = details

    def judge(self, claims: dict[str, Any], now: float) -> None:
        date = numeric_date(claims, self.name)
        if date is not None and now < date - self._skew_s:
            raise Rejection(self._reason, self._details.format(ago(date - now)))

    def expected(self, _seen: Examination) -> str:
        return f"a time in the past, with {self._skew_s:g} s of skew"

    def found(self, seen: Examination, now: float) -> str:
        return _date(seen.payload, self.name, now)


class Lifetime:
    """The most that `exp` may be after `iat`, or after the time of the check if there is no `iat`."""

    name = "lifetime"

    def __init__(self, most_s: float, skew_s: float) -> None:
        self._most_s = most_s
        self._skew_s = skew_s

    def judge(self, claims: dict[str, Any], now: float) -> None:
        expires = numeric_date(claims, "exp")
        if expires is None:
            raise Rejection(Reason.CLAIM_MISSING, "The token has no exp claim.")
        issued = numeric_date(claims, "iat")
        if expires - (now + self._skew_s if issued is None else issued) > self._most_s:
            raise Rejection(Reason.CLAIM_INVALID, "The token's lifetime is longer than accepted.")

    def expected(self, _seen: Examination) -> str:
        return f"at most {ago(self._most_s)}"

    def found(self, seen: Examination, now: float) -> str:
        return f"exp {_date(seen.payload, 'exp', now)}, iat {_date(seen.payload, 'iat', now)}"


class Audience:
    """One of the audiences, or `every` one, in the first of `claims` that the token has."""

    name = "aud"

    def __init__(self, audiences: Collection[str], claims: Sequence[str], *, every: bool) -> None:
        self._audiences = frozenset(audiences)
        self._claims = tuple(claims)
        self._every = every

    def judge(self, claims: dict[str, Any], _now: float) -> None:
        name, audience = self._told(claims)
        if audience is None:
            raise Rejection(Reason.AUDIENCE_MISMATCH, f"The token has no {' or '.join(self._claims)} claim.")
        meant = [audience] if isinstance(audience, str) else audience
        if not isinstance(meant, list) or not all(isinstance(one, str) for one in meant):
            raise Rejection(
                Reason.AUDIENCE_MISMATCH, f"The token's {name} claim is neither a string nor a list of strings."
            )
        if self._audiences.isdisjoint(meant) or (self._every and not self._audiences.issubset(meant)):
            raise Rejection(Reason.AUDIENCE_MISMATCH)

    def _told(self, claims: Mapping[str, Any]) -> tuple[str, Any]:
        """The name and value of the first audience claim that is not empty."""
        for name in self._claims:
            if (audience := claims.get(name)) not in (None, "", []):
                return name, audience
        return self._claims[0], None

    def expected(self, _seen: Examination) -> str:
        return f"{'all' if self._every else 'one'} of: {several(sorted(self._audiences))}"

    def found(self, seen: Examination, _now: float) -> str:
        at, audience = self._told(seen.payload)
        if audience is None:
            return f"no {' or '.join(self._claims)}"
        told = several(audience) if isinstance(audience, list) else shown(audience)
        return told if self._claims == ("aud",) else f"{told} in {at}"


class TextNames:
    """`sub` and `jti` are text (sections 4.1.2 and 4.1.7). In a header a list of one name would look like the name itself.

    `lenient` names those of the two that may be a whole number; it becomes the text of its digits before the first check.
    """

    name = "names"

    def __init__(self, lenient: Collection[str]) -> None:
        self._lenient = tuple(lenient)

    def judge(self, claims: dict[str, Any], _now: float) -> None:
        for name in ("sub", "jti"):
            value = claims.get(name)
            if value is not None and not isinstance(value, str):
                raise Rejection(Reason.CLAIM_INVALID, f"The token's {name} claim is not a string.")

    def expected(self, _seen: Examination) -> str:
        return "a string in sub and jti" + "".join(f", or a whole number in {name}" for name in self._lenient)

    def found(self, seen: Examination, _now: float) -> str:
        return f"sub {shown(seen.payload.get('sub'))}, jti {shown(seen.payload.get('jti'))}"


class RequiredClaims:
    """Claims that a token must have."""

    name = "required"

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)

    def judge(self, claims: dict[str, Any], _now: float) -> None:
        for path in self._paths:
            if find(claims, path) is None:
                raise Rejection(Reason.CLAIM_MISSING, f"The token has no {named(path)}.")

    def expected(self, _seen: Examination) -> str:
        return several(map(".".join, self._paths))

    def found(self, seen: Examination, _now: float) -> str:
        missing = [".".join(path) for path in self._paths if find(seen.payload, path) is None]
        return f"no {several(missing)}" if missing else "all of them"


class RejectedClaims:
    """Claims that a token must not have."""

    name = "rejected"

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)

    def judge(self, claims: dict[str, Any], _now: float) -> None:
        for path in self._paths:
            if find(claims, path) is not None:
                raise Rejection(Reason.CLAIM_INVALID, f"The token's {named(path)} is not accepted here.")

    def expected(self, _seen: Examination) -> str:
        return f"none of: {several(map('.'.join, self._paths))}"

    def found(self, seen: Examination, _now: float) -> str:
        return several(".".join(path) for path in self._paths if find(seen.payload, path) is not None)


class TrustedSubject:
    """A `sub` that the issuer may use."""

    name = "sub"

    def __init__(self, subjects: Subjects) -> None:
        self._subjects = subjects

    def judge(self, claims: dict[str, Any], _now: float) -> None:
        subject = claims.get("sub")
        if subject is None:
            raise Rejection(Reason.CLAIM_MISSING, "The token has no sub claim.")
        if subject not in self._subjects:
            raise Rejection(Reason.CLAIM_MISMATCH, "The token's subject is not accepted here.")

    def expected(self, _seen: Examination) -> str:
        return f"one of: {self._subjects}"

    def found(self, seen: Examination, _now: float) -> str:
        return shown(seen.payload.get("sub"))


class Unbound:
    """No `cnf` that binds the token to a key of its client (RFC 7800): as a bearer token it may be stolen."""

    name = "cnf"

    def judge(self, claims: dict[str, Any], _now: float) -> None:
        confirmation = claims.get("cnf")
        if confirmation is None:
            return
        if not isinstance(confirmation, dict):  # RFC 7800 section 3.1
            raise Rejection(Reason.CLAIM_INVALID, "The token's cnf claim is not an object.")
        if not confirmation.keys().isdisjoint(CONFIRMATIONS):
            raise Rejection(
                Reason.CLAIM_INVALID,
                "The token is bound to a key of its client and cannot be used as a plain bearer token.",
            )

    def expected(self, _seen: Examination) -> str:
        return "no key that the token is bound to"

    def found(self, seen: Examination, _now: float) -> str:
        return shown(seen.payload.get("cnf"))


def numeric_date(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 section 2), or None if the claim is absent. Raises Rejection for anything but a number."""
    if name not in claims:
        return None
    value = claims[name]
    if type(value) not in (int, float):  # bool is an int to Python; text is no date even if int() accepts it
        raise Rejection(Reason.CLAIM_INVALID, f"The token's {name} claim is not a number.")
    if not -LATEST_DATE <= value <= LATEST_DATE:
        raise Rejection(Reason.CLAIM_INVALID, f"The token's {name} claim is not a time in seconds.")
    return float(value)


def expired(ago_s: float) -> Rejection:
    """The refusal of a token that expired `ago_s` seconds ago."""
    return Rejection(Reason.TOKEN_EXPIRED, f"The token expired {ago(ago_s)} ago.")


def _date(claims: Mapping[str, Any], name: str, now: float) -> str:
    value = claims.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not -LATEST_DATE <= value <= LATEST_DATE:
        return shown(value)
    return f"in {ago(value - now)}" if value > now else f"{ago(now - value)} ago"
