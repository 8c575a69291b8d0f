"""Finds the route of a request; refuses paths that two programs could read differently.

Each reading of a path is matched (path_normalization.py). If two readings match different rules, the request is refused, since
the backend may use the other reading.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum

from sidecar.common.errors import Reason, Rejection
from sidecar.common.path_pattern import Fits, regular, stars
from sidecar.policy.access_policy import Policy
from sidecar.policy.path_normalization import BARE, IGNORED, LETTER_CASE, Ignored, is_plain, readings

# Some programs take these for a separator, others for a part of a name.
_ENCODED_SLASH = re.compile(r"%(?:25)*(?:2f|5c)", re.IGNORECASE)
MAX_MATCHED = 2048  # characters of a path that a regular expression is matched against; each character takes time
# CONNECT opens a tunnel to any host; TRACE returns the headers, verified claims included, to the client.
REFUSED_METHODS = frozenset({"CONNECT", "TRACE"})
USUAL_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


class Auth(Enum):
    """The credential that a route needs: a valid token, a valid one or none, an API key, none; `deny` refuses every request."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    API_KEY = "api_key"
    NONE = "none"
    DENY = "deny"


class Route:
    """One rule. `name` labels it in metrics and logs.

    `path` is exact, or with a final `/*` everything at and below it; a `*` elsewhere stands for a part of one segment. `regex`
    replaces `path` and must match the whole path. `hosts` are lower-case names without port; `*.example.com` is any name below
    it.
    """

    __slots__ = (
        "_domains", "_expression", "_hosts", "_regex", "_stars", "auth", "encoded_slashes", "forward_token",
        "has_hosts", "has_pattern", "is_prefix", "is_regex", "max_body", "methods", "name", "path", "policy",
        "preflight", "preserve_host", "report", "strip_prefix", "upgrades", "upstream",
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
        self._expression = regex
        self._regex = None if regex is None else regular(regex)
        self._stars = stars(self.path, below=self.is_prefix) if "*" in self.path else None
        self.is_regex = regex is not None
        self.has_pattern = self.is_regex or self._stars is not None  # matching needs more than a comparison
        self.has_hosts = hosts is not None
        self._hosts = None if hosts is None else frozenset(hosts)
        self._domains = tuple(name[1:] for name in hosts or () if name.startswith("*"))
        # A rule for GET is also for HEAD (RFC 9110 section 9.3.2).
        self.methods = None if methods is None else frozenset(methods).union(["HEAD"] if "GET" in methods else [])
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
        """Does this rule cover the path? Segments are whole: `/api/*` covers `/api` and `/api/x`, never `/apix`.

        A rule with a regular expression covers every path that is too long to be matched.
        """
        if self._regex is not None:
            return len(path) > MAX_MATCHED or self._regex(path)
        if self._stars is not None:
            return self._stars(path)
        if self.is_prefix:
            return path == self.path or path.startswith(self.path + "/")
        return path == self.path

    def covers_without(self, ignored: Ignored) -> Fits:
        """`covers` for normal forms of paths without the `ignored` parts, if this is a rule with a pattern."""
        if self._expression is not None:
            return regular(self._expression, any_case=LETTER_CASE in ignored.names)
        return stars(ignored.form(self.path), below=self.is_prefix)

    @property
    def is_bare(self) -> bool:
        """Do its paths have no part that may be ignored?"""
        path = self.path or "/" if self._expression is None else self._expression.lower()
        return path == (self._expression or IGNORED.form(path))

    @property
    def is_open(self) -> bool:
        """Does it accept every request?"""
        return self.auth is Auth.NONE or self.report

    def sent(self, target: str) -> str:
        """The target for the backend: the received bytes, without the prefix that the rule strips.

        Raises Rejection if the prefix has another spelling or is not a whole segment, or if the rest begins with `//`, which many
        programs take for a host.
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
        """Does this rule cover the host (lower case, without port)?"""
        return self._hosts is None or host in self._hosts or host.endswith(self._domains)


class Routes:
    """The rules in order, and the default rule for requests that no rule covers.

    A path that a backend may take for a path of another rule is refused: by a reading, or by the parts that are `ignored`.
    """

    def __init__(self, routes: Sequence[Route], otherwise: Route, ignored: Ignored = IGNORED) -> None:
        self.rules = tuple(routes)
        self._otherwise = otherwise
        self._ignored = ignored
        self._index = RouteIndex(self.rules)
        self._alike = RouteIndex(self.rules, ignored)
        self._bare = all(route.is_open or route.is_bare for route in self.rules)

    @property
    def all(self) -> tuple[Route, ...]:
        """Every rule in order; the last is the default rule."""
        return (*self.rules, self._otherwise)

    def match(self, method: str, target: str, host: bytes = b"") -> Route:
        """The rule for a request: the first that covers its path, method and host.

        `target` is the request target as received (RFC 9112 section 3.2), `host` the value of Host. Raises Rejection:
        method_not_allowed for CONNECT and TRACE, request_malformed for anything but an origin-form target, path_ambiguous for a
        path that may match another rule, or that is too long for a regular expression.
        """
        upper = method.upper()  # Django and Laravel take delete for DELETE
        if upper in REFUSED_METHODS:
            raise Rejection(Reason.METHOD_NOT_ALLOWED, allow=USUAL_METHODS)
        route = self._match(method, target, host)
        if upper != method and self._match(upper, target, host) is not route:
            said = "Another rule applies to this method in upper case."
            raise Rejection(Reason.METHOD_NOT_ALLOWED, said, allow=USUAL_METHODS)
        return route

    def _match(self, method: str, target: str, host: bytes) -> Route:
        path = target.partition("?")[0]
        if self._bare and BARE.fullmatch(path) is not None:
            return self._first(method, path, host)
        found = self.meanings(method, target, host)
        route = found[path]
        self._check(route, method, found, host)
        if route.strip_prefix and not is_plain(path):
            self._check(route, method, self._behind(route, method, path, host), host)
        if (not route.encoded_slashes or route.strip_prefix) and _ENCODED_SLASH.search(path) is not None:
            raise Rejection(
                Reason.PATH_AMBIGUOUS, "The path has an encoded slash or backslash, and its rule refuses both."
            )
        return route

    def meanings(self, method: str, target: str, host: bytes = b"") -> dict[str, Route]:
        """Reading of the path -> the rule that covers it. Raises Rejection if the path is malformed or has too many readings."""
        path = target.partition("?")[0]
        return {
            reading: self._first(method, reading, host) for reading in ((path,) if is_plain(path) else readings(path))
        }

    def alike(self, method: str, path: str, host: bytes, route: Route) -> dict[str, Route]:
        """The other rules that a backend may apply to the path, by the normal form that they cover.

        Empty if the rule names the exact path, or accepts every request.
        """
        if not route.has_pattern and not route.is_prefix and route.path == path:
            return {}
        found = {form: self._alike.first(method, form, host) for form in self._ignored.forms(path)}
        return {
            form: other
            for form, other in found.items()
            if other is not None and other is not route and not other.is_open and not other.covers(path)
        }

    def _behind(self, route: Route, method: str, path: str, host: bytes) -> dict[str, Route]:
        """The rules for the normal forms of the path that the backend gets."""
        seen = {route.strip_prefix + reading for reading in readings(route.sent(path))}
        return {one: self._first(method, one, host) for one in seen}

    def _check(self, route: Route, method: str, meanings: Mapping[str, Route], host: bytes) -> None:
        """Refuse a path that a backend may read as a path of another rule."""
        if any(other is not route for other in meanings.values()):
            raise Rejection(Reason.PATH_AMBIGUOUS)
        if any(self.alike(method, reading, host, route) for reading in meanings):
            raise Rejection(
                Reason.PATH_AMBIGUOUS,
                "Another rule covers this path but for a difference that many programs ignore: the case of letters, a slash "
                "or dot at the end, or a format such as .json.",
            )

    def _first(self, method: str, path: str, host: bytes) -> Route:
        route = self._index.first(method, path, host) or self._otherwise
        if route.is_regex and len(path) > MAX_MATCHED:
            raise Rejection(
                Reason.PATH_AMBIGUOUS, "The path is too long for the rules with a regular expression that may cover it."
            )
        return route


class RouteIndex:
    """Finds the first matching rule without trying each of two thousand. With `ignored`, for normal forms of paths.

    The numbers of the rules are kept by exact path, by the path before `/*`, and in one list for patterns.
    """

    def __init__(self, rules: Sequence[Route], ignored: Ignored | None = None) -> None:
        self._rules = rules
        self._exact: dict[str, list[int]] = {}
        self._below: dict[str, list[int]] = {}
        self._patterns: list[int] = []
        self._fits: dict[int, Fits] = {}
        for place, route in enumerate(rules):
            if route.has_pattern:
                self._patterns.append(place)
                self._fits[place] = route.covers if ignored is None else route.covers_without(ignored)
            else:
                path = route.path if ignored is None else ignored.form(route.path) if route.path else ""
                (self._below if route.is_prefix else self._exact).setdefault(path, []).append(place)
        self._deepest = max((path.count("/") for path in self._below), default=-1)

    def first(self, method: str, path: str, host: bytes) -> Route | None:
        """The first matching rule, or None."""
        first = none = len(self._rules)
        if not none:
            return None
        for places in self._may_fit(path):
            for place in places:
                if place >= first:
                    break
                route = self._rules[place]
                if (
                    (route.methods is None or method in route.methods)
                    and (not route.has_pattern or self._fits[place](path))
                    and (not route.has_hosts or route.serves(host_name(host)))
                ):
                    first = place
        return None if first == none else self._rules[first]

    def _may_fit(self, path: str) -> Iterator[list[int]]:
        """The numbers of all rules that may cover a path. Rules without a pattern do cover it."""
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
    """The name in a Host value in the form for comparisons: lower case, without the port and the root's dot (as nginx)."""
    return re.sub(r":[0-9]*$", "", host.decode("ascii", "replace")).removesuffix(".").lower()
