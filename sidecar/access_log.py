"""The one line that a request leaves in the access log, in the form that is configured. Never a token, never a query."""

import os
import time
from asyncio import get_running_loop
from collections.abc import Callable
from datetime import UTC, datetime
from select import PIPE_BUF

import msgspec

from sidecar.request import Request

FLUSH_S = 0.1  # lines are written together: one system call for many requests

_encode = msgspec.json.encode


class AccessLog:
    """Writes one line for each ended request to `descriptor`; `line` makes it.

    Where other processes write to it too (`shared`), each write is small enough that a pipe keeps its lines together.
    """

    def __init__(self, line: Callable[[Request, float], bytes], descriptor: int = 1, *, shared: bool = False) -> None:
        self._line = line
        self._shared = shared
        self._descriptor = descriptor
        self._waiting: list[bytes] = []

    def write(self, request: Request, duration_s: float) -> None:
        """Take the line of a request that took `duration_s`."""
        if not self._waiting:
            get_running_loop().call_later(FLUSH_S, self.flush)
        self._waiting.append(self._line(request, duration_s))

    def flush(self) -> None:
        """Write what is waiting."""
        waiting, self._waiting = b"".join(self._waiting), []
        try:
            while waiting:
                waiting = waiting[os.write(self._descriptor, self._whole_lines(waiting)) :]
        except BlockingIOError:  # its reader is slow: the lines wait for the next time
            self._waiting.append(waiting)
            get_running_loop().call_later(FLUSH_S, self.flush)

    def _whole_lines(self, waiting: bytes) -> bytes:
        """As much as can be written at once: with other writers so many lines as PIPE_BUF has room for, or one longer line."""
        if not self._shared or len(waiting) <= PIPE_BUF:
            return waiting
        end = waiting.rfind(b"\n", 0, PIPE_BUF)
        return waiting[: (end if end >= 0 else waiting.index(b"\n")) + 1]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def json_line(request: Request, duration_s: float) -> bytes:
    """OpenTelemetry's names for HTTP, and `auth.*` for the decision."""
    fields: dict[str, object] = {
        "time": _now(),
        "http.request.method": request.method,
        "url.path": request.path,
        "http.response.status_code": request.status,
        "duration_ms": round(duration_s * 1000, 3),
        "client.address": request.connection.forwarded.peer.decode(),
        "request_id": request.id,
        "auth.result": request.result,
    }
    if request.route is not None:
        fields["http.route"] = request.route.name
    if request.answered:
        fields["upstream_ms"] = round((request.answered - request.sent) * 1000, 3)
    if request.claims is not None:
        fields["auth.issuer"] = request.claims.issuer
        fields["auth.kid"] = request.claims.kid
        fields["user.hash"] = request.claims.user_hash
    if request.rejected is not None:
        fields["auth.reason"] = request.rejected.code
    if (trace_id := request.trace_id) is not None:
        fields["trace_id"] = trace_id
    return _encode(fields) + b"\n"


def ecs_line(request: Request, duration_s: float) -> bytes:
    """Elastic Common Schema: durations in nanoseconds, the decision in `event`."""
    result = request.result
    fields: dict[str, object] = {
        "@timestamp": _now(),
        "ecs.version": "8.11.0",
        "event.dataset": "jwt_sidecar.access",
        "event.duration": int(duration_s * 1e9),
        "event.action": result,
        "event.outcome": "success" if result in ("allow", "report") else "failure",
        "http.request.id": request.id,
        "http.request.method": request.method,
        "http.response.status_code": request.status,
        "url.path": request.path,
        "client.ip": request.connection.forwarded.peer.decode(),
    }
    if request.claims is not None:
        fields["jwt_sidecar.issuer"] = request.claims.issuer
        fields["jwt_sidecar.kid"] = request.claims.kid
        fields["user.hash"] = request.claims.user_hash
    if request.rejected is not None:
        fields["event.reason"] = request.rejected.code
    if (trace_id := request.trace_id) is not None:
        fields["trace.id"] = trace_id
    return _encode(fields) + b"\n"


def combined_line(request: Request, _duration_s: float) -> bytes:
    """The line of Apache and nginx; the size of the answer is not counted and written as `-`."""
    peer = request.connection.forwarded.peer.decode() or "-"
    when = time.strftime("%d/%b/%Y:%H:%M:%S %z")
    path = request.path.replace('"', "%22")
    reason = "-" if request.rejected is None else f"{'report:' if request.reported else ''}{request.rejected.code}"
    return f'{peer} - - [{when}] "{request.method} {path} HTTP/1.1" {request.status} - "-" "-" {reason}\n'.encode()


LINES: dict[str, Callable[[Request, float], bytes]] = {
    "json": json_line,
    "ecs": ecs_line,
    "combined": combined_line,
}
