"""The places of an issuer's keys in the configuration: presets, PEM, secrets, TLS and contradictions."""

from pathlib import Path
from typing import Any

import pytest

from sidecar.cli.main import main
from sidecar.config import ConfigError, Issuer, parse
from sidecar.config.key_place import SOURCES
from sidecar.config.preset_keys import PresetKeys
from sidecar.config.presets import PRESETS
from tests.peers import tokens

UPSTREAM = "upstream: http://127.0.0.1:9292\n"
ALGORITHMS = "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA"
SECRET = "0123456789abcdef0123456789abcdef"
FILE = "must be the path of a file; a relative path starts at the directory of this configuration"


def text_of(keys: str) -> str:
    return f"issuers:\n a:\n  audiences: any\n  issuer: https://idp.example/\n  {keys}\n{UPSTREAM}"


def issuer(keys: str, environ: dict[str, str] | None = None, base: Path | None = None) -> Issuer:
    return parse(text_of(keys), environ=environ or {}, base=base).issuers["a"]


def problems(text: str, environ: dict[str, str] | None = None, base: Path | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, environ=environ or {}, base=base)
    return [line.removeprefix("config.yaml:") for line in str(caught.value).split("\n")]


def case(name: str, keys: str, *expected: str) -> Any:
    return pytest.param(keys, list(expected), id=name)


# Presets

ARN = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/my-lb/50dc6c495c0c9188"


def preset(name: str, iss: str, more: str = "") -> Issuer:
    return parse(f"issuers: {{a: {{preset: {name}, issuer: '{iss}', audiences: any{more}}}}}\n{UPSTREAM}").issuers["a"]


@pytest.mark.parametrize(
    ("name", "iss", "jwks_uri", "algorithms", "header"),
    [
        (
            "zuplo",
            "https://my-api.zuplo.api/__zuplo/issuer",
            "https://my-api.zuplo.api/__zuplo/issuer/.well-known/jwks.json",
            ("EdDSA", "RS256"),
            None,
        ),
        (
            "cloudflare_access",
            "https://team.cloudflareaccess.com",
            "https://team.cloudflareaccess.com/cdn-cgi/access/certs",
            ("RS256",),
            "Cf-Access-Jwt-Assertion",
        ),
        (
            "pomerium",
            "app.example",
            "https://app.example/.well-known/pomerium/jwks.json",
            ("ES256",),
            "X-Pomerium-Jwt-Assertion",
        ),
        (
            "pomerium",
            "https://app.example/",
            "https://app.example/.well-known/pomerium/jwks.json",
            ("ES256",),
            "X-Pomerium-Jwt-Assertion",
        ),
        (
            "google_iap",
            "https://cloud.google.com/iap",
            "https://www.gstatic.com/iap/verify/public_key-jwk",
            ("ES256",),
            "X-Goog-Iap-Jwt-Assertion",
        ),
        (
            "auth0",
            "https://tenant.auth0.com/",
            "https://tenant.auth0.com/.well-known/jwks.json",
            ("RS256", "PS256"),
            None,
        ),
        (
            "keycloak",
            "https://sso.example/realms/main",
            "https://sso.example/realms/main/protocol/openid-connect/certs",
            ("RS256",),
            None,
        ),
        (
            "kubernetes",
            "https://kubernetes.default.svc.cluster.local",
            "https://kubernetes.default.svc/openid/v1/jwks",
            ("RS256", "ES256", "ES384", "ES512"),
            None,
        ),
    ],
)
def test_a_preset_fills_in_missing_keys(
    name: str, iss: str, jwks_uri: str, algorithms: tuple[str, ...], header: str | None
) -> None:
    found = preset(name, iss)
    assert (found.issuer, found.jwks_uri, found.algorithms) == (iss, jwks_uri, algorithms)
    assert found.token_from[0].header == (header or "Authorization")
    assert found.keys_from == "jwks_uri"
    assert found.fetched


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_sets_only_keys_of_an_issuer(name: str) -> None:
    known = PRESETS[name]
    for keys in (known.keys, known.fetch, *known.given.values()):
        assert keys.keys() <= Issuer.keys()
    assert known.used <= PresetKeys.keys()


