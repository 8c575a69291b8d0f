"""The rules of a route for verified claims."""

from typing import Any

import pytest

from sidecar.common.errors import Reason, Rejection
from sidecar.jwt.claims import Claims
from sidecar.policy.access_policy import Policy
from sidecar.policy.granted import granted_scopes


def alice(**claims: Any) -> Claims:
    return Claims("zuplo", {"sub": "alice", **claims})


def refusal(policy: Policy, claims: Claims) -> Rejection:
    with pytest.raises(Rejection) as caught:
        policy.authorize(claims)
    return caught.value


def test_a_policy_without_requirements_accepts_every_verified_token() -> None:
    Policy().authorize(alice())


def test_a_route_accepts_only_its_own_issuers() -> None:
    Policy(["other", "zuplo"]).authorize(alice())
    rejection = refusal(Policy(["other"]), alice())
    assert rejection.reason is Reason.ISSUER_UNKNOWN
    assert rejection.details == "The token's issuer is not trusted for this path."


def test_an_empty_list_of_issuers_accepts_no_token() -> None:
    assert refusal(Policy([]), alice()).reason is Reason.ISSUER_UNKNOWN


def test_the_issuer_is_checked_before_the_scopes() -> None:
    assert refusal(Policy(["other"], ["admin"]), alice()).reason is Reason.ISSUER_UNKNOWN


def test_a_missing_scope_is_named_to_the_client() -> None:
    rejection = refusal(Policy(scopes=["read", "admin"]), alice(scope="read"))
    assert (rejection.reason, rejection.scope) == (Reason.SCOPE_INSUFFICIENT, "read admin")
    assert rejection.reason.status == 403


def test_a_route_with_issuers_and_scopes_requires_both() -> None:
    assert refusal(Policy(["zuplo"], ["admin"]), alice(scope="read")).reason is Reason.SCOPE_INSUFFICIENT


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"scope": "read admin"}, id="a string of words"),
        pytest.param({"scope": "admin  other read"}, id="a string with two spaces"),
        pytest.param({"scope": ["read", "admin"]}, id="a list"),
        pytest.param({"scope": ["read", "admin", 5, None, {}]}, id="a list with items that are no strings"),
        pytest.param({"scp": "read admin"}, id="scp as a string"),
        pytest.param({"scp": ["read", "admin"]}, id="scp as a list"),
        pytest.param({"scopes": ["read", "admin"]}, id="scopes"),
    ],
)
def test_a_token_with_all_required_scopes_is_accepted(claims: dict[str, Any]) -> None:
    Policy(scopes=["read", "admin"]).authorize(alice(**claims))


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({}, id="no claim"),
        pytest.param({"scope": ""}, id="empty"),
        pytest.param({"scope": None}, id="null"),
        pytest.param({"scope": 5}, id="number"),
        pytest.param({"scope": True}, id="true"),
        pytest.param({"scope": {"admin": True}}, id="object"),
        pytest.param({"scope": []}, id="empty list"),
        pytest.param({"scope": [["admin"]]}, id="nested list"),
        pytest.param({"scope": ["admin read"]}, id="two words in one item"),
        pytest.param({"scope": "administrator"}, id="longer word"),
        pytest.param({"scope": "adm"}, id="substring"),
        pytest.param({"scope": "ADMIN"}, id="case"),
        pytest.param({"scope": "read,admin"}, id="commas"),
        pytest.param({"scope": "read\tadmin"}, id="tab"),
        pytest.param({"scope": "read\u00a0admin"}, id="NBSP"),
        pytest.param({"scope": "read", "scp": "admin"}, id="only the first claim counts"),
        pytest.param(
            {"scope": "", "scp": "read", "scopes": "admin"}, id="only the first claim that is not empty counts"
        ),
        pytest.param({"roles": ["admin"], "permissions": ["admin"]}, id="other claims"),
    ],
)
def test_any_other_value_lacks_the_required_scope(claims: dict[str, Any]) -> None:
    assert refusal(Policy(scopes=["admin"]), alice(**claims)).reason is Reason.SCOPE_INSUFFICIENT


def test_granted_scopes_are_the_words_of_the_claim() -> None:
    assert granted_scopes({"scope": "read admin"}) == {"read", "admin"}
    assert granted_scopes({}) == frozenset()


@pytest.mark.parametrize("empty", ["", [], None])
def test_an_empty_scope_claim_leaves_the_scopes_to_the_next_claim(empty: object) -> None:
    assert granted_scopes({"scope": empty, "scp": ["read", "admin"]}) == {"read", "admin"}
