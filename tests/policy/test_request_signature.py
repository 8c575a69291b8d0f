"""The HMAC over a request's method, target and identity headers, as a backend verifies it."""

import hashlib
import hmac
from pathlib import Path
from typing import Any

import pytest

from sidecar.app.server import CannotStart, build
from sidecar.config import parse
from sidecar.policy.identity_headers import ANONYMOUS, VERIFIED
from sidecar.policy.request_signature import REMEMBERED, Signature
from tests.peers.backend import Request
from tests.peers.clock import EPOCH, HandClock
from tests.peers.wire import Message, request
from tests.proxy.conftest import running

SECRET = b"0123456789abcdef0123456789abcdef"


def line(t: float, signed: bytes, secret: bytes = SECRET) -> bytes:
    """The header line with the signature of these bytes; their first line is the time."""
    v1 = hmac.new(secret, signed, hashlib.sha256).hexdigest()
    return f"X-JWT-Signature: t={t:.0f},v1={v1}\r\n".encode()


def signature(clock: HandClock | None = None) -> Signature:
    return Signature("X-JWT-Signature", SECRET, clock or HandClock())


def test_the_signed_text_has_time_method_target_and_sorted_identity_headers() -> None:
    identity = VERIFIED + b"X-JWT-Sub: alice\r\nX_Role.Name: a: b\r\nA-First: \xc3\xa9\r\n"
    assert signature().line("GET", b"/a?b=c&d", identity) == line(
        EPOCH,
        b"1800000000\nGET\n/a?b=c&d\na-first:\xc3\xa9\nx-jwt-status:verified\nx-jwt-sub:alice\nx-role-name:a: b\n",
    )


def test_an_anonymous_request_is_signed() -> None:
    assert signature().line("POST", b"/", ANONYMOUS) == line(EPOCH, b"1800000000\nPOST\n/\nx-jwt-status:anonymous\n")


def test_each_signature_has_the_time_of_its_making() -> None:
    clock = HandClock()
    ours = signature(clock)
    ours.line("GET", b"/", ANONYMOUS)
    clock.advance(1.5)
    assert ours.line("GET", b"/", ANONYMOUS) == line(EPOCH + 1, b"1800000001\nGET\n/\nx-jwt-status:anonymous\n")


def test_every_signed_part_changes_the_signature() -> None:
    ours = signature()
    lines = {
        ours.line(method, target, identity)
        for method, target, identity in [
            ("GET", b"/", VERIFIED),
            ("PUT", b"/", VERIFIED),
            ("GET", b"/?", VERIFIED),
            ("GET", b"/", ANONYMOUS),
            ("GET", b"/", VERIFIED + b"X-JWT-Sub: a\r\n"),
            ("GET", b"/", VERIFIED + b"X-JWT-Sub: b\r\n"),
            ("GET", b"/", VERIFIED + b"X-JWT-Iss: a\r\n"),
        ]
    }
    assert len(lines) == 7


def test_the_number_of_remembered_sets_of_headers_is_limited() -> None:
    ours = signature()
    first = ours.line("GET", b"/", VERIFIED + b"X-JWT-Sub: 0\r\n")
    for number in range(REMEMBERED + 1):
        ours.line("GET", b"/", VERIFIED + b"X-JWT-Sub: %d\r\n" % number)
    assert len(ours._sorted) == REMEMBERED
    assert ours.line("GET", b"/", VERIFIED + b"X-JWT-Sub: 0\r\n") == first


# Through the proxy


def verified(received: Request, header: str = "x-jwt-signature", *others: str) -> bool:
    """Verify the signature as a backend does; other tests check the time."""
    return signed_for(received.method, received.target, received, header, *others)


def signed_for(method: str, target: str, told: Message, header: str = "x-jwt-signature", *others: str) -> bool:
    """Is the signature valid for this request and the identity headers beside it?"""
    t, v1 = (part.partition("=")[2] for part in (told.get(header) or "=,=").split(","))
    names = {name.lower(): value for name, value in told.headers}
    signed = "".join(
        f"{name}:{names[name]}\n"
        for name in sorted(names)
        if (name.startswith("x-jwt-") or name in others) and name != header
    )
    message = f"{t}\n{method}\n{target}\n{signed}".encode("latin-1")
    return hmac.compare_digest(hmac.new(SECRET, message, hashlib.sha256).hexdigest(), v1)


