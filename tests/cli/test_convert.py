"""`jwt-sidecar import`: converts configurations of other programs, and names every setting that it cannot convert."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.cli.convert.command import imported, problems_of
from sidecar.cli.convert.reading import Imported, NotUnderstood
from sidecar.config import parse

CONFIGS = Path(__file__).parents[2] / "benchmarks" / "results" / "configs"
KEYS = "remote_jwks: {http_uri: {uri: 'https://idp.example/keys'}}"
ISSUER = f"issuer: https://idp.example/, audiences: [api], {KEYS}"
HOME = "{match: {prefix: /}, requires: {provider_name: idp}}"
REQUIRED = [{"path": "/*", "auth": "required", "preflight": "reject"}]
DENIED = [{"path": "/*", "auth": "deny"}]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "theirs.yaml"


def of(program: str, file: Path, text: str) -> Imported:
    file.write_text(text)
    result = imported(program, str(file))
    assert problems_of(result.text("theirs.yaml")) == []
    return result


def comments(result: Imported) -> str:
    return "".join(line for line in result.text("x").splitlines(keepends=True) if line.startswith("#"))


def provider(more: str, rules: str = HOME) -> str:
    """A jwt_authn filter with one provider that has `more`, and these rules."""
    return f"{{providers: {{idp: {{{ISSUER}, {more}}}}}, rules: [{rules}]}}"


def two(rules: str, first: str = "", second: str = "") -> str:
    """A jwt_authn filter with two providers."""
    b = ISSUER.replace("idp.ex", "b.ex")
    return f"{{providers: {{idp: {{{ISSUER}, {first}}}, b: {{{b}, {second}}}}}, rules: [{rules}]}}"


# Envoy


@pytest.mark.parametrize("name", ["rs256-envoy.json", "rs256-envoy-cache.json"])
def test_a_whole_configuration_of_envoy_is_converted(name: str) -> None:
    result = imported("envoy", str(CONFIGS / name))
    assert result.equivalent
    read = parse(result.text(name), environ={})
    assert [(issuer.audiences, issuer.refresh_interval_s) for issuer in read.issuers.values()] == [(("bench",), 600.0)]
    assert read.identity_headers == {"X-JWT-Sub": ("sub",), "X-JWT-Scope": ("scope",)}
    assert read.listen[0].port
    assert read.upstreams["default"].port
    assert [(route.path, route.auth) for route in read.routes] == [("/*", "required")]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("clock_skew_seconds: 5", {"clock_skew": "5s"}),
        ("forward: false", {"require_exp": False}),
    ],
)
def test_a_provider_of_envoy_is_converted(more: str, expected: dict[str, Any], file: Path) -> None:
    result = of("envoy", file, provider(more))
    assert result.config["issuers"]["idp"].items() >= expected.items()
    assert result.equivalent


def test_defaults_of_envoy_are_converted(file: Path) -> None:
    issuer = of("envoy", file, provider("clock_skew_seconds: 0, require_expiration: true")).config["issuers"]["idp"]
    assert not {"clock_skew", "require_exp"} & issuer.keys()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("local_jwks: {filename: keys.json}", {"jwks_file": "keys.json"}),
        ("local_jwks: {inline_string: '{\"keys\": []}'}", {"jwks_inline": {"keys": []}}),
        ("remoteJwks: {httpUri: {uri: 'http://127.0.0.1/k'}}", {"jwks_uri": "http://127.0.0.1/k", "allow_http": True}),
        ("remote_jwks: {http_uri: {uri: 'https://a/k'}, cache_duration: 60s}", {"refresh_interval": "60s"}),
        ("remote_jwks: {http_uri: {uri: 'https://a/k'}, cache_duration: {seconds: 60}}", {"refresh_interval": "60s"}),
        ("remote_jwks: {http_uri: {uri: 'https://a/k'}, cacheDuration: 1.5s}", {"refresh_interval": "1500ms"}),
    ],
)
def test_sources_of_keys_in_envoy_are_converted(keys: str, expected: dict[str, Any], file: Path) -> None:
    file.write_text(f"{{providers: {{idp: {{issuer: 'https://idp.example/', {keys}}}}}, rules: [{HOME}]}}")
    result = imported("envoy", str(file))
    assert result.config["issuers"]["idp"].items() >= expected.items()
    assert result.equivalent


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("forward: true", {"forward_token": True}),
        ("forward_payload_header: X-Payload", {"claims_header": "X-Payload"}),
        ("claim_to_headers: [{header_name: X-T, claim_name: a.b}]", {"identity_headers": {"X-T": "a.b"}}),
        ("from_headers: [{name: X-T, value_prefix: 'Token '}]", {"token_from": [{"header": "X-T", "prefix": "Token"}]}),
        ("from_params: [t], from_cookies: [c]", {"token_from": [{"cookie": "c"}, {"query": "t"}]}),
        (
            "forward: false",
            {"token_from": [{"header": "Authorization", "prefix": "Bearer"}, {"query": "access_token"}]},
        ),
    ],
)
def test_settings_of_the_only_provider_become_global(more: str, expected: dict[str, Any], file: Path) -> None:
    result = of("envoy", file, provider(more))
    assert result.config.items() >= expected.items()
    assert result.equivalent


@pytest.mark.parametrize(
    ("rules", "filter_"),
    [
        (HOME, ""),
        ("{match: {path: /a}, requires: {provider_name: idp}}, " + HOME, ""),
        ("{match: {prefix: /}, requires: {requires_any: {requirements: [{provider_name: idp}]}}}", ""),
    ],
)
def test_a_rule_for_every_request_becomes_auth_required(rules: str, filter_: str, file: Path) -> None:
    result = of("envoy", file, provider("forward: false", rules))
    assert (result.config["routes"], result.equivalent) == (REQUIRED, True)


def test_audiences_that_envoy_accepts_in_several_spellings_get_a_comment(file: Path) -> None:
    for audience in ("https://api.example", "api.example/"):
        result = of("envoy", file, provider("forward: false").replace("[api]", f"['{audience}']"))
        assert "providers.idp.audiences: must equal the audience in tokens exactly" in comments(result)
    assert "must equal the audience" not in comments(of("envoy", file, provider("forward: false")))


def test_preflights_pass_only_if_they_pass_in_envoy(file: Path) -> None:
    text = provider("forward: false")
    assert of("envoy", file, text).config["routes"] == REQUIRED
    text = "{bypass_cors_preflight: true, " + text[1:]
    assert of("envoy", file, text).config["routes"] == [{"path": "/*", "auth": "required"}]


@pytest.mark.parametrize(
    "rules",
    [
        "",
        "{match: {prefix: /a}, requires: {provider_name: idp}}",
        "{match: {path: /a}}, " + HOME,
        "{match: {path: /a}, requires: {}}, " + HOME,
        "{match: {path: /a}, requires: {allow_missing: {}}}, " + HOME,
        "{match: {prefix: /}, requires: {allow_missing_or_failed: {}}}",
        "{match: {prefix: /}, requires: {requires_any: {requirements: [{provider_name: idp}, {allow_missing: {}}]}}}",
        "{match: {prefix: /, headers: [{name: x}]}, requires: {provider_name: idp}}",
        "{match: {prefix: /, case_sensitive: false}, requires: {provider_name: idp}}",
    ],
)
def test_open_paths_of_envoy_need_a_token(rules: str, file: Path) -> None:
    result = of("envoy", file, provider("forward: false", rules))
    assert (result.config["routes"], result.equivalent) == (REQUIRED, False)
    assert "To accept more requests, write rules for this by hand" in comments(result)


@pytest.mark.parametrize(
    "rules",
    [
        "{match: {prefix: /}, requires: {provider_name: idp}}",
        "{match: {prefix: /a}, requires: {provider_name: b}}, {match: {prefix: /}, requires: {provider_name: idp}}",
        "{match: {prefix: /}, requires: {requires_all: {requirements: [{provider_name: idp}, {provider_name: b}]}}}",
        "{match: {prefix: /}, requires: {provider_and_audiences: {provider_name: idp, audiences: [x]}}}",
        "{match: {prefix: /}, requires: {requires_any: {requirements: [{provider_name: b}, {allow_missing: {}}]}}}",
        "{match: {prefix: /}, requirement_name: r}",
        "{match: {prefix: /}, requires: {something: new}}",
    ],
)
def test_a_requirement_beyond_a_valid_token_refuses_every_request(rules: str, file: Path) -> None:
    result = of("envoy", file, two(rules))
    assert (result.config["routes"], result.equivalent) == (DENIED, False)
    assert "# - rules.0: needs more than a valid token of any of these issuers\n" in comments(result)
    assert "#   rules:\n#   - match:\n" in comments(result)


def test_requirements_by_name_refuse_every_request(file: Path) -> None:
    result = of("envoy", file, provider("forward: false")[:-1] + ", requirement_map: {r: {provider_name: idp}}}")
    assert result.config["routes"] == DENIED
    assert "#   requirement_map:\n#     r:\n#       provider_name: idp\n" in comments(result)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (provider("max_lifetime: 60s"), "providers.idp.max_lifetime"),
        (provider("subjects: {exact: a}"), "providers.idp.subjects"),
        (provider("normalize_payload_in_metadata: {}"), "providers.idp.normalize_payload_in_metadata"),
        (provider("local_jwks: {filename: a}"), "providers.idp"),
        (provider("from_headers: [{name: a, value_prefix: 'a='}]").replace("a=", "a"), "providers.idp.from_headers.0."),
        (
            provider("claim_to_headers: [{header_name: A, claim_name: a}, {header_name: a, claim_name: b}]"),
            "providers.idp.claim_to_headers.1",
        ),
        (provider("forward: false", "{match: {prefix: /}, requires: {provider_name: idp}, x: 1}"), "rules.0"),
        ("{filter_state_rules: {}, " + provider("forward: false")[1:], "filter_state_rules"),
        (provider("forward: false") + "\n---\n{}", "the file"),
        (f"{{http_filters: [{provider('forward: false')}, {{name: rbac}}, {{name: router}}]}}", "http_filters"),
        (f"[{provider('forward: false')}, {provider('forward: false')}]", "http_filters"),
    ],
)
def test_an_unknown_setting_is_named_and_refuses_every_request(text: str, place: str, file: Path) -> None:
    file.write_text(text)
    result = imported("envoy", str(file))
    assert (result.config["routes"], result.equivalent) == (DENIED, False)
    nobody = comments(result).partition("Every request is refused until you write rules for this by hand:\n")[2]
    assert f"# - {place}" in nobody


def whole() -> dict[str, Any]:
    config: dict[str, Any] = json.loads((CONFIGS / "rs256-envoy.json").read_text())
    return config


def _manager(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = _listener(config)["filter_chains"][0]["filters"][0]["typed_config"]
    return found


def _listener(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = config["static_resources"]["listeners"][0]
    return found


def _host(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = _manager(config)["route_config"]["virtual_hosts"][0]
    return found


def _backend(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = config["static_resources"]["clusters"][0]
    return found


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (
            lambda config: _manager(config)["http_filters"].insert(0, {"name": "rbac"}),
            "http_filters (rbac, jwt, router)",
        ),
        (lambda config: _manager(config)["http_filters"][0].update(disabled=True), "http_filters.0.disabled"),
        (
            lambda config: _listener(config)["filter_chains"][0].update(transport_socket={}),
            "filter_chains.0.transport_socket",
        ),
        (lambda config: _listener(config)["filter_chains"].append({}), "listeners.0.filter_chains"),
        (lambda config: _listener(config)["address"]["socket_address"].clear(), "listeners.0.address: does not name"),
        (lambda config: _manager(config)["route_config"].pop("virtual_hosts"), "route_config.virtual_hosts"),
        (lambda config: _host(config).update(domains=["a.example"]), "virtual_hosts.0.domains.0"),
        (lambda config: _host(config).update(require_tls="ALL"), "virtual_hosts.0.require_tls"),
        (lambda config: _host(config)["routes"].insert(0, {"direct_response": {}}), "virtual_hosts.0.routes"),
        (lambda config: _host(config)["routes"][0].update(match={"path": "/a"}), "match.path"),
        (lambda config: _host(config)["routes"][0].update(match={}), "routes.0.match.prefix"),
        (lambda config: _manager(config).pop("@type"), "typed_config.@type"),
        (
            lambda config: _backend(config)["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"][
                "address"
            ]["socket_address"].pop("address"),
            "clusters.origin",
        ),
        (lambda config: _host(config)["routes"][0]["route"].update(prefix_rewrite="/a"), "route.prefix_rewrite"),
        (
            lambda config: _host(config)["routes"][0].update(typed_per_filter_config={}),
            "routes.0.typed_per_filter_config",
        ),
        (lambda config: _backend(config).update(transport_socket={}), "clusters.origin.transport_socket"),
        (lambda config: _backend(config).pop("load_assignment"), "clusters.origin"),
        (lambda config: config["static_resources"]["clusters"].clear(), "clusters.origin"),
        (lambda config: config["static_resources"].update(secrets=[]), "static_resources.secrets"),
        (lambda config: config.update(dynamic_resources={}), "dynamic_resources"),
        (lambda config: _listener(config).update(extra=1), "listeners.0.extra"),
    ],
)
def test_other_settings_of_envoy_are_named_and_refuse_every_request(change: Any, place: str, file: Path) -> None:
    config = whole()
    change(config)
    file.write_text(json.dumps(config))
    result = imported("envoy", str(file))
    assert (result.config["routes"], result.equivalent) == (DENIED, False)
    assert place in comments(result).partition("Every request is refused")[2].partition("Different in the sidecar")[0]


def test_unsupported_sources_of_keys_refuse_every_request(file: Path) -> None:
    text = json.dumps(whole()).replace('"uri": "http://127.0.0.1:', '"uri": "http://127.0.0.2:')
    file.write_text(text)
    result = imported("envoy", str(file))
    assert result.config["routes"] == DENIED
    assert "http_uri.cluster: Envoy fetches keys from 127.0.0.1:" in comments(result)


def test_a_config_dump_of_a_running_envoy_is_converted(file: Path) -> None:
    bootstrap = {"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": whole()}
    file.write_text(json.dumps({"configs": [bootstrap, {"dynamic_active_clusters": [{"cluster": {"name": "x"}}]}]}))
    result = imported("envoy", str(file))
    assert (result.config["routes"], len(result.config["issuers"])) == (DENIED, 1)


# Several providers


def test_providers_with_similar_names_become_different_issuers(file: Path) -> None:
    other = ISSUER.replace("idp.ex", "b.ex")
    third = ISSUER.replace("idp.ex", "c.ex")
    text = f"{{providers: {{'a b': {{{ISSUER}}}, a/b: {{{other}}}, a-b-2: {{{third}}}}}, rules: []}}"
    issuers = of("envoy", file, text).config["issuers"]
    assert {issuer["issuer"] for issuer in issuers.values()} == {
        "https://idp.example/",
        "https://b.example/",
        "https://c.example/",
    }


@pytest.mark.parametrize(
    "first",
    [
        "forward: true",
        "from_headers: [{name: x-token}]",
        "from_cookies: [c]",
        "claim_to_headers: [{header_name: x-user, claim_name: sub}]",
        "forward_payload_header: x-payload",
    ],
)
def test_places_of_tokens_and_headers_are_only_converted_if_all_providers_share_them(first: str, file: Path) -> None:
    either = (
        "{match: {prefix: /}, requires: {requires_any: {requirements: [{provider_name: idp}, {provider_name: b}]}}}"
    )
    for text in (two(either, first=first), two(either, second=first)):
        result = of("envoy", file, text)
        assert result.config["routes"] == DENIED
        assert not {"token_from", "forward_token", "claims_header", "identity_headers"} & result.config.keys()
        assert "# - providers.b: has its own places of tokens or headers" in comments(result)
        assert "#   providers.idp:\n#     token_from:\n" in comments(result)
    assert of("envoy", file, two(either, first=first, second=first)).equivalent


def test_two_providers_of_one_issuer_refuse_every_request(file: Path) -> None:
    text = f"{{providers: {{a: {{{ISSUER}}}, b: {{{ISSUER.replace('[api]', '[other]')}}}}}, rules: []}}"
    result = of("envoy", file, text)
    assert (result.config["routes"], list(result.config["issuers"])) == (DENIED, ["a"])
    assert "# - providers.b: is another provider for the issuer https://idp.example/" in comments(result)


# Files that cannot be converted


@pytest.mark.parametrize(
    ("program", "text", "expected"),
    [
        ("envoy", "a: [", "it is neither YAML nor JSON (line 1)"),
        ("envoy", "a: \t\x00", "it is neither YAML nor JSON"),
        ("envoy", "", "it has no jwt_authn filter (a mapping with providers, or with @type ...JwtAuthentication)"),
        ("envoy", "providers: {}", "it names no issuer of tokens"),
        (
            "envoy",
            "{providers: {a: {issuer: a}}, '@type': x}",
            "it has no jwt_authn filter (a mapping with providers, or with @type ...JwtAuthentication)",
        ),
        ("envoy", "providers: {a: 1}", "providers.a is not a mapping"),
        ("envoy", "{providers: {}, rules: {}}", "rules is not a list"),
        ("envoy", "{providers: {}, bypass_cors_preflight: maybe}", "bypass_cors_preflight is neither true nor false"),
        (
            "envoy",
            "{providers: {}, requirement_map: {}, requirementMap: {}}",
            "requirement_map is given twice: as requirement_map and as requirementMap",
        ),
        ("envoy", "providers: {1: {issuer: a}, [2]: {}}", "a key is a list or a mapping (line 1)"),
        ("envoy", "providers: {{a: b}: {}}", "a key is a list or a mapping (line 1)"),
        ("envoy", "providers: {1: 2, 1: 3}", "'1' is given twice (line 1)"),
        ("envoy", '{"providers": {}, "providers": {}}', "'providers' is given twice in one object"),
        ("envoy", "providers: !!python/none ''", "a value has the tag tag:yaml.org,2002:python/none (line 1)"),
        ("envoy", "providers: !!binary aGk=", "a value has the tag tag:yaml.org,2002:binary (line 1)"),
        ("envoy", "&a providers: &b {c: *b}", "it is nested too deeply, or an alias in it contains itself"),
        ("envoy", "&b [*b]", "it is nested too deeply, or an alias in it contains itself"),
        ("envoy", "[" * 5000 + "]" * 5000, "it is nested too deeply, or an alias in it contains itself"),
        (
            "envoy",
            "[" + "[" * 5000 + "]" * 5000 + ", 'x'",
            "it is nested too deeply, or an alias in it contains itself",
        ),
        (
            "envoy",
            "a0: &a0 [x, x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(22)),
            "its aliases expand to more than 1000000 values; write them out",
        ),
        ("envoy", provider("from_cookies: a"), "providers.idp.from_cookies is not a list"),
        ("envoy", provider("from_cookies: [[1]]"), "providers.idp.from_cookies is not a text"),
        ("envoy", provider("clock_skew_seconds: x"), "providers.idp.clock_skew_seconds is not a number of seconds"),
        ("envoy", provider("claim_to_headers: [{}]"), "providers.idp.claim_to_headers.0 names no header, or no claim"),
        (
            "envoy",
            "providers: {a: {issuer: a, remote_jwks: {cache_duration: x}}}",
            "providers.a.remote_jwks.cache_duration is not a duration",
        ),
        (
            "envoy",
            "providers: {a: {issuer: a, local_jwks: {inline_string: '{'}}}",
            "providers.a.local_jwks.inline_string is not JSON",
        ),
        ("istio", "", "it names no issuer of tokens"),
        ("istio", "[1]", "the file is not a mapping"),
        ("istio", "items: 1", "items is not a list"),
        ("istio", "items: &a [{items: *a}]", "it is nested too deeply, or an alias in it contains itself"),
        (
            "istio",
            "{kind: RequestAuthentication, apiVersion: security.istio.io/v1, spec: {jwtRules: [{}]}}",
            "unnamed.jwtRules.0.issuer is missing",
        ),
        (
            "istio",
            "{kind: AuthorizationPolicy, apiVersion: security.istio.io/v1, spec: {rules: 1}}",
            "unnamed.rules is not a list",
        ),
        ("istio", "{kind: [a], apiVersion: security.istio.io/v1}", "kind is not a text"),
    ],
)
def test_a_file_that_cannot_be_read_is_reported(program: str, text: str, expected: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(NotUnderstood) as raised:
        imported(program, str(file))
    assert str(raised.value) == expected


def test_a_file_that_is_not_utf_8_is_reported_with_its_line(file: Path) -> None:
    file.write_bytes(b"a:\n\xff")
    with pytest.raises(NotUnderstood, match=r"it is not UTF-8 text \(line 2\)"):
        imported("envoy", str(file))


def test_numeric_names_keep_their_digits(file: Path) -> None:
    result = of(
        "envoy", file, provider("forward: false").replace("{idp:", "{0123:").replace("_name: idp", "_name: 0123")
    )
    assert (list(result.config["issuers"]), result.equivalent) == (["0123"], True)


def test_variables_in_foreign_configurations_stay_text(file: Path) -> None:
    result = of("envoy", file, provider("claim_to_headers: [{header_name: X-A, claim_name: '${HOME}'}]"))
    assert parse(result.text("x"), environ={"HOME": "sub"}).identity_headers == {"X-A": ("${HOME}",)}


# Istio

AUTHENTICATION = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: shop}
spec:
  selector: {matchLabels: {app: x}}
  jwtRules:
  - issuer: https://idp.example/
    audiences: [api]
    jwksUri: https://idp.example/keys
    outputClaimToHeaders: [{header: X-T, claim: a.b}]
    forwardOriginalToken: true
"""
SCOPE = "metadata: {name: rules, namespace: shop}"