@pytest.mark.parametrize("name", PRESETS)
def test_the_file_wins_over_the_preset(name: str) -> None:
    asked = {"tenant": "any", "policies": "[a]", "arn": f"'{ARN}'", "repository": "a/b", "user_pool": "eu-west-1_A"}
    more = "".join(f", {key}: {asked.get(key, 'x')}" for key in PRESETS[name].asks)
    found = preset(name, "https://idp.example", f", jwks_uri: https://keys.example/, algorithms: [ES384]{more}")
    assert (found.jwks_uri, found.algorithms) == ("https://keys.example/", ("ES384",))


@pytest.mark.parametrize(("name", "key"), [(name, key) for name in PRESETS for key in sorted(PRESETS[name].used)])
@pytest.mark.parametrize("value", ["1", "true", "{a: b}"])
def test_an_input_of_a_preset_with_a_wrong_type_is_reported(name: str, key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf": issuers\.a\.{key}: "):
        preset(name, "https://idp.example", f", {key}: {value}")


@pytest.mark.parametrize("source", ["jwks_uri: https://keys.example/", "jwks_file: keys.json"])
def test_credentials_of_a_preset_are_only_sent_to_its_own_url(source: str) -> None:
    found = preset("kubernetes", "https://kubernetes.default.svc", f", {source}")
    assert (found.jwks_bearer_token_file, found.jwks_tls) == (None, None)


def test_credentials_of_the_file_win_over_those_of_the_preset() -> None:
    found = preset("kubernetes", "https://kubernetes.default.svc", ", jwks_bearer_token_file: token")
    assert found.jwks_bearer_token_file == Path.cwd() / "token"
    assert found.jwks_tls is not None


def test_check_shows_the_settings_of_a_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "issuers:\n"
        "  edge: {preset: cloudflare_access, issuer: https://team.cloudflareaccess.com/, audiences: any}\n"
        "  pool: {preset: cognito, user_pool: eu-west-1_Ab, audiences: [app], require: {claims: {tier: {in: [1, 2]}}}}\n"
        "  api: {preset: zuplo, issuer: https://a.example/i, audiences: any, jwks_file: k.json, algorithms: [EdDSA]}\n"
        f"  other: {{issuer: https://idp.example, audiences: any}}\n{UPSTREAM}"
    )
    assert main(["check", "-c", str(file)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{file}: no problems found",
        f"missing here, so not checked: issuers.api: {tmp_path}/k.json",
        "issuers.edge, with preset cloudflare_access:",
        "  issuer: https://team.cloudflareaccess.com/, https://team.cloudflareaccess.com",
        "  audiences: any",
        "  keys from: https://team.cloudflareaccess.com/cdn-cgi/access/certs",
        "  algorithms: RS256",
        "  typ: JWT, at+jwt, absent",
        "  token in: Cf-Access-Jwt-Assertion, CF_Authorization, Authorization",
        "  issuer has a slash too many; the tokens have https://team.cloudflareaccess.com, which is accepted too: write that",
        "issuers.pool, with preset cognito:",
        "  issuer: https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Ab",
        "  audiences: app in client_id",
        "  keys from: https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Ab/.well-known/jwks.json",
        "  algorithms: RS256",
        "  typ: JWT, at+jwt, absent",
        '  claims: token_use equals "access"; tier in [1, 2]',
        "  roles in: cognito:groups",
        "  token in: Cf-Access-Jwt-Assertion, CF_Authorization, Authorization",
        "issuers.api, with preset zuplo:",
        "  issuer: https://a.example/i",
        "  audiences: any",
        "  keys from: jwks_file",
        "  algorithms: EdDSA",
        "  typ: JWT, at+jwt, absent",
        "  token in: Cf-Access-Jwt-Assertion, CF_Authorization, Authorization",
    ]


PRESET = f"is not a preset; one of: {', '.join(PRESETS)}"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        case("unknown preset", "preset: auth1", f"5:11: issuers.a.preset: 'auth1' {PRESET}; did you mean auth0?"),
        case("number as preset", "preset: 5", "5:11: issuers.a.preset: must be text; put 5 in quotes"),
        case("list as preset", "preset: [zuplo]", "5:3: issuers.a.preset: must be text, not a list"),
    ],
)
def test_an_unknown_preset_is_reported(keys: str, expected: list[str]) -> None:
    assert problems(text_of(keys)) == expected


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        case("missing tenant", "preset: entra",
             "5:3: issuers.a.tenant: is missing; preset entra needs the directory (tenant) ID, a list of them, or any"),
        case("tenant by its domain", "{preset: entra, tenant: contoso.com}",
             "5:3: issuers.a.tenant: must be IDs of tenants (GUIDs), or any: tokens do not have the tenant's domain"),
        case("key of another preset", "{preset: okta, user_pool: eu-west-1_A}",
             "5:3: issuers.a.user_pool: is for another preset; one of: cognito"),
        case("key without preset", "project: a",
             "5:3: issuers.a.project: is for another preset; one of: firebase, firebase_session, gitlab, supabase"),
        case("no ARN", "{preset: aws_alb, arn: my-lb}",
             "5:3: issuers.a.arn: 'my-lb' is not the ARN of an application load balancer, "
             "arn:aws:elasticloadbalancing:REGION:ACCOUNT:loadbalancer/app/NAME/ID"),
        case("missing ARN", "preset: aws_alb", "5:3: issuers.a.arn: is missing; preset aws_alb needs the load balancer's ARN"),
        case("no user pool", "{preset: cognito, user_pool: my-pool}",
             "5:3: issuers.a.user_pool: 'my-pool' is not a user pool's ID, such as eu-west-1_AbCdEfGhI"),
        case("owner alone", "{preset: github_actions, repository: my-org}",
             "5:3: issuers.a.repository: 'my-org' is not OWNER/NAME, or OWNER/* for all of an owner"),
        case("URL as project", "{preset: supabase, project: abc.supabase.co/}",
             "5:3: issuers.a.project: 'abc.supabase.co/' is not the name or id of a project; it is no URL"),
        case("URI as trust domain", "{preset: spiffe, trust_domain: example.org/web}",
             "5:3: issuers.a.trust_domain: 'example.org/web' is not a trust domain, such as example.org"),
        case("address as domain", "{preset: google, domain: alice@example.com}",
             "5:3: issuers.a.domain: 'alice@example.com' is not a domain, such as example.com"),
        case("braces in a name", "{preset: firebase, project: '{kid}'}",
             "5:3: issuers.a.project: '{kid}' is not a name or id; use only letters, digits and ._:/@-"),
    ],
)  # fmt: skip
def test_missing_inputs_of_a_preset_are_named(keys: str, expected: list[str]) -> None:
    inner = keys.strip("{}") if "'" not in keys else keys[1:-1]
    text = text_of("\n  ".join(inner.split(", ")))
    assert [line.split(": ", 1)[1] for line in problems(text)] == [line.split(": ", 1)[1] for line in expected]


