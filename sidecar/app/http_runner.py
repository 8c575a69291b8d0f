"""The listeners beside the proxy's: aiohttp applications whose error answers and logs quote nothing that a client sent."""

import asyncio

from aiohttp import web


class QuietHandler(web.RequestHandler):
    """aiohttp's own answer to bytes that are no HTTP quotes the line, and its log too."""

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
            self.logger.error("event=bug type=%s", type(exc).__name__)
        response = web.json_response({"error": error}, status=status)
        response.force_close()
        return response


class QuietServer(web.Server):
    """Makes QuietHandlers for the server of an application, which looks after them."""

    def __init__(self, server: web.Server) -> None:
        super().__init__(server.request_handler)
        self._looked_after_by = server

    def __call__(self) -> web.RequestHandler:
        return QuietHandler(self._looked_after_by, loop=asyncio.get_running_loop(), access_log=None)  # type: ignore[arg-type]


class QuietRunner(web.AppRunner):
    """Runs an application whose connections are QuietHandlers, without an access log."""

    @property
    def server(self) -> web.Server | None:
        """What its sites make connections with."""
        server = super().server
        return None if server is None else QuietServer(server)
