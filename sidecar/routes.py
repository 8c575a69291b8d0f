"""path -> Route; refuses paths that two programs could read differently.

The bytes of the path are forwarded as they came. They are matched in every way that a program behind the sidecar might read
them; where two readings would meet different rules the request is refused, since the backend may follow the other one.
"""

import re
from collections.abc import Sequence
from enum import Enum
from urllib.parse import unquote

from sidecar.policy import Policy
from sidecar.rejections import Reason, Rejection

# Segments of RFC 3986's pchar without escapes and `;`: such a path has one reading, unless a segment is `.` or `..`.
_PLAIN = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,=:@/]*")
_FOLDED = re.compile(r"//|/\.\.?(?:/|$)")
_READABLE = re.compile(r"/(?:[A-Za-z0-9\-._~!$&'()*+,=:@/;]|%[0-9A-Fa-f]{2})*")
# %2f and %5c are separators to some, %00 ends a string to others; other control characters have no business in a path.
_FORBIDDEN_ESCAPE = re.compile(r"%(?:2f|5c|[01][0-9a-f]|7f)", re.IGNORECASE)
# `..;x` is `..` to a servlet container; RFC 3986 gives `;` no such meaning.
_DOT_PARAMETER = re.compile(r"/\.{1,2};")
# `;x` names a parameter of a segment to a servlet container, which drops it before it looks for the resource.
_PARAMETER = re.compile(r";[^/]*")
# CONNECT opens a tunnel to anywhere; TRACE echoes the headers, the verified claims among them, to the client.
REFUSED_METHODS = frozenset({"CONNECT", "TRACE"})
MAX_DECODINGS = 3  # a path that still changes after three decodings is an attack


class Auth(Enum):
    """What a route asks of a request: a valid token, one if any came, none, or nothing will do."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    NONE = "none"
    DENY = "deny"


class Route:
    """One rule. `name` labels it in metrics and logs; `prefix` paths match everything at and below them."""

    __slots__ = ("auth", "forward_token", "methods", "name", "path", "policy", "prefix", "report", "upstream")

    def __init__(
        self,
        path: str,
        *,
        auth: Auth = Auth.REQUIRED,
        methods: Sequence[str] | None = None,
        policy: Policy | None = None,
        report: bool = False,
        upstream: str = "default",
        forward_token: bool = False,
        name: str | None = None,
    ) -> None:
        self.name = name or path
        self.prefix = path.endswith("/*")
        self.path = path[:-2] if self.prefix else path
        self.auth = auth
        self.methods = None if methods is None else frozenset(methods)
        self.policy = policy or Policy()
        self.report = report
        self.upstream = upstream
        self.forward_token = forward_token

    def __repr__(self) -> str:
        return f"<Route {self.name} {self.auth.value}>"

    def covers(self, path: str) -> bool:
        """Does this rule speak of the path? Segment by segment: `/api/*` covers `/api` and `/api/x`, never `/apix`."""
        if self.prefix:
            return path == self.path or path.startswith(self.path + "/")
        return path == self.path


class Routes:
    """The rules in their order, and the one for what no rule names."""

    def __init__(self, routes: Sequence[Route], otherwise: Route) -> None:
        self._routes = tuple(routes)
        self._otherwise = otherwise

    def match(self, method: str, target: str) -> Route:
        """The rule for a request. `target` is the request target as it came (RFC 9112 section 3.2).

        Raises Rejection: method_not_allowed for CONNECT and TRACE, request_malformed for anything but an origin-form target,
        path_ambiguous for a path with more than one meaning. A rule with methods is for these methods only; other requests go on to the rules below it.
        """
        if method in REFUSED_METHODS:
            raise Rejection(Reason.METHOD_NOT_ALLOWED, allow="GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
        path = target.partition("?")[0]
        if _PLAIN.fullmatch(path) is not None and _FOLDED.search(path) is None:
            return self._first(method, path)
        found = {self._first(method, reading) for reading in readings(path)}
        if len(found) > 1:
            raise Rejection(Reason.PATH_AMBIGUOUS)
        return found.pop()

    def _first(self, method: str, path: str) -> Route:
        for route in self._routes:
            if route.covers(path) and (route.methods is None or method in route.methods):
                return route
        return self._otherwise


def readings(path: str) -> set[str]:
    """Every path that a program might take this one for.

    Decoded or not, cut at an encoded `?` or `#` or not, with parameters or without, slashes merged or not, dots resolved or not.
    Raises Rejection where the path is not to be read at all.
    """
    if not path.startswith("/"):
        raise Rejection(Reason.REQUEST_MALFORMED, "The request target must be a path.")
    if _READABLE.fullmatch(path) is None or _FORBIDDEN_ESCAPE.search(path) is not None:
        raise Rejection(Reason.PATH_AMBIGUOUS)
    found = {path}
    decoded = path
    for _ in range(MAX_DECODINGS):
        if _DOT_PARAMETER.search(decoded) is not None or _FORBIDDEN_ESCAPE.search(decoded) is not None:
            raise Rejection(Reason.PATH_AMBIGUOUS)
        for form in (decoded, re.split("[?#]", decoded)[0], _PARAMETER.sub("", decoded)):
            merged = _merged(form)
            found |= {form, merged, _resolved(form), _resolved(merged), _merged(_resolved(form))}
        further = unquote(decoded, errors="surrogateescape")
        if further == decoded:
            return found
        decoded = further
    raise Rejection(Reason.PATH_AMBIGUOUS)


def _merged(path: str) -> str:
    return re.sub("/{2,}", "/", path)


def _resolved(path: str) -> str:
    """RFC 3986 section 5.2.4, remove_dot_segments."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            if kept:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
