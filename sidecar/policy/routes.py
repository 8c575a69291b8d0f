"""path -> Route; refuses paths that two programs could read differently.

A path is matched by each of its readings (path_normalization.py). Where two of them meet different rules the request is refused,
since the backend may follow the other one.
"""

import re
from collections.abc import Iterator, Sequence
from enum import Enum

from sidecar.common.errors import Reason, Rejection
from sidecar.common.path_pattern import regular, stars
from sidecar.policy.access_policy import Policy
from sidecar.policy.path_normalization import is_plain, readings

# A separator to some programs, and a part of a name to others.
_ENCODED_SLASH = re.compile(r"%(?:25)*(?:2f|5c)", re.IGNORECASE)
MAX_MATCHED = 2048  # characters of a path that a regular expression looks at; each one more costs time
# CONNECT opens a tunnel to anywhere; TRACE echoes the headers, the verified claims among them, to the client.
REFUSED_METHODS = frozenset({"CONNECT", "TRACE"})


class Auth(Enum):
    """What a route asks of a request: a valid token, one if any came, an API key, none, or nothing will do."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    API_KEY = "api_key"
    NONE = "none"
    DENY = "deny"


class Route:
    """One rule. `name` labels it in metrics and logs.

    `path` is exact, or with a final `/*` everything at and below it; a `*` elsewhere stands for a part of one segment. `regex`
    takes its place and must match the whole path. `hosts` are lower-case names without port, `*.example.com` any name below it.
    """

    __slots__ = (
        "_domains", "_hosts", "_regex", "_stars", "auth", "encoded_slashes", "forward_token", "is_prefix", "max_body", "methods",
        "name", "path", "policy", "preflight", "preserve_host", "report", "strip_prefix", "upgrades", "upstream",
    )  # fmt: skip

    def __init__(
        self,
        path: str,
        *,
        regex: str | None = None,
        hosts: Sequence[str] | None = None,
        methods: Sequence[str] | None = None,
        auth: Auth = Auth.REQUIRED,
        policy: Policy | None = None,
        preflight: bool = True,
        report: bool = False,
        upstream: str = "default",
        strip_prefix: str = "",
        preserve_host: bool = True,
        forward_token: bool = False,
        max_body: int | None = None,
        upgrades: Sequence[str] = ("websocket",),
        encoded_slashes: bool = True,
        name: str | None = None,
    ) -> None:
        self.name = name or regex or path
        self.is_prefix = path.endswith("/*")
        self.path = path[:-2] if self.is_prefix else path
        self._regex = None if regex is None else regular(regex)
        self._stars = stars(self.path, below=self.is_prefix) if "*" in self.path else None
        self._hosts = None if hosts is None else frozenset(hosts)
        self._domains = tuple(name[1:] for name in hosts or () if name.startswith("*"))
        self.methods = None if methods is None else frozenset(methods)
        self.auth = auth
        self.policy = policy or Policy()
        self.preflight = preflight
        self.report = report
        self.upstream = upstream
        self.strip_prefix = strip_prefix
        self.preserve_host = preserve_host
        self.forward_token = forward_token
        self.max_body = max_body
        self.encoded_slashes = encoded_slashes
        self.upgrades = frozenset(name.encode() for name in upgrades)

    def __repr__(self) -> str:
        return f"<Route {self.name} {self.auth.value}>"

    def covers(self, path: str) -> bool:
        """Does this rule speak of the path? Segment by segment: `/api/*` covers `/api` and `/api/x`, never `/apix`.

        With a regular expression it may speak of any path that is too long to be looked at.
        """
        if self._regex is not None:
            return len(path) > MAX_MATCHED or self._regex(path)
        if self._stars is not None:
            return self._stars(path)
        if self.is_prefix:
            return path == self.path or path.startswith(self.path + "/")
        return path == self.path

    @property
    def has_pattern(self) -> bool:
        """Is more than a comparison needed to know what it covers?"""
        return self._regex is not None or self._stars is not None

    def sent(self, target: str) -> str:
        """The target that the backend sees: the one that came, byte by byte, without the prefix that the rule strips.

        Raises Rejection where the prefix came in another spelling or is not all of a segment, or where what is left begins with
        `//`: many take that for a host.
        """
        if not self.strip_prefix:
            return target
        if not target.startswith(self.strip_prefix):
            raise Rejection(Reason.PATH_AMBIGUOUS)
        left = target[len(self.strip_prefix) :]
        if left[:1] in ("", "?"):
            return "/" + left
        if left[0] != "/" or left.startswith("//"):
            raise Rejection(Reason.PATH_AMBIGUOUS)
        return left

    def serves(self, host: str) -> bool:
        """Does this rule speak of the host (lower-case, without port)?"""
        return self._hosts is None or host in self._hosts or host.endswith(self._domains)


class Routes:
    """The rules in their order, and the one for what no rule names."""

    def __init__(self, routes: Sequence[Route], otherwise: Route) -> None:
        self.rules = tuple(routes)
        self._otherwise = otherwise
        # The places of the rules, so that a request meets few of two thousand: by their path, by the path that all
        # of theirs are below of, and of the patterns all.
        self._exact: dict[str, list[int]] = {}
        self._below: dict[str, list[int]] = {}
        self._patterns: list[int] = []
        for place, route in enumerate(self.rules):
            if route.has_pattern:
                self._patterns.append(place)
            else:
                (self._below if route.is_prefix else self._exact).setdefault(route.path, []).append(place)
        self._deepest = max((path.count("/") for path in self._below), default=-1)

    @property
    def all(self) -> tuple[Route, ...]:
        """Every rule in its order; the last is the one for what no rule names."""
        return (*self.rules, self._otherwise)

    def match(self, method: str, target: str, host: bytes = b"") -> Route:
        """The rule for a request: the first whose path, methods and hosts all fit.

        `target` is the request target as it came (RFC 9112 section 3.2), `host` the value of Host. Raises Rejection:
        method_not_allowed for CONNECT and TRACE, request_malformed for anything but an origin-form target, path_ambiguous for a
        path with more than one meaning, or too long for a regular expression that might fit.
        """
        if method in REFUSED_METHODS:
            raise Rejection(Reason.METHOD_NOT_ALLOWED, allow="GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
        path = target.partition("?")[0]
        if is_plain(path):
            return self._first(method, path, host)
        found = set(self.meanings(method, target, host).values())
        if len(found) > 1:
            raise Rejection(Reason.PATH_AMBIGUOUS)
        route = found.pop()
        if route.strip_prefix and self._met_behind(route, method, path, host) != {route}:
            raise Rejection(
                Reason.PATH_AMBIGUOUS, "Without the prefix the path could be read as more than one resource."
            )
        if (not route.encoded_slashes or route.strip_prefix) and _ENCODED_SLASH.search(path) is not None:
            raise Rejection(
                Reason.PATH_AMBIGUOUS, "The path has an encoded slash or backslash, which its rule refuses."
            )
        return route

    def meanings(self, method: str, target: str, host: bytes = b"") -> dict[str, Route]:
        """The rule that each reading of the path meets. Raises Rejection where the path is not to be read at all."""
        return {reading: self._first(method, reading, host) for reading in readings(target.partition("?")[0])}

    def _met_behind(self, route: Route, method: str, path: str, host: bytes) -> set[Route]:
        """The rules for what the backend may take the path for that it sees: those of the plain requests for the same."""
        return {self._first(method, route.strip_prefix + one, host) for one in readings(route.sent(path))}

    def _first(self, method: str, path: str, host: bytes) -> Route:
        first = none = len(self.rules)
        if not none:
            return self._otherwise
        for places in self._may_fit(path):
            for place in places:
                if place >= first:
                    break
                route = self.rules[place]
                if (
                    (route.methods is None or method in route.methods)
                    and (not route.has_pattern or route.covers(path))
                    and (route._hosts is None or route.serves(host_name(host)))
                ):
                    first = place
                    break
        if first == none:
            return self._otherwise
        route = self.rules[first]
        if route._regex is not None and len(path) > MAX_MATCHED:
            raise Rejection(Reason.PATH_AMBIGUOUS, "The path is too long for the rules that it may meet.")
        return route

    def _may_fit(self, path: str) -> Iterator[list[int]]:
        """The places of all rules that may cover a path. Those that are no patterns do."""
        if (exact := self._exact.get(path)) is not None:
            yield exact
        end = -1
        for _ in range(self._deepest + 1):
            end = path.find("/", end + 1)
            if (below := self._below.get(path if end < 0 else path[:end])) is not None:
                yield below
            if end < 0:
                break
        if self._patterns:
            yield self._patterns


def host_name(host: bytes) -> str:
    """The name in a Host value, as names compare: lower-case, without the port and the root's dot, which nginx drops too."""
    return re.sub(r":[0-9]*$", "", host.decode("ascii", "replace")).removesuffix(".").lower()
