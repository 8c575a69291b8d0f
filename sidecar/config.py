"""YAML -> frozen structs, with every problem of the file in one error. Knows no module but its own parts.

A key is one line of its struct: type, default, description. What a value must be is said by its type (config_values), what it
must be beside other keys by the struct's `check`. `python -m sidecar.config > docs/config.schema.json` writes the JSON Schema.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, StrictBool, StrictInt, model_validator
from pydantic.json_schema import SkipJsonSchema

from sidecar.config_struct import FileSchema, Struct, key
from sidecar.config_values import (
    ALGORITHMS,
    Address,
    Algorithm,
    Audiences,
    ClaimPath,
    ClaimsHeader,
    ConfigFile,
    HeaderName,
    IssuerId,
    ListenAddress,
    Method,
    Name,
    Network,
    PositiveSeconds,
    Realm,
    RoutePath,
    Scope,
    Seconds,
    UpstreamUrl,
    WebUrl,
    Workers,
    fold,
    is_loopback,
    nearest,
    web_url,
)
from sidecar.yaml_source import Problem, Section, Source

__all__ = [
    "Address", "Admin", "Config", "ConfigError", "Health", "Issuer", "Limits", "Problem", "Require", "Route", "Timeouts",
    "Upstream", "json_schema", "load", "parse",
]  # fmt: skip

Item = TypeVar("Item")
NonEmpty = Annotated[tuple[Item, ...], Field(min_length=1)]
AtLeastOne = Annotated[dict[Name, Item], Field(min_length=1)]
Count = Annotated[StrictInt, Field(ge=1)]


class ConfigError(Exception):
    """The file cannot be used. `problems` holds all that is wrong with it in the order of its lines; str() is one line each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__("\n".join(map(str, self.problems)))


class Health(Struct):
    """The listener for kubelets and Prometheus."""

    listen: ListenAddress = key("/livez, /readyz, /metrics: read only.", Address("0.0.0.0", 8081))  # noqa: S104


class Admin(Struct):
    """The listener for operators."""

    listen: ListenAddress = key("Whoever reaches it can change what the proxy does.", Address("127.0.0.1", 9901))


class Timeouts(Struct):
    """How long to wait for what. A request as a whole has no limit."""

    connect_s: PositiveSeconds = key("For a connection to the upstream, which is next door.", 2.0, "connect")
    response_headers_s: PositiveSeconds = key("For the upstream's answer to begin.", 60.0, "response_headers")
    idle_s: PositiveSeconds = key("Between two pieces of a body, either way; long for quiet streams.", 300.0, "idle")
    request_headers_s: PositiveSeconds = key("For a client's whole request header.", 10.0, "request_headers")
    keep_alive_s: PositiveSeconds = key("For a client's next request; load balancers wait 60s.", 75.0, "keep_alive")
    drain_delay_s: Seconds = key("Still accepting after SIGTERM, until routers know of it.", 5.0, "drain_delay")
    shutdown_s: Seconds = key("For the requests in flight after that.", 30.0, "shutdown")


class Limits(Struct):
    """How much of what at once."""

    header_bytes: Count = key("Of a request's header; tokens of some issuers are large.", 32768)
    headers: Count = key("Headers of a request; no honest client sends more.", 100)
    connections: Count = key("Connections of clients.", 10000)
    in_flight: Count = key("Requests at work; more are answered 503.", 1000)
    upstream_connections: Count = key("Connections to each upstream.", 100)


