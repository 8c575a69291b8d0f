"""Several workers behind the same ports.

The sockets of a place stay open while its worker is replaced, and the next worker serves the connections that wait there.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from aiohttp import web

from sidecar.app.descriptors import take_all
from sidecar.app.http_runner import listeners, where
from sidecar.app.server import CannotStart
from sidecar.app.sockets import bound, listening_sockets_for
from sidecar.app.workers.fork import ForkServer
from sidecar.app.workers.operators import Operators
from sidecar.app.workers.supervisor import Supervisor
from sidecar.app.workers.worker import RELOAD, Place, control_socket, work
from sidecar.common.errors import Unusable
from sidecar.config import Config
from sidecar.config.addresses import Address


class Sidecars:
    """Make it before there is a loop, since it forks. `run` runs a coroutine in a process. Raises CannotStart."""

    def __init__(self, config: Config, file: Path, run: Callable[[Coroutine[Any, Any, None]], int]) -> None:
        self.config = config
        self.health_address = self.admin_address = Address("", 0)
        self.failed: asyncio.Future[None]
        self._supervisor: Supervisor | None = None
        self._runners: list[web.AppRunner] = []
        self._reloads: set[asyncio.Task[Any]] = set()
        try:
            clients = listening_sockets_for(config.workers, "listen", config.listen)
        except Unusable as error:
            raise CannotStart(str(error)) from error
        self.proxy_addresses = bound(clients[0])
        places = [Place(sockets, control_socket()) for sockets in clients]
        self._controls = [place.control.getsockname().decode() for place in places]
        supervisor = os.getpid()
        self._fork_server = ForkServer(lambda begin: run(work(config, file, places[begin.place], supervisor, begin)))
        for place in places:
            for opened in (*place.clients, place.control):
                opened.close()

    async def start(self, own: socket.socket | None = None) -> None:
        """Start all workers and their health and admin listeners, and listen at the local socket. Raises CannotStart."""
        take_all()
        supervisor = self._supervisor = Supervisor(self.config, self._fork_server, self._controls)
        self.failed = supervisor.failed
        await supervisor.start()
        operators = Operators(self.config.admin.listen.host, supervisor)
        try:
            self._runners = await listeners(self.config, operators.health(), operators.admin(), own)
        except Unusable as error:
            raise CannotStart(str(error)) from error
        self.health_address, self.admin_address = map(where, self._runners)
        operators.about = {"health": f"http://{self.health_address}", "admin": f"http://{self.admin_address}"}

    def ask_reload(self) -> None:
        """Let every worker reload the configuration."""
        if self._supervisor is not None:
            task = asyncio.create_task(self._supervisor.ask_all("POST", RELOAD))
            self._reloads.add(task)
            task.add_done_callback(self._reloads.discard)

    async def drain(self) -> None:
        """Let every worker drain and end."""
        assert self._supervisor is not None
        await self._supervisor.drain()

    async def stop(self, *, at_once: bool = False) -> None:  # noqa: ARG002  # nothing waits here
        """Kill all workers."""
        assert self._supervisor is not None
        await self._supervisor.stop()
        for runner in self._runners:
            await runner.cleanup()
