"""`jwt-sidecar import`: what other programs' configurations become, and what is said about the rest."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.config import parse
from sidecar.importing.command import imported, problems_of
from sidecar.importing.reading import Imported, NotUnderstood

CONFIGS = Path(__file__).parent.parent / "benchmarks" / "results" / "configs"
ISSUER = "issuer: https://idp.example/, audiences: [api], remote_jwks: {http_uri: {uri: 'https://idp.example/keys'}}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "theirs.yaml"


def of(program: str, file: Path, text: str) -> Imported:
    file.write_text(text)
    result = imported(program, str(file))
    assert problems_of(result.text("theirs.yaml")) == []
    return result


def provider(more: str) -> str:
    """A jwt_authn filter with one provider that says more, and no rules."""
    return f"{{providers: {{idp: {{{ISSUER}, {more}}}}}}}"


def rule(text: str) -> str:
    """A jwt_authn filter with one rule."""
    return f"{{providers: {{idp: {{{ISSUER}}}, b: {{{ISSUER.replace('idp.ex', 'b.ex')}}}}}, rules: [{text}]}}"


# Envoy


@pytest.mark.parametrize("name", ["rs256-envoy.json", "rs256-envoy-cache.json"])
def test_a_whole_configuration_of_envoy(name: str) -> None:
    result = imported("envoy", str(CONFIGS / name))
    read = parse(result.text(name), environ={})
    assert [(issuer.audiences, issuer.refresh_interval_s) for issuer in read.issuers.values()] == [(("bench",), 600.0)]
    assert read.identity_headers == {"X-JWT-Sub": ("sub",), "X-JWT-Scope": ("scope",)}
    assert read.listen.port
    assert read.upstreams["default"].port
    assert [(route.path, route.auth) for route in read.routes] == [("/*", "required")]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("clock_skew_seconds: 5", {"clock_skew": "5s"}),
        ("max_lifetime: 3600s", {"max_token_lifetime": "3600s"}),
        ("max_lifetime: {seconds: 60}", {"max_token_lifetime": "60s"}),
        ("maxLifetime: 1.5s", {"max_token_lifetime": "1500ms"}),
        ("subjects: {exact: a}", {"subjects": {"exact": ["a"]}}),
        ("subjects: {prefix: a}", {"subjects": {"prefix": ["a"]}}),
        ("subjects: {suffix: '@x'}", {"subjects": {"glob": ["*@x"]}}),
    ],
)
def test_what_envoy_says_of_a_provider(more: str, expected: dict[str, Any], file: Path) -> None:
    assert of("envoy", file, provider(more)).config["issuers"]["idp"].items() >= expected.items()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("local_jwks: {filename: keys.json}", {"jwks_file": "keys.json"}),
        ("local_jwks: {inline_string: '{\"keys\": []}'}", {"jwks_inline": {"keys": []}}),
        ("remoteJwks: {httpUri: {uri: 'http://127.0.0.1/k'}}", {"jwks_uri": "http://127.0.0.1/k", "allow_http": True}),
        ("remote_jwks: {http_uri: {uri: 'https://a/k'}, cache_duration: 60s}", {"refresh_interval": "60s"}),
    ],
)
def test_where_envoy_has_its_keys_from(keys: str, expected: dict[str, Any], file: Path) -> None:
    text = f"{{providers: {{idp: {{issuer: 'https://idp.example/', {keys}}}}}}}"
    file.write_text(text)
    assert imported("envoy", str(file)).config["issuers"]["idp"].items() >= expected.items()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("forward: true", {"forward_token": True}),
        ("forward_payload_header: X-Payload", {"claims_header": "X-Payload"}),
        ("claim_to_headers: [{header_name: X-T, claim_name: a.b}]", {"identity_headers": {"X-T": "a.b"}}),
        ("from_headers: [{name: X-T, value_prefix: 'Token '}]", {"token_from": [{"header": "X-T", "prefix": "Token"}]}),
        ("from_params: [t], from_cookies: [c]", {"token_from": [{"cookie": "c"}, {"query": "t"}]}),
    ],
)
def test_what_is_the_same_for_all_issuers_here(more: str, expected: dict[str, Any], file: Path) -> None:
    assert of("envoy", file, provider(more)).config.items() >= expected.items()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{match: {prefix: /}, requires: {provider_name: idp}}", {"path": "/*", "issuers": ["idp"]}),
        ("{match: {prefix: /a/}, requires: {provider_name: b}}", {"path": "/a/*", "issuers": ["b"]}),
        ("{match: {prefix: /a}}", {"path_regex": "/a.*", "auth": "none"}),
        ("{match: {path: /a}, requires: {allow_missing: {}}}", {"path": "/a", "auth": "optional"}),
        ("{match: {path_separated_prefix: /a}}", {"path": "/a/*", "auth": "none"}),
        ("{match: {safe_regex: {regex: '/[ab]'}}}", {"path_regex": "/[ab]", "auth": "none"}),
        (
            "{match: {path: /a, headers: [{name: ':method', string_match: {exact: GET}}]}}",
            {"path": "/a", "methods": ["GET"], "auth": "none"},
        ),
        (
            "{match: {path: /a, headers: [{name: ':authority', exact_match: A.example}]}}",
            {"path": "/a", "hosts": ["a.example"], "auth": "none"},
        ),
        (
            "{match: {path: /a}, requires: {requires_any: {requirements: [{provider_name: idp}, {provider_name: b}]}}}",
            {"path": "/a", "issuers": ["idp", "b"]},
        ),
        (
            "{match: {path: /a}, requires: {requires_any: {requirements: [{provider_name: b}, {allow_missing: {}}]}}}",
            {"path": "/a", "auth": "optional", "issuers": ["b"]},
        ),
        (
            "{match: {path: /a}, requires: {provider_and_audiences: {provider_name: b, audiences: [x]}}}",
            {"path": "/a", "issuers": ["b"], "require": {"claims": {"aud": {"any": ["x"]}}}},
        ),
        (
            "{match: {path: /a}, requires: {requires_all: {requirements: [{provider_name: idp}, {provider_name: b}]}}}",
            {"path": "/a", "auth": "deny"},
        ),
    ],
)
def test_what_becomes_of_a_rule_of_envoy(text: str, expected: dict[str, Any], file: Path) -> None:
    assert of("envoy", file, rule(text)).routes[0] == expected


def test_a_requirement_by_its_name(file: Path) -> None:
    text = rule("{match: {path: /a}, requirement_name: r}")[:-1] + ", requirement_map: {r: {provider_name: b}}}"
    assert of("envoy", file, text).routes[0] == {"path": "/a", "issuers": ["b"]}


def test_envoy_lets_through_what_no_rule_names_and_so_it_is_said(file: Path) -> None:
    result = of("envoy", file, rule("{match: {path: /a}, requires: {provider_name: idp}}"))
    assert result.routes[-1] == {"path": "/*", "auth": "none"}
    assert any(remark.startswith("rules: what no rule names passes") for remark in result.remarks)


@pytest.mark.parametrize("requires", ["", ", requires: {allow_missing: {}}"])
def test_what_opens_requests_by_more_than_a_route_can_say_opens_nothing(requires: str, file: Path) -> None:
    text = f"{{match: {{path: /a, query_parameters: [{{name: q}}]}}{requires}}}"
    result = of("envoy", file, rule(text))
    assert [route["path"] for route in result.routes] == ["/*"]
    assert any("opens requests by rules.0.match.query_parameters" in remark for remark in result.remarks)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (provider("payload_in_metadata: x"), "providers.idp.payload_in_metadata"),
        (provider("remoteJwks: {http_uri: {uri: 'https://a/k', x: 1}}"), "providers.idp.remote_jwks.http_uri.x"),
        (
            rule("{match: {path: /a, case_sensitive: false}, requires: {provider_name: b}}"),
            "rules.0.match.case_sensitive",
        ),
        (rule("{match: {path: /a}, x: 1}"), "rules.0.x"),
        ("{filter_state_rules: {}, " + provider("forward: false")[1:], "filter_state_rules"),
    ],
)
def test_what_has_no_equivalent_is_named(text: str, place: str, file: Path) -> None:
    text = text.replace("remote_jwks: {http_uri: {uri: 'https://idp.example/keys'}}, remoteJwks", "remoteJwks")
    result = of("envoy", file, text)
    assert f"{place}: has no equivalent; left out" in result.remarks
    assert f"# - {place}: has no equivalent; left out\n" in result.text("x")


def test_two_providers_that_differ_where_there_is_one_setting_here(file: Path) -> None:
    text = f"{{providers: {{idp: {{{ISSUER}, forward: true}}, b: {{{ISSUER.replace('idp.ex', 'b.ex')}}}}}}}"
    result = of("envoy", file, text)
    assert result.config["forward_token"] is True
    assert "providers.b.forward: forward_token is the same for all issuers here; False is left out" in result.remarks


@pytest.mark.parametrize(
    ("program", "text", "expected"),
    [
        ("envoy", "a: [", "it is neither YAML nor JSON (line 1)"),
        ("envoy", "", "it has no jwt_authn filter: no mapping with providers, or with @type ...JwtAuthentication"),
        ("envoy", "providers: {}", "its jwt_authn filter has no providers"),
        ("envoy", "providers: {a: 1}", "providers.a is not a mapping"),
        ("envoy", provider("from_cookies: a"), "providers.idp.from_cookies is not a list"),
        ("envoy", provider("from_cookies: [1]"), "providers.idp.from_cookies is not a text"),
        ("envoy", provider("max_lifetime: x"), "providers.idp.max_lifetime is not a duration"),
        ("envoy", provider("claim_to_headers: [{}]"), "providers.idp.claim_to_headers.0 names no header, or no claim"),
        (
            "envoy",
            provider("subjects: {safe_regex: {regex: a}}"),
            "providers.idp.subjects can be exact, prefix or suffix here; write which subjects are meant",
        ),
        (
            "envoy",
            rule("{match: {path: /a}, requirement_name: r}"),
            "rules.0.requirement_name: r is not in requirement_map",
        ),
        (
            "envoy",
            "providers: {a: {issuer: a, local_jwks: {inline_string: '{'}}}",
            "providers.a.local_jwks.inline_string is not JSON",
        ),
        ("istio", "", "it has no RequestAuthentication with jwtRules"),
        ("istio", "{kind: RequestAuthentication, spec: {jwtRules: [{}]}}", "unnamed.jwtRules.0.issuer is missing"),
    ],
)
def test_what_cannot_be_understood_is_said(program: str, text: str, expected: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(NotUnderstood) as raised:
        imported(program, str(file))
    assert str(raised.value) == expected


# Istio

AUTHENTICATION = """
kind: RequestAuthentication
metadata: {name: jwt}
spec:
  selector: {matchLabels: {app: x}}
  jwtRules:
  - issuer: https://idp.example/
    audiences: [api]
    jwksUri: https://idp.example/keys
    outputClaimToHeaders: [{header: X-T, claim: a.b}]
    forwardOriginalToken: true
