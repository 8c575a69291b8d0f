"""Records how far the checks of a token went, and what each expected and found: for operators, never for clients or logs.

All texts are bounded and escaped, and hold no token: they may quote unverified claims.
"""

import json
from collections.abc import Iterable
from itertools import islice
from typing import Any, Protocol

from sidecar.common.errors import Reason, Rejection
from sidecar.common.masking import without_tokens
from sidecar.jwt.claims import Claims
from sidecar.jwt.compact_jws import Jws
from sidecar.jwt.jwks.jwk import VerificationKey

ABSENT = "absent"
MOST_SHOWN = 100  # characters of a value
MOST_LISTED = 20  # values of a list

# Refusals whose sentence does not say what was found. The other sentences name the claim, whose value is private.
_TOLD = frozenset({"shape", "issuer", "signer", "typ", "algorithm", "key", "aud"})


class Check(Protocol):
    """One check of a token. After it has begun, it also tells what it expects and what it finds.

    Both texts are empty if the answer says it already.
    """

    @property
    def name(self) -> str: ...

    def expected(self, seen: "Examination") -> str:
        """The expected value for this token."""

    def found(self, seen: "Examination", now: float) -> str:
        """The value in this token, at the Unix time `now`."""


class ClaimsCheck(Check, Protocol):
    """A check of verified claims. `private`: no refusal keeps the value that it found."""

    @property
    def private(self) -> bool: ...

    def judge(self, claims: Claims) -> None:
        """Raises Rejection."""


class Examination:
    """How far the checks of one token went: the checks that began, and what they found. None: not reached.

    `issuer` is the name of its issuer. `kid` is set after the key was looked up, `claims` after they were verified.
    """

    __slots__ = ("begun", "claims", "issuer", "jws", "key", "kid", "token")

    def __init__(self) -> None:
        self.token: bytes | None = None
        self.begun: list[Check] = []
        self.jws: Jws | None = None
        self.issuer: str | None = None
        self.kid: str | None = None
        self.key: VerificationKey | None = None
        self.claims: Claims | None = None

    @property
    def header(self) -> dict[str, Any]:
        """The JOSE header, verified or not."""
        return {} if self.jws is None else self.jws.header

    @property
    def payload(self) -> dict[str, Any]:
        """The claims, verified or not."""
        return {} if self.jws is None else self.jws.payload


def shown(value: Any) -> str:
    """A value of a token for people: control characters are escaped, and long values are cut."""
    if value is None:
        return ABSENT
    if isinstance(value, str):
        value = text = without_tokens(value)
        if not (value and value.isascii() and value.isprintable()):
            text = json.dumps(value[:MOST_SHOWN])
    else:
        text = value = without_tokens(json.dumps(value))
    return text if len(value) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}... ({len(value)} characters)"


def several(values: Iterable[Any]) -> str:
    """A list of values for people, cut to MOST_LISTED."""
    all_values = list(values)
    more = len(all_values) - MOST_LISTED
    few = ", ".join(map(shown, islice(all_values, MOST_LISTED))) or "none"
    return f"{few}, and {more} more" if more > 0 else few


def tell(rejection: Rejection, seen: Examination) -> None:
    """Add details for operators to a refusal.

    The issuer is added if the signature was verified, the `kid` if the key was looked up, and the values that the refusing check
    expected and found.
    """
    if seen.key is not None:
        rejection.issuer = seen.issuer
    if seen.kid is not None:
        rejection.kid = shown(seen.kid)
    check = seen.begun[-1]
    name = check.name
    if name in _TOLD and (name in ("shape", "typ") or rejection.reason is not Reason.TOKEN_MALFORMED):
        rejection.expected, rejection.found = check.expected(seen), check.found(seen, 0.0)


def tell_rule(rejection: Rejection, check: ClaimsCheck, claims: Claims) -> None:
    """Add to a refusal what a rule for verified claims expected, and what it found, unless that is private."""
    seen = Examination()
    seen.claims = claims
    rejection.expected, rejection.found = check.expected(seen), check.found(seen, 0.0)
    if check.private and rejection.found != ABSENT:
        rejection.found = "another value"
