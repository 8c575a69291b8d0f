"""May these verified claims use this route?"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from sidecar.common.errors import Reason, Rejection
from sidecar.jwt.claims import Claims, Path, find, named
from sidecar.policy.claim_conditions import Condition, condition

SCOPE_CLAIMS = ("scope", "scp", "scopes")  # RFC 8693 section 4.2, and the names other issuers use
ROLE_CLAIMS = (("roles",), ("realm_access", "roles"), ("groups",))  # RFC 9068 section 2.2.3.1, Keycloak


class Policy:
    """What a route demands of a token, made once from the configuration.

    One of these issuers (None: any that is configured); all of `scopes` and one of `any_scope`; all of `roles` and one of
    `any_role`; and of each claim in `claims` what its operators say (see policy/claim_conditions.py).

    `checks` are those that the route asks for, by name, in their order.
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
    ) -> None:
        self.issuers = issuers
        self.scopes, self.any_scope = frozenset(scopes), frozenset(any_scope)
        self.roles, self.any_role = frozenset(roles), frozenset(any_role)
        self.claims = claims or {}
        self._scope_parameter = " ".join((*scopes, *any_scope))
        checks: list[tuple[str, Callable[[Claims], None]]] = []
        if issuers is not None:
            checks.append(("issuers", self._check_issuer))
        if scopes or any_scope:
            checks.append(("scopes", self._check_scopes))
        if roles or any_role:
            checks.append(("roles", self._check_roles))
        for path, operators in self.claims.items():
            checks.append((f"claim {'.'.join(path)}", _claim_check(path, condition(operators))))
        self.checks = tuple(checks)

    def authorize(self, claims: Claims) -> None:
        """Return when the claims are enough. Raises Rejection."""
        for _, check in self.checks:
            check(claims)

    def _check_issuer(self, claims: Claims) -> None:
        assert self.issuers is not None
        if claims.issuer not in self.issuers:
            raise Rejection(Reason.ISSUER_UNKNOWN, "The token's issuer is not trusted for this path.")

    def _check_scopes(self, claims: Claims) -> None:
        if not _enough(self.scopes, self.any_scope, granted_scopes(claims.claims)):
            raise Rejection(Reason.SCOPE_INSUFFICIENT, scope=self._scope_parameter)

    def _check_roles(self, claims: Claims) -> None:
        if not _enough(self.roles, self.any_role, granted_roles(claims.claims)):
            raise Rejection(Reason.CLAIM_MISMATCH, "The token lacks a role this needs.")


def _claim_check(path: Path, wanted: Condition) -> Callable[[Claims], None]:
    details = f"The token's {named(path)} does not allow this request."

    def check(claims: Claims) -> None:
        if not wanted(find(claims.claims, path)):
            raise Rejection(Reason.CLAIM_MISMATCH, details)

    return check


def _enough(every: frozenset[str], one_of: frozenset[str], granted: frozenset[str]) -> bool:
    return every <= granted and (not one_of or not one_of.isdisjoint(granted))


def granted_scopes(claims: dict[str, Any]) -> frozenset[str]:
    """The scopes of a token, from the first of SCOPE_CLAIMS that it has: a string of words, or a list of strings."""
    for name in SCOPE_CLAIMS:
        value = claims.get(name)
        if isinstance(value, str):
            return frozenset(value.split(" "))
        if isinstance(value, list):
            return _strings(value)
    return frozenset()


def granted_roles(claims: dict[str, Any]) -> frozenset[str]:
    """The roles of a token, from the first of ROLE_CLAIMS that it has: a list of strings, or one (a role may hold spaces)."""
    for path in ROLE_CLAIMS:
        value = find(claims, path)
        if isinstance(value, str):
            return frozenset((value,))
        if isinstance(value, list):
            return _strings(value)
    return frozenset()


def _strings(items: list[Any]) -> frozenset[str]:
    return frozenset(item for item in items if isinstance(item, str))
