"""Upstreams and routes in the configuration."""

import re
from collections.abc import Iterable
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StrictBool, StrictInt
from pydantic.json_schema import SkipJsonSchema

from sidecar.common.path_pattern import regular
from sidecar.config.addresses import UpstreamUrl
from sidecar.config.claims import Require
from sidecar.config.gateway import MintedToken
from sidecar.config.struct import Later, Struct, check, key
from sidecar.config.tls import ClientTls
from sidecar.config.values import Method, NonEmpty, PathPrefix, RoutePath, matching
from sidecar.config.yaml_source import Section

MAX_REGEX = 256  # characters

_HOST = re.compile(r"(?:\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:.]+\]")

Host = Annotated[
    str,
    matching(_HOST, "{input} is not a host: a lower-case name without port, or *.example.com for every name below it"),
]


class Upstream(Struct):
    """A backend."""

    name: SkipJsonSchema[str]
    url: UpstreamUrl = key("http://host:port, https://host:port or unix:///path/of.sock.")
    tls: ClientTls = key("TLS to the backend, for https.", ClientTls())
    token: Later[MintedToken] | None = key(
        "A JWT that the sidecar mints, sent as Authorization: Bearer. Left out: none.", None
    )

    @property
    def scheme(self) -> str:
        """http, https or unix."""
        return urlsplit(self.url).scheme

    @property
    def host(self) -> str:
        """Name or address, empty for a socket."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port of the URL or the scheme's default; 0 for a socket."""
        return urlsplit(self.url).port or {"http": 80, "https": 443}.get(self.scheme, 0)

    @property
    def path(self) -> str:
        """The path of the unix socket, else empty."""
        return urlsplit(self.url).path if self.scheme == "unix" else ""

    @check("url")
    def _tls_is_for_https(self, section: Section) -> None:
        if "tls" in section and self.scheme != "https":
            section.report("is only for https; remove it or change the url", "tls")


def _regex(value: str) -> str:
    if len(value) > MAX_REGEX:
        raise ValueError(f"is longer than {MAX_REGEX} characters; split it into several rules")
    try:
        regular(value)
        regular(value, any_case=True)
    except ValueError as error:
        raise ValueError(f"{{input}} is not a regular expression of RE2: {error}") from None
    return value


def _upgrade(value: str) -> str:
    if value == "h2c":
        raise ValueError("{input} would carry requests without verification; remove it")
    if not re.fullmatch(r"[a-z0-9./+-]+", value):
        raise ValueError("{input} is not a protocol's name in lower case, such as websocket")
    return value


