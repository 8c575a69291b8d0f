"""What `explain` says of a check: what was expected, and what was found."""

import json
from typing import Any, NamedTuple

from sidecar.jwt.claims import LATEST_DATE, ClaimRules, Claims, ago, find
from sidecar.jwt.verifier import REQUIRED, Examination, Verifier
from sidecar.policy.access_policy import Policy
from sidecar.policy.granted import granted_scopes

MOST_SHOWN = 100  # characters of a value

_HEADER = ("alg", "kid", "typ", "crit", "b64")  # members that are looked at


class Words(NamedTuple):
    """What a check expected and what it found; empty where there is nothing to add to the answer."""

    expected: str
    found: str


def shown(value: Any) -> str:
    """A value of a token for a terminal: nothing in it can steer it, and a long one is cut."""
    if value is None:
        return "absent"
    text = value if isinstance(value, str) and value.isascii() and value.isprintable() and value else json.dumps(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}... ({len(text)} characters)"


def one_of(values: Any) -> str:
    """Values of the configuration, or of a list in a token."""
    return ", ".join(map(shown, values)) or "none"


def about_token(name: str, seen: Examination, verifier: Verifier, now: float) -> Words:
    """The words for the verifier's check of this name, after it has begun."""
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
            trusted = (iss for issuer in verifier.issuers for iss in (issuer.issuer, *issuer.aliases))
            found = shown(claims.get("iss"))
            return Words(f"one of: {one_of(trusted)}", found if issuer is None else f"{issuer.name}: {found}")
    assert issuer is not None
    match name:
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
        case "denylist":
            return Words("", "is on it" if verifier.denylist.denies(issuer.name, claims) else "not on it")
    if name.startswith(REQUIRED) and isinstance(issuer.policy, Policy):
        return about_policy(name.removeprefix(REQUIRED), issuer.policy, Claims(issuer.name, claims))
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


def about_policy(name: str, policy: Policy, claims: Claims) -> Words:
    """The words for the policy's check of this name."""
    if name == "issuers" and policy.issuers is not None:
        return Words(f"one of: {one_of(policy.issuers)}", claims.issuer)
    if name == "scopes":
        return Words(_demand(policy.scopes, policy.any_scope), one_of(sorted(granted_scopes(claims.claims))))
    if name == "roles":
        return Words(_demand(policy.roles, policy.any_role), one_of(sorted(policy.roles_of(claims))))
    path = next(path for path in policy.claims if name == f"claim {'.'.join(path)}")
    return Words(json.dumps(policy.claims[path]), shown(find(claims.claims, path)))


def _demand(every: frozenset[str], any_of: frozenset[str]) -> str:
    parts = [f"all of: {one_of(sorted(every))}"] * bool(every) + [f"one of: {one_of(sorted(any_of))}"] * bool(any_of)
    return ", and ".join(parts)


def _date(claims: dict[str, Any], name: str, now: float) -> str:
    value: Any = claims.get(name)
    if type(value) not in (int, float) or not -LATEST_DATE <= value <= LATEST_DATE:
        return shown(value)
    return f"in {ago(value - now)}" if value > now else f"{ago(now - value)} ago"