@pytest.mark.parametrize("iss", ["urn:x y", "app example", "http://[", "ftp://idp.example"])
def test_a_preset_refuses_inputs_that_make_no_url(iss: str) -> None:
    with pytest.raises(ConfigError):
        preset("keycloak", iss)


@pytest.mark.parametrize(
    ("arn", "keys"),
    [
        (ARN, "https://public-keys.auth.elb.eu-west-1.amazonaws.com/{kid}"),
        (
            ARN.replace("aws:", "aws-us-gov:", 1).replace("eu-west-1", "us-gov-east-1"),
            "https://s3-us-gov-east-1.amazonaws.com/aws-elb-public-keys-prod-us-gov-east-1/{kid}",
        ),
    ],
)
def test_a_load_balancers_keys_come_from_its_region_and_its_arn_is_required(arn: str, keys: str) -> None:
    found = preset("aws_alb", "https://idp.example/", f", arn: '{arn}'")
    assert (found.jwks_uri, found.signer, found.audiences) == (keys, arn, None)


def test_a_preset_over_plain_http_must_be_allowed() -> None:
    text = f"issuers: {{a: {{preset: keycloak, issuer: 'http://sso.example/realms/a', audiences: any}}}}\n{UPSTREAM}"
    assert problems(text) == [
        "1:41: issuers.a.issuer: an attacker on the way can replace keys over plain http; use https, or set allow_http: true"
    ]
    assert preset("keycloak", "http://127.0.0.1:1/realms/a").jwks_uri is not None


# One place for the keys