"""


def policy(action: str, rules: str) -> str:
    return f"{AUTHENTICATION}\n---\n{{kind: AuthorizationPolicy, spec: {{action: {action}, rules: [{rules}]}}}}"


def test_a_request_authentication(file: Path) -> None:
    result = of("istio", file, AUTHENTICATION)
    assert result.config == {
        "issuers": {
            "idp.example": {
                "issuer": "https://idp.example/",
                "audiences": ["api"],
                "jwks_uri": "https://idp.example/keys",
            }
        },
        "upstream": "http://127.0.0.1:9292",
        "token_from": [{"header": "Authorization", "prefix": "Bearer"}],
        "forward_token": True,
        "identity_headers": {"X-T": "a.b"},
        "routes": [{"path": "/*", "auth": "optional"}],
    }


ANY = "from: [{source: {requestPrincipals: ['*']}}]"
OF_IDP = "from: [{source: {requestPrincipals: ['https://idp.example//*']}}]"
OF_ALICE = "from: [{source: {requestPrincipals: ['https://idp.example//alice']}}]"
WITHOUT = "from: [{source: {notRequestPrincipals: ['*']}}]"
DENIED = {"path": "/*", "auth": "deny"}


@pytest.mark.parametrize(
    ("action", "rules", "expected"),
    [
        ("ALLOW", f"{{{ANY}}}", [{"path": "/*"}]),
        ("ALLOW", f"{{{OF_IDP}}}", [{"path": "/*", "issuers": ["idp.example"]}]),
        (
            "ALLOW",
            f"{{{OF_ALICE}, to: [{{operation: {{paths: [/a]}}}}]}}",
            [{"path": "/a", "issuers": ["idp.example"], "require": {"claims": {"sub": {"in": ["alice"]}}}}, DENIED],
        ),
        (
            "ALLOW",
            "{to: [{operation: {methods: [GET], paths: [/a, /b/*, '/c*', '*.css', '/d/{*}/{**}'], hosts: ['H:80']}}]}",
            [
                {"path": "/a", "methods": ["GET"], "hosts": ["h"], "auth": "optional"},
                {"path": "/b/*", "methods": ["GET"], "hosts": ["h"], "auth": "optional"},
                {"path_regex": "/c.*", "methods": ["GET"], "hosts": ["h"], "auth": "optional"},
                {"path_regex": r".*\.css", "methods": ["GET"], "hosts": ["h"], "auth": "optional"},
                {"path_regex": "/d/[^/]+/.*", "methods": ["GET"], "hosts": ["h"], "auth": "optional"},
                DENIED,
            ],
        ),
        (
            "ALLOW",
            f"{{{ANY}, when: [{{key: 'request.auth.claims[a][b.c]', values: [x, y]}}]}}",
            [{"path": "/*", "require": {"claims": {r"a.b\.c": {"any": ["x", "y"]}}}}],
        ),
        (
            "DENY",
            "{to: [{operation: {paths: [/a]}}]}",
            [{"path": "/a", "auth": "deny"}, {"path": "/*", "auth": "optional"}],
        ),
        ("DENY", f"{{{WITHOUT}}}", []),
        (
            "DENY",
            f"{{{WITHOUT}, to: [{{operation: {{paths: [/a]}}}}]}}",
            [{"path": "/a"}, {"path": "/*", "auth": "optional"}],
        ),
    ],
)
def test_what_becomes_of_a_policy(action: str, rules: str, expected: list[dict[str, Any]], file: Path) -> None:
    file.write_text(policy(action, rules))
    assert imported("istio", str(file)).routes == expected


def test_a_token_for_everything_and_rules_besides(file: Path) -> None:
    text = policy("DENY", f"{{{WITHOUT}}}")
    text += "\n---\n{kind: AuthorizationPolicy, spec: {rules: [{to: [{operation: {paths: [/a]}}]}]}}"
    assert of("istio", file, text).routes == [{"path": "/a"}, DENIED]


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ("{from: [{source: {namespaces: [a]}}]}", "from.0.source.namespaces, which is not about the token"),
        (
            "{from: [{source: {requestPrincipals: ['https://b/*']}}]}",
            "names https://b, which is no issuer of this file",
        ),
        (
            "{from: [{source: {requestPrincipals: ['https://idp.example//a*']}}]}",
            "subjects of several issuers, or parts",
        ),
        (
            f"{{{ANY}, when: [{{key: source.ip, values: [10.0.0.1]}}]}}",
            "asks for source.ip in a way that no route can say",
        ),
        (f"{{{ANY}, when: [{{key: 'request.auth.claims[a]', values: ['x*']}}]}}", "in a way that no route can say"),
        (f"{{{ANY}, when: [{{key: 'request.auth.claims[a]', notValues: [x]}}]}}", "in a way that no route can say"),
    ],
)
def test_what_no_route_can_say_lets_nobody_in(rules: str, why: str, file: Path) -> None:
    allowed = of("istio", file, policy("ALLOW", rules))
    assert allowed.routes == [DENIED]
    assert any(why in remark for remark in allowed.remarks)
    denied = of("istio", file, policy("DENY", rules.replace("requestPrincipals", "notRequestPrincipals")))
    assert denied.routes == [DENIED]


# The command


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "sidecar", "import", *arguments], capture_output=True, text=True, check=False
    )


def test_the_command_prints_what_can_be_used(file: Path) -> None:
    file.write_text(provider("forward: true"))
    ended = run("envoy", str(file))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"# From {file}, by jwt-sidecar import.\n# Has no equivalent,")
    assert yaml.safe_load(ended.stdout)["forward_token"] is True


def test_the_command_says_what_is_still_to_be_mended(file: Path) -> None:
    file.write_text(provider("claim_to_headers: [{header_name: Authorization, claim_name: sub}]"))
    ended = run("envoy", str(file))
    assert ended.returncode == 1
    assert "identity_headers:" in ended.stdout
    assert "the printed configuration:" in ended.stderr
    assert "is reserved" in ended.stderr


@pytest.mark.parametrize(
    ("text", "expected"), [("a: 1", "it has no jwt_authn filter"), (None, "No such file or directory")]
)
def test_the_command_ends_with_2_without_a_configuration(text: str | None, expected: str, file: Path) -> None:
    if text is not None:
        file.write_text(text)
    ended = run("envoy", str(file))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"{file}: {expected}")
