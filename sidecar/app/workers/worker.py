"""A worker process: a whole sidecar on given sockets. Only the supervisor sends operators' requests to it."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web
from aiohttp.typedefs import Middleware

from sidecar.app.http_runner import QuietRunner
from sidecar.app.local_socket import owner
from sidecar.app.reload import with_fixed
from sidecar.app.server import CannotStart, Sidecar
from sidecar.common.clock import Clock
from sidecar.common.errors import Unusable
from sidecar.config import Config, ConfigError, parse
from sidecar.jwt.denylist import Entry

PRIVATE = "/worker/"  # paths for the supervisor only
CONFIGURATION, RELOAD, FINISH = f"{PRIVATE}configuration", f"{PRIVATE}reload", f"{PRIVATE}finish"


class Begin(NamedTuple):
    """The input of a worker: its place, the operators' changes, and the text of the configuration in use.

    `text` None: the configuration that the supervisor read at its start.
    """

    place: int
    text: str | None
    denied: list[Entry]
    draining_since: float | None


class Place(NamedTuple):
    """The sockets that outlive a worker: those of its clients, and the one for the supervisor."""

    clients: list[socket.socket]
    control: socket.socket


async def work(config: Config, file: Path, place: Place, supervisor: int, begin: Begin) -> None:
    """Serve until the supervisor, the process with this pid, ends it. Raises CannotStart."""
    try:
        if begin.text is not None:
            config = with_fixed(config, parse(begin.text, str(file), base=file.parent))
        sidecar = Sidecar(config, Clock(), file)
    except (ConfigError, Unusable) as error:
        raise CannotStart(str(error)) from error
    app = sidecar.admin.app()
    app.add_routes(sidecar.health.routes())
    finish = asyncio.Event()
    app.add_routes(_private(sidecar, finish))
    app.middlewares.insert(0, _only_for(supervisor))
    runner = QuietRunner(app, shutdown_timeout=1.0)
    try:
        await sidecar.begin(place.clients, begin.denied, begin.draining_since)
        await runner.setup()
        await web.SockSite(runner, place.control).start()
        asked = asyncio.create_task(finish.wait())
        either: set[asyncio.Future[Any]] = {asked, sidecar.failed}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if sidecar.failed.done():
            sidecar.failed.result()
        await sidecar.drain()
    finally:
        await sidecar.stop()
        await runner.cleanup()


def _private(sidecar: Sidecar, finish: asyncio.Event) -> list[web.RouteDef]:
    async def configuration(request: web.Request) -> web.Response:
        """The text of the configuration in use, unless the supervisor has it already."""
        config = sidecar.assembly.config
        if request.query.get("but") == config.digest:
            return web.Response(status=304)
        return web.json_response({"digest": config.digest, "text": config.written})

    async def reload(_request: web.Request) -> web.Response:
        sidecar.ask_reload()
        return web.Response(status=204)

    async def end(_request: web.Request) -> web.Response:
        finish.set()
        return web.Response(status=204)

    return [web.get(CONFIGURATION, configuration), web.post(RELOAD, reload), web.post(FINISH, end)]


def _only_for(pid: int) -> Middleware:
    """Middleware for the supervisor only: any process can connect to the socket, and the kernel tells which one did."""

    @web.middleware
    async def guarded(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        peer = None if request.transport is None else request.transport.get_extra_info("socket")
        if peer is None or owner(peer)[0] != pid:
            raise web.HTTPForbidden
        return await handler(request)

    return guarded


def control_socket() -> socket.socket:
    """A socket in the abstract namespace, which works in a read-only container."""
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    control.bind("")  # Linux chooses the name
    control.listen()
    control.setblocking(False)
    return control
