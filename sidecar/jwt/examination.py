"""How far a token has come, what each check expected, and what it found: for operators who ask, never for clients or logs.

All of it is bounded and escaped, and holds no token: what is found may be what a stranger wrote.
"""

import json
from collections.abc import Collection, Iterable
from itertools import islice
from typing import Any, NamedTuple

from sidecar.common.errors import Reason, Rejection
from sidecar.common.masking import without_tokens
from sidecar.jwt.claims import LATEST_DATE, ClaimRules, ago, find
from sidecar.jwt.compact_jws import Jws
from sidecar.jwt.issuer import Issuer
from sidecar.jwt.jwks.jwk import VerificationKey

MOST_SHOWN = 100  # characters of a value
MOST_LISTED = 20  # values of a list

_HEADER = ("alg", "kid", "typ", "crit", "b64")  # members that are looked at
# Where the sentence of the answer does not say what was found; the others name the claim, whose value is the user's.
_TOLD = frozenset({"issuer", "signer", "typ", "algorithm", "key", "aud"})


class Examination:
    """How far one token has come: the checks that have begun, by name, and what they found. None: not reached."""

    __slots__ = ("begun", "issuer", "jws", "key", "token")

    def __init__(self) -> None:
        self.token: bytes | None = None
        self.begun: list[str] = []
        self.jws: Jws | None = None
        self.issuer: Issuer | None = None
        self.key: VerificationKey | None = None


class Words(NamedTuple):
    """What a check expected and what it found; empty where there is nothing to add to the answer."""

    expected: str
    found: str


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


def one_of(values: Iterable[Any]) -> str:
    """Values of the configuration, or of a list in a token."""
    all_values = list(values)
    more = len(all_values) - MOST_LISTED
    few = ", ".join(map(shown, islice(all_values, MOST_LISTED))) or "none"
    return f"{few}, and {more} more" if more > 0 else few


def tell(rejection: Rejection, seen: Examination, issuers: Collection[Issuer]) -> None:
    """Add to a refusal what operators are told of its token.

    Its issuer once the signature has held, its `kid` once that was looked up, and what the check expected and found that refused
    it.
    """
    check = seen.begun[-1]
    if seen.key is not None and seen.issuer is not None:
        rejection.issuer = seen.issuer.name
    if seen.jws is not None and "key" in seen.begun and (kid := seen.jws.header.get("kid")) is not None:
        rejection.kid = shown(kid)
    if (check in _TOLD and rejection.reason is not Reason.TOKEN_MALFORMED) or check == "typ":
        rejection.expected, rejection.found = about(check, seen, issuers, 0.0)


def about(name: str, seen: Examination, issuers: Collection[Issuer], now: float) -> Words:
    """The words for the check of this name, after it has begun."""
    if seen.jws is None:
        return Words("", "")
    header, claims = seen.jws.header, seen.jws.payload
    issuer = seen.issuer
    match name:
        case "shape":
            return Words("", "a header, a payload and a signature")
        case "header":
            members = (f"{member} {shown(header[member])}" for member in _HEADER if member in header)
            return Words("", ", ".join(members))
        case "issuer":
            trusted = (iss for issuer in issuers for iss in (issuer.issuer, *issuer.aliases))
            found = shown(claims.get("iss"))
            return Words(f"one of: {one_of(trusted)}", found if issuer is None else f"{issuer.name}: {found}")
    assert issuer is not None
    match name:
        case "signer":
            return Words(shown(issuer.signer), shown(header.get("signer")))
        case "typ":
            return Words(f"one of: {one_of(sorted(issuer.accepted_typ))}", shown(header.get("typ")))
        case "algorithm":
            return Words(f"one of: {one_of(sorted(issuer.algorithms))}", shown(header.get("alg")))
        case "key" if issuer.source.usable:
            kids = one_of(key.kid for key in issuer.source.jwks.keys) if issuer.source.jwks else ""
            return Words(f"kid {shown(header.get('kid'))} for {shown(header.get('alg'))}", f"{issuer.name} has {kids}")
        case "key":
            return Words("", issuer.source.last_error or "the keys were not fetched yet")
        case "signature":
            return Words("", "matches" if seen.key is not None else f"does not match kid {shown(header.get('kid'))}")
    return _about_claims(name, issuer.rules, claims, now)


def _about_claims(name: str, rules: ClaimRules, claims: dict[str, Any], now: float) -> Words:
    match name:
        case "exp":
            return Words(f"a time to come, {rules.clock_skew_s:g} s of skew allowed", _date(claims, "exp", now))
        case "nbf" | "iat":
            return Words(f"a time past, {rules.clock_skew_s:g} s of skew allowed", _date(claims, name, now))
        case "lifetime":
            until, since = (_date(claims, at, now) for at in ("exp", "iat"))
            return Words(f"at most {ago(rules.max_lifetime_s or 0)}", f"exp {until}, iat {since}")
        case "aud":
            wanted = f"{'all' if rules.all_audiences else 'one'} of: {one_of(sorted(rules.audiences or ()))}"
            at, audience = rules.audience_of(claims)
            if audience is None:
                return Words(wanted, f"no {' or '.join(rules.audience_claims)}")
            told = one_of(audience) if isinstance(audience, list) else shown(audience)
            return Words(wanted, told if rules.audience_claims == ("aud",) else f"{told} in {at}")
        case "names":
            wanted = "a string in sub and jti" + "".join(f", or a whole number in {name}" for name in rules.lenient)
            return Words(wanted, f"sub {shown(claims.get('sub'))}, jti {shown(claims.get('jti'))}")
        case "required":
            missing = [".".join(path) for path in rules.required if find(claims, path) is None]
            return Words(one_of(map(".".join, rules.required)), f"no {one_of(missing)}" if missing else "all of them")
        case "rejected":
            there = [".".join(path) for path in rules.rejected if find(claims, path) is not None]
            return Words(f"none of: {one_of(map('.'.join, rules.rejected))}", one_of(there))
        case "sub":
            return Words(f"one of: {rules.subjects}", shown(claims.get("sub")))
        case "cnf":
            return Words("no key that the token is bound to", shown(claims.get("cnf")))
    return Words("", "")


def _date(claims: dict[str, Any], name: str, now: float) -> str:
    value: Any = claims.get(name)
    if type(value) not in (int, float) or not -LATEST_DATE <= value <= LATEST_DATE:
        return shown(value)
    return f"in {ago(value - now)}" if value > now else f"{ago(now - value)} ago"
