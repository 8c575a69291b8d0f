"""An application in a real Chromium that calls an API of another origin: what its code can read of a refusal, and WebSockets."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError

from tests.conftest import Need
from tests.peers import patience
from tests.peers.backend import RawBackend, Request, send
from tests.peers.issuer import Answer
from tests.proxy.conftest import Stack, running
from tests.real.test_page import launched

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASK = """async ([url, token, method, credentials]) => {
  try {
    const headers = token ? {Authorization: `Bearer ${token}`} : {};
    const answer = await fetch(url, {method, headers, credentials: credentials ? "include" : "same-origin"});
    const named = (name) => answer.headers.get(name);
    let body = {};
    try { body = await answer.json(); } catch { /* the backend's */ }
    return {
      status: answer.status, code: body.code ?? null, challenge: named("WWW-Authenticate"), retry: named("Retry-After"),
      id: named("X-Request-Id") === body.request_id, by: named("X-JWT-Sidecar"),
    };
  } catch (error) {
    return {failed: error.message};
  }
}"""
SOCKET = """([url, protocols]) => new Promise((resolve) => {
  const socket = new WebSocket(url, protocols);
  socket.onopen = () => socket.send("hello");
  socket.onmessage = ({data}) => resolve({said: data, protocol: socket.protocol});
  socket.onclose = ({code}) => resolve({closed: code});
})"""
BLOCKED = {"failed": "Failed to fetch"}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser(need: Need) -> "AsyncIterator[Browser]":
    """Chromium, without a window."""
    async with launched(need) as browser:
        yield browser


@asynccontextmanager
async def application(browser: "Browser") -> "AsyncIterator[tuple[str, Page]]":
    """(origin, page) of an application in the browser."""
    html = b"<!doctype html><title>app</title>"
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (
        len(html),
        html,
    )
    async with RawBackend(send(answer, close=True)) as site, await browser.new_context() as context:
        page = await context.new_page()
        page.set_default_timeout(10_000)
        await page.goto(site.url)
        yield site.url, page


def api(stack: Stack, scheme: str = "http", path: str = "/") -> str:
    host, port = stack.sidecar.proxy_address
    return f"{scheme}://{host}:{port}{path}"


async def ask(
    page: "Page", stack: Stack, token: str = "", path: str = "/", method: str = "GET", *, credentials: bool = False
) -> Any:
    async with patience("an answer to the page"):
        return await page.evaluate(ASK, [api(stack, path=path), token, method, credentials])


ROUTES: list[dict[str, Any]] = [{"path": "/admin", "require": {"scopes": ["admin"]}}]


async def marked_by_itself(request: Request, writer: asyncio.StreamWriter) -> None:
    """A backend that implements CORS."""
    origin = request.get("origin") or "null"
    writer.write(f"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: {origin}\r\nContent-Length: 2\r\n\r\n{{}}".encode())


async def test_an_application_reads_status_code_challenge_and_retry_after(browser: "Browser") -> None:
    async with application(browser) as (origin, page):
        backend = RawBackend(marked_by_itself)
        async with running(backend=backend, cors={"origins": [origin]}, routes=ROUTES) as stack:
            assert await ask(page, stack) == {
                "status": 401, "code": "token_missing", "challenge": 'Bearer realm="jwt-sidecar"', "retry": None, "id": True,
                "by": "rejected",
            }  # fmt: skip
            expired = await ask(page, stack, stack.token(exp=1), method="PUT")
            assert (expired["status"], expired["code"]) == (401, "token_expired")
            assert expired["challenge"].startswith(
                'Bearer realm="jwt-sidecar", error="invalid_token", error_description="'
            )
            refused = await ask(page, stack, stack.alice, "/admin")
            assert (refused["status"], refused["code"]) == (403, "scope_insufficient")
            assert 'scope="admin"' in refused["challenge"]
            assert (await ask(page, stack, stack.alice, method="DELETE"))["status"] == 200
            assert [one.method for one in backend.requests] == ["DELETE"]  # the preflights were answered by the sidecar
            await backend.go_down()
            assert (await ask(page, stack, stack.alice))["code"] == "upstream_unreachable"
        async with running(cors={"origins": [origin]}) as stack:
            stack.issuer.on_jwks = Answer(500)
            down = await ask(page, stack, stack.alice)
            assert (down["status"], down["code"]) == (503, "jwks_unavailable")
            assert int(down["retry"]) >= 1


@pytest.mark.parametrize(
    "settings", [{}, {"cors": {"origins": ["https://another.example"]}}], ids=["without cors", "another origin"]
)
async def test_an_application_of_another_origin_reads_nothing(browser: "Browser", settings: dict[str, Any]) -> None:
    async with application(browser) as (_, page), running(**settings) as stack:
        assert await ask(page, stack) == BLOCKED


async def test_an_application_may_send_cookies_only_with_cors_credentials(browser: "Browser") -> None:
    async with application(browser) as (origin, page):
        for credentials, expected in ((True, "token_missing"), (False, None)):
            async with running(cors={"origins": [origin], "credentials": credentials}) as stack:
                assert (await ask(page, stack, credentials=True)).get("code") == expected
        async with running(cors={"origins": ["*"]}) as stack:
            assert (await ask(page, stack))["code"] == "token_missing"
            assert await ask(page, stack, credentials=True) == BLOCKED


async def test_a_page_opens_a_websocket_with_a_token(browser: "Browser") -> None:
    seen: list[str | None] = []
    own_log = logging.Logger("backend", logging.CRITICAL)  # it would log the claims

    async def echo(connection: ServerConnection) -> None:
        assert connection.request is not None
        seen.append(connection.request.headers.get("Sec-WebSocket-Protocol"))
        with suppress(ConnectionClosedError):  # the page leaves without a close frame
            async for message in connection:
                await connection.send(message)

    async with serve(
        echo, "127.0.0.1", 0, select_subprotocol=lambda _, offered: next(iter(offered), None), logger=own_log
    ) as server:
        port = server.sockets[0].getsockname()[1]
        places = [{"header": "Authorization"}, {"subprotocol": "bearer"}]
        async with (
            application(browser) as (_, page),
            running(upstream=f"http://127.0.0.1:{port}", token_from=places) as stack,
        ):
            url = api(stack, "ws")
            assert await page.evaluate(SOCKET, [url, ["bearer", stack.alice]]) == {
                "said": "hello",
                "protocol": "bearer",
            }
            chat = await page.evaluate(SOCKET, [url, ["chat", "bearer", stack.alice]])
            assert chat == {"said": "hello", "protocol": "chat"}
            assert await page.evaluate(SOCKET, [url, ["bearer", "x"]]) == {"closed": 1006}
    assert seen == [None, "chat"]
