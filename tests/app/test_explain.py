"""`explain` says for every request what the proxy does with it, in the proxy's own sentences and without the token."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.app.explain.explanation import Explanation, explain, explain_alone
from sidecar.app.explain.question import Question
from sidecar.cli.main import main
from sidecar.jwt.verifier import Verifier
from tests.peers import tokens
from tests.peers.issuer import Answer
from tests.peers.raw import Response
from tests.peers.tokens import ABSENT, public_jwk
from tests.peers.wire import request
from tests.proxy.conftest import Stack, running

HOST = "sidecar.test"
STRICT, DOWN = "https://strict.test/", "http://127.0.0.1:9/"
THUMBPRINT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
ROUTES: list[dict[str, Any]] = [
    {"path": "/public/*", "auth": "none"},
    {"path": "/closed", "auth": "deny"},
    {"path": "/optional", "auth": "optional"},
    {"path": "/strict", "issuers": ["strict"]},
    {"path": "/scopes", "require": {"scopes": {"all": ["read"], "any": ["admin", "owner"]}}},
    {"path": "/roles", "require": {"roles": ["editor"]}},
    {
        "path": "/claims",
        "require": {"claims": {"tenant": {"equals": "acme"}, "realm_access.roles": {"any": ["admin"]}}},
    },
    {"path": "/report", "mode": "report", "require": {"scopes": ["admin"]}},
]


@asynccontextmanager
async def explained(**settings: Any) -> AsyncIterator[Stack]:
    """A sidecar with a rule of each kind; `strict` and `down` are issuers beside `main`."""
    inline = {"keys": [public_jwk("EdDSA")]}
    strict = {
        "issuer": STRICT, "jwks_inline": inline, "audiences": ["a", "b"], "audience_match": "all", "max_token_lifetime": "1h",
        "required_claims": ["tenant"], "reject_claims": ["nonce"], "accepted_typ": ["at+jwt"],
        "subjects": {"exact": ["alice"], "prefix": ["service:"]},
    }  # fmt: skip
    trusted = {"issuer": tokens.ISSUER, "jwks_inline": inline, "audiences": ["my-api"]}
    issuers = {"main": trusted, "strict": strict, "down": {"issuer": DOWN, "audiences": ["my-api"]}}
    async with running(routes=ROUTES, issuers=issuers, **settings) as stack:
        yield stack


def good(stack: Stack, **over: Any) -> str:
    """A token of the issuer main."""
    return stack.token(**{"iss": tokens.ISSUER, **over})


def strict(stack: Stack, typ: str = "at+jwt", **over: Any) -> str:
    """A token that the strict issuer's rules accept, with `over` changed."""
    fit = {"iss": STRICT, "aud": ["a", "b"], "tenant": "acme"}
    return stack.token(header={"typ": typ}, **{**fit, **over})


def answer_line(answer: Response) -> str:
    """The last line of `explain` for this refusal of the proxy."""
    body = answer.json()
    return f"rejected: {answer.status} {body['code']}: {body.get('details', body['error'])}"


async def both(stack: Stack, path: str, token: str | None, method: str = "GET") -> tuple[Response, Explanation]:
    """The proxy's answer and the explanation, which must not hold the token."""
    answer = await stack.fetch(request(method, path, token=token, host=HOST))
    question = Question(method, path, None if token is None else token.encode(), HOST)
    explanation = await explain_alone(stack.sidecar.config, question, stack.clock)
    stack.secrets.told(str(explanation))
    return answer, explanation


# Refused


