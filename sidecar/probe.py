"""Asks a backend how it is, for a kubelet that cannot reach a loopback address itself."""

import asyncio

from sidecar.deadlines import NEVER
from sidecar.identity import ANONYMOUS
from sidecar.leg import BrokenOff
from sidecar.rejections import Reason, Rejection
from sidecar.signature import Signature
from sidecar.upstream import Upstream


class Probe:
    """GETs one path of a backend, over a connection of its own and with nothing in it from whoever asks.

    One request is under way at a time: who asks meanwhile shares its answer, so that the port can be flooded and the backend not.
    """

    def __init__(self, upstream: Upstream, path: str, timeout_s: float, signature: Signature | None) -> None:
        self._upstream = upstream
        self._path = path.encode()
        self._timeout_s = timeout_s
        self._signature = signature
        self._answer: asyncio.Future[int] | None = None

    async def status(self) -> int:
        """The backend's status; 502 when there is none, 504 when it does not come in time."""
        if self._answer is not None:
            return await asyncio.shield(self._answer)
        answer = self._answer = asyncio.get_running_loop().create_future()
        status = Reason.UPSTREAM_UNREACHABLE.status
        try:
            status = await self._ask()
        finally:
            answer.set_result(status)
            self._answer = None
        return status

    async def _ask(self) -> int:
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await self._upstream.connect()
                try:
                    head, _ = await connection.exchange(self._head(), False, NEVER)
                finally:
                    connection.close()
        except Rejection as rejection:
            return rejection.reason.status
        except BrokenOff:
            return Reason.UPSTREAM_UNREACHABLE.status
        except TimeoutError:
            return Reason.UPSTREAM_TIMEOUT.status
        code = head.message.code
        return code if code != 101 else Reason.UPSTREAM_INVALID.status

    def _head(self) -> bytes:
        identity = ANONYMOUS
        if self._signature is not None:
            identity += self._signature.line("GET", self._path, identity)
        host = self._upstream.authority
        return b"GET %b HTTP/1.1\r\nHost: %b\r\nUser-Agent: jwt-sidecar\r\n%bConnection: close\r\n\r\n" % (
            self._path,
            host,
            identity,
        )
