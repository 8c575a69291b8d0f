"""The rules for claims in the configuration, and each invalid one."""

from typing import Any

import pytest

from sidecar.config import Config, Issuer, Route, parse
from tests.config.test_config_problems import CLAIM, DURATION, EMPTY, UPSTREAM, case, problems

ISSUER = "issuers:\n a:\n  issuer: https://a/\n  audiences: [x]\n  "
ROUTE = "issuers: {a: {issuer: https://a/, audiences: any}}\n" + UPSTREAM + "routes:\n- path: /a\n  require:\n    "


def issuer(text: str) -> Issuer:
    return parse(f"{ISSUER}{text}\n{UPSTREAM}", environ={}).issuers["a"]


def required(text: str) -> Any:
    (route,) = parse(ROUTE + text, environ={}).routes
    assert route.require is not None
    return route.require


# Accepted settings


def test_an_issuer_has_its_default_rules() -> None:
    a = issuer("")
    assert (a.audience_match, a.audience_claims, a.max_token_lifetime_s) == ("any", ("aud",), None)
    assert (a.required_claims, a.reject_claims, a.subjects) == ((), (), None)
    assert (a.accepted_typ, a.reject_bound_tokens) == (("JWT", "at+jwt", "absent"), True)
    assert (a.lenient_claims, a.allow_padding) == ((), False)


def test_an_issuer_has_the_values_of_the_file() -> None:
    a = issuer(
        "audience_match: all\n  audience_claims: [aud, azp]\n  max_token_lifetime: 1h\n"
        "  required_claims: [sub, realm_access.roles, [kubernetes.io, pod]]\n  reject_claims: [nonce]\n"
        "  subjects: {exact: [a], prefix: ['b:'], glob: ['*@c']}\n  accepted_typ: [at+jwt]\n  reject_bound_tokens: false"
        "\n  lenient_claims: [sub, jti]\n  allow_padding: true"
    )
    assert (a.audience_match, a.audience_claims, a.max_token_lifetime_s) == ("all", ("aud", "azp"), 3600.0)
    assert a.required_claims == (("sub",), ("realm_access", "roles"), ("kubernetes.io", "pod"))
    assert a.reject_claims == (("nonce",),)
    assert a.subjects is not None
    assert (a.subjects.exact, a.subjects.prefix, a.subjects.glob) == (("a",), ("b:",), ("*@c",))
    assert (a.accepted_typ, a.reject_bound_tokens) == (("at+jwt",), False)
    assert (a.lenient_claims, a.allow_padding) == (("sub", "jti"), True)


@pytest.mark.parametrize("kind", ["scopes", "roles"])
def test_a_list_of_scopes_or_roles_requires_all_of_them(kind: str) -> None:
    demand = getattr(required(f"{kind}: [a, b]"), kind)
    assert (demand.all, demand.any) == (("a", "b"), ())
    demand = getattr(required(f"{kind}: {{any: [a, b], all: [c]}}"), kind)
    assert (demand.all, demand.any) == (("c",), ("a", "b"))
    demand = getattr(required("claims: {a: {exists: true}}"), kind)
    assert (demand.all, demand.any) == ((), ())


def test_conditions_on_claims_are_read_by_path_and_operator() -> None:
    require = required(
        "claims: {tenant: {equals: acme}, realm_access.roles: {any: [admin], not: {contains: 5}}, "
        "a\\.b: {in: [1, 1.5, true, x], prefix: y, exists: true}}"
    )
    assert {path: condition.operators() for path, condition in require.claims.items()} == {
        ("tenant",): {"equals": "acme"},
        ("realm_access", "roles"): {"any": ("admin",), "not": {"contains": 5}},
        ("a.b",): {"in": (1, 1.5, True, "x"), "prefix": "y", "exists": True},
    }
    assert required("claims: {a: {exists: false}}").claims[("a",)].operators() == {"exists": False}


def test_a_route_holds_its_line_in_the_file() -> None:
    config: Config = parse(f"{ISSUER}\n{UPSTREAM}routes:\n- path: /a\n\n- {{path: /b}}\n", environ={})
    assert [route.line for route in config.routes] == [8, 10]
    assert Route(path="/a").line == 0


# Refused settings

IS_EMPTY = "is empty, which could mean all or none; add at least one of:"
OPERATORS = "all, any, contains, equals, exists, in, not, prefix"
NO_NAME = "is not a claim; use printable ASCII without spaces, quotes and backslashes"
NO_SCALAR = "must be text, a number, true or false, not"
NO_AUDIENCE = "contradicts audiences: any, which checks no audience; remove one of the two"
DEMAND = "must be a list such as [admin], or a mapping with any and all, not"
SCOPE = "is not a scope; write one word of printable ASCII for each item, without quotes and backslashes"