@pytest.mark.parametrize(
    ("path", "over", "check"),
    [
        pytest.param("/x", {"exp": 1}, "FAIL  exp         token_expired: expected a time in the future", id="token_expired"),
        pytest.param("/x", {"exp": ABSENT}, "FAIL  exp         claim_missing: ", id="claim_missing"),
        pytest.param("/x", {"exp": "x\x1b"}, 'found: "x\\u001b"', id="claim_invalid"),
        pytest.param("/x", {"nbf": 4e9}, "FAIL  nbf         token_not_yet_valid: ", id="token_not_yet_valid"),
        pytest.param("/x", {"iat": 4e9}, "FAIL  iat         token_issued_in_future: ", id="token_issued_in_future"),
        pytest.param(
            "/x", {"aud": "other"}, "FAIL  aud         audience_mismatch: expected one of: my-api; found: other",
            id="audience_mismatch",
        ),
        pytest.param("/x", {"aud": ["a", "b\n"]}, 'found: a, "b\\n"', id="audience_mismatch, several audiences"),
        pytest.param("/x", {"aud": "b\u00fc"}, 'found: "b\\u00fc"', id="audience_mismatch, audience with a non-ASCII letter"),
        pytest.param("/x", {"aud": ABSENT}, "found: no aud", id="audience_mismatch, no aud claim"),
        pytest.param("/x", {"iss": "https://other.test/"}, "found: https://other.test/", id="issuer_unknown"),
        pytest.param("/x", {"iss": ABSENT}, "; found: absent", id="issuer_unknown, no iss claim"),
        pytest.param("/x", {"header": {"typ": "logout+jwt"}}, "at+jwt, jwt; found: logout+jwt", id="typ"),
        pytest.param("/x", {"header": {"crit": ["x"]}}, "FAIL  header      token_malformed: ", id="crit"),
        pytest.param("/x", {"header": {"crit": ["x"]}}, 'crit ["x"]', id="crit, the value is shown"),
        pytest.param("/x", {"header": {"b64": False}}, "b64 false", id="b64"),
        pytest.param("/x", {"header": {"alg": "HS256"}}, "PS512, RS256, RS384, RS512; found: HS256", id="algorithm"),
        pytest.param("/x", {"header": {"kid": "zz"}}, "kid zz for EdDSA; found: main has ed25519-a", id="key_unknown"),
        pytest.param("/x", {"header": {"kid": "\x1b[31m" * 30}}, '"\\u001b[31m', id="key_unknown, a long kid with escapes"),
        pytest.param("/x", {"name": "b", "header": {"kid": "ed25519-a"}}, "does not match kid ed25519-a", id="signature"),
        pytest.param("/x", {"cnf": {"jkt": THUMBPRINT}}, f'found: {{"jkt": "{THUMBPRINT}"}}', id="bound"),
        pytest.param("/x", {"iss": DOWN}, f"jwks_unavailable: {DOWN}.well-known/openid-configuration: no", id="no keys"),
        pytest.param("/strict", {}, "FAIL  issuers     issuer_unknown: expected one of: strict; found: main", id="issuers"),
        pytest.param(
            "/scopes", {"scope": "read"},
            "FAIL  scopes      scope_insufficient: expected all of: read, and one of: admin, owner; found: read",
            id="scope_insufficient",
        ),
        pytest.param(
            "/roles", {"roles": ["viewer"]}, "FAIL  roles       claim_mismatch: expected all of: editor; found: viewer",
            id="roles",
        ),
        pytest.param("/claims", {}, 'claim tenant claim_mismatch: expected {"equals": "acme"}; found: absent', id="claim"),
        pytest.param(
            "/claims", {"tenant": "acme", "realm_access": {"roles": ["\x00"]}},
            'claim_mismatch: expected {"any": ["admin"]}; found: ["\\u0000"]', id="claim, nested",
        ),
        pytest.param("/x", {"sub": "a" * 5000}, "FAIL  headers     claims_too_large: ", id="claims_too_large"),
        pytest.param("/x", {"more": "a" * 16000}, "FAIL  shape       token_too_large: ", id="token_too_large"),
        pytest.param("/x", {"more": "a" * 30000}, "FAIL  request     headers_too_large: ", id="headers_too_large"),
        pytest.param("/closed", {}, "FAIL  auth        route_denied: ", id="route_denied"),
        pytest.param("/optional", {"exp": 1}, "FAIL  exp         token_expired: ", id="optional route, expired token"),
        pytest.param("/x%2f..%2fclosed", {}, "FAIL  route       path_ambiguous: ", id="path_ambiguous"),
        pytest.param("x", {}, "FAIL  ", id="no path"),
    ],
)  # fmt: skip
async def test_a_refusal_is_reported_in_the_words_of_its_answer(path: str, over: dict[str, Any], check: str) -> None:
    async with explained() as stack:
        answer, explanation = await both(stack, path, good(stack, **over))
        *checks, decision = explanation.lines
        assert decision == answer_line(answer)
        assert check in checks[-1]
        assert [line for line in checks if not line.startswith(("ok ", "note  reading"))] == checks[-1:]
        assert explanation.rejection is not None
        assert str(explanation).isprintable() or set(str(explanation)) - {"\n"} <= set(map(chr, range(32, 127)))


async def test_the_readings_of_a_path_are_reported_with_the_rule_that_each_meets() -> None:
    async with explained() as stack:
        _, explanation = await both(stack, "/closed%2Fx", good(stack))
        assert [line for line in explanation.lines if "reading" in line] == [
            "note  reading     /closed%2Fx meets (default)",
            "note  reading     /closed/x meets (default)",
        ]
        _, explanation = await both(stack, "/Closed.json", good(stack))
        assert "note  reading     /closed meets /closed (backend_ignores)" in explanation.lines
        _, explanation = await both(stack, "/plain", good(stack))
        assert "reading" not in str(explanation)


