"""Probes a backend on loopback, which a kubelet cannot reach."""

import asyncio

from sidecar.common.errors import Reason, Rejection
from sidecar.http.grammar import ProtocolError
from sidecar.policy.identity_headers import ANONYMOUS
from sidecar.policy.request_signature import Signature
from sidecar.proxy.upstream_connection import UpstreamConnection
from sidecar.proxy.upstream_pool import UpstreamPool

CONNECT_S = 0.9  # a kubelet waits 1 s for the whole answer


class Probe:
    """Sends a GET to one path of a backend, over a separate connection and without any data of the caller.

    Without a path it only connects. One request runs at a time, and concurrent callers share its answer, so that a flood of
    probes does not reach the backend. If the caller that began the request leaves, another caller begins it again.
    `last_status` is the previous answer, None before the first.
    """

    last_status: int | None = None

    def __init__(self, pool: UpstreamPool, path: str | None, timeout_s: float, signature: Signature | None) -> None:
        self._pool = pool
        self._path = None if path is None else path.encode()
        self._timeout_s = timeout_s
        self._signature = signature
        self._answer: asyncio.Future[int | None] | None = None

    async def status(self) -> int:
        """The backend's status; 502 without a valid answer, 504 without one in time."""
        while self._answer is not None:
            shared = await asyncio.shield(self._answer)
            if shared is not None:
                return shared
        answer = self._answer = asyncio.get_running_loop().create_future()
        status = None
        try:
            self.last_status = status = await self._ask()
            return status
        finally:
            self._answer = None
            answer.set_result(status)

    async def _ask(self) -> int:
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await self._pool.connect()
                if self._path is None:
                    connection.abandon()
                    return 200
                question = _Question(connection)
                try:
                    connection.start(question, self._head(self._path), head_only=False)
                    return await question.status
                finally:
                    connection.abandon()
        except Rejection as rejection:
            return rejection.reason.status
        except TimeoutError:
            return Reason.UPSTREAM_TIMEOUT.status

    def _head(self, path: bytes) -> bytes:
        identity = ANONYMOUS
        if self._signature is not None:
            identity += self._signature.line("GET", path, identity)
        host = self._pool.authority
        return b"GET %b HTTP/1.1\r\nHost: %b\r\nUser-Agent: jwt-sidecar\r\n%bConnection: close\r\n\r\n" % (
            path,
            host,
            identity,
        )


class _Question:
    """The owner of a probe's connection; `status` is the status of the final answer."""

    def __init__(self, connection: UpstreamConnection) -> None:
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._connection = connection

    def answer_came(self) -> None:
        """Bytes have come, or the connection has closed."""
        if self.status.done():
            return
        try:
            while (head := self._connection.next_head()) is not None:
                if head.status == 101:
                    raise ProtocolError("A 101 was not asked for.")
                if head.status >= 200:
                    self.status.set_result(head.status)
                    return
        except ProtocolError:
            self.status.set_result(Reason.UPSTREAM_INVALID.status)
            return
        if self._connection.ended:
            self.status.set_result(Reason.UPSTREAM_UNREACHABLE.status)

    def send_body(self) -> None:
        """A probe has no body."""

    def upstream_silent(self) -> None:
        """Nothing to do: the probe has its own timeout."""
