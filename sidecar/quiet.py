"""The listeners beside the proxy's: aiohttp applications whose error answers and logs quote nothing that a client sent."""

from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler


class QuietHandler(RequestHandler):
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
    """Makes QuietHandlers."""

    def __call__(self) -> RequestHandler:
        return QuietHandler(self, loop=self._loop, **self._kwargs)


class QuietRunner(web.AppRunner):
    """Runs an application behind a QuietServer."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        settings: dict[str, Any] = server._kwargs
        return QuietServer(server.request_handler, request_factory=server.request_factory, **settings)