@pytest.mark.parametrize(
    ("over", "check"),
    [
        pytest.param(
            {"typ": "JWT"}, "FAIL  typ         token_malformed: expected one of: at+jwt; found: JWT", id="typ"
        ),
        pytest.param({"aud": "a"}, "FAIL  aud         audience_mismatch: expected all of: a, b; found: a", id="all"),
        pytest.param(
            {"exp": 4e9}, "FAIL  lifetime    claim_invalid: expected at most 60 min; found: exp in ", id="lifetime"
        ),
        pytest.param(
            {"tenant": ABSENT}, "FAIL  required    claim_missing: expected tenant; found: no tenant", id="required"
        ),
        pytest.param(
            {"nonce": "x"}, "FAIL  rejected    claim_invalid: expected none of: nonce; found: nonce", id="reject"
        ),
        pytest.param(
            {"sub": "bob"}, "FAIL  sub         claim_mismatch: expected one of: alice, service:*; found: bob", id="sub"
        ),
    ],
)
async def test_checks_of_an_issuer_are_reported_in_the_words_of_their_answer(over: dict[str, Any], check: str) -> None:
    async with explained() as stack:
        answer, explanation = await both(stack, "/strict", strict(stack, **over))
        assert explanation.lines[-1] == answer_line(answer)
        assert explanation.lines[-2].startswith(check)


@pytest.mark.parametrize(
    ("token", "check"),
    [
        pytest.param(None, "token       token_missing: No token provided", id="none"),
        pytest.param(
            "abc", "shape       token_malformed: an opaque token, which only its issuer can read", id="one part"
        ),
        pytest.param(
            "a b",
            "token       token_malformed: The Authorization header must be the word Bearer, a space, one token.",
            id="two words",
        ),
        pytest.param(
            "a.b.c.d.e",
            "shape       token_malformed: The token is encrypted (JWE); only signed tokens are accepted.",
            id="five parts",
        ),
    ],
)
async def test_a_token_that_is_not_a_jws_is_explained(token: str | None, check: str) -> None:
    async with explained() as stack:
        answer, explanation = await both(stack, "/x", token)
        assert explanation.lines[-2:] == [f"FAIL  {check}", answer_line(answer)]


async def test_a_method_that_is_never_served_is_reported() -> None:
    async with explained() as stack:
        answer, explanation = await both(stack, "/x", good(stack), "TRACE")
        assert explanation.lines[-1] == answer_line(answer)


async def test_a_revoked_token_is_explained(tmp_path: Path) -> None:
    denied = tmp_path / "denied.json"
    denied.write_text(json.dumps([{"iss": STRICT, "sub": "alice"}]))
    async with explained(denylist_file=str(denied)) as stack:
        answer, explanation = await both(stack, "/strict", strict(stack))
        assert (
            explanation.lines[-1] == answer_line(answer) == "rejected: 401 token_revoked: The token has been revoked."
        )
        assert explanation.lines[-2] == "FAIL  denylist    token_revoked: is on it"


# Accepted


async def test_every_check_of_an_accepted_request_is_reported_in_the_order_of_the_proxy() -> None:
    async with explained() as stack:
        token = strict(stack, name="a", iat=int(stack.clock.wall()) - 250, exp=int(stack.clock.wall()) + 250)
        answer, explanation = await both(stack, "/strict", token)
        assert answer.status == 200
        checks = explanation.lines[: explanation.lines.index("ok    issuers     strict") + 1]
        assert [line[:17].rstrip() for line in checks] == [
            f"ok    {name}"
            for name in (
                "request", "route", "token", "shape", "header", "issuer", "typ", "algorithm", "key", "signature", "exp", "nbf",
                "iat", "lifetime", "aud", "names", "required", "rejected", "sub", "cnf", "denylist", "issuers",
            )
        ]  # fmt: skip
        for line in (
            "ok    request     GET /strict, Host sidecar.test",
            "ok    route       routes.3 (line 1): /strict: auth required",
            f"ok    token       {len(token)} bytes",
            "ok    header      alg EdDSA, kid ed25519-a, typ at+jwt",
            f"ok    issuer      strict: {STRICT}",
            "ok    key         strict has ed25519-a",
            "ok    signature   matches",
            "ok    exp         in 4 min",
            "ok    nbf         absent",
            "ok    iat         4 min ago",
            "ok    aud         a, b",
            "ok    required    all of them",
            "ok    denylist    not on it",
        ):
            assert line in checks


