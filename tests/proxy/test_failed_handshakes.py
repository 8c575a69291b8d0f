"""Failed TLS handshakes on either side: their cause for the operator, counted and logged; and repaired files."""

import asyncio
import datetime
import logging
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from sidecar.common.errors import Unusable
from sidecar.common.tls import certificate_time, server_context
from sidecar.proxy.listener import SAID_AGAIN_S
from tests.peers import patience
from tests.peers.backend import RawBackend
from tests.peers.raw import RawClient, fetch
from tests.peers.tls import authority, client_tls, server_tls
from tests.peers.wire import Truncated
from tests.proxy.conftest import Stack, ok, running
from tests.proxy.test_tls import write

ON_EVERY_LOOP = True
GONE = (ssl.SSLError, ConnectionError, Truncated, asyncio.IncompleteReadError)


async def counted(stack: Stack, cause: str, number: int = 1) -> None:
    async with patience(f"a handshake that failed: {cause}"):
        while stack.sidecar.live.telemetry.handshakes.get(cause, 0) < number:
            assert stack.sidecar.live.telemetry.handshakes.keys() <= {cause}
            await asyncio.sleep(0.01)


def showing(**validity: Any) -> ssl.SSLContext:
    """A client with a certificate of the authority, or of a stranger."""
    context = client_tls()
    authority().issue_cert("client.example", **validity).configure_cert(context)
    return context


def stranger() -> ssl.SSLContext:
    context = client_tls()
    trustme.CA().issue_cert("client.example").configure_cert(context)
    return context


def expired() -> ssl.SSLContext:
    return showing(not_after=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))