class Issuer(Struct):
    """Who signs tokens, and what these must be."""

    name: SkipJsonSchema[str]
    issuer: IssuerId = key("The exact `iss` of its tokens; its keys are looked for there if no key below says where.")
    jwks_uri: WebUrl | None = key("Its key set. Left out: discovery, or {issuer}/.well-known/jwks.json.", None)
    jwks_file: ConfigFile | None = key("A file with its key set instead, read again when it changes.", None)
    allow_http: StrictBool = key(
        "Keys over plain http from another host, where they can be replaced on the way.", False
    )
    audiences: Audiences = key("A token must be for one of these; the word any accepts tokens for other services.")
    algorithms: NonEmpty[Algorithm] = key("Signatures that are accepted; all that need no shared secret.", ALGORITHMS)
    clock_skew_s: Seconds = key("How far clocks may differ, for exp, nbf and iat.", 60.0, "clock_skew")
    require_exp: StrictBool = key("Refuse tokens that never expire.", True)
    refresh_interval_s: PositiveSeconds = key("How often its keys are fetched.", 600.0, "refresh_interval")
    max_stale_s: Seconds = key("How much longer good keys serve while it is down; then 503.", 3600.0, "max_stale")
    required: StrictBool = key("Not ready before its keys were loaded once.", True)

    def check(self, section: Section) -> None:
        """One place for the keys, reached in a way that nobody can tamper with."""
        if "jwks_uri" in section and "jwks_file" in section:
            section.report("contradicts jwks_uri; keep one of the two", "jwks_file")
        if "jwks_file" in section:
            return
        place, url = ("jwks_uri", self.jwks_uri) if "jwks_uri" in section else ("issuer", self.issuer)
        if not url:
            return
        try:
            parts = web_url(url)
        except ValueError:
            parts = None
        if parts is None or (place == "issuer" and "?" in url):
            section.report("is no http(s) URL, where keys could be discovered; add jwks_uri or jwks_file", place)
        elif parts.scheme == "http" and self.allow_http is False and not is_loopback(parts.hostname):
            text = "keys over plain http can be replaced on the way; use https, or set allow_http: true"
            section.report(text, place)


class Upstream(Struct):
    """A backend."""

    name: SkipJsonSchema[str]
    url: UpstreamUrl = key("http://host:port, https://host:port or unix:///path/of.sock.")

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
        """The URL's or its scheme's; 0 for a socket."""
        return urlsplit(self.url).port or {"http": 80, "https": 443}.get(self.scheme, 0)

    @property
    def path(self) -> str:
        """Of the unix socket, else empty."""
        return urlsplit(self.url).path if self.scheme == "unix" else ""


class Require(Struct):
    """What verified claims must hold."""

    scopes: NonEmpty[Scope] = key("The token must have all of these.")


class Route(Struct):
    """A rule for some requests."""

    path: RoutePath = key("Exactly this path, or with a final /* everything at and below.")
    methods: NonEmpty[Method] | None = key("Only these; other requests go on to the next rules. Left out: all.", None)
    auth: Literal["required", "optional", "none", "deny"] = key(
        "required: a valid token. optional: or no token. none: no token is looked at. deny: nobody gets in.", "required"
    )
    issuers: NonEmpty[str] | None = key("Only their tokens. Left out: those of every issuer.", None)
    require: Require | None = key("What the token must hold; otherwise 403.", None)
    mode: Literal["enforce", "report"] = key("report: what would be refused is counted, logged and let in.", "enforce")
    upstream: str | None = key("The upstream of these requests. Left out: the default one.", None)
    forward_token: StrictBool | None = key("As the file's forward_token, for these requests.", None)

    def check(self, section: Section) -> None:
        """A rule that looks at no token can ask nothing of it."""
        for asked in ("issuers", "require"):
            if self.auth in ("none", "deny") and asked in section:
                text = f"contradicts auth: {self.auth}, which looks at no token; remove one of the two"
                section.report(text, asked)
        if self.auth == "none" and self.mode == "report":
            section.report("contradicts auth: none, which refuses nothing; remove one of the two", "mode")

    def covers(self, other: "Route") -> bool:
        """Is every path of the other one a path of this one?"""
        if not self.path.endswith("/*"):
            return self.path == other.path
        return f"{other.path.removesuffix('/*')}/".startswith(self.path[:-1])