class Route(Struct):
    """A rule for the requests that it matches."""

    line: SkipJsonSchema[int] = 0
    path: RoutePath | None = key(
        "The exact path, or with a final /* everything at and below it; a * elsewhere stands for a part of one segment.",
        None,
    )
    path_regex: Annotated[str, AfterValidator(_regex)] | None = key(
        "In place of path: a regular expression (RE2) for the whole path. A path over 2048 characters that may match is a 400.",
        None,
    )
    hosts: NonEmpty[Host] | None = key(
        "Only these hosts; *.example.com is every name below it. A request without Host (HTTP/1.0) never matches. Left out: all.",
        None,
    )
    methods: NonEmpty[Method] | None = key(
        "Only these methods, and HEAD with GET; other requests continue with the next rule. Left out: all.", None
    )
    auth: Literal["required", "optional", "api_key", "none", "deny"] = key(
        "required: a valid token. optional: a valid token or none. api_key: an API key. none: no check. deny: always a 403.",
        "required",
    )
    issuers: NonEmpty[str] | None = key("The issuers whose tokens are accepted. Left out: all.", None)
    require: Later[Require] | None = key("The rules for the token's claims; otherwise 403.", None)
    preflight: Literal["forward", "reject"] = key(
        "For CORS preflights, which have no token. forward: accepted without one. reject: needs one.", "forward"
    )
    mode: Literal["enforce", "report"] | None = key(
        "report: requests that would be refused are counted, logged and accepted. Left out: the file's mode.", None
    )
    encoded_slashes: Literal["pass", "reject"] = key(
        "For %2F and %5C in a path. pass: unchanged, if every reading matches this rule; not with strip_prefix. reject: a 400.",
        "pass",
    )
    upstream: str | None = key("The upstream for these requests. Left out: the default one.", None)
    strip_prefix: PathPrefix | None = key("A prefix that is removed from the path for the backend.", None)
    host: Literal["preserve", "upstream"] = key(
        "The Host for the backend: the client's, or the upstream's.", "preserve"
    )
    forward_token: StrictBool | None = key(
        "Forward the token. Left out: the file's forward_token, or true in report mode.", None
    )
    max_body_bytes: Annotated[StrictInt, Field(ge=0)] | None = key("A larger body is a 413. Left out: any size.", None)
    upgrades: tuple[Annotated[str, AfterValidator(_upgrade)], ...] = key(
        "The protocols that a verified request may upgrade to.", ("websocket",)
    )

    @check()
    def _path_or_pattern(self, section: Section) -> None:
        if ("path" in section) == ("path_regex" in section):
            section.report("needs exactly one of path and path_regex; such as path: /public/*", "path")

    @check("auth")
    def _asks_only_where_it_looks(self, section: Section) -> None:
        for asked in ("issuers", "require"):
            if self.auth in ("none", "deny") and asked in section:
                text = f"contradicts auth: {self.auth}, which checks no token; remove one of the two"
                section.report(text, asked)
        if self.auth == "api_key" and "issuers" in section:
            section.report("contradicts auth: api_key, which needs no token; remove one of the two", "issuers")

    @check("auth", "forward_token")
    def _no_api_key_is_sent_on(self, section: Section) -> None:
        if self.auth == "api_key" and self.forward_token:
            section.report("contradicts auth: api_key: an API key never reaches a backend; remove it", "forward_token")

    @check("auth", "mode")
    def _reports_what_it_could_refuse(self, section: Section) -> None:
        if self.auth == "none" and self.mode == "report":
            section.report("contradicts auth: none, which refuses nothing; remove one of the two", "mode")
        if self.auth == "deny" and self.mode == "report":
            section.report("contradicts auth: deny, which refuses every request; remove one of the two", "mode")

    @check("strip_prefix", "path")
    def _begins_with_its_prefix(self, section: Section) -> None:
        if self.strip_prefix and self.path and not f"{self.path}/".startswith(f"{self.strip_prefix}/"):
            section.report(f"is not a prefix of {self.path}; write the beginning of the path", "strip_prefix")

    def covers(self, other: "Route") -> bool:
        """Does this rule cover all paths and hosts of the other one? For patterns, only obvious cases count."""
        if self.hosts is not None and not (other.hosts is not None and set(other.hosts) <= set(self.hosts)):
            return False
        if self.path is None or other.path is None:
            return self.path_regex is not None and self.path_regex == other.path_regex
        if not self.path.endswith("/*") or "*" in self.path[:-1]:
            return self.path == other.path
        return f"{other.path.removesuffix('/*')}/".startswith(self.path[:-1])


def check_hidden(rules: Iterable[tuple[Section, Route]]) -> None:
    """Report every rule whose requests all meet earlier ones. `rules` are those whose path, hosts and methods could be read."""
    readable = [(rule, route) for rule, route in rules if route.path or route.path_regex]
    earlier: dict[tuple[str, str | None], list[int]] = {}  # by path, and by each of their hosts
    for place, (rule, route) in enumerate(readable):
        written = route.path or route.path_regex or ""
        hosts = route.hosts or (None,)
        left = set(_with_head(route.methods) or [""])  # "" stands for all other methods
        hiding: list[str] = []
        # A rule that covers all of its hosts covers the first one.
        places: set[int] = set()
        for text in _covering(route):
            places.update(earlier.get((text, None), ()), earlier.get((text, hosts[0]), ()))
        for other_rule, other in map(readable.__getitem__, sorted(places)):
            taken = left & _with_head(other.methods) if other.methods else left
            if other.covers(route) and taken:
                left = left - taken
                hiding.append(f"routes.{other_rule.path[-1]} (line {other_rule.line()})")
            if not left:
                text = f"is never reached: {' or '.join(hiding)} matches all of its requests first; move it up or remove it"
                rule.report(text, "path" if "path" in rule else "path_regex")
                break
        for host in hosts:
            earlier.setdefault((written, host), []).append(place)


def _covering(route: Route) -> list[str]:
    """The paths of rules that would cover all paths of this one."""
    if route.path is None:
        return [route.path_regex or ""]
    segments = route.path.removesuffix("/*").split("/")
    return [route.path, *("/".join([*segments[:depth], "*"]) for depth in range(1, len(segments) + 1))]


def _with_head(methods: Iterable[str] | None) -> frozenset[str]:
    """The methods, with HEAD if GET is among them."""
    named = frozenset(methods or ())
    return named | {"HEAD"} if "GET" in named else named
