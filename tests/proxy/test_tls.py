"""TLS on the proxy's listener and to backends: trusted certificates, and the use of renewed files."""

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from sidecar.app.server import CannotStart
from tests.peers import patience
from tests.peers.backend import RawBackend, Request, echo, send
from tests.peers.raw import RawClient, fetch
from tests.peers.tls import authority, client_tls, server_tls
from tests.peers.wire import Truncated, response
from tests.proxy.conftest import ok, running

ON_EVERY_LOOP = True


def write(folder: Path, certificate: trustme.LeafCert) -> dict[str, str]:
    chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
    (folder / "tls.crt").write_bytes(chain)
    (folder / "tls.key").write_bytes(certificate.private_key_pem.bytes())
    return {"cert_file": str(folder / "tls.crt"), "key_file": str(folder / "tls.key")}


async def test_clients_are_served_over_tls_and_the_backend_gets_https_as_proto(tmp_path: Path) -> None:
    tls = write(tmp_path, authority().issue_cert("127.0.0.1"))
    async with running(tls=tls) as stack:
        answer = await fetch(stack.sidecar.proxy_address, stack.good(), tls=client_tls())
        assert answer.status == 200
        assert (await stack.backend.received()).get("x-forwarded-proto") == "https"


async def test_each_piece_of_an_answer_over_tls_is_sent_at_once(tmp_path: Path) -> None:
    taken = asyncio.Event()

    async def in_pieces(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n")
        for piece in (b"hello", b"world", b"again"):
            writer.write(piece)
            await taken.wait()
            taken.clear()

    tls = write(tmp_path, authority().issue_cert("127.0.0.1"))
    async with (
        running(backend=RawBackend(in_pieces), tls=tls) as stack,
        RawClient.to(stack.sidecar.proxy_address, tls=client_tls()) as client,
    ):
        await client.send(stack.good())
        for piece in (b"hello", b"world", b"again"):
            async with patience("a piece"):
                assert (await client.reader.readuntil(piece)).endswith(piece)
            taken.set()


async def test_large_bodies_over_tls_leave_nothing_buffered(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(authority().cert_pem.bytes())
    tls = write(tmp_path, authority().issue_cert("127.0.0.1"))
    much = b"x" * (8 << 20)
    async with RawBackend(echo, tls=server_tls()) as backend:
        url = f"https://127.0.0.1:{backend.address[1]}"
        upstreams = {"default": {"url": url, "tls": {"ca_file": str(tmp_path / "ca.crt")}}}
        async with running(tls=tls, upstream=None, upstreams=upstreams) as stack:
            for raw in (stack.good("POST", body=much), stack.good("POST", chunks=[much])):
                answer = await fetch(stack.sidecar.proxy_address, raw, tls=client_tls())
                assert answer.body == much
            assert stack.sidecar.live.resources.held_bytes == 0


async def test_bytes_after_an_answer_over_tls_reach_no_client(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(authority().cert_pem.bytes())
    async with RawBackend(send(response(200, b"whole") + b"x" * 200_000), tls=server_tls()) as backend:
        url = f"https://127.0.0.1:{backend.address[1]}"
        upstreams = {"default": {"url": url, "tls": {"ca_file": str(tmp_path / "ca.crt")}}}
        async with running(upstream=None, upstreams=upstreams) as stack, stack.client() as client:
            for _ in range(3):
                assert (await client.request(stack.good())).body == b"whole"


async def test_plain_http_at_a_tls_listener_gets_no_answer(tmp_path: Path) -> None:
    tls = write(tmp_path, authority().issue_cert("127.0.0.1"))
    async with running(tls=tls) as stack:
        async with stack.client() as client:
            await client.send(stack.good())
            assert b"200" not in await client.closed()
        assert stack.backend.requests == []


async def test_a_handshake_has_the_timeout_of_a_head(tmp_path: Path) -> None:
    tls = write(tmp_path, authority().issue_cert("127.0.0.1"))
    async with running(tls=tls, timeouts={"request_headers": "100ms"}) as stack, stack.client() as client:
        await client.send(b"\x16\x03")  # the beginning of a handshake
        assert await client.closed() == b""


async def test_the_end_of_the_sidecar_ends_handshakes_at_every_stage(tmp_path: Path) -> None:
    tls = write(tmp_path, authority().issue_cert("127.0.0.1"))
    async with running(tls=tls) as stack:
        listener = stack.sidecar.plane._listener
        assert listener is not None
        for turns in range(6):  # in one of them the connection is accepted, and its handshake has not begun
            with socket.create_connection(stack.sidecar.proxy_address):
                while not listener.connections:
                    await asyncio.sleep(0)
                for _ in range(turns):
                    await asyncio.sleep(0)
                listener.pre_shutdown()
                await listener.shutdown()
                assert stack.sidecar.live.resources.connections == 0


async def test_only_clients_with_a_certificate_are_accepted_if_configured(tmp_path: Path) -> None:
    clients = trustme.CA()
    (tmp_path / "clients.crt").write_bytes(clients.cert_pem.bytes())
    tls = write(tmp_path, authority().issue_cert("127.0.0.1"))
    async with running(tls=tls | {"client_ca_file": str(tmp_path / "clients.crt")}) as stack:
        known = client_tls()
        clients.issue_cert("client.example").configure_cert(known)
        assert (await fetch(stack.sidecar.proxy_address, stack.good(), tls=known)).status == 200
        with pytest.raises((ssl.SSLError, ConnectionError, Truncated)):
            await fetch(stack.sidecar.proxy_address, stack.good(), tls=client_tls())
        assert len(stack.backend.requests) == 1


async def test_a_new_authority_of_clients_is_trusted_without_a_restart(tmp_path: Path) -> None:
    ca_file = tmp_path / "clients.crt"
    ca_file.write_bytes(trustme.CA().cert_pem.bytes())
    clients = trustme.CA()
    known = client_tls()
    clients.issue_cert("client.example").configure_cert(known)
    tls = write(tmp_path, authority().issue_cert("127.0.0.1")) | {"client_ca_file": str(ca_file)}
    async with running(tls=tls) as stack:
        with pytest.raises((ssl.SSLError, ConnectionError, Truncated)):
            await fetch(stack.sidecar.proxy_address, stack.good(), tls=known)
        ca_file.write_bytes(clients.cert_pem.bytes())
        assert stack.sidecar.plane.certificate is not None
        stack.sidecar.plane.certificate.look()
        assert (await fetch(stack.sidecar.proxy_address, stack.good(), tls=known)).status == 200


async def test_a_removed_authority_of_clients_is_distrusted_without_a_restart(tmp_path: Path) -> None:
    ca_file = tmp_path / "clients.crt"
    removed, kept = trustme.CA(), trustme.CA()
    ca_file.write_bytes(removed.cert_pem.bytes() + kept.cert_pem.bytes())
    of_removed, of_kept = client_tls(), client_tls()
    removed.issue_cert("client.example").configure_cert(of_removed)
    kept.issue_cert("client.example").configure_cert(of_kept)
    tls = write(tmp_path, authority().issue_cert("127.0.0.1")) | {"client_ca_file": str(ca_file)}
    async with running(tls=tls) as stack:
        address = stack.sidecar.proxy_address
        assert (await fetch(address, stack.good(), tls=of_removed)).status == 200
        ca_file.write_bytes(kept.cert_pem.bytes())
        assert stack.sidecar.plane.certificate is not None
        stack.sidecar.plane.certificate.look()
        assert (await fetch(address, stack.good(), tls=of_kept)).status == 200
        with pytest.raises((ssl.SSLError, ConnectionError, Truncated)):
            await fetch(address, stack.good(), tls=of_removed)
        assert len(stack.backend.requests) == 2


async def test_a_renewed_certificate_is_used_without_a_restart(tmp_path: Path) -> None:
    other = trustme.CA()
    tls = write(tmp_path, other.issue_cert("127.0.0.1"))
    async with running(tls=tls) as stack:
        with pytest.raises(ssl.SSLCertVerificationError):
            await fetch(stack.sidecar.proxy_address, stack.good(), tls=client_tls())
        write(tmp_path, authority().issue_cert("127.0.0.1"))
        assert stack.sidecar.plane.certificate is not None
        stack.sidecar.plane.certificate.look()
        assert (await fetch(stack.sidecar.proxy_address, stack.good(), tls=client_tls())).status == 200
        other_certificate = trustme.CA().issue_cert("127.0.0.1").cert_chain_pems[0].bytes()
        (tmp_path / "tls.crt").write_bytes(other_certificate)  # before its key
        stack.sidecar.plane.certificate.look()
        assert len(stack.secrets.errors) == 1
        stack.secrets.errors.clear()
        assert (await fetch(stack.sidecar.proxy_address, stack.good(), tls=client_tls())).status == 200


async def test_unusable_tls_files_are_reported_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"missing\.crt: cannot be read: No such file or directory"):
        async with running(tls={"cert_file": str(tmp_path / "missing.crt")}):
            pass


async def test_a_backend_is_reached_over_tls_when_its_certificate_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(authority().cert_pem.bytes())
    trusted = {"ca_file": str(tmp_path / "ca.crt")}
    async with RawBackend(ok, tls=server_tls()) as backend:
        for tls, status in ((trusted, 200), ({}, 502), (trusted | {"server_name": "other.example"}, 502)):
            url = f"https://127.0.0.1:{backend.address[1]}"
            upstreams: dict[str, Any] = {"upstream": None, "upstreams": {"default": {"url": url, "tls": tls}}}
            async with running(**upstreams) as stack:
                answer = await stack.fetch(stack.good())
                assert answer.status == status
                if status == 502:
                    assert answer.json()["code"] == "upstream_unreachable"
                    details = "The certificate of the service behind this proxy is not trusted."
                    assert answer.json()["details"] == details
        assert len(backend.requests) == 1


async def test_a_client_certificate_is_sent_to_a_backend(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(authority().cert_pem.bytes())
    asks = server_tls()
    asks.verify_mode = ssl.CERT_REQUIRED
    authority().configure_trust(asks)
    shown = write(tmp_path, authority().issue_cert("sidecar.example"))
    async with RawBackend(ok, tls=asks) as backend:
        url = f"https://127.0.0.1:{backend.address[1]}"
        for tls, reached in ((shown, True), ({}, False)):
            tls = {"ca_file": str(tmp_path / "ca.crt")} | tls
            async with running(upstream=None, upstreams={"default": {"url": url, "tls": tls}}) as stack:
                assert ((await stack.fetch(stack.good())).status == 200) is reached


async def test_renewed_tls_files_of_a_backend_apply_to_new_connections_and_probes(tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.crt"
    ca_file.write_bytes(trustme.CA().cert_pem.bytes())
    async with RawBackend(ok, tls=server_tls()) as backend:
        url = f"https://127.0.0.1:{backend.address[1]}"
        upstreams = {"default": {"url": url, "tls": {"ca_file": str(ca_file)}}}
        async with running(upstream=None, upstreams=upstreams, health={"probes": {"up": {"path": "/up"}}}) as stack:
            assembly = stack.sidecar.assembly
            [file] = assembly.files
            assert (await assembly.probes["up"].status(), (await stack.fetch(stack.good())).status) == (502, 502)
            ca_file.write_text("half a file")
            file.look()
            assert file.problem == f"{ca_file}: holds no PEM certificates of authorities"
            ca_file.write_bytes(authority().cert_pem.bytes())
            file.look()
            assert (await assembly.probes["up"].status(), (await stack.fetch(stack.good())).status) == (200, 200)
            stack.secrets.errors.clear()