class Config(Struct):
    """The configuration of jwt-sidecar."""

    listen: ListenAddress = key("Where clients are served.", Address("0.0.0.0", 8080))  # noqa: S104
    health: Health = key("What a cluster may see, on a port of its own.", Health())
    admin: Admin = key("The listener for operators; loopback, as it has no other protection.", Admin())
    issuers: AtLeastOne[Issuer] = key("Whose tokens are accepted, by a name for routes and logs.")
    upstream: UpstreamUrl | None = key("The backend; short for upstreams: {default: {url: ...}}.", None)
    upstreams: dict[Name, Upstream] = key("Several backends, by a name for routes and logs.", {})
    identity_headers: dict[HeaderName, ClaimPath] = key(
        "Header: claim; a dotted path, or a list for names that hold dots. No e-mail and no name unless asked for.",
        {"X-JWT-Sub": ("sub",), "X-JWT-Iss": ("iss",), "X-JWT-Scope": ("scope",)},
    )
    claims_header: ClaimsHeader = key("All claims as base64url(JSON), for what has no header; or off.", "X-JWT-Claims")
    forward_token: StrictBool = key("Send Authorization on; the backend has no need of it any more.", False)
    access_log: Literal["json", "ecs", "combined", "off"] = key("The form of the line for each request.", "json")
    workers: Workers = key("Processes; auto: one a processor. One is enough for most.", 1)
    trusted_proxies: tuple[Network, ...] = key("Front proxies whose X-Forwarded-* is believed; nobody by default.", ())
    realm: Realm = key("The realm in WWW-Authenticate.", "jwt-sidecar")
    timeouts: Timeouts = key("Against peers that hang.", Timeouts())
    limits: Limits = key("Against overload, honest or not.", Limits())
    routes: tuple[Route, ...] = key("The first that matches decides; what matches none needs a valid token.", ())

    @property
    def default_upstream(self) -> str:
        """The name of the upstream for requests whose route names none."""
        return "default" if "default" in self.upstreams else next(iter(self.upstreams))

    @model_validator(mode="after")
    def _with_the_short_form(self) -> Self:
        if self.upstream and self.upstreams is not None:
            self.upstreams["default"] = Upstream(name="default", url=self.upstream)
        return self

    def check(self, section: Section) -> None:
        """What one part of the file says about another."""
        self._check_listeners(section)
        self._check_issuers(section)
        self._check_upstreams(section)
        self._check_identity_headers(section)
        self._check_names_in_routes(section)
        self._check_hidden_routes(section)

    def _check_listeners(self, section: Section) -> None:
        listeners: list[tuple[tuple[str, ...], Address]] = [(("listen",), self.listen)]
        listeners += [(("health", "listen"), self.health.listen)] if self.health else []
        listeners += [(("admin", "listen"), self.admin.listen)] if self.admin else []
        bound: dict[tuple[str, ...], Address] = {}
        for keys, address in listeners:
            if address is None:
                continue
            for other, taken in bound.items():
                if address.clashes(taken):
                    # Said of the one that the file has, when the other is a default.
                    at, of = (keys, other) if keys[0] in section else (other, keys)
                    section.report(f"takes the port of {'.'.join(of)}; choose another, or 0 for a free one", *at)
            bound[keys] = address

    def _check_issuers(self, section: Section) -> None:
        seen: dict[str, str] = {}
        for name, issuer in (self.issuers or {}).items():
            if issuer.issuer in seen:
                other = seen[issuer.issuer]
                line = section.line("issuers", other, "issuer")
                text = f"is also the issuer of {other} (line {line}); a token must lead to one of them"
                section.report(text, "issuers", name, "issuer")
            elif issuer.issuer:
                seen[issuer.issuer] = name

    def _check_upstreams(self, section: Section) -> None:
        names = _names(section, "upstreams")
        if "upstream" in section and "default" in names:
            text = f"`upstream` on line {section.line('upstream')} is this one too; remove one of the two"
            section.report(text, "upstreams", "default")
        elif "upstream" not in section and "upstreams" not in section:
            section.report("is missing; such as http://127.0.0.1:9292, or several under `upstreams`", "upstream")
        elif "upstream" not in section and self.upstreams is not None and "default" not in names and len(names) != 1:
            text = "none takes the requests that no route names; call one `default`, or add `upstream: URL`"
            section.report(text, "upstreams")

    def _check_identity_headers(self, section: Section) -> None:
        names = _names(section, "identity_headers") if "identity_headers" in section else list(self.identity_headers)
        how = "to backends that read _ and . as -; choose another name"
        seen: dict[str, str] = {}
        for name in names:
            other = seen.setdefault(fold(name), name)
            if other != name:
                section.report(f"is {other} {how}", "identity_headers", name, at_key=True)
        if self.claims_header and fold(self.claims_header) in seen:
            section.report(f"is the identity header {seen[fold(self.claims_header)]} {how}", "claims_header")

    def _check_names_in_routes(self, section: Section) -> None:
        issuers = _names(section, "issuers")
        upstreams = _names(section, "upstreams") + ["default"] * ("upstream" in section)
        for number, route in enumerate(self.routes or ()):
            for item, name in enumerate(route.issuers or ()):
                if issuers and name not in issuers:
                    section.report(_unknown("issuer", name, issuers), "routes", number, "issuers", item)
            if route.upstream and upstreams and route.upstream not in upstreams:
                section.report(_unknown("upstream", route.upstream, upstreams), "routes", number, "upstream")

    def _check_hidden_routes(self, section: Section) -> None:
        routes = section.get("routes")
        known = [
            (number, route)
            for number, route in enumerate(self.routes or ())
            if route.path and isinstance(routes, list) and (route.methods or "methods" not in routes[number])
        ]
        for place, (number, route) in enumerate(known):
            left = set(route.methods or [""])  # "" is the methods that no rule can name
            hiding: list[str] = []
            for earlier, rule in known[:place]:
                taken = left & set(rule.methods) if rule.methods else left
                if rule.covers(route) and taken:
                    left = left - taken
                    hiding.append(f"routes.{earlier} (line {section.line('routes', earlier)})")
            if not left:
                text = f"is never reached: all its requests meet {' or '.join(hiding)} first; move it up or remove it"
                section.report(text, "routes", number, "path")


