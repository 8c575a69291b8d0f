"""The rules that an issuer's configuration adds to RFC 7519: audiences, lifetimes, claims, subjects, bound tokens."""

from typing import Any

import pytest

from sidecar.common.errors import Reason, Rejection
from sidecar.jwt.claim_rules import ClaimRules
from sidecar.jwt.claims import LATEST_DATE, Claims, find, named
from sidecar.jwt.compact_jws import Jws
from sidecar.jwt.examination import Check, Examination
from sidecar.jwt.subjects import Subjects
from tests.peers.tokens import ABSENT, claims

NOW = 1_800_000_000


def check(rules: ClaimRules, /, **over: Any) -> None:
    """Check good claims at the time NOW, with `over` changed."""
    rules.check(claims(now=NOW, **over), NOW)


def refusal(rules: ClaimRules, /, **over: Any) -> tuple[Reason, str]:
    with pytest.raises(Rejection) as caught:
        check(rules, **over)
    return caught.value.reason, caught.value.details


def test_only_configured_checks_are_made() -> None:
    assert [check.name for check in ClaimRules(None, reject_bound=False).checks] == ["exp", "nbf", "iat", "names"]
    everything = ClaimRules(
        ["a"], max_lifetime_s=1, required=[("sub",)], rejected=[("nonce",)], subjects=Subjects(["a"])
    )
    assert [check.name for check in everything.checks] == [
        "exp", "nbf", "iat", "lifetime", "aud", "names", "required", "rejected", "sub", "cnf",
    ]  # fmt: skip


def test_checks_are_reported_up_to_the_refusing_one() -> None:
    begun: list[Check] = []
    with pytest.raises(Rejection):
        ClaimRules(["other"]).check(claims(now=NOW), NOW, begun)
    assert [check.name for check in begun] == ["exp", "nbf", "iat", "aud"]


NESTED = ClaimRules(
    ["a", "b"], audience_claims=("aud", "azp"), max_lifetime_s=3600, required=[("realm", "id"), ("tenant",)],
    rejected=[("realm", "test"), ("nonce",)], subjects=Subjects(["alice"], ["svc:"]), lenient=["sub", "jti"],
)  # fmt: skip
TWENTY = [f"a{number:02}" for number in range(20)]


@pytest.mark.parametrize(
    ("name", "payload", "expected", "found"),
    [
        ("exp", {"exp": NOW - 120}, "a time in the future, with 60 s of skew", "2 min ago"),
        ("exp", {"exp": NOW}, "a time in the future, with 60 s of skew", "0 s ago"),
        ("exp", {"exp": "soon"}, "a time in the future, with 60 s of skew", "soon"),
        ("exp", {"exp": True}, "a time in the future, with 60 s of skew", "true"),
        ("exp", {"exp": LATEST_DATE}, "a time in the future, with 60 s of skew", "in 2912064 d"),
        ("exp", {"exp": LATEST_DATE + 1}, "a time in the future, with 60 s of skew", "253402300800"),
        ("exp", {"exp": -LATEST_DATE}, "a time in the future, with 60 s of skew", "2953730 d ago"),
        ("exp", {"exp": -LATEST_DATE - 1}, "a time in the future, with 60 s of skew", "-253402300800"),
        ("lifetime", {"exp": NOW + 7200, "iat": NOW - 30}, "at most 60 min", "exp in 2 h, iat 30 s ago"),
        ("aud", {"aud": "c"}, "one of: a, b", "c in aud"),
        ("aud", {"aud": [], "azp": ["c", "d"]}, "one of: a, b", "c, d in azp"),
        ("aud", {}, "one of: a, b", "no aud or azp"),
        ("aud", {"azp": TWENTY}, "one of: a, b", f"{', '.join(TWENTY)} in azp"),
        ("aud", {"azp": [*TWENTY, "b"]}, "one of: a, b", f"{', '.join(TWENTY)}, and 1 more in azp"),
        (
            "names", {"sub": 5, "jti": ["x"]},
            "a string in sub and jti, or a whole number in sub, or a whole number in jti", 'sub 5, jti ["x"]',
        ),
        ("required", {"realm": {}}, "realm.id, tenant", "no realm.id, tenant"),
        ("required", {"realm.id": 1}, "realm.id, tenant", "no tenant"),
        ("required", {"realm": {"id": 1}, "tenant": 2}, "realm.id, tenant", "all of them"),
        ("rejected", {"realm": {"test": 1}}, "none of: realm.test, nonce", "realm.test"),
        ("rejected", {}, "none of: realm.test, nonce", "none"),
        ("sub", {"sub": "bob"}, "one of: alice, svc:*", "bob"),
        ("sub", {"sub": "a" * 100}, "one of: alice, svc:*", "a" * 100),
        ("sub", {"sub": "a" * 101}, "one of: alice, svc:*", f"{'a' * 100}... (101 characters)"),
        ("cnf", {"cnf": {"jkt": "x"}}, "no key that the token is bound to", '{"jkt": "x"}'),
    ],
)  # fmt: skip
def test_each_check_reports_what_it_expects_and_found(
    name: str, payload: dict[str, Any], expected: str, found: str
) -> None:
    seen = Examination()
    seen.jws = Jws({}, payload, b"", b"", b"", b"", padded=False)
    check = next(check for check in NESTED.checks if check.name == name)
    assert (check.expected(seen), check.found(seen, NOW)) == (expected, found)