@pytest.fixture
def secret_file(tmp_path: Path) -> str:
    """The file of the secret, with the line break that `echo` writes."""
    (tmp_path / "secret").write_bytes(SECRET + b"\n")
    return str(tmp_path / "secret")


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="defaults"),
        pytest.param({"assertion": {"audience": "b"}}, id="with the assertion"),
        pytest.param({"encoding": "raw_utf8"}, id="raw UTF-8"),
        pytest.param(
            {"token_from": [{"header": "Authorization"}, {"query": "access_token"}]}, id="the target as it is sent"
        ),
    ],
)
async def test_the_backend_can_verify_every_request(secret_file: str, settings: dict[str, Any]) -> None:
    routes = [
        {"path": "/public/*", "auth": "none"},
        {"path": "/tried/*", "mode": "report"},
    ]
    headers = {"X-JWT-Sub": "sub", "X-JWT-Nick": "nick"}
    async with running(
        signature={"secret_file": secret_file}, routes=routes, identity_headers=headers, **settings
    ) as stack:
        token = stack.token(nick="Jörg")
        spoofed = [("X-JWT-Signature", "t=1,v1=0"), ("x_jwt_signature", "evil"), ("X-JWT-Extra", "evil")]
        for raw in (
            request("GET", f"/x?a=%20+%c3&access_token={token}", headers=spoofed)
            if "token_from" in settings
            else request("GET", "/x?a=%20+%c3", token=token, headers=spoofed),
            request("DELETE", "/x", token=token),
            request("POST", "/public/x", headers=spoofed, body=b"x"),
            request("GET", "/tried/x", headers=spoofed),
        ):
            assert (await stack.fetch(raw)).status == 200
        assert len(stack.backend.requests) == 4
        assert [received for received in stack.backend.requests if not verified(received)] == []
        for received in stack.backend.requests:
            assert len([name for name, _ in received.headers if name.lower() == "x-jwt-signature"]) == 1
            assert b"evil" not in received.head


async def test_identity_headers_of_any_name_are_signed(secret_file: str) -> None:
    settings: dict[str, Any] = {"identity_headers": {"X-User": "sub"}, "claims_header": "off"}
    async with running(signature={"secret_file": secret_file, "header": "X-Signed"}, **settings) as stack:
        await stack.fetch(stack.good(headers=[("X-Signed", "evil"), ("X-User", "evil")]))
        received = await stack.backend.received()
        assert verified(received, "x-signed", "x-user")
        assert not verified(received, "x-signed")


async def test_a_forward_auth_answer_is_signed_for_the_original_request(secret_file: str) -> None:
    settings: dict[str, Any] = {"forward_auth": {"original": "x-original"}, "trusted_proxies": ["127.0.0.0/8"]}
    routes = [{"path": "/public/*", "auth": "none"}]
    async with running(signature={"secret_file": secret_file}, routes=routes, **settings) as stack:
        asked = [("X-Original-Method", "DELETE"), ("X-Original-URI", "/public/x?a=b")]
        answer = await stack.fetch(request("GET", "/auth", headers=asked))
        assert answer.status == 200
        assert signed_for("DELETE", "/public/x?a=b", answer)
        assert not signed_for("GET", "/auth", answer)


async def test_no_signature_is_sent_unless_configured() -> None:
    async with running() as stack:
        await stack.fetch(stack.good(headers=[("X-JWT-Signature", "evil")]))
        assert (await stack.backend.received()).get("x-jwt-signature") is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"short\n", "holds a secret of 5 bytes; use at least 32"),
    ],
)
def test_the_sidecar_does_not_start_without_a_valid_secret(content: bytes | None, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(SECRET)
    smallest = "issuers: {a: {issuer: 'https://a/', audiences: any}}\nupstream: http://127.0.0.1:9292\n"
    config = parse(f"{smallest}signature: {{secret_file: {file}}}")
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(CannotStart) as refused:
        build(config)
    assert str(refused.value) == f"{file}: {problem}"
