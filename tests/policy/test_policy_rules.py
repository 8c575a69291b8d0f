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
def test_one_of_several_scopes_is_enough_where_any_is_asked_for(scope: object) -> None:
    Policy(any_scope=["read", "write"]).authorize(alice(scope=scope))


@pytest.mark.parametrize("scope", ["", "other", [], 5, None, "reads"])
def test_none_of_them_is_not_enough(scope: object) -> None:
    rejection = refusal(Policy(any_scope=["read", "write"]), alice(scope=scope))
    assert (rejection.reason, rejection.scope) == (Reason.SCOPE_INSUFFICIENT, "read write")


@pytest.mark.parametrize(
    ("scope", "enough"), [("a b c", True), ("a b d", True), ("a b", False), ("a c d", False), ("c", False)]
)
def test_any_and_all_must_both_hold(scope: str, enough: bool) -> None:
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
def test_roles_are_in_the_first_claim_that_holds_some(claims: dict[str, Any], roles: set[str]) -> None:
    assert granted_roles(claims) == roles


@pytest.mark.parametrize(
    ("claims", "roles"),
    [
        ({"realm_access": {"roles": ["a"]}, "resource_access": {"api": {"roles": ["b"]}}}, {"a", "b"}),
        ({"realm_access": {"roles": []}, "resource_access": {"api": {"roles": ["b"]}}}, {"b"}),
        ({"resource_access": {"other": {"roles": ["b"]}}, "roles": ["c"]}, set()),
    ],
)
def test_the_places_that_an_issuer_names_count_together(claims: dict[str, Any], roles: set[str]) -> None:
    places = [("realm_access", "roles"), ("resource_access", "api", "roles")]
    assert granted_roles(claims, places) == roles
    policy = Policy(roles=["b"], role_claims={"zuplo": places})
    if "b" in roles:
        policy.authorize(alice(**claims))
    else:
        assert refusal(policy, alice(**claims)).reason is Reason.CLAIM_MISMATCH
    assert refusal(policy, Claims("another", {"resource_access": {"api": {"roles": ["b"]}}})).reason.status == 403


def test_all_roles_and_one_of_several_are_enough() -> None:
    Policy(roles=["a"], any_role=["b", "c"]).authorize(alice(roles=["a", "c", "d"]))


@pytest.mark.parametrize("demand", [{"roles": ["a"]}, {"any_role": ["a", "b"]}], ids=["all", "any"])
def test_one_kind_of_demand_is_enough_to_refuse(demand: dict[str, list[str]]) -> None:
    Policy(**demand).authorize(alice(roles=["a"]))  # type: ignore[arg-type]
    assert refusal(Policy(**demand), alice(roles=["c"])).reason is Reason.CLAIM_MISMATCH  # type: ignore[arg-type]


@pytest.mark.parametrize("roles", [[], ["a"], ["b"], ["b", "c"], "a", "a b", None, 5, {"a": 1}, [["a", "b"]]])
def test_a_missing_role_is_refused(roles: object) -> None:
    rejection = refusal(Policy(roles=["a"], any_role=["b", "c"]), alice(roles=roles))
    assert (rejection.reason, rejection.details) == (Reason.CLAIM_MISMATCH, "The token lacks a required role.")
    assert (rejection.reason.status, rejection.scope) == (403, None)


# claims

TENANT = Policy(claims={("tenant",): {"equals": "acme"}, ("realm_access", "roles"): {"any": ["admin"]}})


def test_claims_that_are_what_the_route_asks_for_are_enough() -> None:
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
def test_a_claim_that_is_not_is_named_to_the_client_and_its_value_is_not(claims: dict[str, Any], name: str) -> None:
    rejection = refusal(TENANT, alice(**claims))
    assert rejection.reason is Reason.CLAIM_MISMATCH
    assert rejection.details == f"The token's {name} claim does not allow this request."


def test_what_a_route_asks_for_is_judged_in_this_order() -> None:
    policy = Policy(["zuplo"], ["a"], roles=["a"], claims={("a", "b"): {"exists": True}})
    assert [check.name for check in policy.checks] == ["issuers", "scopes", "roles", "claim a.b"]
    assert Policy().checks == ()
