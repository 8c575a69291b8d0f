"""Required scopes, roles and claims of a route, any of them or all."""

from typing import Any

import pytest

from sidecar.common.errors import Reason, Rejection
from sidecar.jwt.claims import Claims
from sidecar.policy.access_policy import Policy
from sidecar.policy.granted import granted_roles


def alice(**claims: Any) -> Claims:
    return Claims("zuplo", {"sub": "alice", **claims})


def refusal(policy: Policy, claims: Claims) -> Rejection:
    with pytest.raises(Rejection) as caught:
        policy.authorize(claims)
    return caught.value


# scopes


@pytest.mark.parametrize("scope", ["read", "write", "other write", ["read"]])
def test_any_scope_accepts_a_token_with_one_of_several_scopes(scope: object) -> None:
    Policy(any_scope=["read", "write"]).authorize(alice(scope=scope))


@pytest.mark.parametrize("scope", ["", "other", [], 5, None, "reads"])
def test_any_scope_refuses_a_token_without_one_of_the_scopes(scope: object) -> None:
    rejection = refusal(Policy(any_scope=["read", "write"]), alice(scope=scope))
    assert (rejection.reason, rejection.scope) == (Reason.SCOPE_INSUFFICIENT, "read write")


@pytest.mark.parametrize(
    ("scope", "enough"), [("a b c", True), ("a b d", True), ("a b", False), ("a c d", False), ("c", False)]
)
def test_requirements_any_and_all_must_both_be_met(scope: str, enough: bool) -> None:
    policy = Policy(scopes=["a", "b"], any_scope=["c", "d"])
    if enough:
        policy.authorize(alice(scope=scope))
    else:
        assert refusal(policy, alice(scope=scope)).scope == "a b c d"


# roles


@pytest.mark.parametrize(
    ("claims", "roles"),
    [
        ({"roles": ["a", "b"]}, {"a", "b"}),
        ({"roles": "a b"}, {"a b"}),
        ({"realm_access": {"roles": ["a"]}}, {"a"}),
        ({"realm_access.roles": ["a"]}, {"a"}),
        ({"groups": ["a", 5, None, ["b"]]}, {"a"}),
        ({"roles": [], "groups": ["a"]}, {"a"}),
        ({"roles": "", "groups": ["a"]}, {"a"}),
        ({"roles": {"a": 1, "c": False, "d": None, "e": {}}, "groups": ["b"]}, {"a"}),
        ({"roles": {}, "groups": ["b"]}, {"b"}),
        ({"cognito:groups": ["a"]}, {"a"}),
        ({"role": "a"}, {"a"}),
        ({"urn:zitadel:iam:org:project:roles": {"a": {"1": "x.example"}, "b": {"1": "x.example"}}}, {"a", "b"}),
        ({"roles": None, "realm_access": {"roles": ["a"]}, "groups": ["b"]}, {"a"}),
        ({"realm_access": ["roles"]}, set()),
        ({"permissions": ["a"], "scope": "a"}, set()),
        ({}, set()),
    ],
)
def test_roles_are_read_from_the_first_claim_with_roles(claims: dict[str, Any], roles: set[str]) -> None:
    assert granted_roles(claims) == roles


@pytest.mark.parametrize(
    ("claims", "roles"),
    [
        ({"realm_access": {"roles": ["a"]}, "resource_access": {"api": {"roles": ["b"]}}}, {"a", "b"}),
        ({"realm_access": {"roles": []}, "resource_access": {"api": {"roles": ["b"]}}}, {"b"}),
        ({"resource_access": {"other": {"roles": ["b"]}}, "roles": ["c"]}, set()),
    ],
)
def test_roles_are_collected_from_all_role_claims_of_an_issuer(claims: dict[str, Any], roles: set[str]) -> None:
    places = [("realm_access", "roles"), ("resource_access", "api", "roles")]
    assert granted_roles(claims, places) == roles
    policy = Policy(roles=["b"], role_claims={"zuplo": places})
    if "b" in roles:
        policy.authorize(alice(**claims))
    else:
        assert refusal(policy, alice(**claims)).reason is Reason.CLAIM_MISMATCH
    assert refusal(policy, Claims("another", {"resource_access": {"api": {"roles": ["b"]}}})).reason.status == 403


def test_a_token_with_all_roles_and_one_of_several_is_accepted() -> None:
    Policy(roles=["a"], any_role=["b", "c"]).authorize(alice(roles=["a", "c", "d"]))


@pytest.mark.parametrize("policy", [Policy(roles=["a"]), Policy(any_role=["a", "b"])], ids=["all", "any"])
def test_each_kind_of_role_requirement_can_refuse(policy: Policy) -> None:
    policy.authorize(alice(roles=["a"]))
    assert refusal(policy, alice(roles=["c"])).reason is Reason.CLAIM_MISMATCH


@pytest.mark.parametrize("roles", [[], ["a"], ["b"], ["b", "c"], "a", "a b", None, 5, {"a": 1}, [["a", "b"]]])
def test_a_missing_role_is_refused(roles: object) -> None:
    rejection = refusal(Policy(roles=["a"], any_role=["b", "c"]), alice(roles=roles))
    assert (rejection.reason, rejection.details) == (Reason.CLAIM_MISMATCH, "The token lacks a required role.")
    assert (rejection.reason.status, rejection.scope) == (403, None)


# claims

TENANT = Policy(claims={("tenant",): {"equals": "acme"}, ("realm_access", "roles"): {"any": ["admin"]}})


def test_a_token_with_the_required_claims_is_accepted() -> None:
    TENANT.authorize(alice(tenant="acme", realm_access={"roles": ["user", "admin"]}))


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({}, "tenant"),
        ({"tenant": "other"}, "tenant"),
        ({"tenant": ["acme"]}, "tenant"),
        ({"tenant": None}, "tenant"),
        ({"tenant": "acme"}, "realm_access.roles"),
        ({"tenant": "acme", "realm_access": ["admin"]}, "realm_access.roles"),
        ({"tenant": "acme", "realm_access": "admin"}, "realm_access.roles"),
        ({"tenant": "acme", "realm_access": {"roles": {"admin": True}}}, "realm_access.roles"),
        ({"tenant": "acme", "realm_access": {"roles": [["admin"]]}}, "realm_access.roles"),
    ],
)
def test_a_mismatching_claim_is_named_without_its_value(claims: dict[str, Any], name: str) -> None:
    rejection = refusal(TENANT, alice(**claims))
    assert rejection.reason is Reason.CLAIM_MISMATCH
    assert rejection.details == f"The token's {name} claim does not allow this request."


def test_a_route_checks_issuers_scopes_roles_and_claims_in_order() -> None:
    policy = Policy(["zuplo"], ["a"], roles=["a"], claims={("a", "b"): {"exists": True}})
    assert [check.name for check in policy.checks] == ["issuers", "scopes", "roles", "claim a.b"]
    assert Policy().checks == ()