async def test_the_explained_head_equals_the_head_that_the_upstream_gets() -> None:
    async with explained() as stack:
        _, explanation = await both(stack, "/x?a=b", good(stack, scope="a, b", sub="J\u00fcrgen"))
        start = next(at for at, line in enumerate(explanation.lines) if line.startswith("accepted: "))
        assert explanation.lines[start] == f"accepted: sent to default ({stack.backend.url}) as"
        told = [line.removeprefix("  ") for line in explanation.lines[start + 1 :]]
        received = (await stack.backend.received()).head.decode().split("\r\n")[:-2]
        own = {"X-JWT-Claims": "(base64url of the claims iss, aud, sub, iat, exp, scope)"}
        assert told[0] == received[0] == "GET /x?a=b HTTP/1.1"
        for ours, theirs in zip(told[1:], received[1:], strict=True):
            name, _, value = ours.partition(": ")
            assert name == theirs.partition(": ")[0]
            if name != "X-Request-Id":
                assert value == own.get(name, theirs.partition(": ")[2])
        assert "X-JWT-Sub: J%C3%BCrgen" in told


@pytest.mark.parametrize("path", ["/public/a", "/optional"])
async def test_an_anonymous_request_is_reported(path: str) -> None:
    async with explained() as stack:
        answer, explanation = await both(stack, path, None)
        assert (answer.status, explanation.rejection) == (200, None)
        assert "ok    token       none is needed" in explanation.lines
        assert "  X-JWT-Status: anonymous" in explanation.lines


async def test_a_refusal_in_report_mode_is_explained_and_accepted() -> None:
    async with explained() as stack:
        answer, explanation = await both(stack, "/report", good(stack, scope="read"))
        assert (answer.status, explanation.rejection) == (200, None)
        scopes = "FAIL  scopes      scope_insufficient: expected all of: admin; found: read"
        at = explanation.lines.index(scopes)
        assert explanation.lines[at + 1] == (
            "note  report      would be refused, and is accepted: "
            "403 scope_insufficient: The token lacks a required scope."
        )
        assert "  X-JWT-Status: report" in explanation.lines
        assert (await stack.backend.received()).get("x-jwt-status") == "report"


@pytest.mark.parametrize(
    "place",
    [
        {"header": "Authorization"},
        {"header": "X-Token"},
        {"header": "X-Token", "prefix": "JWT"},
        {"cookie": "token"},
        {"cookie": "u.*.token"},
        {"cookie": "token", "json_member": "access_token"},
        {"subprotocol": "bearer"},
        {"query": "token"},
    ],
    ids=str,
)
@pytest.mark.parametrize("forward", [True, False])
async def test_the_token_goes_to_its_configured_place_and_is_never_shown(place: dict[str, str], forward: bool) -> None:
    async with explained(token_from=[place], forward_token=forward) as stack:
        question = Question("GET", "/x?a=b", good(stack).encode())
        explanation = await explain_alone(stack.sidecar.config, question, stack.clock)
        stack.secrets.told(str(explanation))
        assert explanation.rejection is None
        assert ("***" in str(explanation)) is forward


