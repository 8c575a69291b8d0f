"""The operators of claim rules: every other value and every other type is a mismatch."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.claim_conditions import condition

ODD: list[Any] = [None, "", "x", 0, 1, 1.5, True, False, [], {}, [[]], [{}], [None], ["x", []], {"x": 1}, [["x"]]]
"""A value of every type."""


def answers(operators: dict[str, Any], claim: Any) -> bool | None:
    return condition(operators)(claim)


def same(one: Any, other: Any) -> bool:
    """Equality of JSON values: 1 equals 1.0, and not true."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


@pytest.mark.parametrize(
    ("operators", "matching"),
    [
        ({"equals": "acme"}, ["acme"]),
        ({"equals": ""}, [""]),
        ({"equals": 1}, [1, 1.0]),
        ({"equals": 1.5}, [1.5]),
        ({"equals": True}, [True]),
        ({"equals": False}, [False]),
        ({"in": ["eu", "us"]}, ["eu", "us"]),
        ({"in": [1, "1", True]}, [1, 1.0, "1", True]),
        ({"prefix": "mobile-"}, ["mobile-", "mobile-7"]),
        ({"contains": "read"}, [["read"], ["write", "read"], ["read", 5, None, []], "read"]),
        ({"contains": 5}, [[5], [5.0], ["x", 5], 5]),
        ({"contains": True}, [[True], True]),
        ({"any": ["admin", "owner"]}, [["admin"], ["x", "owner"], ["owner", {}], "admin"]),
        ({"all": ["staff", "call"]}, [["staff", "call"], ["call", "x", "staff"], ["staff", "call", 5]]),
        ({"all": ["staff"]}, [["staff"], "staff"]),
        ({"exists": True}, [value for value in ODD if value is not None]),
        ({"exists": False}, [None]),
        ({"not": {"equals": "evil"}}, ["", "x", "acme", "evil2"]),
        ({"not": {"in": [1, 2]}}, [0, 3, 1.5]),
        ({"not": {"prefix": "bot-"}}, ["", "x", "robot-"]),
        ({"not": {"any": ["banned"]}}, [[], ["x"], ["x", "y"], "x", ""]),
        ({"not": {"all": ["a", "b"]}}, [[], ["a"], ["b", "x"], "a", "x", ""]),
        ({"not": {"contains": "banned"}}, [[], ["x"], "x", ""]),
        ({"not": {"exists": True}}, [None]),
        ({"not": {"exists": False}}, [value for value in ODD if value is not None]),
        ({"not": {"not": {"equals": "x"}}}, ["x"]),
        ({"prefix": "a", "not": {"equals": "ab"}}, ["a", "ac"]),
        ({"any": ["a", "b"], "all": ["c"], "not": {"contains": "d"}}, [["a", "c"], ["c", "b", "x"]]),
        ({"not": {"prefix": "a", "in": ["ab", "x"]}}, ["a", "x", "b", ""]),
    ],
    ids=str,
)
def test_an_operator_matches_only_its_values(operators: dict[str, Any], matching: list[Any]) -> None:
    for claim in matching:
        assert answers(operators, claim) is True
    for claim in ODD:
        if not any(same(claim, good) for good in matching):
            assert answers(operators, claim) is not True, claim


@pytest.mark.parametrize(
    ("operators", "claims"),
    [
        ({"equals": "acme"}, ["Acme", "acme ", "acm", ["acme"], {"acme": 1}]),
        ({"equals": 1}, [True, "1", [1]]),
        ({"equals": True}, [1, "true", "True"]),
        ({"in": ["eu"]}, ["e", "EU", ["eu"]]),
        ({"prefix": "mobile-"}, ["mobile", "Mobile-7", " mobile-7", ["mobile-7"], 5]),
        ({"contains": "read"}, ["readonly", "can read", "read write", ["Read"], [["read"]], {"read": 1}]),
        ({"any": ["admin"]}, ["administrator", "admin owner", ["adm"], {"admin": True}, [{"admin": 1}]]),
        ({"all": ["a", "b"]}, [["a"], ["b"], [], "a", "a b", ["a b"], [["a", "b"]]]),
    ],
    ids=str,
)
def test_a_value_of_another_type_is_a_mismatch(operators: dict[str, Any], claims: list[Any]) -> None:
    for claim in claims:
        assert answers(operators, claim) is not True, claim


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param(None, id="missing"),
        pytest.param(5, id="number"),
        pytest.param(True, id="true"),
        pytest.param({"evil": 1}, id="object"),
        pytest.param([["evil"]], id="nested list"),
        pytest.param(["x", ["evil"]], id="list with a list"),
        pytest.param(["x", 5], id="list with a number"),
        pytest.param(["x", None], id="list with null"),
    ],
)
@pytest.mark.parametrize("operator", ["equals", "in", "prefix", "contains", "any", "all"])
def test_a_negation_does_not_match_a_claim_of_another_type(operator: str, claim: Any) -> None:
    operand = ["evil"] if operator in ("in", "any", "all") else "evil"
    assert answers({operator: operand}, claim) is not True
    assert answers({"not": {operator: operand}}, claim) is not True
    assert answers({"not": {"not": {operator: operand}}}, claim) is not True


def test_a_negation_of_several_operators_matches_if_one_of_them_fails() -> None:
    both = {"not": {"any": ["a"], "contains": "b"}}
    assert answers(both, ["a"]) is True
    assert answers(both, ["b"]) is True
    assert answers(both, ["a", "b"]) is False
    assert answers(both, ["c", 5]) is None
    assert answers({"not": {"prefix": "a", "in": [5]}}, "x") is True, "the value does not begin with the prefix"
    assert answers({"not": {"in": [5], "prefix": "a"}}, "x") is True


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
)
SCALARS = st.text(max_size=3) | st.integers(-2, 2) | st.booleans() | st.sampled_from([0.0, 1.0, 1.5])
LISTS = st.lists(SCALARS, min_size=1, max_size=3)
OPERATORS = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "equals": SCALARS, "in": LISTS, "prefix": st.text(min_size=1, max_size=2), "contains": SCALARS, "any": LISTS,
            "all": LISTS, "exists": st.booleans(),
        },
    ).filter(bool),
    lambda inner: st.fixed_dictionaries({"not": inner}),
)  # fmt: skip


@given(OPERATORS, JSON)
def test_a_condition_and_its_negation_never_have_the_same_answer(operators: dict[str, Any], claim: Any) -> None:
    answer = answers(operators, claim)
    assert answer in (True, False, None)
    assert answers({"not": operators}, claim) is (None if answer is None else not answer)


def test_numbers_of_any_length_are_compared() -> None:
    assert answers({"in": [10**30]}, 10**30) is True
    assert answers({"in": [1]}, 10**4000) is False