@pytest.mark.parametrize(
    ("keys", "source"),
    [
        ("required: true", "discovery"),
        ("jwks_uri: https://a/", "jwks_uri"),
        ("jwks_file: a", "jwks_file"),
        ("jwks_inline: {keys: []}", "jwks_inline"),
        ("public_key_file: a", "public_key_file"),
        ("secret_file: a", "secret_file"),
        ("secret_env: S", "secret_env"),
    ],
)
def test_keys_from_names_the_source_of_the_keys(keys: str, source: str) -> None:
    found = issuer(keys, {"S": SECRET})
    assert found.keys_from == source
    assert found.fetched == (source in ("discovery", "jwks_uri"))


@pytest.mark.parametrize("source", ["jwks_file: a", "jwks_inline: {keys: []}", "public_key_file: a", "secret_file: a"])
def test_an_issuer_with_local_keys_needs_no_url(source: str) -> None:
    text = f"issuers: {{a: {{issuer: some-service, audiences: any, {source}}}}}\n{UPSTREAM}"
    assert parse(text).issuers["a"].issuer == "some-service"


WRITTEN = {
    "jwks_uri": "https://a/", "jwks_file": "a", "jwks_inline": "{keys: []}", "public_key_file": "a",
    "secret_file": "a", "secret_env": "S",
}  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other"), [(one, other) for n, one in enumerate(SOURCES) for other in SOURCES[n + 1 :]]
)
def test_two_sources_of_keys_contradict_each_other(one: str, other: str) -> None:
    said = problems(text_of(f"{one}: {WRITTEN[one]}\n  {other}: {WRITTEN[other]}"), {"S": SECRET})
    assert [text.split(": ", 1)[1] for text in said] == [f"issuers.a.{other}: contradicts {one}; keep one of the two"]


KEY = "{kty: OKP, crv: Ed25519, x: 11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"


@pytest.mark.parametrize(
    "keys",
    [
        "jwks_uri: 'https://keys.example/{kid}'\n  more_keys: [{jwks_file: f}]",
        "jwks_file: f\n  more_keys: [{jwks_uri: 'https://keys.example/{kid}'}]",
    ],
)
def test_a_jwks_uri_with_kid_cannot_be_combined_with_more_keys(keys: str) -> None:
    said = problems(text_of(keys))
    assert said == ["6:3: issuers.a.more_keys: cannot be combined with a jwks_uri with {kid}; keep one of the two"]


def test_an_inline_key_set_is_kept_unchanged() -> None:
    assert issuer(f"jwks_inline: {{keys: [{KEY}, kid: a}}]}}").jwks_inline == {
        "keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "a"}]
    }


