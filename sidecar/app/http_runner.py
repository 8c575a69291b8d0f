"""The listeners beside the proxy's: aiohttp applications whose error answers and logs quote nothing that a client sent."""

import asyncio
import logging
from typing import cast

from aiohttp import web

from sidecar.app.running import own_socket
from sidecar.app.sockets import BACKLOG, listening_sockets
from sidecar.common.errors import Unusable, fault
from sidecar.common.loopback import is_loopback
from sidecar.config import Address, Config

MOST_CONNECTIONS = 100
SILENT_S = 75.0  # longer than the longest answer, which is that of a fetch of keys

log = logging.getLogger("sidecar.listeners")


class QuietHandler(web.RequestHandler):
    """aiohttp's own answer to bytes that are no HTTP quotes the line, and its log too.

    `beside` are the connections of this listener, the one that was heard last at the end. There are MOST_CONNECTIONS: a new one
    ends the one that has been silent for longest, so that nobody can keep a probe out. Silence of SILENT_S ends one, too.
    """

    def __init__(self, manager: web.Server, beside: "dict[QuietHandler, None]") -> None:
        loop = asyncio.get_running_loop()
        super().__init__(manager, loop=loop, access_log=None)  # type: ignore[arg-type]
        self._call_later = loop.call_later
        self._beside = beside
        self._peer: asyncio.BaseTransport | None = None
        self._silence: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Make room for it."""
        super().connection_made(transport)
        self._peer = transport
        while len(self._beside) >= MOST_CONNECTIONS:
            next(iter(self._beside)).end()
        self._heard()

    def data_received(self, data: bytes) -> None:
        """It is not silent."""
        self._heard()
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """It needs no room any more."""
        self._beside.pop(self, None)
        if self._silence is not None:
            self._silence.cancel()
        super().connection_lost(exc)

    def end(self) -> None:
        """End it at once."""
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
        message: str | None = None,  # noqa: ARG002  # it holds the line
    ) -> web.StreamResponse:
        """A fixed sentence, and the end of the connection."""
        error = "Invalid request" if status < 500 else "Internal error"
        if status >= 500:
            self.logger.error("event=bug %s", "" if exc is None else fault(exc))
        response = web.json_response({"error": error}, status=status)
        response.force_close()
        return response


class QuietServer(web.Server):
    """Makes QuietHandlers for the server of an application, which looks after them."""

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
        """What its sites make connections with."""
        server = super().server
        return None if server is None else QuietServer(server)


async def listeners(config: Config, health: web.Application, admin: web.Application) -> list[web.AppRunner]:
    """Serve the two at their addresses, and operators on this machine at a socket of its own, too. Raises Unusable."""
    if not is_loopback(config.admin.listen.host):
        log.warning(
            "event=admin_exposed listen=%s do='It has no password: let it listen on 127.0.0.1 and use a port forward.'",
            config.admin.listen.host,
        )
    runners: list[web.AppRunner] = []
    try:
        for name, app, address in (("health", health, config.health.listen), ("admin", admin, config.admin.listen)):
            sockets = listening_sockets(f"{name}.listen", [address])
            if name == "admin" and (own := own_socket()) is not None:
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
    """Where it listens, which port 0 does not say."""
    return Address(*runner.addresses[0][:2])