@pytest.mark.parametrize(
    ("client", "cause"),
    [(client_tls, "no_certificate"), (stranger, "certificate_untrusted"), (expired, "certificate_expired")],
)
async def test_the_cause_of_a_refused_client_certificate_is_logged(
    client: Any, cause: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tls = write(tmp_path, authority().issue_cert("127.0.0.1"))
    (tmp_path / "clients.crt").write_bytes(authority().cert_pem.bytes())
    async with running(tls=tls | {"client_ca_file": str(tmp_path / "clients.crt")}) as stack:
        for number in (1, 2, 3):
            if number == 3:
                stack.clock.ahead_s += SAID_AGAIN_S
            with pytest.raises(GONE):
                await fetch(stack.sidecar.proxy_address, stack.good(), tls=client())
            await counted(stack, cause, number)
    told = [record.getMessage() for record in caplog.records if "event=handshake_failed" in record.getMessage()]
    for number, line in zip((1, 3), told, strict=True):
        assert f"cause={cause} peer=127.0.0.1 number={number} do=" in line


async def test_plain_http_at_a_tls_port_is_reported(tmp_path: Path) -> None:
    async with running(tls=write(tmp_path, authority().issue_cert("127.0.0.1"))) as stack:
        async with RawClient.to(stack.sidecar.proxy_address) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await client.closed()
        await counted(stack, "plain_http")


async def test_a_client_that_does_not_trust_the_certificate_is_reported(tmp_path: Path) -> None:
    async with running(tls=write(tmp_path, trustme.CA().issue_cert("127.0.0.1"))) as stack:

        def refuse() -> None:  # a blocking socket, which sends what OpenSSL has to say before it fails
            with (
                socket.create_connection(stack.sidecar.proxy_address) as raw,
                pytest.raises(ssl.SSLCertVerificationError),
            ):
                client_tls().wrap_socket(raw, server_hostname="127.0.0.1")

        await asyncio.to_thread(refuse)
        await counted(stack, "refused_by_client")


async def test_alpn_selects_http_1_1(tmp_path: Path) -> None:
    async with running(tls=write(tmp_path, authority().issue_cert("127.0.0.1"))) as stack:
        context = client_tls()
        context.set_alpn_protocols(["h2", "http/1.1"])
        async with RawClient.to(stack.sidecar.proxy_address, tls=context) as client:
            assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"


# Files


def pem(folder: Path) -> tuple[Path, Path]:
    write(folder, authority().issue_cert("127.0.0.1"))
    return folder / "tls.crt", folder / "tls.key"


def why(cert: Path, key: Path | None) -> str:
    with pytest.raises(Unusable) as caught:
        server_context(cert, key, None)
    return str(caught.value)


def test_each_fault_of_certificate_files_has_its_sentence(tmp_path: Path) -> None:
    cert, key = pem(tmp_path)
    good_cert, good_key = cert.read_bytes(), key.read_bytes()
    assert why(cert, tmp_path / "none.key") == f"{tmp_path}/none.key: cannot be read: No such file or directory"
    loaded = load_pem_private_key(good_key, None)
    key.write_bytes(loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
    assert why(cert, key).startswith(f"{key}: the key is encrypted")
    key.write_bytes(trustme.CA().issue_cert("a").private_key_pem.bytes())
    assert why(cert, key) == f"{key}: the key does not belong to the certificate in {cert}"
    key.write_bytes(b"nonsense")
    assert why(cert, key) == f"{key}: holds no PEM private key"
    key.write_bytes(good_key)
    cert.write_bytes(authority().cert_pem.bytes() + good_cert)
    assert why(cert, key).startswith(f"{cert}: the chain is in the wrong order")
    cert.write_bytes(b"nonsense")
    assert why(cert, None) == f"{cert}: holds no PEM certificate with its key"


def test_an_expired_or_future_certificate_is_reported(tmp_path: Path) -> None:
    cert, _ = pem(tmp_path)
    assert certificate_time(cert, datetime.datetime.now(datetime.UTC).timestamp()) is None
    assert "the certificate expired at " in (certificate_time(cert, 1e11) or "")
    assert "the certificate is not valid before " in (certificate_time(cert, 0.0) or "")


async def test_a_key_file_that_returns_is_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    cert, key = pem(tmp_path)
    async with running(tls={"cert_file": str(cert), "key_file": str(key)}) as stack:
        certificate = stack.sidecar.plane.certificate
        assert certificate is not None
        new = authority().issue_cert("127.0.0.1")
        cert.write_bytes(new.cert_chain_pems[0].bytes())
        kept = key.rename(tmp_path / "elsewhere")
        for _ in range(2):
            certificate.look()
        assert certificate.problem == f"{key}: cannot be read: No such file or directory"
        kept.write_bytes(new.private_key_pem.bytes())
        kept.rename(key)
        certificate.look()
        assert certificate.problem is None
        stack.secrets.errors.clear()
    told = [record.getMessage().partition(" ")[0] for record in caplog.records if record.name == "sidecar.files"]
    assert told == ["event=file_kept_as_it_was", "event=file_read_again"]


# Backends


async def test_a_backend_with_an_untrusted_certificate_is_reported() -> None:
    async with (
        RawBackend(ok, tls=server_tls()) as backend,
        running(upstream=f"https://127.0.0.1:{backend.address[1]}") as stack,
    ):
        assert (await stack.fetch(stack.good())).status == 502
        [kept] = stack.sidecar.live.telemetry.refusals
        assert kept.cause.startswith("The backend's certificate comes from an authority that is not in")


async def test_a_backend_with_plain_http_at_https_is_reported() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with (
        await asyncio.start_server(plain, "127.0.0.1", 0) as server,
        running(upstream=f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}") as stack,
    ):
        assert (await stack.fetch(stack.good())).status == 502
        [kept] = stack.sidecar.live.telemetry.refusals
        assert kept.cause.startswith("The backend does not speak TLS on this port, perhaps plain http")


@pytest.mark.parametrize(
    ("name", "validity", "cause"),
    [
        (
            "127.0.0.1",
            {"not_after": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)},
            "The backend's certificate has expired.",
        ),
        ("other.example", {}, "The backend's certificate is for another"),
    ],
)
async def test_the_fault_of_a_backends_certificate_is_reported(
    name: str, validity: Any, cause: str, tmp_path: Path
) -> None:
    (tmp_path / "ca.crt").write_bytes(authority().cert_pem.bytes())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority().issue_cert(name, **validity).configure_cert(context)
    async with RawBackend(ok, tls=context) as backend:
        upstream = {"url": f"https://127.0.0.1:{backend.address[1]}", "tls": {"ca_file": str(tmp_path / "ca.crt")}}
        async with running(upstream=None, upstreams={"default": upstream}) as stack:
            assert (await stack.fetch(stack.good())).status == 502
            [kept] = stack.sidecar.live.telemetry.refusals
            assert kept.cause.startswith(cause)


async def test_a_backend_that_does_not_listen_is_reported() -> None:
    async with running(upstream="http://127.0.0.1:9") as stack:
        await stack.fetch(stack.good())
        [kept] = stack.sidecar.live.telemetry.refusals
        assert kept.cause == "Nothing listens at the backend's address."