# audiences

ALL = ClaimRules(["a", "b"], all_audiences=True)


@pytest.mark.parametrize("aud", [["a", "b"], ["b", "c", "a"]])
def test_a_token_with_all_audiences_meets_audience_match_all(aud: object) -> None:
    check(ALL, aud=aud)


@pytest.mark.parametrize("aud", ["a", ["a"], ["b", "c"], "a b", ["a b"]])
def test_audience_match_all_refuses_a_token_without_all_audiences(aud: object) -> None:
    assert refusal(ALL, aud=aud) == (Reason.AUDIENCE_MISMATCH, "The token is meant for another audience.")


def test_one_audience_of_several_is_enough_by_default() -> None:
    check(ClaimRules(["a", "b"]), aud="b")


CLIENT = ClaimRules(["my-api"], audience_claims=["aud", "client_id", "azp"])


@pytest.mark.parametrize(
    "over",
    [
        pytest.param({"aud": "my-api", "azp": "other"}, id="the first claim matches"),
        pytest.param({"aud": ABSENT, "client_id": "my-api"}, id="the first is absent, the second matches"),
        pytest.param({"aud": None, "azp": "my-api"}, id="null counts as absent"),
        pytest.param({"aud": [], "azp": "my-api"}, id="an empty list counts as absent (Ory Hydra sends it)"),
        pytest.param({"aud": "", "client_id": [], "azp": "my-api"}, id="an empty string counts as absent"),
        pytest.param({"aud": ABSENT, "azp": ["other", "my-api"]}, id="a list"),
    ],
)
def test_the_audience_is_read_from_the_first_claim_with_a_value(over: dict[str, Any]) -> None:
    check(CLIENT, **over)


@pytest.mark.parametrize(
    ("over", "details"),
    [
        pytest.param(
            {"aud": "other", "azp": "my-api"}, Reason.AUDIENCE_MISMATCH.details, id="only a later claim matches"
        ),
        pytest.param(
            {"aud": [], "azp": "other"},
            Reason.AUDIENCE_MISMATCH.details,
            id="the first is empty, a later one does not match",
        ),
        pytest.param({"aud": [], "azp": []}, "The token has no aud or client_id or azp claim.", id="all empty"),
        pytest.param({"aud": ABSENT}, "The token has no aud or client_id or azp claim.", id="none"),
        pytest.param(
            {"aud": ABSENT, "azp": 5}, "The token's azp claim is neither a string nor a list of strings.", id="type"
        ),
    ],
)
def test_a_later_claim_is_not_read_as_the_audience(over: dict[str, Any], details: str) -> None:
    assert refusal(CLIENT, **over) == (Reason.AUDIENCE_MISMATCH, details)