PRIVATE = "holds a private key or a secret (d or k); only the public members of a key belong here"
SECRET_FIRST = "needs a public key, and this issuer has a secret; one of: HS256, HS384, HS512"
KEY_SET_FIRST = f"needs a shared secret, and a key set holds no secrets; one of: {ALGORITHMS}"
VARIABLE = "must be the name of an environment variable, not the secret itself"
NAME = "is not a header name: letters, digits and !#$%&'*+-.^_`|~ only"
VALUE = "must be printable ASCII, not empty, without spaces at its ends"
NEEDED = "is a header that HTTP needs and cannot be set"
INSECURE = "lets an attacker on the way pose as the server; if you accept that, also set ALLOW_INSECURE=1"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        case("inline text", "jwks_inline: keys", "5:16: issuers.a.jwks_inline: must be a mapping of keys, not 'keys'"),
        case("inline without keys", "jwks_inline: {a: b}",
             "5:3: issuers.a.jwks_inline: is not a JWK Set: it has no list `keys`"),
        case("inline keys as text", "jwks_inline: {keys: a}",
             "5:3: issuers.a.jwks_inline: is not a JWK Set: it has no list `keys`"),
        case("private key inline", f"jwks_inline: {{keys: [{KEY}, d: x}}]}}", f"5:3: issuers.a.jwks_inline: {PRIVATE}"),
        case("secret inline", "jwks_inline: {keys: [{kty: oct, k: x}]}", f"5:3: issuers.a.jwks_inline: {PRIVATE}"),
        case("kid of nothing", "kid: a", "5:8: issuers.a.kid: needs public_key_file; add it or remove kid"),
        case("kid of a key set", "jwks_file: a\n  kid: a",
             "6:8: issuers.a.kid: needs public_key_file; add it or remove kid"),
        case("empty kid", "public_key_file: a\n  kid: ''", "6:8: issuers.a.kid: is empty"),
        case("HS256 without a secret", "algorithms: [HS256]", f"5:16: issuers.a.algorithms.0: 'HS256' {KEY_SET_FIRST}"),
        case("HS256 and a key set", "jwks_uri: https://a/\n  algorithms: [RS256, HS256]",
             f"6:23: issuers.a.algorithms.1: 'HS256' {KEY_SET_FIRST}"),
        case("HS512 and a public key", "public_key_file: a\n  algorithms: [HS512]",
             f"6:16: issuers.a.algorithms.0: 'HS512' {KEY_SET_FIRST}"),
        case("RS256 and a secret", "secret_file: a\n  algorithms: [HS256, RS256]",
             f"6:23: issuers.a.algorithms.1: 'RS256' {SECRET_FIRST}"),
        case("hs256", "secret_file: a\n  algorithms: [hs256]",
             f"6:16: issuers.a.algorithms.0: 'hs256' is not an algorithm; one of: {ALGORITHMS}; did you mean HS256?"),
        case("secret file as list", "secret_file: [a]", f"5:3: issuers.a.secret_file: {FILE}"),
        case("secret as variable", f"secret_env: {SECRET}", f"5:15: issuers.a.secret_env: {VARIABLE}"),
        case("unknown variable", "secret_env: NOT_THERE",
             "5:15: issuers.a.secret_env: the environment has no variable of this name"),
        case("short variable", "secret_env: SHORT",
             "5:15: issuers.a.secret_env: holds a secret of 31 bytes; use at least 32"),
        case("inline secret", "secret: abc",
             "5:3: issuers.a.secret: unknown key; did you mean secret_env?"),
        case("key without certificate", "jwks_tls: {key_file: a}",
             "5:24: issuers.a.jwks_tls.key_file: needs cert_file; add cert_file, or remove it"),
        case("insecure without the variable", "jwks_tls: {insecure_skip_verify: true}",
             f"5:36: issuers.a.jwks_tls.insecure_skip_verify: {INSECURE}"),
        case("server name with a port", "jwks_tls: {server_name: 'a:1'}",
             "5:27: issuers.a.jwks_tls.server_name: 'a:1' is not the name of a host"),
        case("header name", "jwks_headers: {a b: c}", f"5:18: issuers.a.jwks_headers.a b: {NAME}"),
        case("header of HTTP", "jwks_headers: {Host: c}", f"5:18: issuers.a.jwks_headers.Host: {NEEDED}"),
        case("header value", 'jwks_headers: {a: "b\\r\\nc: d"}', f"5:21: issuers.a.jwks_headers.a: {VALUE}"),
        case("empty header value", "jwks_headers: {a: ''}", f"5:21: issuers.a.jwks_headers.a: {VALUE}"),
        case("two tokens", "jwks_headers: {authorization: a}\n  jwks_bearer_token_file: b",
             "6:27: issuers.a.jwks_bearer_token_file: contradicts Authorization in jwks_headers; keep one of the two"),
        case("TLS for a file", "jwks_file: a\n  jwks_tls: {ca_file: b}",
             "6:3: issuers.a.jwks_tls: is for keys that are fetched, and jwks_file is not fetched; remove it"),
        case("headers for a secret", "secret_file: a\n  jwks_headers: {a: b}",
             "6:3: issuers.a.jwks_headers: is for keys that are fetched, and secret_file is not fetched; remove it"),
        case("token for a key in PEM", "public_key_file: a\n  jwks_bearer_token_file: b",
             "6:27: issuers.a.jwks_bearer_token_file: is for keys that are fetched, and "
             "public_key_file is not fetched; remove it"),
        case("wildcard", "issuer_aliases: ['https://*.idp.example/']",
             "5:20: issuers.a.issuer_aliases.0: 'https://*.idp.example/' is not a pattern, and a host cannot be one; a claim of "
             "the token may be in the path, such as {tid}"),
        case("template in the host", "issuer_aliases: ['https://{tid}.idp.example/']",
             "5:20: issuers.a.issuer_aliases.0: 'https://{tid}.idp.example/' is not a template; write {claim} once, as one "
             "whole segment of the path, such as {tid}"),
        case("template of a part of a segment", "issuer_aliases: ['https://idp.example/a{tid}/']",
             "5:20: issuers.a.issuer_aliases.0: 'https://idp.example/a{tid}/' is not a template; write {claim} once, as one "
             "whole segment of the path, such as {tid}"),
        case("the document's tenantid", "issuer_aliases: ['https://idp.example/{tenantid}/v2.0']",
             "5:20: issuers.a.issuer_aliases.0: 'https://idp.example/{tenantid}/v2.0' is the form in Entra's discovery "
             "document; write {tid}, the claim (see preset entra)"),
        case("tenants by two claims", "issuer_aliases: ['https://idp.example/{tid}/', 'https://sts.example/{org}/']",
             "5:50: issuers.a.issuer_aliases.1: 'https://sts.example/{org}/' names the tenant by another claim than {tid}; use "
             "one in all"),
        case("alias with a blank", "issuer_aliases: [a b]",
             "5:20: issuers.a.issuer_aliases.0: must be the exact `iss` of the tokens, not empty, without white space"),
        case("alias of itself", "issuer_aliases: [b, https://idp.example/]",
             "5:23: issuers.a.issuer_aliases.1: is also an iss of a (line 4); remove one of the two"),
        case("alias twice", "issuer_aliases: [b, b]",
             "5:23: issuers.a.issuer_aliases.1: is also an iss of a (line 5); remove one of the two"),
    ],
)  # fmt: skip
def test_an_invalid_source_of_keys_is_reported(keys: str, expected: list[str]) -> None:
    assert problems(text_of(keys), {"SHORT": SECRET[1:]}) == expected


