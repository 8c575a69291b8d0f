"""Refused settings of the places of tokens and of the identity headers."""

from pathlib import Path

import pytest

from sidecar.config import parse
from tests.config.test_config_problems import ISSUERS, UPSTREAM, case, problems

RESERVED = "is reserved: HTTP or the proxy uses this header; for a cookie use `cookie`"
READ_ALIKE = "to backends that read _ and . as -; choose another name"
WORD = "must be one word, such as Bearer, or '' for a header that holds nothing but the token"
CLAIM = "is not a claim or a path such as realm_access.roles; write \\. for a dot in a name, \\\\ for a backslash"
BRACE = "; write {sub} for a claim, and {{ or }} for a brace"

# fmt: off
REFUSED_TOKEN_HEADERS = [
    "Cookie", "Host", "Content-Length", "Transfer-Encoding", "Connection", "Proxy-Authorization", "Forwarded",
    "X-Forwarded-For", "X-Forwarded-Host", "x_forwarded_proto", "X-Forwarded-Uri", "X-Request-Id", "X-JWT-Status", "X-Real-IP",
]

TOKEN_FROM = [
    case("nowhere", "[]", "3:1: token_from: is empty, which could mean all or none; add at least one"),
    case("a mapping", "{header: X-Token}", "3:1: token_from: must be a list, not a mapping"),
    case("a word", "[X-Token]", "3:14: token_from.0: must be a mapping of keys, not 'X-Token'"),
    case("no place", "[{}]", "3:14: token_from.0: names no place; one of: header, cookie, query, subprotocol"),
    case("unknown key", "[{headr: X-Token}]", "3:14: token_from.0: names no place; one of: header, cookie, query, subprotocol",
         "3:15: token_from.0.headr: unknown key; did you mean header?"),
    case("two places", "[{header: X-Token, cookie: a}]",
         "3:40: token_from.0.cookie: is another place than header; write it as a separate item"),
    case("three places", "[{query: a, header: X-Token, cookie: a}]",
         "3:22: token_from.0.query: is another place than header; write it as a separate item",
         "3:50: token_from.0.cookie: is another place than header; write it as a separate item"),
    case("prefix of a cookie", "[{cookie: a, prefix: Bearer}]", "3:34: token_from.0.prefix: is for headers alone"),
    case("pieces of a header", "[{header: X-Token, pieces: true}]", "3:40: token_from.0.pieces: is for cookies alone"),
    case("member of a parameter", "[{query: a, json_member: b}]", "3:38: token_from.0.json_member: is for cookies alone"),
    case("every cookie", "[{cookie: '**'}]", "3:23: token_from.0.cookie: matches every cookie; write more of its name than *"),
    case("pieces behind a star", "[{cookie: 'a*', pieces: true}]",
         "3:37: token_from.0.pieces: cannot follow a * at the end of the name; end the name with other characters"),
    case("blank in a subprotocol", "[{subprotocol: a b}]", "3:28: token_from.0.subprotocol: is not the name of a "
         "subprotocol: letters, digits and !#$%&'*+-.^_`|~ only, such as bearer"),
    case("subprotocol twice", "[{subprotocol: a}, {subprotocol: a}]",
         "3:46: token_from.1.subprotocol: is in this list twice"),
    case("header of subprotocols", "[{header: Sec-WebSocket-Protocol}]",
         "3:23: token_from.0.header: is not a place for header; use `subprotocol` with the name before the token"),
    case("prefix of two words", "[{header: X-Token, prefix: a b}]", f"3:40: token_from.0.prefix: {WORD}"),
    case("prefix with a colon", "[{header: X-Token, prefix: 'a:'}]", f"3:40: token_from.0.prefix: {WORD}"),
    case("number as prefix", "[{header: X-Token, prefix: 1}]", "3:40: token_from.0.prefix: must be text; put 1 in quotes"),
    case("blank in a header", "[{header: X Token}]",
         "3:23: token_from.0.header: is not a header name: letters, digits and !#$%&'*+-.^_`|~ only"),
    case("blank in a cookie", "[{cookie: a b}]",
         "3:23: token_from.0.cookie: is not the name of a cookie: letters, digits and !#$%&'*+-.^_`|~ only"),
    case("escape in a parameter", "[{query: a%20b}]",
         "3:22: token_from.0.query: is not the name of a parameter: letters, digits and ._~- only"),
    case("empty names", "[{cookie: ''}, {query: ''}]",
         "3:23: token_from.0.cookie: is not the name of a cookie: letters, digits and !#$%&'*+-.^_`|~ only",
         "3:36: token_from.1.query: is not the name of a parameter: letters, digits and ._~- only"),
    case("header twice", "[{header: X-Token}, {header: x_token}]",
         f"3:42: token_from.1.header: is token_from.0.header {READ_ALIKE}"),
    case("cookie twice", "[{cookie: a}, {query: a}, {cookie: a}]", "3:48: token_from.2.cookie: is in this list twice"),
    case("parameter twice", "[{query: a}, 5, {query: a}]", "3:26: token_from.1: must be a mapping of keys, not 5",
         "3:37: token_from.2.query: is in this list twice"),
    case("an identity header", "[{header: x-jwt-sub}]",
         f"3:23: token_from.0.header: is the identity header X-JWT-Sub {READ_ALIKE}"),
    case("the claims header", "[{header: X-JWT-Claims}]",
         f"3:23: token_from.0.header: is claims_header {READ_ALIKE}"),
    *[case(name, f"[{{header: {name}}}]", f"3:23: token_from.0.header: {RESERVED}") for name in REFUSED_TOKEN_HEADERS],
]