def test_by_default_only_aud_is_read_as_the_audience() -> None:
    assert refusal(ClaimRules(["my-api"]), aud=ABSENT, azp="my-api", client_id="my-api")[0] is Reason.AUDIENCE_MISMATCH


# lifetime

HOUR = ClaimRules(None, max_lifetime_s=3600)
TOO_LONG = (Reason.CLAIM_INVALID, "The token's lifetime is longer than accepted.")


@pytest.mark.parametrize(
    "over",
    [
        pytest.param({"iat": NOW, "exp": NOW + 3600}, id="exactly the maximum"),
        pytest.param({"iat": NOW - 3000, "exp": NOW + 600}, id="exactly the maximum, most of it past"),
        pytest.param({"iat": ABSENT, "exp": NOW + 3660}, id="without iat: counted from now, plus the clock skew"),
    ],
)
def test_a_token_of_at_most_this_lifetime_is_accepted(over: dict[str, Any]) -> None:
    check(HOUR, **over)


@pytest.mark.parametrize(
    "over",
    [
        pytest.param({"iat": NOW, "exp": NOW + 3601}, id="one second longer"),
        pytest.param({"iat": NOW - 9000, "exp": NOW + 600}, id="too long, though most of it is past"),
        pytest.param({"iat": 0, "exp": NOW + 60}, id="issued in 1970"),
        pytest.param(
            {"iat": ABSENT, "exp": NOW + 3661}, id="without iat: one second more than from now plus the clock skew"
        ),
        pytest.param({"iat": ABSENT, "exp": NOW + 10**9}, id="without iat: decades"),
    ],
)
def test_a_token_with_a_longer_lifetime_is_refused(over: dict[str, Any]) -> None:
    assert refusal(HOUR, **over) == TOO_LONG


def test_a_token_without_exp_exceeds_every_maximum_lifetime() -> None:
    rules = ClaimRules(None, max_lifetime_s=3600, require_exp=False)
    assert refusal(rules, exp=ABSENT) == (Reason.CLAIM_MISSING, "The token has no exp claim.")


def test_any_lifetime_is_accepted_without_a_maximum() -> None:
    check(ClaimRules(None), exp=NOW + 10**9)


# required and rejected claims

NEEDS = ClaimRules(None, required=[("sub",), ("realm_access", "roles"), ("kubernetes.io", "namespace")])
HAS = {"realm_access": {"roles": []}, "kubernetes.io": {"namespace": False}}


def test_a_required_claim_may_have_any_value() -> None:
    check(NEEDS, sub="", **HAS)
    check(NEEDS, sub="a", **{**HAS, "realm_access": ABSENT, "realm_access.roles": "a"})


@pytest.mark.parametrize(
    ("over", "details"),
    [
        pytest.param({**HAS, "sub": ABSENT}, "The token has no sub claim.", id="missing"),
        pytest.param({**HAS, "sub": None}, "The token has no sub claim.", id="null"),
        pytest.param({**HAS, "realm_access": {}}, "The token has no realm_access.roles claim.", id="missing inside"),
        pytest.param({**HAS, "realm_access": ["roles"]}, "The token has no realm_access.roles claim.", id="other type"),
        pytest.param(
            {**HAS, "kubernetes.io": 5}, "The token has no kubernetes.io.namespace claim.", id="name with a dot"
        ),
    ],
)
def test_a_token_without_a_required_claim_is_refused(over: dict[str, Any], details: str) -> None:
    assert refusal(NEEDS, **over) == (Reason.CLAIM_MISSING, details)


ACCESS_ONLY = ClaimRules(None, rejected=[("nonce",), ("at_hash",), ("act", "sub")])


def test_a_token_without_the_rejected_claims_is_accepted() -> None:
    check(ACCESS_ONLY, nonce=None, act={"iss": "x"})


