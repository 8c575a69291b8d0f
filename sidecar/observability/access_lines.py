"""The line of a request in the access log, in each format. It never holds a token or a query."""

import time
from collections.abc import Callable
from typing import Final

import msgspec

from sidecar.observability.record import NO_ROUTE, Record

CLIENT_LEFT: Final = 499  # nginx's status for a client that left before the answer
OUTCOMES: Final = {"allow": "success", "report": "success", "left": "unknown"}
MAX_ALIKE: Final = 1024  # remembered parts of lines

_encode: Final = msgspec.json.encode
_alike: Final[dict[tuple[object, ...], str]] = {}
_thousandths: Final = [f".{number:03}" for number in range(1000)]


class _Now:
    """The text of the current time, made once for all lines of a millisecond."""

    def __init__(self) -> None:
        self._second = self._millisecond = -1
        self._text_of_second = self._text = ""

    def text(self) -> str:
        """The time in UTC."""
        millisecond = time.time_ns() // 1_000_000
        if millisecond != self._millisecond:
            self._millisecond, second = millisecond, millisecond // 1000
            if second != self._second:
                self._second, self._text_of_second = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._text = f"{self._text_of_second}{_thousandths[millisecond % 1000]}Z"
        return self._text


_now: Final = _Now()


def json_line(request: Record, duration_s: float) -> bytes:
    """A line with OpenTelemetry's names for HTTP, and `auth.*` for the decision. Addresses and ids need no escapes."""
    claims = request.claims
    key = (
        None if request.route is None else request.route.name,
        request.method,
        request.status,
        request.minor,
        request.scheme,
        request.rejected,
        request.reported,
        request.cause,
        request.token_issuer if claims is None else claims.issuer,
        request.token_kid if claims is None else claims.kid,
    )
    alike = _alike.get(key)
    if alike is None:
        alike = _said_alike(key, request)
    took, waited = _microseconds(duration_s), _microseconds(request.answered - request.sent)
    upstream = f',"upstream_ms":{waited // 1000}{_thousandths[waited % 1000]}' if request.answered else ""
    path = f',"url.path":"{path}"' if (path := _path(request)) else ""
    user = "" if claims is None else f',"user.hash":"{claims.user_hash}"'
    trace = "" if (trace_id := request.trace_id) is None else f',"trace_id":"{trace_id}"'
    return (
        f'{{"time":"{_now.text()}",{alike},"duration_ms":{took // 1000}{_thousandths[took % 1000]}{upstream}'
        f',"client.address":"{request.peer}","request_id":"{request.id}"{path}{user}{trace}}}\n'
    ).encode()


def _said_alike(key: tuple[object, ...], request: Record) -> str:
    """The part of a line that all requests with this key share, made once."""
    claims = request.claims
    fields = {
        "http.request.method": request.method_shown or None,
        "http.response.status_code": request.status or CLIENT_LEFT,
        "auth.result": request.result,
        "url.scheme": request.scheme or None,
        "network.protocol.version": f"1.{request.minor}" if request.method else None,
        "http.route": NO_ROUTE if request.route is None else request.route.name,
        "auth.issuer": request.token_issuer if claims is None else claims.issuer,
        "auth.kid": request.token_kid if claims is None else claims.kid,
        "auth.reason": None if request.rejected is None else request.rejected.code,
        "error.message": request.cause or None,
    }
    if len(_alike) >= MAX_ALIKE:  # clients can send any method
        _alike.clear()
    text = _encode({name: value for name, value in fields.items() if value is not None}).decode()[1:-1]
    _alike[key] = text
    return text


def _microseconds(seconds: float) -> int:
    return int(seconds * 1e6 + 0.5)


def _path(request: Record) -> str:
    """The path for a text in JSON."""
    path = request.path_without_tokens
    if path.isprintable() and '"' not in path and "\\" not in path:
        return path
    return _encode(request.path).decode()[1:-1]


def ecs_line(request: Record, duration_s: float) -> bytes:
    """A line in Elastic Common Schema: durations in nanoseconds, the decision in `event`."""
    result = request.result
    fields: dict[str, object] = {
        "@timestamp": _now.text(),
        "ecs.version": "8.11.0",
        "event.dataset": "jwt_sidecar.access",
        "event.duration": int(duration_s * 1e9),
        "event.action": result,
        "event.outcome": OUTCOMES.get(result, "failure"),
        "event.category": ["web"],
        "event.kind": "event",
        "event.type": ["access", "denied" if result == "deny" else "allowed"],
        "http.request.id": request.id,
        "http.response.status_code": request.status or CLIENT_LEFT,
        "client.address": request.peer,
        "client.ip": request.peer,
    }
    if request.method:
        fields |= {
            "http.request.method": request.method_shown,
            "http.version": f"1.{request.minor}",
            "url.path": request.path,
            "url.scheme": request.scheme,
        }
    claims = request.claims
    fields["jwt_sidecar.route"] = NO_ROUTE if request.route is None else request.route.name
    if claims is not None:
        fields["user.hash"] = claims.user_hash
    if (issuer := request.token_issuer if claims is None else claims.issuer) is not None:
        fields["jwt_sidecar.issuer"] = issuer
    if (kid := request.token_kid if claims is None else claims.kid) is not None:
        fields["jwt_sidecar.kid"] = kid
    if request.rejected is not None:
        fields["event.reason"] = request.rejected.code
    if request.cause:
        fields["error.message"] = request.cause
    if (trace_id := request.trace_id) is not None:
        fields["trace.id"] = trace_id
    return _encode(fields) + b"\n"


_NO_FIELD_ENDS = str.maketrans({'"': "%22", " ": "%20", "\t": "%09"})


def combined_line(request: Record, _duration_s: float) -> bytes:
    """A line in the combined format of Apache and nginx. The size of the answer is not counted and is `-`."""
    peer = request.peer or "-"
    when = time.strftime("%d/%b/%Y:%H:%M:%S %z")
    asked = "-"
    if request.method:
        asked = f"{request.method_shown} {request.path.translate(_NO_FIELD_ENDS)} HTTP/1.{request.minor}"
    reason = "-" if request.rejected is None else f"{'report:' if request.reported else ''}{request.rejected.code}"
    return f'{peer} - - [{when}] "{asked}" {request.status or CLIENT_LEFT} - "-" "-" {reason}\n'.encode()


LINES: dict[str, Callable[[Record, float], bytes]] = {
    "json": json_line,
    "ecs": ecs_line,
    "combined": combined_line,
}