def policy(action: str, rules: str, more: str = "", scope: str = SCOPE) -> str:
    spec = f"{{selector: {{matchLabels: {{app: x}}}}, action: {action}, rules: [{rules}]{more}}}"
    return f"\n---\n{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, {scope}, spec: {spec}}}"


WITH = "{from: [{source: {requestPrincipals: ['*']}}]}"
WITHOUT = "{from: [{source: {notRequestPrincipals: ['*']}}]}"
PUBLIC = "{to: [{operation: {paths: [/public/*]}}]}"


@pytest.mark.parametrize(
    "policies",
    [
        policy("ALLOW", WITH),
        policy("DENY", WITHOUT),
        policy("DENY", WITHOUT) + policy("ALLOW", WITH),
        policy("DENY", WITHOUT) + policy("ALLOW", f"{WITH}, {PUBLIC}"),
        policy("DENY", WITHOUT[:-1] + ", to: [{operation: {paths: [/a]}}]}") + policy("ALLOW", WITH),
    ],
)
def test_istios_rules_for_a_token_on_every_request_become_auth_required(policies: str, file: Path) -> None:
    result = of("istio", file, AUTHENTICATION + policies)
    assert result.equivalent
    assert result.config == {
        "issuers": {
            "idp.example": {
                "issuer": "https://idp.example/",
                "audiences": ["api"],
                "jwks_uri": "https://idp.example/keys",
                "require_exp": False,
                "required_claims": ["sub"],
            }
        },
        "upstream": "http://127.0.0.1:9292",
        "token_from": [{"header": "Authorization", "prefix": "Bearer"}, {"query": "access_token"}],
        "forward_token": True,
        "identity_headers": {"X-T": "a.b"},
        "routes": REQUIRED,
    }