MORE_ABOUT_A_HEADER = [
    case("nothing", "{}", "3:20: identity_headers.A: names neither a claim nor a value"),
    case("both", "{claim: sub, value: x}", "3:43: identity_headers.A.value: contradicts claim; keep one of the two"),
    case("wrong claim", "{claim: a..b}", f"3:31: identity_headers.A.claim: 'a..b' {CLAIM}"),
    case("wrong word", "{claim: sub, on_oversize: drop}",
         "3:49: identity_headers.A.on_oversize: 'drop' is not one of: reject, omit"),
    case("number", "{value: 1}",
         '3:31: identity_headers.A.value: must be text, such as "user:{sub}", in which {claim} is replaced'),
    case("empty", "{value: ''}",
         '3:31: identity_headers.A.value: must be text, such as "user:{sub}", in which {claim} is replaced'),
    case("open brace", "{value: 'a{sub'}", "3:31: identity_headers.A.value: 'a{sub' has a single {" + BRACE),
    case("closing brace", "{value: 'a}'}", "3:31: identity_headers.A.value: 'a}' has a single }" + BRACE),
    case("brace in braces", "{value: '{a{b}}'}", "3:31: identity_headers.A.value: '{a{b}}' has a single {" + BRACE),
    case("no claim in braces", "{value: 'a{}'}", f"3:31: identity_headers.A.value: 'a{{}}' {CLAIM}"),
    case("wrong claim in braces", "{value: '{a..b}'}", f"3:31: identity_headers.A.value: '{{a..b}}' {CLAIM}"),
]

