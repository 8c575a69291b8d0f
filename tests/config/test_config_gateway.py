"""The gateway half of the configuration: refused settings and defaults."""

import pytest

from sidecar.config import parse
from tests.config.test_config_problems import ISSUERS, UPSTREAM, case, problems

KEYS = "api_keys: {file: k.json}\n"
SIGNING = "signing: {issuer: 'https://gw.test/issuer', keys_file: s.json}\n"
MINTED = "upstreams: {a: {url: 'http://127.0.0.1:1', token: {audience: x}}}\n"
RESERVED = "is reserved: HTTP or the proxy uses this header; for a cookie use `cookie`"
READ_ALIKE = "to backends that read _ and . as -; choose another name"

# fmt: off
REFUSED = [
    case("no file", f"api_keys: {{}}\n{UPSTREAM}", "1:1: api_keys.file: is missing; it has no default"),
    case("reserved header", f"api_keys: {{file: k, header: Cookie}}\n{UPSTREAM}", f"1:29: api_keys.header: {RESERVED}"),
    case("an identity header", f"api_keys: {{file: k, header: X_Jwt_Sub}}\n{UPSTREAM}",
         f"1:29: api_keys.header: is the identity header X-JWT-Sub {READ_ALIKE}"),
    case("like the header of tokens",
         f"{ISSUERS}api_keys: {{file: k, header: X_Token}}\ntoken_from: [{{header: X-Token}}]\n{UPSTREAM}",
         f"2:29: api_keys.header: is token_from.0.header {READ_ALIKE}"),
    case("two words", f"api_keys: {{file: k, prefix: a b}}\n{UPSTREAM}",
         "1:29: api_keys.prefix: must be one word, such as Bearer, or '' for a header that holds nothing but the token"),
    case("route without api_keys", f"{ISSUERS}{UPSTREAM}routes: [{{path: /a, auth: api_key}}]",
         "3:27: routes.0.auth: needs `api_keys`, with the file of their hashes"),
    case("route with issuers", f"{ISSUERS}{KEYS}{UPSTREAM}routes: [{{path: /a, auth: api_key, issuers: [main]}}]",
         "4:36: routes.0.issuers: contradicts auth: api_key, which needs no token; remove one of the two"),
    case("route that sends the key on", f"{KEYS}{UPSTREAM}routes: [{{path: /a, auth: api_key, forward_token: true}}]",
         "3:36: routes.0.forward_token: contradicts auth: api_key: an API key never reaches a backend; remove it"),
    case("tokens of nobody", f"{KEYS}{UPSTREAM}routes: [{{path: /a}}, {{path: /b, auth: optional}}]",
         "3:10: routes.0: needs a token, and this file has no issuer; add issuers, or use auth: api_key",
         "3:34: routes.1.auth: needs a token, and this file has no issuer; add issuers, or use auth: api_key"),
    case("token without signing", f"{ISSUERS}{MINTED}",
         "2:46: upstreams.a.token: needs `signing`, with the issuer and the keys that sign"),
    case("signing for nobody", f"{ISSUERS}{SIGNING}{UPSTREAM}",
         "2:1: signing: signs nothing; add a `token` to an upstream, or add token_endpoint"),
    case("endpoint for nobody", f"{ISSUERS}{SIGNING[:-2]}, token_endpoint: {{audience: x}}}}\n{UPSTREAM}",
         "2:66: signing.token_endpoint: gives tokens to holders of API keys; add `api_keys`, "
         "with the file of their hashes"),
    case("both tokens", f"{ISSUERS}{SIGNING}{MINTED}forward_token: true\nroutes: [{{path: /a, forward_token: true}}]",
         "4:1: forward_token: contradicts the `token` of an upstream, which uses the same header; "
         "set it on routes to other upstreams",
         "5:21: routes.0.forward_token: contradicts the `token` of its upstream, which uses the same header; remove one"),
    case("issuer with a query", f"{ISSUERS}signing: {{issuer: 'https://a/?b', keys_file: s}}\n{MINTED}",
         "2:19: signing.issuer: must not have a query; the key set is below the path of this URL"),
    case("issuer that is no URL", f"{ISSUERS}signing: {{issuer: me, keys_file: s}}\n{MINTED}",
         "2:19: signing.issuer: must be a whole URL such as https://idp.example/keys"),
    case("short", f"{ISSUERS}{SIGNING}{MINTED.replace('x}', 'x, ttl: 9s}')}",
         "3:71: upstreams.a.token.ttl: must be at least 10s; a shorter token may expire before the backend reads it"),
    case("algorithm", f"{ISSUERS}{SIGNING}{MINTED.replace('x}', 'x, algorithm: HS256}')}",
         "3:77: upstreams.a.token.algorithm: 'HS256' is not one of: EdDSA, RS256, ES256"),
    case("claim of the signer", f"{ISSUERS}{SIGNING}{MINTED.replace('x}', 'x, claims: {exp: exp}}')}",
         "3:75: upstreams.a.token.claims.exp: is set by the sidecar in every token; remove it"),
    case("no claims", f"{ISSUERS}{SIGNING}{MINTED.replace('x}', 'x, claims: {}}')}",
         "3:66: upstreams.a.token.claims: is empty, which could mean all or none; add at least one"),
    case("no audience", f"{ISSUERS}{SIGNING}{MINTED.replace('audience: x', '')}",
         "3:46: upstreams.a.token.audience: is missing; write the `aud` that the backend expects, such as my-backend"),
]
# fmt: on


@pytest.mark.parametrize(("text", "expected"), REFUSED)
def test_contradictory_settings_are_refused(text: str, expected: list[str]) -> None:
    found = [line.partition(" ")[2] for line in problems(text)]
    assert found == [line.partition(" ")[2] for line in expected]


def test_api_keys_need_no_issuer() -> None:
    config = parse(f"{KEYS}{UPSTREAM}routes: [{{path: /*, auth: api_key}}]")
    assert config.api_keys is not None
    assert (config.issuers, config.api_keys.header, config.api_keys.scheme) == ({}, "Authorization", "Bearer")
    assert [source.header for source in config.token_sources] == ["Authorization"]


@pytest.mark.parametrize(
    ("said", "scheme"),
    [("header: X-Api-Key", ""), ("prefix: ''", ""), ("prefix: ApiKey", "ApiKey"), ("header: authorization", "Bearer")],
)
def test_the_scheme_follows_the_header(said: str, scheme: str) -> None:
    config = parse(f"api_keys: {{file: k, {said}}}\n{UPSTREAM}")
    assert config.api_keys is not None
    assert config.api_keys.scheme == scheme


def test_minted_tokens_last_300_s_and_have_all_claims_by_default() -> None:
    token = parse(f"{ISSUERS}{SIGNING}{MINTED}").upstreams["a"].token
    assert token is not None
    assert (token.audience, token.ttl_s, token.algorithm, token.claims) == ("x", 300.0, "EdDSA", None)


def test_claims_of_a_minted_token_are_chosen_by_path() -> None:
    token = (
        parse(f"{ISSUERS}{SIGNING}{MINTED.replace('x}', 'x, claims: {roles: realm_access.roles}}')}")
        .upstreams["a"]
        .token
    )
    assert token is not None
    assert token.claims == {"roles": ("realm_access", "roles")}