@pytest.mark.parametrize(
    "policies",
    [
        "",
        policy("ALLOW", f"{WITH}, {PUBLIC}"),
        policy("ALLOW", f"{PUBLIC}") + policy("ALLOW", WITH),
        policy("DENY", WITHOUT[:-1] + ", to: [{operation: {paths: [/a], notMethods: [GET]}}]}"),
    ],
)
def test_open_paths_of_istio_need_a_token(policies: str, file: Path) -> None:
    result = of("istio", file, AUTHENTICATION + policies)
    assert (result.config["routes"], result.equivalent) == (REQUIRED, False)


@pytest.mark.parametrize(
    "policies",
    [
        policy("ALLOW", ""),
        policy("ALLOW", "{}"),
        policy("ALLOW", PUBLIC),
        policy("ALLOW", "{to: [{operation: {methods: ['*']}}]}"),
        policy("ALLOW", "{to: [{operation: {methods: ['P*'], ports: ['80'], notPaths: [/a]}}]}"),
        policy("ALLOW", "{from: [{source: {requestPrincipals: ['https://idp.example//*']}}]}"),
        policy(
            "ALLOW",
            WITH[:-1]
            + ", when: [{key: 'request.auth.claims[a]', values: [x]}, {key: 'request.auth.claims[a]', values: [y]}]}",
        ),
        policy("DENY", PUBLIC) + policy("ALLOW", WITH),
        policy("DENY", "{from: [{source: {notRequestPrincipals: ['a/*', 'b/*']}}]}"),
        policy("DENY", "{}") + policy("DENY", WITHOUT),
        policy("DENY", f"{WITHOUT}, {PUBLIC}"),
        policy("DENY", "{from: [{source: {notRequestPrincipals: ['*']}}, {source: {namespaces: [a]}}]}"),
        policy("CUSTOM", PUBLIC, ", provider: {name: p}") + policy("ALLOW", WITH),
        policy("ALLOW", WITH, ", something: new"),
        policy("ALLOW", WITH) + policy("DENY", WITHOUT, scope="metadata: {name: rules, namespace: other}"),
        policy(
            "ALLOW", WITH, scope="metadata: {name: rules, namespace: shop, annotations: {istio.io/dry-run: 'true'}}"
        ),
        policy("ALLOW", WITH, scope="metadata: {name: rules, namespace: shop, labels: {istio.io/rev: b}}"),
        policy("ALLOW", WITH)
        + "\n---\n{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: rules}}",
        policy("ALLOW", WITH).replace("security.istio.io/v1", "example/v1"),
    ],
)
def test_policies_that_may_refuse_a_valid_token_refuse_every_request(policies: str, file: Path) -> None:
    result = of("istio", file, AUTHENTICATION + policies)
    assert (result.config["routes"], result.equivalent) == (DENIED, False)
    assert (
        "# - rules"
        in comments(result).partition("Every request is refused")[2].partition("Different in the sidecar")[0]
    )


