"""`jwt-sidecar dev`: the embedded issuer and backend, and the command that starts them around the proxy."""

import asyncio
import json
import re
import shlex
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jose import jwt

from benchmarks.process import reserved_port
from sidecar.cli.dev.backend import Backend
from sidecar.cli.dev.command import embed
from sidecar.cli.dev.issuer import Issuer, answer_for
from sidecar.config import parse
from sidecar.gateway.signing_key import ALGORITHMS, SigningKey
from tests.peers import patience, tokens
from tests.peers.backend import RawBackend
from tests.peers.raw import Response, fetch
from tests.peers.wire import request

JWKS = "/.well-known/jwks.json"
DISCOVERY = "/.well-known/openid-configuration"


@asynccontextmanager
async def serving(handler: Any) -> AsyncIterator[tuple[str, int]]:
    runner = web.ServerRunner(web.Server(handler, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    yield host, port
    await runner.cleanup()


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_signature_verifies_with_the_keys_jwk(alg: str) -> None:
    key = SigningKey.generate(alg)
    token = key.sign({"sub": "alice"}, {"typ": "at+jwt"})
    assert json.loads(tokens.parts(token)[0]) == {"alg": alg, "kid": key.kid, "typ": "at+jwt"}
    tokens.verify(token, key.jwk, alg)
    if alg != "EdDSA":  # python-jose has no EdDSA of its own
        assert jwt.decode(token, key.jwk, algorithms=[alg]) == {"sub": "alice"}
    with pytest.raises(InvalidSignature):
        tokens.verify(token, SigningKey.generate(alg).jwk, alg)


def test_the_kid_is_the_thumbprint_of_rfc_7638() -> None:
    """The example of RFC 8037 appendix A.3."""
    seed = tokens.unb64("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
    assert SigningKey(Ed25519PrivateKey.from_private_bytes(seed)).kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_an_unsupported_kind_of_signing_key_is_an_error() -> None:
    with pytest.raises(ValueError, match="HS256"):
        SigningKey.generate("HS256")
    with pytest.raises(ValueError, match="P-256"):
        SigningKey(tokens.ec_key("P-384"))


async def test_the_embedded_issuer_is_discovered_and_its_tokens_verify() -> None:
    issuer = Issuer("http://127.0.0.1:1/__zuplo/issuer", audience="my-api")
    async with serving(answer_for([issuer])) as address:
        found = await fetch(address, request(target=issuer.path + DISCOVERY))
        assert found.json()["issuer"] == issuer.issuer
        assert found.json()["jwks_uri"] == issuer.issuer + JWKS
        published = await fetch(address, request(target=issuer.path + JWKS))
        assert published.get("cache-control") == "public, max-age=60"
        for alg in ALGORITHMS:
            answer = await fetch(address, request(target=f"{issuer.path}/dev-token?alg={alg}&sub=bob&ttl=60&self=x"))
            token = answer.body.decode().strip()
            assert answer.get("content-type") == "text/plain; charset=utf-8"
            tokens.verify(token, next(jwk for jwk in published.json()["keys"] if jwk["alg"] == alg), alg)
            claims = tokens.payload_of(token)
            assert claims.pop("exp") - claims.pop("iat") == 60
            expected = {"iss": issuer.issuer, "aud": "my-api", "sub": "bob", "scope": "read admin", "self": "x"}
            assert claims == expected


def test_the_embedded_issuer_can_mint_an_expired_token() -> None:
    claims = tokens.payload_of(Issuer("http://localhost:1").mint("EdDSA", -60))
    assert claims["iat"] <= claims["exp"] < time.time()


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/dev-token?alg=none", 400),
        ("GET", "/dev-token?ttl=soon", 400),
        ("POST", "/dev-token", 405),
        ("GET", "/", 404),
    ],
)
async def test_the_embedded_issuer_refuses_invalid_requests(method: str, target: str, status: int) -> None:
    async with serving(answer_for([Issuer("http://localhost:1/")])) as address:
        assert (await fetch(address, request(method, target))).status == status


async def test_issuers_at_one_address_keep_their_keys_apart() -> None:
    a, b = Issuer("http://localhost:1/a"), Issuer("http://localhost:1/b", jwks_uri="http://localhost:1/keys")
    async with serving(answer_for([a, b])) as address:
        for issuer, path in ((a, "/a" + JWKS), (b, "/keys")):
            published = (await fetch(address, request(target=path))).json()
            assert published == {"keys": [key.jwk for key in issuer.keys]}


async def test_the_embedded_backend_shows_the_verified_claims() -> None:
    header = tokens.b64(json.dumps({"sub": "alice", "name": "Jörg"}).encode())
    async with serving(Backend().answer) as address:
        answer = await fetch(address, request(target="/protected", headers=[("X-JWT-Claims", header)]))
        assert answer.json() == {"message": "Access granted", "user": {"sub": "alice", "name": "Jörg"}}
        answer = await fetch(address, request(target="/protected"))
        assert answer.json() == {"message": "Access granted", "user": None}


async def test_the_embedded_backend_echoes_other_requests() -> None:
    async with serving(Backend().answer) as address:
        sent = request("POST", "/a%2Fb?q=1", headers=[("X-A", "1"), ("x-a", "2")], chunks=[b"x" * 3_000_000])
        answer = (await fetch(address, sent)).json()
    headers = [["Host", "sidecar.test"], ["X-A", "1"], ["x-a", "2"], ["Transfer-Encoding", "chunked"]]
    assert answer == {"method": "POST", "path": "/a%2Fb?q=1", "headers": headers, "body_bytes": 3_000_000}


# The command


def file(issuer: int, backend: int, proxy: int = 0) -> str:
    return f"""
listen: 127.0.0.1:{proxy}
health: {{listen: "127.0.0.1:0"}}
admin: {{listen: "127.0.0.1:0"}}
issuers:
  near: {{issuer: "http://127.0.0.1:{issuer}/near", audiences: [my-api]}}
  shared: {{issuer: "https://far.test/", jwks_uri: "http://127.0.0.1:{issuer}/near{JWKS}", audiences: any}}
  far: {{issuer: "https://far.test/2", audiences: [my-api], required: false}}
upstream: http://127.0.0.1:{backend}
routes:
  - {{path: /public/*, auth: none}}
"""


async def test_servers_on_loopback_are_embedded_and_others_are_listed() -> None:
    with reserved_port() as issuer, reserved_port() as backend:
        async with embed(parse(file(issuer, backend))) as embedded:
            assert [line[2] for line in embedded.report] == [
                "near, embedded",
                "shared, embedded",
                "far, not embedded: far.test",
                "default, embedded",
            ]
            published = (await fetch(("127.0.0.1", issuer), request(target="/near" + JWKS))).json()["keys"]
            for name, iss in (("near", f"http://127.0.0.1:{issuer}/near"), ("shared", "https://far.test/")):
                token = embedded.issuers[name].mint()
                tokens.verify(token, published[0], "EdDSA")
                assert tokens.payload_of(token)["iss"] == iss
            assert (await fetch(("127.0.0.1", backend), request())).json()["path"] == "/"


async def test_dev_uses_a_program_that_already_listens() -> None:
    async with RawBackend() as issuer, RawBackend() as backend:
        async with embed(parse(file(issuer.address[1], backend.address[1]))) as embedded:
            said = [line[2] for line in embedded.report if "another program listens" in line[2]]
            assert [line.partition(",")[0] for line in said] == ["near", "shared", "default"]
            assert embedded.issuers == {}
        assert (await fetch(backend.address, request())).json() == {"ok": True}


@asynccontextmanager
async def dev(path: Path, text: str) -> AsyncIterator[asyncio.subprocess.Process]:
    path = path / "config.yaml"
    path.write_text(text)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar", "dev", "-c", str(path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def paste(curl: str) -> Response:
    """Send the request of a curl line."""
    words = shlex.split(curl)
    assert words[:2] in (["curl", "-i"], ["curl", words[-1]])
    url = re.fullmatch(r"http://(127\.0\.0\.1):(\d+)(/.*)", words[-1])
    assert url is not None
    headers = [(name, value) for name, _, value in (word.partition(": ") for word in words[2:-1] if ": " in word)]
    return await fetch((url[1], int(url[2])), request(target=url[3], headers=headers))


async def test_the_printed_commands_do_what_their_titles_say(tmp_path: Path) -> None:
    with reserved_port() as issuer, reserved_port() as backend:
        async with dev(tmp_path, file(issuer, backend)) as process:
            assert process.stdout is not None
            said: dict[str, str] = {}
            async with patience("the printed lines"):
                while "Public:" not in said:
                    line = (await process.stdout.readline()).decode()
                    assert line, "the program ended"
                    if line.endswith(":\n"):
                        said[line.strip()] = (await process.stdout.readline()).decode()

            accepted = await paste(said["Accepted, with its claims:"])
            assert (accepted.status, accepted.json()["message"]) == (200, "Access granted")
            assert accepted.json()["user"]["sub"] == "dev-user"
            anonymous = await paste(said["Refused, no token:"])
            assert (anonymous.status, anonymous.json()["code"]) == (401, "token_missing")
            expired = await paste(said["Refused, the token has expired:"])
            assert (expired.status, expired.json()["code"]) == (401, "token_expired")
            public = await paste(said["Public:"])
            assert (public.status, public.json()["path"]) == (200, "/public/")
            another = await paste(said["Another one (alg, ttl in seconds, and claims):"])
            assert tokens.payload_of(another.body.decode().strip())["sub"] == "alice"

            process.send_signal(signal.SIGINT)
            async with patience("the end"):
                await process.communicate()
            assert process.returncode == 0


async def test_dev_reports_a_port_in_use_with_one_line_and_exit_1(tmp_path: Path) -> None:
    with reserved_port() as issuer, reserved_port() as backend:
        async with (
            RawBackend() as other,
            dev(tmp_path, file(issuer, backend, other.address[1])) as process,
            patience("the end"),
        ):
            out, errors = await process.communicate()
    assert process.returncode == 1
    assert out == b""
    assert errors.decode() == (
        f"jwt-sidecar: listen: cannot listen on 127.0.0.1:{other.address[1]}: Address already in use; "
        "choose another address, or port 0 for a free port\n"
    )


async def test_a_port_in_use_by_another_program_is_the_printed_reason_for_no_token(tmp_path: Path) -> None:
    with reserved_port() as backend:
        async with (
            RawBackend() as other,
            dev(tmp_path, file(other.address[1], backend)) as process,
            patience("the printed lines"),
        ):
            assert process.stdout is not None
            while not (line := (await process.stdout.readline()).decode()).startswith("No token:"):
                assert line, "the program ended"
    assert line == f"No token: another program listens at {other.url}. Stop it, or give the issuer another port.\n"
