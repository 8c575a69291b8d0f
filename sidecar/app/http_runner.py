"""The health and admin listeners: aiohttp applications whose errors and logs never quote a client's bytes."""

import asyncio
import logging
import socket
from typing import cast

from aiohttp import web

from sidecar.app.sockets import BACKLOG, listening_sockets
from sidecar.common.errors import Unusable, fault
from sidecar.common.loopback import is_loopback
from sidecar.config import Address, Config

MOST_CONNECTIONS = 100
SILENT_S = 75.0  # longer than the longest answer, a fetch of keys

log = logging.getLogger("sidecar.listeners")


class QuietHandler(web.RequestHandler):
    """A request handler that answers errors with fixed texts: aiohttp quotes invalid lines in its answer and its log.

    `beside` are the connections of this listener, the most recently active at the end. MOST_CONNECTIONS limits them: a new one
    closes the one that was silent for longest, so that no client can block probes. A connection also closes after SILENT_S of
    silence.
    """

    def __init__(self, manager: web.Server, beside: "dict[QuietHandler, None]") -> None:
        loop = asyncio.get_running_loop()
        super().__init__(manager, loop=loop, access_log=None)  # type: ignore[arg-type]
        self._call_later = loop.call_later
        self._beside = beside
        self._peer: asyncio.BaseTransport | None = None
        self._silence: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Add the connection; close the longest silent one beyond the limit."""
        super().connection_made(transport)
        self._peer = transport
        while len(self._beside) >= MOST_CONNECTIONS:
            next(iter(self._beside)).end()
        self._heard()

    def data_received(self, data: bytes) -> None:
        """Restart the time of silence."""
        self._heard()
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Remove the connection."""
        self._beside.pop(self, None)
        if self._silence is not None:
            self._silence.cancel()
        super().connection_lost(exc)

    def end(self) -> None:
        """Close the connection at once."""
        self._beside.pop(self, None)
        cast(asyncio.WriteTransport, self._peer).abort()

    def _heard(self) -> None:
        self._beside.pop(self, None)
        self._beside[self] = None
        if self._silence is not None:
            self._silence.cancel()
        self._silence = self._call_later(SILENT_S, self.end)

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # it quotes the line
    ) -> web.StreamResponse:
        """Answer with a fixed sentence and close the connection."""
        error = "Invalid request" if status < 500 else "Internal error"
        if status >= 500:
            self.logger.error("event=bug %s", "" if exc is None else fault(exc))
        response = web.json_response({"error": error}, status=status)
        response.force_close()
        return response


class QuietServer(web.Server):
    """A server whose connections are QuietHandlers."""

    def __init__(self, server: web.Server) -> None:
        super().__init__(server.request_handler)
        self._looked_after_by = server
        self._open: dict[QuietHandler, None] = {}

    def __call__(self) -> web.RequestHandler:
        return QuietHandler(self._looked_after_by, self._open)


class QuietRunner(web.AppRunner):
    """Runs an application whose connections are QuietHandlers, without an access log."""

    @property
    def server(self) -> web.Server | None:
        """The server of the application's sites."""
        server = super().server
        return None if server is None else QuietServer(server)


async def listeners(
    config: Config, health: web.Application, admin: web.Application, own: socket.socket | None
) -> list[web.AppRunner]:
    """Start both listeners; `own` is the local socket of this process, for operators on this machine. Raises Unusable."""
    if not is_loopback(config.admin.listen.host):
        log.warning(
            "event=admin_exposed listen=%s do='Set admin.listen to 127.0.0.1 and use a port forward: it has no password.'",
            config.admin.listen.host,
        )
    runners: list[web.AppRunner] = []
    try:
        for name, app, address in (("health", health, config.health.listen), ("admin", admin, config.admin.listen)):
            sockets = listening_sockets(f"{name}.listen", [address])
            if name == "admin" and own is not None:
                sockets.append(own)
            runner = QuietRunner(app, shutdown_timeout=1.0)
            runners.append(runner)
            await runner.setup()
            for listening in sockets:
                await web.SockSite(runner, listening, backlog=BACKLOG).start()
    except Unusable:
        for opened in runners:
            await opened.cleanup()
        raise
    return runners


def where(runner: web.AppRunner) -> Address:
    """The address with the real port."""
    return Address(*runner.addresses[0][:2])
