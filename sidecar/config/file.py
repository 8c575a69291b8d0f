"""The whole file: its structs, what one part says about another, and how it is read.

A key is one line of its struct: type, default, description. What a value must be is said by its type (`values`), what it must be
beside other keys by the struct's `check`.
"""

import os
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, StrictBool, StrictInt, model_validator
from pydantic.json_schema import SkipJsonSchema

from sidecar.common.loopback import is_loopback
from sidecar.config.addresses import Address, ListenAddresses, Network, UpstreamUrl, WebUrl
from sidecar.config.cors import Cors
from sidecar.config.gateway import ApiKeys, Signing
from sidecar.config.gateway_rules import check_gateway
from sidecar.config.identity import Assertion, HeaderContent, Signature, TokenSource, check_header_names
from sidecar.config.issuer import Issuer, check_issuers
from sidecar.config.limits import Limits, Timeouts, TokenCache
from sidecar.config.listeners import Admin, ForwardAuth, Health, ResourceMetadata
from sidecar.config.route import Route, Upstream, check_hidden
from sidecar.config.struct import FileSchema, Struct, key
from sidecar.config.tls import ListenerTls
from sidecar.config.values import (
    ClaimsHeader,
    ConfigFile,
    HeaderName,
    Name,
    NonEmpty,
    Realm,
    Surroundings,
    Workers,
    nearest,
)
from sidecar.config.yaml_source import Problem, Section, Source

DIGEST = 16  # characters of the digest: enough to tell two files apart
Item = TypeVar("Item")
AtLeastOne = Annotated[dict[Name, Item], Field(min_length=1)]


class ConfigError(Exception):
    """The file cannot be used. `problems` holds all that is wrong with it in the order of its lines; str() is one line each.

    `text` is the file's, as far as it could be read.
    """

    def __init__(self, problems: Iterable[Problem], text: str = "") -> None:
        self.problems = sorted(problems)
        self.text = text
        super().__init__("\n".join(map(str, self.problems)))


class Tracing(Struct):
    """Where spans are sent. Service, resource and sampling: OpenTelemetry's own environment variables."""

    endpoint: WebUrl = key("The collector's URL for OTLP over HTTP, as http://127.0.0.1:4318/v1/traces.")


