"""A backend's connection after an answer to HEAD."""

import pytest

from tests.peers.backend import RawBackend, send
from tests.proxy.conftest import running


@pytest.mark.parametrize(
    ("headers", "connections"),
    [
        pytest.param(b"Content-Length: 5\r\n", 1, id="a length"),
        pytest.param(b"Transfer-Encoding: chunked\r\n", 1, id="chunks"),
        pytest.param(b"", 2, id="until the connection closes"),
    ],
)
async def test_a_connection_is_reused_after_head_only_if_it_would_be_after_get(
    headers: bytes, connections: int
) -> None:
    """A backend that ends a GET by closing may also close after a HEAD; the next request would fail."""
    async with (
        running(backend=RawBackend(send(b"HTTP/1.1 200 OK\r\n%b\r\n" % headers))) as stack,
        stack.client() as client,
    ):
        for _ in range(2):
            assert (await client.request(stack.good("HEAD"))).status == 200
        assert stack.backend.connections == connections