TOLD = [
    case("unknown underscores", "underscore_headers: keep",
         "3:21: underscore_headers: 'keep' is not one of: drop, reject, allow"),
    case("unknown encoding", "encoding: utf8",
         "3:11: encoding: 'utf8' is not one of: percent, base64url, raw_utf8"),
    case("assertion for nobody", "assertion: {}",
         "3:1: assertion.audience: is missing; write the `aud` that the backend expects, such as my-backend"),
    case("assertion as list", "assertion: [a]", "3:1: assertion: must be a mapping of keys, not a list"),
    case("assertion as list of mappings", "assertion: [{}]", "3:1: assertion: must be a mapping of keys, not a list"),
    case("assertion for any", "assertion: {audience: ''}", "3:23: assertion.audience: is empty"),
    case("assertion with a secret", "assertion: {audience: a, alg: HS256}",
         "3:31: assertion.alg: 'HS256' is not one of: EdDSA, ES256"),
    case("assertion without time", "assertion: {audience: a, ttl: 0s}", "3:31: assertion.ttl: must be more than zero"),
    case("assertion of workers", "assertion: {audience: a}\nworkers: 2",
         "3:1: assertion: would sign with a different key in each worker; add key_file"),
    case("assertion in a header of HTTP", "assertion: {audience: a, header: Host}",
         "3:34: assertion.header: is reserved: the proxy or the backend uses this header; "
         "choose another name"),
    case("assertion in an identity header", "assertion: {audience: a, header: x_jwt_sub}",
         f"3:34: assertion.header: is the identity header X-JWT-Sub {READ_ALIKE}"),
    case("assertion in the claims header", "assertion: {audience: a, header: X-JWT-Claims}",
         f"3:34: assertion.header: is claims_header {READ_ALIKE}"),
    case("identity header of the assertion", "assertion: {audience: a}\nidentity_headers: {X-JWT-Assertion: sub}",
         f"3:1: assertion.header: is the identity header X-JWT-Assertion {READ_ALIKE}"),
    case("signature without a secret", "signature: {}",
         "3:1: signature.secret_file: is missing; write it, such as /run/secrets/signature"),
    case("signature in the assertion", "assertion: {audience: a, header: X-A}\nsignature: {header: X-A, secret_file: a}",
         f"4:21: signature.header: is assertion.header {READ_ALIKE}"),
]
# fmt: on


@pytest.mark.parametrize(("text", "expected"), TOKEN_FROM)
def test_an_invalid_place_of_tokens_is_reported(text: str, expected: list[str]) -> None:
    assert problems(f"{ISSUERS}{UPSTREAM}token_from: {text}") == expected


@pytest.mark.parametrize(("text", "expected"), MORE_ABOUT_A_HEADER)
def test_an_invalid_content_of_identity_headers_is_reported(text: str, expected: list[str]) -> None:
    assert problems(f"{ISSUERS}{UPSTREAM}identity_headers: {{A: {text}}}") == expected


@pytest.mark.parametrize(("text", "expected"), TOLD)
def test_an_invalid_assertion_or_signature_is_reported(text: str, expected: list[str]) -> None:
    assert problems(f"{ISSUERS}{UPSTREAM}{text}") == expected


def test_a_secret_under_32_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret\n")
    (problem,) = problems(f"{ISSUERS}{UPSTREAM}signature: {{secret_file: {tmp_path}/secret}}")
    assert problem == "3:26: signature.secret_file: holds a secret of 6 bytes; use at least 32"


def test_the_assertion_and_the_signature_have_every_default() -> None:
    config = parse(f"{ISSUERS}{UPSTREAM}assertion: {{audience: b}}\nsignature: {{secret_file: x}}", base=Path("/etc"))
    assertion, signature = config.assertion, config.signature
    assert assertion is not None
    assert (assertion.header, assertion.alg, assertion.key_file) == ("X-JWT-Assertion", "EdDSA", None)
    assert (assertion.issuer, assertion.audience, assertion.ttl_s) == ("jwt-sidecar", "b", 30.0)
    assert signature is not None
    assert (signature.header, signature.secret_file) == ("X-JWT-Signature", Path("/etc/x"))


def test_an_assertion_with_a_key_file_may_have_several_workers() -> None:
    config = parse(f"{ISSUERS}{UPSTREAM}assertion: {{audience: b, key_file: x}}\nworkers: 2")
    assert config.assertion is not None


def test_by_default_there_is_no_assertion_and_no_signature() -> None:
    config = parse(ISSUERS + UPSTREAM)
    assert (config.assertion, config.signature) == (None, None)
    assert (config.encoding, config.underscore_headers) == ("percent", "drop")