class Config(Struct):
    """The configuration of jwt-sidecar."""

    digest: SkipJsonSchema[str] = ""
    """The first characters of the SHA-256 of the file."""
    written: SkipJsonSchema[str] = Field("", repr=False)
    """The text of the file; it may hold secrets."""
    listen: ListenAddresses = key(
        "Where clients are served; a list for several addresses. [::]:8080 serves IPv4 and IPv6.",
        (Address("0.0.0.0", 8080),),  # noqa: S104
    )
    tls: ListenerTls | None = key("TLS for clients. Left out: plain http, behind something that ends TLS.", None)
    health: Health = key("What a cluster may see, on a port of its own.", Health())
    admin: Admin = key("The listener for operators; loopback, as it has no other protection.", Admin())
    issuers: AtLeastOne[Issuer] = key("Whose tokens are accepted, by a name for routes and logs.", {})
    jwks_snapshot_dir: ConfigFile | None = key(
        "A directory for copies of key sets, which a restart during an issuer's outage begins with.", None
    )
    denylist_file: ConfigFile | None = key(
        "A list (JSON or YAML) of tokens that are taken back, read again when it changes.", None
    )
    api_keys: ApiKeys | None = key("API keys, for routes with auth: api_key. Left out: none is accepted.", None)
    signing: Signing | None = key("Tokens of our own, for upstreams with a token. Left out: none are made.", None)
    upstream: UpstreamUrl | None = key("The backend; short for upstreams: {default: {url: ...}}.", None)
    upstreams: dict[Name, Upstream] = key("Several backends, by a name for routes and logs.", {})
    token_from: NonEmpty[TokenSource] = key(
        "Where requests bring their token. Left out: also the headers of the issuers' presets.",
        (TokenSource(header="Authorization", prefix="Bearer"),),
    )
    several_tokens: Literal["reject", "first"] = key(
        "Of tokens that differ in two places of token_from. reject: a 400. first: that of the first place counts.",
        "reject",
    )
    underscore_headers: Literal["drop", "reject", "allow"] = key(
        "Of clients' headers with _, which many backends read as -. reject: 400. allow: sent on, unless they look like another.",
        "drop",
    )
    identity_headers: dict[HeaderName, HeaderContent] = key(
        "Header: claim; a dotted path, or a list for names that hold dots. No e-mail and no name unless asked for.",
        {"X-JWT-Sub": ("sub",), "X-JWT-Iss": ("iss",), "X-JWT-Scope": ("scope",)},
    )
    claims_header: ClaimsHeader = key("All claims as base64url(JSON), for what has no header; or off.", "X-JWT-Claims")
    encoding: Literal["percent", "base64url", "raw_utf8"] = key(
        "Of the texts in identity headers; raw_utf8 is for backends that read headers as UTF-8.", "percent"
    )
    assertion: Assertion | None = key("A signed proof of the claims for the backend. Left out: none.", None)
    signature: Signature | None = key("A signature over each request to the backend. Left out: none.", None)
    mode: Literal["enforce", "report"] = key(
        "report: what would be refused for its token is counted, logged and let in, wherever no rule says enforce.",
        "enforce",
    )
    forward_token: StrictBool = key(
        "Send the token on; the backend has no need of it any more. Where the mode is report: true, unless false is written.",
        False,
    )
    access_log: Literal["json", "ecs", "combined", "off"] = key("The form of the line for each request.", "json")
    access_log_sample: Annotated[StrictInt, Field(ge=0)] = key(
        "Of requests that are let in, a line for one of so many; 0: none. Those that are refused have all theirs.", 1
    )
    tracing: Tracing | None = key("OpenTelemetry traces, with the extra `otel`. Left out: none.", None)
    workers: Workers = key("Processes; auto: one a processor. One is enough for most.", 1)
    trusted_proxies: tuple[Network, ...] = key("Front proxies whose X-Forwarded-* is believed; nobody by default.", ())
    forward_auth: ForwardAuth | None = key(
        "Answers front proxies that ask whether a request may pass, and send it on by themselves. Left out: nobody.",
        None,
    )
    resource_metadata: ResourceMetadata | None = key(
        "Tells clients that were refused where to get a token (RFC 9728). Left out: nothing is told.", None
    )
    cors: Cors | None = key(
        "Lets pages of other origins read refusals, and answers their preflights. Left out: a refusal has no CORS headers.",
        None,
    )
    realm: Realm = key("The realm in WWW-Authenticate.", "jwt-sidecar")
    close_on_expiry: Literal["websocket", "all", "off"] = key(
        "What ends with the token that opened it: WebSockets (code 4401), or long answers too.", "websocket"
    )
    error_format: Literal["json", "problem"] = key("The form of refusals; problem is that of RFC 9457.", "json")
    error_detail: Literal["minimal", "code", "full"] = key(
        "minimal: no sentence. code: a sentence. full: rule and issuer too, for a listener on loopback only.", "code"
    )
    timeouts: Timeouts = key("Against peers that hang.", Timeouts())
    limits: Limits = key("Against overload, honest or not.", Limits())
    backend_ignores: tuple[Literal["letter_case", "final_slash", "final_dot", "format"], ...] = key(
        "What backends may ignore in a path: one that is a closed rule's but for that is a 400. An empty list: nothing.",
        ("letter_case", "final_slash", "final_dot", "format"),
    )
    method_override: Literal["drop", "pass"] = key(
        "X-HTTP-Method-Override, X-HTTP-Method and X-Method-Override of clients, if a rule names methods.", "drop"
    )
    token_cache: TokenCache = key("Verified tokens that are remembered.", TokenCache())
    routes: tuple[Route, ...] = key("The first that matches decides; what matches none needs a valid token.", ())

    @property
    def default_upstream(self) -> str:
        """The name of the upstream for requests whose route names none; there may be none of this name beside forward_auth."""
        return "default" if "default" in self.upstreams else next(iter(self.upstreams), "default")

    def reports(self, rule: Route | None = None) -> bool:
        """Does this rule, or without one what no rule names, only report? Not where nothing is asked for, or nobody gets in."""
        if rule is None:
            return self.mode == "report"
        return (rule.mode or self.mode) == "report" and rule.auth not in ("none", "deny")

    def sends_token(self, rule: Route | None = None) -> bool:
        """Does the token go on to the backend? While a rule only reports, the backend may be what still checks it."""
        if rule is not None and (rule.forward_token is not None or rule.auth == "api_key"):
            return rule.forward_token is True
        if "forward_token" in self.model_fields_set:
            return self.forward_token
        upstream = self.upstreams.get((rule and rule.upstream) or self.default_upstream)
        return self.reports(rule) and (upstream is None or upstream.token is None)

    @property
    def token_sources(self) -> tuple[TokenSource, ...]:
        """Where tokens are looked for: `token_from`, or without it where the issuers' presets say, Authorization for others."""
        if "token_from" in self.model_fields_set:
            return self.token_from
        found = dict.fromkeys(source for issuer in self.issuers.values() for source in issuer.token_from)
        return tuple(found) or (TokenSource(header="Authorization"),)

    @model_validator(mode="after")
    def _with_the_short_form(self) -> Self:
        if self.upstream and self.upstreams is not None:
            self.upstreams["default"] = Upstream(name="default", url=self.upstream)
        return self

    def check(self, section: Section) -> None:
        """What one part of the file says about another."""
        self._check_listeners(section)
        self._check_error_detail(section)
        self._check_issuers(section)
        self._check_upstreams(section)
        self._check_headers(section)
        self._check_token_sources(section)
        self._check_workers(section)
        self._check_names_in_routes(section)
        self._check_probes(section)
        self._check_forward_auth(section)
        check_hidden(self._rules(section))
        check_gateway(
            section,
            self._rules(section),
            upstreams=self.upstreams or {},
            signing=self.signing,
            default_upstream=self.default_upstream if self.upstreams else None,
            forward_token=self.forward_token,
        )

    def _check_listeners(self, section: Section) -> None:
        several = isinstance(section.get("listen"), list)
        listeners: list[tuple[tuple[str | int, ...], Address]] = [
            (("listen", item) if several else ("listen",), address) for item, address in enumerate(self.listen or ())
        ]
        listeners += [(("health", "listen"), self.health.listen)] if self.health else []
        listeners += [(("admin", "listen"), self.admin.listen)] if self.admin else []
        bound: list[tuple[tuple[str | int, ...], Address]] = []
        for keys, address in listeners:
            if address is None:
                continue
            for other, taken in bound:
                if address.clashes(taken):
                    # Said of the one that the file has, when the other is a default.
                    at, of = (keys, other) if keys[0] in section else (other, keys)
                    section.report(
                        f"takes the port of {'.'.join(map(str, of))}; choose another, or 0 for a free one", *at
                    )
            bound.append((keys, address))

    def _check_error_detail(self, section: Section) -> None:
        if self.error_detail == "full" and not all(is_loopback(address.host) for address in self.listen or ()):
            text = (
                "tells clients how this is configured, so it is for a listener on loopback; minimal or code elsewhere"
            )
            section.report(text, "error_detail")

    def _check_issuers(self, section: Section) -> None:
        if "issuers" not in section and "api_keys" not in section:
            section.report("is missing; name at least one issuer whose tokens are accepted, or API keys", "issuers")
        check_issuers(section, self.issuers or {})

    def _check_upstreams(self, section: Section) -> None:
        names = _names(section, "upstreams")
        if "upstream" in section and "default" in names:
            text = f"`upstream` on line {section.line('upstream')} is this one too; remove one of the two"
            section.report(text, "upstreams", "default")
        elif _without_upstream(section):
            if "forward_auth" not in section:
                section.report("is missing; such as http://127.0.0.1:9292, or several under `upstreams`", "upstream")
        elif "upstream" not in section and self.upstreams is not None and "default" not in names and len(names) != 1:
            text = "none takes the requests that no route names; call one `default`, or add `upstream: URL`"
            section.report(text, "upstreams")

    def _check_headers(self, section: Section) -> None:
        names = _names(section, "identity_headers") if "identity_headers" in section else list(self.identity_headers)
        others: dict[tuple[str | int, ...], str | None] = {("claims_header",): self.claims_header}
        others |= {("assertion", "header"): self.assertion.header} if self.assertion else {}
        others |= {("signature", "header"): self.signature.header} if self.signature else {}
        others |= {(*place.path, "header"): source.header for place, source in self._token_places(section)}
        read = {(source.header or "").lower() for source in self.token_from or ()}
        if self.api_keys and (self.api_keys.header or "").lower() not in read:
            others["api_keys", "header"] = self.api_keys.header
        check_header_names(names, {place: name for place, name in others.items() if name}, section)

    def _check_token_sources(self, section: Section) -> None:
        seen: list[tuple[str, str]] = []
        for place, source in self._token_places(section):
            for kind, name in (("cookie", source.cookie), ("query", source.query), ("subprotocol", source.subprotocol)):
                if name and (kind, name) in seen:
                    place.report("is in this list twice", kind)
                elif name:
                    seen.append((kind, name))

    def _token_places(self, section: Section) -> list[tuple[Section, TokenSource]]:
        """The items of token_from that can be read, with their sections."""
        places = section.get("token_from")
        read = [place for place in places if isinstance(place, Section)] if isinstance(places, list) else []
        return list(zip(read, self.token_from or (), strict=False))

    def _check_workers(self, section: Section) -> None:
        assertion = section.get("assertion")
        if self.workers and self.workers > 1 and isinstance(assertion, Section) and "key_file" not in assertion:
            assertion.report("would sign with another key in each of the workers; add key_file")

    def _check_names_in_routes(self, section: Section) -> None:
        issuers = _names(section, "issuers")
        upstreams = _names(section, "upstreams") + ["default"] * ("upstream" in section)
        for rule, route in self._rules(section):
            for item, name in enumerate(route.issuers or ()):
                if issuers and name not in issuers:
                    rule.report(_unknown("an issuer", name, issuers), "issuers", item)
            if route.upstream and _without_upstream(section):
                rule.report("names an upstream, and there is none; add `upstreams`", "upstream")
            elif route.upstream and upstreams and route.upstream not in upstreams:
                rule.report(_unknown("an upstream", route.upstream, upstreams), "upstream")

    def _check_forward_auth(self, section: Section) -> None:
        if self.forward_auth is not None and not self.trusted_proxies and self.trusted_proxies is not None:
            section.report(
                "is answered to nobody without trusted_proxies; list the addresses of the front proxy", "forward_auth"
            )

    def _check_probes(self, section: Section) -> None:
        health = section.get("health")
        if not isinstance(health, Section) or self.health is None:
            return
        upstreams = _names(section, "upstreams") + ["default"] * ("upstream" in section)
        for name, probe in (self.health.probes or {}).items():
            if _without_upstream(section):
                health.report("asks an upstream, and there is none; add `upstream`", "probes", name)
            elif probe.upstream and upstreams and probe.upstream not in upstreams:
                health.report(_unknown("an upstream", probe.upstream, upstreams), "probes", name, "upstream")

    def _rules(self, section: Section) -> list[tuple[Section, Route]]:
        """The routes that can be read, with their sections."""
        routes = section.get("routes")
        rules = [rule for rule in routes if isinstance(rule, Section)] if isinstance(routes, list) else []
        return list(zip(rules, self.routes or (), strict=False))