@pytest.mark.parametrize(
    ("over", "details"),
    [
        ({"nonce": "x"}, "The token's nonce claim is not accepted here."),
        ({"nonce": ""}, "The token's nonce claim is not accepted here."),
        ({"nonce": False}, "The token's nonce claim is not accepted here."),
        ({"at_hash": {}}, "The token's at_hash claim is not accepted here."),
        ({"act": {"sub": "x"}}, "The token's act.sub claim is not accepted here."),
    ],
)
def test_a_token_with_a_rejected_claim_is_refused(over: dict[str, Any], details: str) -> None:
    assert refusal(ACCESS_ONLY, **over) == (Reason.CLAIM_INVALID, details)


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "\u00e4", ""])
def test_a_claim_with_an_unquotable_name_is_not_named_in_a_refusal(name: str) -> None:
    assert refusal(ClaimRules(None, required=[(name,)])) == (Reason.CLAIM_MISSING, "The token has no claim.")
    assert named((name,)) == "claim"


# subjects

SUBJECTS = Subjects(["alice", "b*"], ["service:", "auth0|"], ["*@clients", "a*c*e", "x**y", "z*"])


@pytest.mark.parametrize(
    "sub",
    [
        "alice", "b*", "service:", "service:x", "auth0|5f7", "@clients", "me@clients", "a@clients@clients", "ace", "abcde",
        "a c e", "accee", "acce", "xy", "x.y", "z", "zz",
    ],
)  # fmt: skip
def test_a_configured_subject_is_accepted(sub: str) -> None:
    assert sub in SUBJECTS
    check(ClaimRules(None, subjects=SUBJECTS), sub=sub)


@pytest.mark.parametrize(
    "sub",
    [
        "", "Alice", "alice2", "malice", "b", "bb", "service", "Service:x", "my service:x", "auth0", "me@clients2", "@client",
        "ae", "aec", "acd", "ac", "bace", "x", "y", "xyz", "a*c*f",
    ],
)  # fmt: skip
def test_any_other_subject_is_refused(sub: str) -> None:
    assert sub not in SUBJECTS
    expected = (Reason.CLAIM_MISMATCH, "The token's subject is not accepted here.")
    assert refusal(ClaimRules(None, subjects=SUBJECTS), sub=sub) == expected


def test_parts_of_a_pattern_do_not_overlap() -> None:
    assert "aba" not in Subjects(glob=["ab*ba"])
    assert "abba" in Subjects(glob=["ab*ba"])
    assert "aa" not in Subjects(glob=["*aa*a*"])


def test_a_star_matches_the_empty_text() -> None:
    assert "ab" in Subjects(glob=["*a*"])
    assert "ab" in Subjects(glob=["*a*b*"])


def test_a_pattern_with_many_stars_is_matched_in_short_time() -> None:
    assert "a" * 4000 not in Subjects(glob=["*a" * 50 + "*b"])


def test_a_pattern_without_a_star_is_an_error() -> None:
    with pytest.raises(AssertionError):
        Subjects(glob=["alice"])


def test_subjects_are_shown_as_configured() -> None:
    assert str(SUBJECTS) == "alice, b*, service:*, auth0|*, *@clients, a*c*e, x**y, z*"


@pytest.mark.parametrize(
    ("sub", "reason", "details"),
    [
        (ABSENT, Reason.CLAIM_MISSING, "The token has no sub claim."),
        (None, Reason.CLAIM_MISSING, "The token has no sub claim."),
        (5, Reason.CLAIM_INVALID, "The token's sub claim is not a string."),
        (["alice"], Reason.CLAIM_INVALID, "The token's sub claim is not a string."),
        ({"alice": 1}, Reason.CLAIM_INVALID, "The token's sub claim is not a string."),
        (True, Reason.CLAIM_INVALID, "The token's sub claim is not a string."),
    ],
)
def test_a_token_needs_a_sub_if_subjects_are_configured(sub: object, reason: Reason, details: str) -> None:
    assert refusal(ClaimRules(None, subjects=SUBJECTS), sub=sub) == (reason, details)


def test_every_sub_is_accepted_without_configured_subjects() -> None:
    for sub in (ABSENT, None, "anyone"):
        check(ClaimRules(None), sub=sub)


# sender-constrained tokens

