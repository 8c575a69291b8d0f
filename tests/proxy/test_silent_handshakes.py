"""A client in a TLS handshake, or before it, counts as a connection: counted, limited, closed in time."""

import re
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.peers import patience
from tests.peers.raw import fetch
from tests.peers.tls import authority, client_tls
from tests.peers.wire import Truncated
from tests.proxy.conftest import Stack, running
from tests.proxy.test_tls import write

ON_EVERY_LOOP = True
MOST = 5


async def connections(stack: Stack) -> int:
    metrics = (await stack.health("/metrics")).body.decode()
    found = re.search(r"^jwt_sidecar_connections (\S+)$", metrics, re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


async def served(stack: Stack) -> bool:
    """Does a proper TLS client get a 200, and not a 503 or the end of its connection?"""
    try:
        answer = await fetch(stack.sidecar.proxy_address, stack.good(), tls=client_tls())
    except (ssl.SSLError, ConnectionError, Truncated):
        return False
    return answer.status == 200


@pytest.mark.parametrize("said", [b"", b"\x16\x03"], ids=["nothing", "the beginning of a handshake"])
async def test_a_client_in_a_handshake_counts_as_a_connection(tmp_path: Path, said: bytes) -> None:
    tls = write(tmp_path, authority().issue_cert("127.0.0.1"))
    async with running(tls=tls, limits={"connections": MOST}) as stack:
        assert await served(stack)
        async with patience("no connection"):
            while await connections(stack):
                pass
        async with AsyncExitStack() as silent:
            for number in range(MOST):
                client = await silent.enter_async_context(stack.client())
                await client.send(said)
                await stack.health("/livez")
                assert await connections(stack) == number + 1
            assert not await served(stack)
        async with patience("a connection to become free"):
            while not await served(stack):
                pass


async def test_silent_clients_beyond_the_limit_are_closed(tmp_path: Path) -> None:
    tls = write(tmp_path, authority().issue_cert("127.0.0.1"))
    settings: dict[str, Any] = {
        "limits": {"connections": MOST},
        "timeouts": {"request_headers": "1000s"},  # so that silence is not the reason
    }
    async with running(tls=tls, **settings) as stack, AsyncExitStack() as silent:
        clients = [await silent.enter_async_context(stack.client()) for _ in range(4 * MOST)]
        async with patience("the connections above the limit to be closed"):
            while sum(not client.reader.at_eof() and client.reader.exception() is None for client in clients) > MOST:
                await stack.health("/livez")
        assert await connections(stack) <= MOST


async def test_a_silent_handshake_times_out_and_frees_its_place(tmp_path: Path) -> None:
    tls = write(tmp_path, authority().issue_cert("127.0.0.1"))
    settings: dict[str, Any] = {"limits": {"connections": 1}, "timeouts": {"request_headers": "100ms"}}
    async with running(tls=tls, **settings) as stack, stack.client() as client:
        await client.send(b"\x16\x03")
        assert await client.closed() == b""
        async with patience("a connection to become free"):
            while not await served(stack):
                pass
