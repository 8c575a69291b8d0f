"""How far a token has come, and what each check expected and found: for operators who ask, never for clients or logs.

All of it is bounded and escaped, and holds no token: what is found may be what a stranger wrote.
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

MOST_SHOWN = 100  # characters of a value
MOST_LISTED = 20  # values of a list

# Where the sentence of the answer does not say what was found; the others name the claim, whose value is the user's.
_TOLD = frozenset({"shape", "issuer", "signer", "typ", "algorithm", "key", "aud"})


class Check(Protocol):
    """One thing that a token must be. What decides it also says what it expects and what it finds, once it has begun.

    Both are empty where there is nothing to add to the answer.
    """

    @property
    def name(self) -> str: ...

    def expected(self, seen: "Examination") -> str:
        """What it expects of this token."""

    def found(self, seen: "Examination", now: float) -> str:
        """What it finds in this token, at a Unix time."""


class ClaimsCheck(Check, Protocol):
    """A check of verified claims."""

    def judge(self, claims: Claims) -> None:
        """Raises Rejection."""


class Examination:
    """How far one token has come: the checks that have begun, and what they found. None: not reached.

    `issuer` is the name of its issuer, `kid` what it calls its key once that was looked up, `claims` are there when they are
    verified.
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
        """The JOSE header, which anybody may have written."""
        return {} if self.jws is None else self.jws.header

    @property
    def payload(self) -> dict[str, Any]:
        """The claims, verified or not."""
        return {} if self.jws is None else self.jws.payload


def shown(value: Any) -> str:
    """A value of a token for people: nothing in it can steer a terminal, and a long one is cut."""
    if value is None:
        return "absent"
    if isinstance(value, str):
        value = text = without_tokens(value)
        if not (value and value.isascii() and value.isprintable()):
            text = json.dumps(value[:MOST_SHOWN])
    else:
        text = value = without_tokens(json.dumps(value))
    return text if len(value) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}... ({len(value)} characters)"


def several(values: Iterable[Any]) -> str:
    """Values of the configuration, or of a list in a token."""
    all_values = list(values)
    more = len(all_values) - MOST_LISTED
    few = ", ".join(map(shown, islice(all_values, MOST_LISTED))) or "none"
    return f"{few}, and {more} more" if more > 0 else few


def tell(rejection: Rejection, seen: Examination) -> None:
    """Add to a refusal what operators are told of its token.

    Its issuer once the signature has held, its `kid` once that was looked up, and what the check expected and found that refused
    it.
    """
    if seen.key is not None:
        rejection.issuer = seen.issuer
    if seen.kid is not None:
        rejection.kid = shown(seen.kid)
    check = seen.begun[-1]
    name = check.name
    if name in _TOLD and (name in ("shape", "typ") or rejection.reason is not Reason.TOKEN_MALFORMED):
        rejection.expected, rejection.found = check.expected(seen), check.found(seen, 0.0)