def load(path: str | Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Read a file. Raises ConfigError."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError([Problem(str(path), 1, 1, "", f"cannot be read: {error.strerror}")]) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise ConfigError([Problem(str(path), line, column, "", "this byte is not UTF-8 text")]) from None
    return parse(text, str(path), environ, Path(path).parent)


def parse(
    text: str, source: str = "config.yaml", environ: Mapping[str, str] = os.environ, base: Path | None = None
) -> Config:
    """Read YAML text. `source` is its name in problems, `base` the directory of relative paths. Raises ConfigError."""
    read = Source(text, source, environ)
    if not isinstance(read.root, Section):
        if not read.problems:
            read.report("must be a mapping of keys; the smallest has `issuers` and `upstream`", ())
        raise ConfigError(read.problems)
    config = Config.model_validate(read.root, context=base or Path.cwd())
    if read.problems:
        raise ConfigError(read.problems)
    return config


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the file, with descriptions and defaults as the file writes them."""
    return {"$schema": FileSchema.schema_dialect, **Config.model_json_schema(schema_generator=FileSchema)}


def _names(section: Section, key: str) -> list[str]:
    """The keys of a mapping below, also of one that has problems."""
    value = section.get(key)
    return list(value) if isinstance(value, Section) else []


def _unknown(kind: str, name: str, known: list[str]) -> str:
    return f"{{input}} is not an {kind} of this file; one of: {', '.join(known)}{nearest(name, known)}"


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
