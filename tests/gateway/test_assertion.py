"""The assertion: a short-lived token with the verified claims, and the key set that verifies it."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from sidecar.app.server import CannotStart, build
from sidecar.common.errors import Reason, Rejection, Unusable
from sidecar.config import parse
from sidecar.gateway.assertion import AssertedIdentity
from sidecar.gateway.key_ring import KeyRing, TimedKey
from sidecar.gateway.signing_key import SigningKey, key_set, own_key
from sidecar.gateway.token_minter import REUSED, Mint
from sidecar.jwt.claims import Claims
from tests.peers import tokens
from tests.peers.clock import EPOCH, HandClock
from tests.peers.identity import LIMITS, MAX_ALL_BYTES
from tests.peers.raw import fetch
from tests.peers.wire import request
from tests.proxy.conftest import Stack, running

KEY = SigningKey.generate("EdDSA")
WANTED = {"audience": "my-backend"}
VERIFIED = {"iss": "https://idp.example/", "sub": "alice", "aud": ["my-api"], "iat": 1, "exp": EPOCH + 300}


RING = KeyRing([TimedKey(KEY)])


def assertion(clock: HandClock) -> Mint:
    return Mint(
        lambda: RING,
        clock,
        {},
        issuer="jwt-sidecar",
        audience="my-backend",
        ttl_s=30.0,
        algorithm="EdDSA",
        before="X-JWT-Assertion: ",
    )


def verified(until: float = EPOCH + 360, **claims: Any) -> Claims:
    return Claims("idp", VERIFIED | claims, b"e30", valid_until=until)


def token_of(line: bytes) -> str:
    name, _, token = line.decode().partition(": ")
    assert (name, token[-2:]) == ("X-JWT-Assertion", "\r\n")
    return token[:-2]


def minted(line: bytes) -> dict[str, Any]:
    """The claims of the assertion in a header line, after its signature is verified."""
    token = token_of(line)
    tokens.verify(token, KEY.jwk, KEY.alg)
    return tokens.payload_of(token)


# Its claims


def test_an_assertion_has_the_verified_claims_and_new_issuer_audience_and_times() -> None:
    line = assertion(HandClock()).line(verified(scope="read", roles=["a"], email="é"))
    assert minted(line) == {
        "iss": "jwt-sidecar",
        "aud": "my-backend",
        "iat": EPOCH,
        "exp": EPOCH + 30,
        "original_iss": "https://idp.example/",
        "sub": "alice",
        "scope": "read",
        "roles": ["a"],
        "email": "é",
    }
    header = tokens.parts(token_of(line))[0]
    assert header == b'{"alg":"EdDSA","kid":"%b","typ":"JWT"}' % KEY.kid.encode()


def test_claims_about_the_clients_token_are_left_out() -> None:
    claims = minted(assertion(HandClock()).line(verified(nbf=1, jti="x", cnf={"kid": "a"})))
    assert claims.keys() & {"nbf", "jti", "cnf"} == set()


def test_a_clients_claim_cannot_replace_a_claim_of_the_assertion() -> None:
    claims = minted(assertion(HandClock()).line(verified(original_iss="https://evil/", aud="evil", exp=9e9, iat=9e9)))
    assert (claims["original_iss"], claims["aud"]) == ("https://idp.example/", "my-backend")
    assert (claims["iat"], claims["exp"]) == (EPOCH, EPOCH + 30)


@pytest.mark.parametrize(
    ("left_s", "lasts_s"),
    [(300.0, 30), (30.0, 30), (29.0, 29), (10.5, 10), (0.25, 0), (-20.0, -20)],
    ids=lambda value: f"{value} s",
)
def test_an_assertion_never_outlives_the_clients_token(left_s: float, lasts_s: int) -> None:
    # `exp` has whole seconds; a token that is only valid by the clock skew makes an assertion of the same kind
    claims = verified(EPOCH + left_s + 60, exp=EPOCH + left_s)
    assert minted(assertion(HandClock()).line(claims))["exp"] == EPOCH + lasts_s


# Reuse


def test_an_assertion_is_reused_for_most_of_its_lifetime() -> None:
    clock = HandClock()
    ours = assertion(clock)
    claims, others = verified(), verified()
    first = ours.line(claims)
    clock.advance(30 * REUSED - 0.1)
    assert ours.line(claims) is first
    assert ours.line(others) != first
    clock.advance(0.1)
    second = ours.line(claims)
    assert minted(second)["exp"] == EPOCH + 54
    assert ours.line(claims) is second


def test_an_assertion_is_replaced_when_the_clock_is_set_back() -> None:
    clock = HandClock()
    ours, claims = assertion(clock), verified()
    ours.line(claims)
    clock.advance(-60)
    assert minted(ours.line(claims))["iat"] == EPOCH - 60


def test_a_new_assertion_does_not_render_the_other_identity_headers_again() -> None:
    clock = HandClock()
    identity = AssertedIdentity({"X-JWT-Sub": ("sub",)}, None, "percent", LIMITS, "X-JWT-Assertion", assertion(clock))
    claims = verified()
    head, _, first = identity.lines(claims).partition(b"X-JWT-Assertion")
    assert head == b"X-JWT-Status: verified\r\nX-JWT-Sub: alice\r\n" == claims.headers
    rendered = claims.headers
    clock.advance(30)
    assert identity.lines(claims).partition(b"X-JWT-Assertion")[2] != first
    assert claims.headers is rendered


def test_an_assertion_counts_toward_the_limit_of_identity_headers() -> None:
    identity = AssertedIdentity({}, None, "percent", LIMITS, "X-JWT-Assertion", assertion(HandClock()))
    assert len(identity.lines(verified(x="a" * 11_000))) < MAX_ALL_BYTES
    for _ in range(2):  # the second time too: a refusal is not remembered as accepted
        with pytest.raises(Rejection) as caught:
            identity.lines(verified(x="a" * 12_000))
        assert caught.value.reason is Reason.CLAIMS_TOO_LARGE


# Its key


def test_a_process_makes_one_key_per_algorithm() -> None:
    assert own_key("EdDSA") is own_key("EdDSA")
    assert (own_key("EdDSA").alg, own_key("ES256").alg) == ("EdDSA", "ES256")


def test_the_key_set_holds_no_private_member() -> None:
    keys = [SigningKey.generate(alg) for alg in ("EdDSA", "RS256", "ES256")]
    for key, jwk in zip(keys, key_set(keys)["keys"], strict=True):
        assert jwk.keys() <= {"kty", "crv", "x", "y", "n", "e", "kid", "alg", "use"}
        tokens.verify(key.sign({}), jwk, jwk["alg"])


ED25519 = Ed25519PrivateKey.generate()
P256 = ec.generate_private_key(ec.SECP256R1())
PLAIN = NoEncryption()


def pem(key: Any, form: PrivateFormat = PrivateFormat.PKCS8, encryption: Any = PLAIN) -> bytes:
    written: bytes = key.private_bytes(Encoding.PEM, form, encryption)
    return written


@pytest.mark.parametrize(
    ("content", "alg"),
    [
        pytest.param(pem(ED25519), "EdDSA", id="Ed25519"),
        pytest.param(pem(P256), "ES256", id="P-256"),
        pytest.param(pem(P256, PrivateFormat.TraditionalOpenSSL), "ES256", id="P-256 in the older form"),
    ],
)
def test_a_key_file_in_pem_is_read(content: bytes, alg: str, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(content)
    key = SigningKey.load(tmp_path / "key.pem", alg)
    tokens.verify(key.sign({}), key.jwk, alg)
    assert key.kid == SigningKey.load(tmp_path / "key.pem", alg).kid


NO_KEY = "holds no PEM private key of Ed25519, RSA or P-256, or an encrypted one"
P384 = ec.generate_private_key(ec.SECP384R1())
PUBLIC = ED25519.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(None, "cannot be read: No such file or directory", id="missing"),
        pytest.param(b"", NO_KEY, id="empty"),
        pytest.param(b"secret", NO_KEY, id="not PEM"),
        pytest.param(PUBLIC, NO_KEY, id="public key"),
        pytest.param(pem(ED25519, encryption=BestAvailableEncryption(b"x")), NO_KEY, id="encrypted"),
        pytest.param(pem(P384), NO_KEY, id="P-384"),
        pytest.param(pem(P256), "its key signs ES256, and EdDSA is configured", id="another algorithm"),
        pytest.param(
            pem(rsa.generate_private_key(65537, 2048)), "its key signs RS256, and EdDSA is configured", id="RSA"
        ),
    ],
)
def test_the_sidecar_does_not_start_with_a_key_that_cannot_sign(
    content: bytes | None, problem: str, tmp_path: Path
) -> None:
    file = tmp_path / "key.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Unusable) as caught:
        SigningKey.load(file, "EdDSA")
    assert str(caught.value) == f"{file}: {problem}"
    smallest = "issuers: {a: {issuer: 'https://a/', audiences: any}}\nupstream: http://127.0.0.1:9292\n"
    with pytest.raises(CannotStart) as refused:
        build(parse(f"{smallest}assertion: {{audience: b, key_file: {file}}}"))
    assert str(refused.value) == f"{file}: {problem}"


# Through the proxy


async def published(stack: Stack) -> Any:
    answer = await fetch(stack.sidecar.admin_address, request("GET", "/.well-known/jwks.json", host="localhost"))
    assert (answer.status, answer.get("content-type")) == (200, "application/json; charset=utf-8")
    assert answer.get("cache-control") == "public, max-age=60"
    return answer.json()["keys"]


@pytest.mark.parametrize("alg", ["EdDSA", "ES256"])
async def test_the_backend_gets_an_assertion_that_the_published_key_verifies(alg: str) -> None:
    async with running(assertion={**WANTED, "alg": alg, "header": "X-Proof", "ttl": "20s"}) as stack:
        (jwk,) = await published(stack)
        spoofed = [("X-Proof", "evil"), ("x_proof", "evil"), ("X-JWT-Assertion", "evil")]
        for n in (1, 2):
            assert (await stack.fetch(stack.good(headers=spoofed))).status == 200
            received = await stack.backend.received(n)
            (token,) = [value for name, value in received.headers if name.lower() in ("x-proof", "x_proof")]
            tokens.verify(token, jwk, alg)
            claims = tokens.payload_of(token)
            assert (claims["sub"], claims["aud"], claims["exp"] - claims["iat"]) == ("alice", "my-backend", 20)
            assert b"evil" not in received.head
        first, second = (request.get("x-proof") for request in stack.backend.requests)
        assert first == second


async def test_unverified_requests_get_no_assertion() -> None:
    routes = [{"path": "/public/*", "auth": "none"}, {"path": "/tried/*", "mode": "report"}]
    async with running(assertion=WANTED, routes=routes) as stack:
        for n, target in enumerate(("/public/x", "/tried/x"), 1):
            await stack.fetch(request("GET", target, headers=[("X-JWT-Assertion", "evil")]))
            assert (await stack.backend.received(n)).get("x-jwt-assertion") is None


async def test_another_sidecar_that_trusts_the_key_set_accepts_the_assertion() -> None:
    async with running(assertion={**WANTED, "issuer": "https://first.example/"}) as first:
        await first.fetch(first.good())
        assertion = (await first.backend.received()).get("x-jwt-assertion")
        host, port = first.sidecar.admin_address
        issuers = {
            "first": {
                "issuer": "https://first.example/",
                "jwks_uri": f"http://{host}:{port}/.well-known/jwks.json",
                "audiences": ["my-backend"],
            }
        }
        async with running(issuers=issuers, token_from=[{"header": "X-JWT-Assertion"}]) as second:
            answer = await second.fetch(request("GET", "/", headers=[("X-JWT-Assertion", assertion or "")]))
            assert answer.status == 200
            received = await second.backend.received()
            assert (received.get("x-jwt-sub"), received.get("x-jwt-iss")) == ("alice", "https://first.example/")
            assert received.get("x-jwt-assertion") is None


async def test_the_sidecar_does_not_accept_its_own_assertion_as_a_token() -> None:
    async with running(assertion=WANTED) as stack:
        await stack.fetch(stack.good())
        assertion = (await stack.backend.received()).get("x-jwt-assertion")
        answer = await stack.fetch(request("GET", "/", token=assertion))
        assert (answer.status, answer.json()["code"]) == (401, "issuer_unknown")


async def test_no_key_set_is_served_without_an_assertion() -> None:
    async with running() as stack:
        answer = await fetch(stack.sidecar.admin_address, request("GET", "/.well-known/jwks.json", host="localhost"))
        assert answer.status == 404
        await stack.fetch(stack.good())
        assert (await stack.backend.received()).get("x-jwt-assertion") is None