def test_an_alias_belongs_to_one_issuer() -> None:
    text = f"""issuers:
  a: {{issuer: https://a/, audiences: any, issuer_aliases: [https://c/]}}
  b: {{issuer: https://b/, audiences: any, issuer_aliases: [https://a/]}}
  c: {{issuer: https://c/, audiences: any}}
{UPSTREAM}"""
    assert problems(text) == [
        "3:60: issuers.b.issuer_aliases.0: is also an iss of a (line 2); remove one of the two",
        "4:15: issuers.c.issuer: is also an iss of a (line 2); remove one of the two",
    ]


# Secrets


def test_an_issuer_with_a_secret_accepts_only_hmac() -> None:
    assert issuer("secret_env: S", {"S": SECRET}).algorithms == ("HS256", "HS384", "HS512")
    assert issuer("secret_env: S\n  algorithms: [HS256]", {"S": SECRET}).algorithms == ("HS256",)
    assert issuer("secret_env: S\n  preset: auth0", {"S": SECRET}).algorithms == ("HS256", "HS384", "HS512")


def test_a_secret_does_not_appear_in_the_text_of_an_issuer() -> None:
    found = issuer("secret_env: S", {"S": SECRET})
    assert found.secret_env is not None
    assert found.secret_env.get_secret_value() == SECRET.encode()
    assert SECRET not in repr(found)
    assert SECRET not in str(found.model_dump())


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(b"", "holds a secret of 0 bytes; use at least 32", id="empty"),
        pytest.param(SECRET[1:].encode(), "holds a secret of 31 bytes; use at least 32", id="31 bytes"),
        pytest.param(
            SECRET[1:].encode() + b"\n",
            "holds a secret of 31 bytes; use at least 32",
            id="31 bytes and the end of the line",
        ),
        pytest.param(
            tokens.public_pem(),
            "holds a key or certificate in PEM, which is not a secret; use public_key_file for a public key",
            id="PEM",
        ),
    ],
)
def test_a_secret_file_with_a_weak_secret_or_a_public_key_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "secret").write_bytes(content)
    assert problems(text_of("secret_file: secret"), base=tmp_path) == [f"5:16: issuers.a.secret_file: {why}"]