BOUND = (Reason.CLAIM_INVALID, "The token is bound to a key of its client and cannot be used as a plain bearer token.")
THUMBPRINT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


@pytest.mark.parametrize("cnf", [{"jkt": THUMBPRINT}, {"x5t#S256": THUMBPRINT}, {"jkt": None}, {"jkt": 5, "kid": "a"}])
def test_a_token_bound_to_a_key_is_refused(cnf: object) -> None:
    assert refusal(ClaimRules(None), cnf=cnf) == BOUND


@pytest.mark.parametrize("cnf", ["", "x", [], ["jkt"], 5, True])
def test_a_cnf_that_is_not_an_object_is_refused(cnf: object) -> None:
    assert refusal(ClaimRules(None), cnf=cnf) == (Reason.CLAIM_INVALID, "The token's cnf claim is not an object.")


@pytest.mark.parametrize("cnf", [ABSENT, None, {}, {"kid": "a"}])
def test_a_token_with_an_unknown_or_empty_cnf_is_accepted(cnf: object) -> None:
    check(ClaimRules(None), cnf=cnf)


def test_bound_tokens_are_accepted_with_reject_bound_tokens_false() -> None:
    check(ClaimRules(None, reject_bound=False), cnf={"jkt": THUMBPRINT})


# finding a claim


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("sub",), "alice"),
        (("a", "b"), "nested"),
        (("with.dot", "c"), 1),
        (("x", "y"), "whole name"),
        (("none",), None),
        (("a", "none"), None),
        (("sub", "a"), None),
        (("list", "0"), None),
        (("a", "b", "c"), None),
    ],
)
def test_a_claim_is_found_by_its_path(path: tuple[str, ...], value: object) -> None:
    nested = {"a": {"b": "nested"}, "with.dot": {"c": 1}, "x": {"y": "inner"}, "x.y": "whole name"}
    held = {"sub": "alice", "list": [1], **nested}
    assert find(Claims("zuplo", held).claims, path) == value


# sub and jti


@pytest.mark.parametrize("claim", ["sub", "jti"])
@pytest.mark.parametrize("value", [5, 1.5, True, False, ["alice"], [], {}, {"a": "b"}])
def test_a_sub_or_jti_that_is_not_a_string_is_refused(claim: str, value: object) -> None:
    with pytest.raises(Rejection) as refused:
        ClaimRules(None, require_exp=False).check({claim: value}, 0.0)
    assert refused.value.reason is Reason.CLAIM_INVALID
    assert claim in refused.value.details


@pytest.mark.parametrize("claims", [{}, {"sub": None, "jti": None}, {"sub": "alice", "jti": ""}])
def test_a_sub_or_jti_may_be_a_string_or_missing(claims: dict[str, object]) -> None:
    ClaimRules(None, require_exp=False).check(claims, 0.0)


# lenient claims


@pytest.mark.parametrize("name", ["sub", "jti"])
def test_a_whole_number_is_a_valid_sub_or_jti_with_lenient_claims(name: str) -> None:
    rules = ClaimRules(None, lenient=[name])
    for value, text in ((12, "12"), (-1, "-1"), (2**70, str(2**70)), ("alice", "alice"), ("", "")):
        said = claims(now=NOW, **{name: value})
        rules.check(said, NOW)
        assert said[name] == text
    for wrong in (True, 1.0, 1e3, [12], {"a": 12}):
        assert refusal(rules, **{name: wrong}) == (Reason.CLAIM_INVALID, f"The token's {name} claim is not a string.")
    other = {"sub": "jti", "jti": "sub"}[name]
    assert refusal(rules, **{other: 12}) == (Reason.CLAIM_INVALID, f"The token's {other} claim is not a string.")


def test_a_numeric_subject_is_matched_as_text() -> None:
    rules = ClaimRules(None, lenient=["sub"], subjects=Subjects(["12"], ["7"]))
    for subject in (12, 71, "12"):
        check(rules, sub=subject)
    assert refusal(rules, sub=13)[0] is Reason.CLAIM_MISMATCH