def load(path: str | Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Read a file. Raises ConfigError."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError([Problem(str(path), 0, 0, "", f"{path}: cannot be read: {error.strerror}")]) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise ConfigError([Problem(str(path), line, column, "", "this byte is not UTF-8 text")]) from None
    try:
        return parse(text, str(path), environ, Path(path).parent)
    except ConfigError:
        raise
    except Exception as error:  # a bug; a file that is read while requests are served ends nothing
        fault = f"cannot be read, by a fault of the sidecar ({type(error).__name__}); take back the last change, and report it"
        raise ConfigError([Problem(str(path), 1, 1, "", fault)]) from error


def parse(
    text: str, source: str = "config.yaml", environ: Mapping[str, str] = os.environ, base: Path | None = None
) -> Config:
    """Read YAML text. `source` is its name in problems, `base` the directory of relative paths. Raises ConfigError."""
    read = Source(text, source, environ)
    if not isinstance(read.root, Section):
        if not read.problems:
            read.report("must be a mapping of keys; the smallest has `issuers` and `upstream`", ())
        raise ConfigError(read.problems, text)
    config = Config.model_validate(read.root, context=Surroundings(base or Path.cwd(), environ))
    if read.problems:
        raise ConfigError(read.problems, text)
    return config.model_copy(update={"digest": sha256(text.encode()).hexdigest()[:DIGEST], "written": text})


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the file, with descriptions and defaults as the file writes them."""
    return {"$schema": FileSchema.schema_dialect, **Config.model_json_schema(schema_generator=FileSchema)}


def _names(section: Section, key: str) -> list[str]:
    """The keys of a mapping below, also of one that has problems."""
    value = section.get(key)
    return list(value) if isinstance(value, Section) else []


def _without_upstream(section: Section) -> bool:
    return "upstream" not in section and "upstreams" not in section


def _unknown(kind: str, name: str, known: list[str]) -> str:
    return f"{{input}} is not {kind} of this file; one of: {', '.join(known)}{nearest(name, known)}"