async def test_signatures_of_the_sidecar_are_not_shown(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef0123456789abcdef")
    async with explained(assertion={"audience": "backend"}, signature={"secret_file": str(secret)}) as stack:
        _, explanation = await both(stack, "/x", good(stack))
        assert "  X-JWT-Assertion: ***" in explanation.lines
        assert any(line.startswith("  X-JWT-Signature: t=") and line.endswith(",v1=***") for line in explanation.lines)


async def test_an_explanation_in_its_own_process_fetches_the_keys() -> None:
    async with running() as stack:
        assert (await stack.fetch(stack.good())).status == 200
        answer, explanation = await both(stack, "/x", stack.alice)
        assert (answer.status, explanation.rejection, stack.issuer.jwks_fetches) == (200, None, 2)
        stack.issuer.on_jwks = Answer(500)
        question = Question("GET", "/x", stack.token().encode())
        explanation = await explain_alone(stack.sidecar.config, question, stack.clock)
        assert explanation.lines[-2:] == [
            f"FAIL  key         jwks_unavailable: {stack.issuer.jwks_uri}: status 500",
            "rejected: 503 jwks_unavailable: The issuer's keys are not available at the moment. Try again.",
        ]


async def test_explaining_does_not_change_a_running_proxy() -> None:
    async with running() as stack:
        assert (await stack.fetch(stack.good())).status == 200
        before = dict(stack.sidecar.assembly.handler.telemetry.requests)
        question = Question("GET", "/x", stack.alice.encode())
        explanation = await explain(stack.sidecar.assembly, question, stack.clock)
        assert explanation.rejection is None
        assert "ok    signature   matches" in explanation.lines, "a remembered token is explained too"
        verifier = stack.sidecar.assembly.handler.authentication.verifier
        assert (type(verifier), verifier.hits, verifier.misses) == (Verifier, 0, 1)
        assert (stack.sidecar.assembly.handler.telemetry.requests, stack.issuer.jwks_fetches) == (before, 1)


# The command


CONFIG = f"""
listen: 127.0.0.1:0
issuers:
  main:
    issuer: {tokens.ISSUER}
    audiences: [my-api]
    jwks_inline: {json.dumps({"keys": [public_jwk("EdDSA")]})}
upstream: http://127.0.0.1:9
routes:
  - path: /public
    auth: none

  - path: /admin/*
    require: {{scopes: [admin]}}
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return str(path)


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["explain", *arguments])
    return code, *capsys.readouterr()


def test_the_exit_code_is_0_for_accepted_and_1_for_refused(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "token"
    file.write_text(f"\n {tokens.token('EdDSA', scope='admin')}\r\n")
    code, out, err = told(capsys, "-c", config, "--path", "/admin/x", "--token-file", str(file), "--method", "PUT")
    assert (code, err) == (0, "")
    assert "ok    request     PUT /admin/x, Host localhost\n" in out
    assert "ok    route       routes.1 (line 13): /admin/*: auth required\n" in out
    file.write_text(tokens.token("EdDSA"))
    code, out, err = told(capsys, "-c", config, "--path", "/admin/x", "--token-file", str(file))
    assert (code, err) == (1, "")
    assert out.endswith("rejected: 403 scope_insufficient: The token lacks a required scope.\n")


TAKES = "--token-file takes a file that holds the token"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--path", "/x", "--token-file", "{tmp}/none"], f"{{tmp}}/none: No such file or directory; {TAKES}\n"),
        (["--path", "/x", "--token-file", tokens.token("EdDSA")], f"***: File name too long; {TAKES}\n"),
        (["--path", "/x", "--token-file", "{tmp}/lines"], "jwt-sidecar: the token must be one line of text\n"),
        (
            ["--path", "/x y", "--token-file", "{tmp}/empty"],
            "jwt-sidecar: the path must not be empty or hold spaces or control characters\n",
        ),
        (
            ["--path", "/x", "--method", "GET\r\nX:", "--token-file", "{tmp}/empty"],
            "jwt-sidecar: the method must not be empty or hold spaces or control characters\n",
        ),
    ],
)
def test_a_request_that_no_client_could_send_is_a_usage_error(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    (tmp_path / "lines").write_text("a.b\nc.d")
    (tmp_path / "empty").write_text(" \n")
    code, out, err = told(capsys, "-c", config, *(argument.format(tmp=tmp_path) for argument in arguments))
    assert (code, out, err) == (2, "", problem.format(tmp=tmp_path))


def test_a_wrong_configuration_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG + "denylist_file: denied.json\n")
    (tmp_path / "token").write_text("x")
    code, _, err = told(capsys, "-c", str(path), "--path", "/", "--token-file", str(tmp_path / "token"))
    assert (code, err) == (2, f"jwt-sidecar: {tmp_path}/denied.json: cannot be read: No such file or directory\n")
    path.write_text(CONFIG + "assertion: {audience: backend, key_file: key.pem}\n")
    code, _, err = told(capsys, "-c", str(path), "--path", "/", "--token-file", str(tmp_path / "token"))
    assert (code, err) == (2, f"jwt-sidecar: {tmp_path}/key.pem: cannot be read: No such file or directory\n")
    path.write_text("{}")
    assert told(capsys, "-c", str(path), "--path", "/")[0] == 2
    with pytest.raises(SystemExit) as caught:
        main(["explain", "-c", str(path)])
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("stdin", "path", "code"),
    [
        pytest.param("", "/x", 1, id="empty input: a request without a token"),
        pytest.param("TOKEN\n", "/x", 0, id="a token"),
    ],
)
def test_without_a_file_the_token_comes_from_stdin(config: str, stdin: str, path: str, code: int) -> None:
    stdin = stdin.replace("TOKEN", tokens.token("EdDSA"))
    command = [sys.executable, "-m", "sidecar", "explain", "-c", config, "--path", path]
    ended = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (code, "")
    assert ("token_missing" in ended.stdout) is (code == 1)