# fmt: off
IN_AN_ISSUER = [
    case("audience_match", "audience_match: one", "5:19: issuers.a.audience_match: 'one' is not one of: any, all"),
    case("no audience claim", "audience_claims: []", f"5:3: issuers.a.audience_claims: {EMPTY}"),
    case("audience claim as text", "audience_claims: aud", "5:20: issuers.a.audience_claims: must be a list, not 'aud'"),
    case("blank in a claim", "audience_claims: [a b]", f"5:21: issuers.a.audience_claims.0: 'a b' {NO_NAME}"),
    case("quote in a claim", "audience_claims: ['a\"b']", f"5:21: issuers.a.audience_claims.0: 'a\"b' {NO_NAME}"),
    case("no lifetime", "max_token_lifetime: 0s", "5:23: issuers.a.max_token_lifetime: must be more than zero"),
    case("lifetime without unit", "max_token_lifetime: 3600", f"5:23: issuers.a.max_token_lifetime: 3600 {DURATION}"),
    case("lifetime without exp", "require_exp: false\n  max_token_lifetime: 1h",
         "6:23: issuers.a.max_token_lifetime: contradicts require_exp: false: a token without exp has no lifetime; "
         "remove one of the two"),
    case("required claim as text", "required_claims: sub", "5:20: issuers.a.required_claims: must be a list, not 'sub'"),
    case("no path", "required_claims: [a..b]", f"5:21: issuers.a.required_claims.0: 'a..b' {CLAIM}"),
    case("empty path", "required_claims: [[]]", f"5:21: issuers.a.required_claims.0: {EMPTY}"),
    case("mapping of claims", "reject_claims: {nonce: true}", "5:3: issuers.a.reject_claims: must be a list, not a mapping"),
    case("no subjects", "subjects: {}", f"5:3: issuers.a.subjects: {IS_EMPTY} exact, glob, prefix"),
    case("list of subjects", "subjects: [a]", "5:3: issuers.a.subjects: must be a mapping of keys, not a list"),
    case("empty list of subjects", "subjects: {exact: []}", f"5:14: issuers.a.subjects.exact: {EMPTY}"),
    case("every prefix", "subjects: {prefix: ['']}", "5:23: issuers.a.subjects.prefix.0: is empty"),
    case("glob without *", "subjects: {glob: [alice]}",
         "5:21: issuers.a.subjects.glob.0: 'alice' has no *; put it under exact"),
    case("every subject", "subjects: {glob: ['**']}",
         "5:21: issuers.a.subjects.glob.0: '**' matches every subject; leave subjects out"),
    case("regex", "subjects: {regex: [a]}", "5:14: issuers.a.subjects.regex: unknown key; one of: exact, glob, prefix"),
    case("no typ", "accepted_typ: []", f"5:3: issuers.a.accepted_typ: {EMPTY}"),
    case("typ as text", "accepted_typ: any", "5:17: issuers.a.accepted_typ: must be a list, not 'any'"),
    case("no for false", "reject_bound_tokens: no", "5:24: issuers.a.reject_bound_tokens: must be true or false, not 'no'"),
]

