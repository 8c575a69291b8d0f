"""May these verified claims use this route?

Each check decides, and tells operators what it expects and what it found.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sidecar.common.errors import Reason, Rejection
from sidecar.jwt.claims import Claims, Path, find, named
from sidecar.jwt.examination import ClaimsCheck, Examination, several, shown, tell_rule
from sidecar.policy.claim_conditions import condition
from sidecar.policy.granted import granted_roles, granted_scopes


class AllowedIssuers:
    """The issuer of the token is one of these."""

    name = "issuers"
    private = False

    def __init__(self, issuers: Collection[str]) -> None:
        self._issuers = issuers

    def judge(self, claims: Claims) -> None:
        if claims.issuer not in self._issuers:
            raise Rejection(Reason.ISSUER_UNKNOWN, "The token's issuer is not trusted for this path.")

    def expected(self, _seen: Examination) -> str:
        return f"one of: {several(self._issuers)}"

    def found(self, seen: Examination, _now: float) -> str:
        return _verified(seen).issuer


class Scopes:
    """All scopes of `every`, and one of `any_of`."""

    name = "scopes"
    private = False

    def __init__(self, every: Collection[str], any_of: Collection[str]) -> None:
        self._every, self._any_of = frozenset(every), frozenset(any_of)
        self._parameter = " ".join((*every, *any_of))

    def judge(self, claims: Claims) -> None:
        if not _enough(self._every, self._any_of, granted_scopes(claims.claims)):
            raise Rejection(Reason.SCOPE_INSUFFICIENT, scope=self._parameter)

    def expected(self, _seen: Examination) -> str:
        return _demand(self._every, self._any_of)

    def found(self, seen: Examination, _now: float) -> str:
        return several(sorted(granted_scopes(_verified(seen).claims)))


class Roles:
    """All roles of `every`, and one of `any_of`.

    `places` are the role claims by the name of the issuer, if it configures some.
    """

    name = "roles"
    private = False

    def __init__(self, every: Collection[str], any_of: Collection[str], places: Mapping[str, Sequence[Path]]) -> None:
        self._every, self._any_of = frozenset(every), frozenset(any_of)
        self._places = places

    def judge(self, claims: Claims) -> None:
        if not _enough(self._every, self._any_of, self._granted(claims)):
            raise Rejection(Reason.CLAIM_MISMATCH, "The token lacks a required role.")

    def _granted(self, claims: Claims) -> frozenset[str]:
        return granted_roles(claims.claims, self._places.get(claims.issuer))

    def expected(self, _seen: Examination) -> str:
        return _demand(self._every, self._any_of)

    def found(self, seen: Examination, _now: float) -> str:
        return several(sorted(self._granted(_verified(seen))))


class ClaimCondition:
    """A claim that meets each of its operators (policy/claim_conditions.py)."""

    private = True

    def __init__(self, path: Path, operators: Mapping[str, Any]) -> None:
        self.name = f"claim {'.'.join(path)}"
        self._path = path
        self._operators = operators
        self._holds = condition(operators)
        self._details = f"The token's {named(path)} does not allow this request."

    def judge(self, claims: Claims) -> None:
        if not self._holds(find(claims.claims, self._path)):
            raise Rejection(Reason.CLAIM_MISMATCH, self._details)

    def expected(self, _seen: Examination) -> str:
        return json.dumps(self._operators)

    def found(self, seen: Examination, _now: float) -> str:
        return shown(find(_verified(seen).claims, self._path))


class Policy:
    """The rules of a route, or of an issuer for all of its tokens, for verified claims; made once from the configuration.

    The token needs one of `issuers` (None: any configured issuer), all of `scopes` and one of `any_scope`, all of `roles` and
    one of `any_role`, and the conditions of `claims`. `checks` are the configured checks in order.
    """

    def __init__(
        self,
        issuers: Collection[str] | None = None,
        scopes: Collection[str] = (),
        *,
        any_scope: Collection[str] = (),
        roles: Collection[str] = (),
        any_role: Collection[str] = (),
        claims: Mapping[Path, Mapping[str, Any]] | None = None,
        role_claims: Mapping[str, Sequence[Path]] | None = None,
    ) -> None:
        checks: list[ClaimsCheck] = []
        if issuers is not None:
            checks.append(AllowedIssuers(issuers))
        if scopes or any_scope:
            checks.append(Scopes(scopes, any_scope))
        if roles or any_role:
            checks.append(Roles(roles, any_role, role_claims or {}))
        checks += [ClaimCondition(path, operators) for path, operators in (claims or {}).items()]
        self.checks = tuple(checks)

    def authorize(self, claims: Claims) -> None:
        """Check verified claims. Raises Rejection."""
        for check in self.checks:
            try:
                check.judge(claims)
            except Rejection as rejection:
                tell_rule(rejection, check, claims)
                raise


def _verified(seen: Examination) -> Claims:
    """The claims of a token that has come as far as these checks."""
    assert seen.claims is not None
    return seen.claims


def _enough(every: frozenset[str], one_of: frozenset[str], granted: frozenset[str]) -> bool:
    return every <= granted and (not one_of or not one_of.isdisjoint(granted))


def _demand(every: frozenset[str], any_of: frozenset[str]) -> str:
    parts = [f"all of: {several(sorted(every))}"] * bool(every) + [f"one of: {several(sorted(any_of))}"] * bool(any_of)
    return ", and ".join(parts)
