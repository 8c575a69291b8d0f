"""May these verified claims use this route?"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sidecar.common.errors import Reason, Rejection
from sidecar.jwt.claims import Claims, Path, find, named
from sidecar.policy.claim_conditions import Condition, condition
from sidecar.policy.granted import granted_roles, granted_scopes


class Policy:
    """What a route, or an issuer for all of its tokens, demands of verified claims; made once from the configuration.

    One of these issuers (None: any that is configured); all of `scopes` and one of `any_scope`; all of `roles` and one of
    `any_role`; and of each claim in `claims` what its operators say (see policy/claim_conditions.py). `role_claims`
    are the places of roles by the name of the issuer, where they are not those that most have.

    `checks` are those that are asked for, by name, in their order.
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
        self.issuers = issuers
        self.scopes, self.any_scope = frozenset(scopes), frozenset(any_scope)
        self.roles, self.any_role = frozenset(roles), frozenset(any_role)
        self.claims = claims or {}
        self._role_claims = role_claims or {}
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
        if not _enough(self.roles, self.any_role, self.roles_of(claims)):
            raise Rejection(Reason.CLAIM_MISMATCH, "The token lacks a role this needs.")

    def roles_of(self, claims: Claims) -> frozenset[str]:
        """The roles of a token, from where its issuer has them."""
        return granted_roles(claims.claims, self._role_claims.get(claims.issuer))


def _claim_check(path: Path, wanted: Condition) -> Callable[[Claims], None]:
    details = f"The token's {named(path)} does not allow this request."

    def check(claims: Claims) -> None:
        if not wanted(find(claims.claims, path)):
            raise Rejection(Reason.CLAIM_MISMATCH, details)

    return check


def _enough(every: frozenset[str], one_of: frozenset[str], granted: frozenset[str]) -> bool:
    return every <= granted and (not one_of or not one_of.isdisjoint(granted))
