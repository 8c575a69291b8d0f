"""What `explain` says of a check: what was expected, and what was found."""

import json

from sidecar.jwt.claims import Claims, find
from sidecar.jwt.examination import Examination, Words, about, one_of, shown
from sidecar.jwt.verifier import REQUIRED, Verifier
from sidecar.policy.access_policy import Policy
from sidecar.policy.granted import granted_scopes


def about_token(name: str, seen: Examination, verifier: Verifier, now: float) -> Words:
    """The words for the verifier's check of this name, after it has begun."""
    issuer, jws = seen.issuer, seen.jws
    if issuer is not None and jws is not None:
        if name == "denylist":
            return Words("", "is on it" if verifier.denylist.denies(issuer.name, jws.payload) else "not on it")
        if name.startswith(REQUIRED) and isinstance(issuer.policy, Policy):
            return about_policy(name.removeprefix(REQUIRED), issuer.policy, Claims(issuer.name, jws.payload))
    return about(name, seen, verifier.issuers, now)


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
