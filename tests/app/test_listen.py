"""The sidecar listens at one address or several, and at `[::]` for IPv4 and IPv6."""

import json
import socket
from pathlib import Path

import pytest

from sidecar.app.server import CannotStart, build
from sidecar.config import parse
from tests.peers.backend import RawBackend
from tests.peers.issuer import ScriptedIssuer
from tests.peers.program import configuration, program
from tests.peers.raw import fetch
from tests.peers.wire import request
from tests.proxy.conftest import running

with_ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")


async def test_each_address_of_a_list_is_served() -> None:
    async with running(listen=["127.0.0.1:0", "127.0.0.2:0"]) as stack:
        addresses = stack.sidecar.proxy_addresses
        assert [host for host, _ in addresses] == ["127.0.0.1", "127.0.0.2"]
        for address in addresses:
            assert (await fetch(address, stack.good())).status == 200


@with_ipv6
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_listening_at_all_ipv6_addresses_includes_ipv4(host: str) -> None:
    async with running(listen="[::]:0", health={"listen": "[::]:0"}) as stack:
        assert (await fetch((host, stack.sidecar.proxy_address.port), stack.good())).status == 200
        assert (await fetch((host, stack.sidecar.health_address.port), request("GET", "/livez"))).status == 200
        assert (await stack.backend.received()).get("x-forwarded-for") == host


@with_ipv6
async def test_a_trusted_ipv4_proxy_is_trusted_at_an_ipv6_listener() -> None:
    async with running(listen="[::]:0", trusted_proxies=["127.0.0.0/8"]) as stack:
        raw = stack.good(headers=[("X-Forwarded-For", "192.0.2.7")])
        assert (await fetch(("127.0.0.1", stack.sidecar.proxy_address.port), raw)).status == 200
        assert (await stack.backend.received()).get("x-forwarded-for") == "192.0.2.7, 127.0.0.1"


async def test_workers_serve_each_address(tmp_path: Path) -> None:
    async with program(tmp_path, workers=2, listen=["127.0.0.1:0", "127.0.0.2:0"]) as it:
        second = await it.says(r"^listening proxy http://(127\.0\.0\.2):(\d+)$")
        assert (await fetch((second[1], int(second[2])), it.good())).status == 200


async def test_an_address_in_use_is_named_and_the_other_addresses_are_released() -> None:
    async with ScriptedIssuer(algs=["EdDSA"]) as issuer, RawBackend() as backend:
        with socket.socket() as taken, socket.socket() as free:
            for one in (taken, free):
                one.bind(("127.0.0.1", 0))
            taken.listen()
            port, address = free.getsockname()[1], f"127.0.0.1:{taken.getsockname()[1]}"
            free.close()
            settings = configuration(issuer, backend) | {"listen": [f"127.0.0.1:{port}", address]}
            sidecar = build(parse(json.dumps(settings)))
            with pytest.raises(CannotStart, match=f"^listen: cannot listen on {address}: Address already in use; "):
                await sidecar.start()
        with socket.socket() as again:
            again.bind(("127.0.0.1", port))
        await sidecar.stop()