REQUIRE = [
    case("nothing", "{}", f"5:3: routes.0.require: {IS_EMPTY} claims, roles, scopes"),
    case("misspelt", "claim: {a: {equals: 1}}", "6:5: routes.0.require.claim: unknown key; did you mean claims?"),
    case("no scopes", "scopes: {}", f"6:5: routes.0.require.scopes: {IS_EMPTY} all, any"),
    case("scopes as text", "scopes: a", f"6:13: routes.0.require.scopes: {DEMAND} 'a'"),
    case("empty list of scopes", "scopes: []", f"6:5: routes.0.require.scopes: {EMPTY}"),
    case("any of none", "scopes: {any: []}", f"6:14: routes.0.require.scopes.any: {EMPTY}"),
    case("two scopes in one", "scopes: {any: [a b]}", f"6:20: routes.0.require.scopes.any.0: 'a b' {SCOPE}"),
    case("one", "scopes: {one: [a]}", "6:14: routes.0.require.scopes.one: unknown key; one of: all, any"),
    case("all as text", "scopes: {any: [a], all: a}", "6:29: routes.0.require.scopes.all: must be a list, not 'a'"),
    case("no roles", "roles: {}", f"6:5: routes.0.require.roles: {IS_EMPTY} all, any"),
    case("empty list of roles", "roles: []", f"6:5: routes.0.require.roles: {EMPTY}"),
    case("empty role", "roles: ['']", "6:13: routes.0.require.roles.0: is empty"),
    case("role as text", "roles: admin", f"6:12: routes.0.require.roles: {DEMAND} 'admin'"),
    case("number as role", "roles: {any: [5]}", "6:19: routes.0.require.roles.any.0: must be text; put 5 in quotes"),
    case("no claims", "claims: {}", f"6:5: routes.0.require.claims: {EMPTY}"),
    case("list of claims", "claims: [a]", "6:5: routes.0.require.claims: must be a mapping of keys, not a list"),
    case("no operator", "claims: {a: b}", "6:17: routes.0.require.claims.a: must be a mapping of keys, not 'b'"),
    case("no operators", "claims: {a: {}}", f"6:14: routes.0.require.claims.a: {IS_EMPTY} {OPERATORS}"),
    case("no path", "claims: {a..b: {equals: x}}", f"6:14: routes.0.require.claims.a..b: {CLAIM}"),
    case("misspelt operator", "claims: {a: {equal: x}}",
         "6:18: routes.0.require.claims.a.equal: unknown key; did you mean equals?"),
    case("equal to a list", "claims: {a: {equals: [x]}}", f"6:18: routes.0.require.claims.a.equals: {NO_SCALAR} a list"),
    case("equal to a mapping", "claims: {a: {equals: {}}}",
         f"6:18: routes.0.require.claims.a.equals: {NO_SCALAR} a mapping"),
    case("in nothing", "claims: {a: {in: []}}", f"6:18: routes.0.require.claims.a.in: {EMPTY}"),
    case("in a text", "claims: {a: {in: x}}", "6:22: routes.0.require.claims.a.in: must be a list, not 'x'"),
    case("in lists", "claims: {a: {in: [[x]]}}", f"6:23: routes.0.require.claims.a.in.0: {NO_SCALAR} a list"),
    case("every prefix", "claims: {a: {prefix: ''}}", "6:26: routes.0.require.claims.a.prefix: is empty"),
    case("number as prefix", "claims: {a: {prefix: 5}}",
         "6:26: routes.0.require.claims.a.prefix: must be text; put 5 in quotes"),
    case("contains a list", "claims: {a: {contains: [x]}}",
         f"6:18: routes.0.require.claims.a.contains: {NO_SCALAR} a list"),
    case("any of nothing", "claims: {a: {any: []}}", f"6:18: routes.0.require.claims.a.any: {EMPTY}"),
    case("all of a mapping", "claims: {a: {all: {}}}",
         "6:18: routes.0.require.claims.a.all: must be a list, not a mapping"),
    case("exists yes", "claims: {a: {exists: 'yes'}}",
         "6:26: routes.0.require.claims.a.exists: must be true or false, not 'yes'"),
    case("value of nothing", "claims: {a: {exists: false, equals: x}}",
         "6:26: routes.0.require.claims.a.exists: contradicts the other operators, which need the claim; remove one of the two"),
    case("not nothing", "claims: {a: {not: {}}}", f"6:18: routes.0.require.claims.a.not: {IS_EMPTY} {OPERATORS}"),
    case("not a text", "claims: {a: {not: x}}", "6:23: routes.0.require.claims.a.not: must be a mapping of keys, not 'x'"),
    case("regex", "claims: {a: {not: {regex: x}}}",
         f"6:24: routes.0.require.claims.a.not.regex: unknown key; one of: {OPERATORS}"),
    case("null", "claims: {a: {equals: null}}",
         "6:26: routes.0.require.claims.a.equals: has no value; give it one, or leave the key out"),
]
# fmt: on


@pytest.mark.parametrize(("text", "expected"), IN_AN_ISSUER)
def test_an_invalid_rule_of_an_issuer_is_reported(text: str, expected: list[str]) -> None:
    assert problems(f"{ISSUER}{text}\n{UPSTREAM}") == expected


@pytest.mark.parametrize(("text", "expected"), REQUIRE)
def test_an_invalid_requirement_of_a_route_is_reported(text: str, expected: list[str]) -> None:
    assert problems(ROUTE + text) == expected


def test_settings_of_the_audience_contradict_audiences_any() -> None:
    text = ISSUER.replace("[x]", "any") + "audience_match: all\n  audience_claims: [azp]\n" + UPSTREAM
    assert problems(text) == [
        f"5:19: issuers.a.audience_match: {NO_AUDIENCE}",
        f"6:3: issuers.a.audience_claims: {NO_AUDIENCE}",
    ]


def test_line_is_not_a_key_of_a_route() -> None:
    text = f"{ISSUER}\n{UPSTREAM}routes: [{{path: /a, line: 5}}]"
    assert len(problems(text)) == 1
    assert problems(text)[0].startswith("7:21: routes.0.line: unknown key;")