def test_the_rules_of_istio_are_quoted_above_the_configuration(file: Path) -> None:
    result = of("istio", file, AUTHENTICATION + policy("ALLOW", PUBLIC))
    assert "#     rules:\n#     - to:\n#       - operation:\n#           paths:\n#           - /public/*\n" in comments(
        result
    )


def test_a_list_of_objects_from_the_cluster_is_converted(file: Path) -> None:
    documents = [yaml.safe_load(AUTHENTICATION), yaml.safe_load(policy("ALLOW", WITH)[5:])]
    for document in documents:
        document["metadata"] |= {"uid": "1", "generation": 2, "labels": {"app": "x"}}
        document["status"] = {}
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}, indent="\t"))
    assert imported("istio", str(file)).equivalent


# The command


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "sidecar", "import", *arguments], capture_output=True, text=True, check=False
    )


def test_the_command_prints_an_equivalent_configuration(file: Path) -> None:
    file.write_text(provider("forward: true"))
    ended = run("envoy", str(file))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"# From {file}, by jwt-sidecar import.\n# Different in the sidecar,")
    assert yaml.safe_load(ended.stdout)["forward_token"] is True


def test_the_command_says_that_the_result_is_not_equivalent(file: Path) -> None:
    file.write_text(provider("forward: true", ""))
    ended = run("envoy", str(file))
    assert ended.returncode == 1
    assert ended.stderr == f"{file}: not equivalent; the comments in the output list what you must do by hand\n"
    assert yaml.safe_load(ended.stdout)["routes"] == REQUIRED


def test_the_command_prints_problems_of_the_new_configuration(file: Path) -> None:
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