@pytest.mark.parametrize("content", [SECRET.encode(), SECRET.encode() + b"\n", bytes(range(32)), b"\r" * 32])
def test_a_secret_of_32_bytes_is_enough(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    assert issuer("secret_file: secret", base=tmp_path).secret_file == tmp_path / "secret"


def test_a_missing_secret_file_is_accepted(tmp_path: Path) -> None:
    assert issuer("secret_file: secret", base=tmp_path).keys_from == "secret_file"


# TLS and headers


def test_insecure_skip_verify_needs_a_variable_of_the_environment() -> None:
    keys = "jwks_tls: {insecure_skip_verify: true}"
    found = issuer(keys, {"ALLOW_INSECURE": "1"}).jwks_tls
    assert found is not None
    assert found.insecure_skip_verify
    for value in ("", "0", "true"):
        assert "ALLOW_INSECURE=1" in problems(text_of(keys), {"ALLOW_INSECURE": value})[0]


def test_ca_file_and_insecure_skip_verify_contradict_each_other() -> None:
    assert problems(text_of("jwks_tls: {insecure_skip_verify: true, ca_file: a}"), {"ALLOW_INSECURE": "1"}) == [
        "5:36: issuers.a.jwks_tls.insecure_skip_verify: contradicts ca_file; keep one of the two"
    ]


def test_files_of_tls_are_relative_to_the_configuration(tmp_path: Path) -> None:
    found = issuer("jwks_tls: {ca_file: ca, cert_file: c, key_file: /k, server_name: a.b}", base=tmp_path).jwks_tls
    assert found is not None
    assert (found.ca_file, found.cert_file, found.key_file) == (tmp_path / "ca", tmp_path / "c", Path("/k"))
    assert (found.server_name, found.insecure_skip_verify) == ("a.b", False)


def test_headers_of_a_fetch_can_hold_variables() -> None:
    headers = issuer('jwks_headers: {X-Api-Key: "${KEY}", Authorization: Basic abc=}', {"KEY": "a b"}).jwks_headers
    assert headers == {"X-Api-Key": "a b", "Authorization": "Basic abc="}


def test_snapshots_are_off_by_default_and_have_a_configured_directory(tmp_path: Path) -> None:
    assert parse(text_of("required: true")).jwks_snapshot_dir is None
    found = parse(text_of("required: true") + "jwks_snapshot_dir: keys\n", base=tmp_path)
    assert found.jwks_snapshot_dir == tmp_path / "keys"


def test_an_issuer_with_a_template_needs_a_source_of_keys() -> None:
    text = f"issuers: {{a: {{issuer: 'https://idp.example/{{tid}}/', audiences: any}}}}\n{UPSTREAM}"
    assert problems(text) == [
        "1:23: issuers.a.issuer: is a template for many issuers, so keys cannot be discovered; add jwks_uri or jwks_file"
    ]


def test_assume_issuer_needs_an_issuer_without_template() -> None:
    text = f"""issuers:
  a: {{issuer: "https://a/{{tid}}/", audiences: any, jwks_file: f, assume_issuer: true}}
{UPSTREAM}"""
    said = "has assume_issuer, and a token without iss is of no tenant of its template; remove one of the two"
    assert problems(text) == [f"2:3: issuers.a: {said}"]


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        ("https://a/{tid}/v2", "https://a/{org}/v2", True),
        ("https://a/{tid}/v2", "https://a/v1/{org}", True),
        ("https://a/{tid}/v2", "https://a/{org}/v1", False),
        ("https://a/{tid}/v2", "https://a/{org}", False),
        ("https://a/{tid}/v2", "https://b/{org}/v2", False),
        ("https://a/{tid}/v2", "https://a/b/v2", False),
    ],
)
def test_templates_of_two_issuers_have_no_iss_in_common(one: str, other: str, common: bool) -> None:
    text = f"""issuers:
  a: {{issuer: "{one}", audiences: any, jwks_file: f}}
  b: {{issuer: "{other}", audiences: any, jwks_file: f}}
{UPSTREAM}"""
    said = "may be the same iss as a template of a (line 2); remove one of the two"
    if common:
        assert problems(text) == [f"3:15: issuers.b.issuer: {said}"]
    else:
        assert parse(text)


def test_assume_issuer_needs_a_file_with_one_issuer() -> None:
    text = f"""issuers:
  a: {{issuer: https://a/, audiences: any, assume_issuer: true}}
  b: {{issuer: https://b/, audiences: any}}
{UPSTREAM}"""
    assert problems(text) == ["2:3: issuers.a: has assume_issuer, which is only for a file with one issuer; remove it"]
