"""The whole file: its structs, the checks between its parts, and how it is read.

A key is one line of its struct: type, default, description. The type checks the value (`values`); the struct's `check` checks it
against other keys.
"""

from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, StrictBool, StrictInt, model_validator
from pydantic.json_schema import SkipJsonSchema

from sidecar.common.loopback import is_loopback
from sidecar.config.addresses import Address, ListenAddresses, Network, UpstreamUrl, WebUrl
from sidecar.config.cors import Cors
from sidecar.config.gateway import ApiKeys, Signing
from sidecar.config.gateway_rules import check_gateway
from sidecar.config.header_names import ClaimsHeader, HeaderName, check_header_names
from sidecar.config.identity import Assertion, HeaderContent, Signature, TokenSource
from sidecar.config.issuer import Issuer, check_issuers
from sidecar.config.limits import Limits, Timeouts, TokenCache
from sidecar.config.listeners import Admin, ForwardAuth, Health, ResourceMetadata
from sidecar.config.references import check_default_upstream, check_names_in_routes, check_probes, sections_of
from sidecar.config.route import Route, Upstream, check_hidden
from sidecar.config.struct import Later, Struct, check, key
from sidecar.config.tls import ListenerTls
from sidecar.config.values import (
    ConfigFile,
    Name,
    NonEmpty,
    Realm,
    Workers,
)
from sidecar.config.yaml_source import Section

Item = TypeVar("Item")
AtLeastOne = Annotated[dict[Name, Item], Field(min_length=1)]


class Tracing(Struct):
    """The export of spans. OpenTelemetry's environment variables set service, resource and sampling."""

    endpoint: WebUrl = key("The collector's URL for OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces.")


class Config(Struct):
    """The configuration of jwt-sidecar."""

    digest: SkipJsonSchema[str] = ""
    """The first characters of the SHA-256 of the file."""
    written: SkipJsonSchema[str] = Field("", repr=False)
    """The text of the file, which may hold secrets."""
    listen: ListenAddresses = key(
        "The address for clients, or a list of addresses. [::]:8080 serves IPv4 and IPv6.",
        (Address("0.0.0.0", 8080),),  # noqa: S104
    )
    tls: Later[ListenerTls] | None = key("TLS for clients. Left out: plain http, behind a program that ends TLS.", None)
    health: Health = key("The listener for probes and metrics, on a separate port.", Health())
    admin: Admin = key("The listener for operators, on loopback, since it has no password.", Admin())
    issuers: AtLeastOne[Issuer] = key(
        "The issuers whose tokens are accepted, each with a name for routes and logs.", {}
    )
    jwks_snapshot_dir: ConfigFile | None = key(
        "A directory for copies of key sets, for a restart during an issuer's outage.", None
    )
    denylist_file: ConfigFile | None = key(
        "A file with the deny list of revoked tokens (JSON or YAML), read again when it changes.", None
    )
    api_keys: Later[ApiKeys] | None = key("API keys, for routes with auth: api_key. Left out: no API keys.", None)
    signing: Later[Signing] | None = key(
        "Tokens that the sidecar mints, for upstreams with a token. Left out: none.", None
    )
    upstream: UpstreamUrl | None = key("The backend's URL; short for upstreams: {default: {url: ...}}.", None)
    upstreams: dict[Name, Upstream] = key("Several backends, each with a name for routes and logs.", {})
    token_from: NonEmpty[TokenSource] = key(
        "The places of tokens in requests. Left out: Authorization, and the headers of the issuers' presets.",
        (TokenSource(header="Authorization", prefix="Bearer"),),
    )
    several_tokens: Literal["reject", "first"] = key(
        "For different tokens in two places of token_from. reject: a 400. first: the token in the first place counts.",
        "reject",
    )
    underscore_headers: Literal["drop", "reject", "allow"] = key(
        "Clients' headers with _ or the like, which many backends read as -. allow: sent on, unless one reads as another.",
        "drop",
    )
    identity_headers: dict[HeaderName, HeaderContent] = key(
        "Header: claim; the claim is a dotted path, or a list if names hold dots. claims_header sends all claims besides.",
        {"X-JWT-Sub": ("sub",), "X-JWT-Iss": ("iss",), "X-JWT-Scope": ("scope",)},
    )
    claims_header: ClaimsHeader = key("The header with all claims as base64url(JSON); or off.", "X-JWT-Claims")
    encoding: Literal["percent", "base64url", "raw_utf8"] = key(
        "The encoding of texts in identity headers; raw_utf8 is for backends that read headers as UTF-8.", "percent"
    )
    assertion: Later[Assertion] | None = key("A signed proof of the claims for the backend. Left out: none.", None)
    signature: Later[Signature] | None = key("A signature over each request to the backend. Left out: none.", None)
    mode: Literal["enforce", "report"] = key(
        "report: requests that would be refused for their token are counted, logged and accepted, unless a route says enforce.",
        "enforce",
    )
    forward_token: StrictBool = key(
        "Forward the token to the backend. In report mode the default is true.",
        False,
    )
    access_log: Literal["json", "ecs", "combined", "off"] = key("The format of the line for each request.", "json")
    access_log_sample: Annotated[StrictInt, Field(ge=0)] = key(
        "N: log one of N accepted requests. 0: none. Every refusal is logged.", 1
    )
    tracing: Later[Tracing] | None = key("OpenTelemetry traces, with the extra `otel`. Left out: none.", None)
    workers: Workers = key("The number of processes; auto: one for each processor. One is enough for most.", 1)
    trusted_proxies: tuple[Network, ...] = key(
        "Networks of front proxies whose X-Forwarded-* headers count. Empty: none.", ()
    )
    forward_auth: Later[ForwardAuth] | None = key(
        "Answers front proxies that ask about a request and send it to the backend themselves. Left out: off.",
        None,
    )
    resource_metadata: Later[ResourceMetadata] | None = key(
        "Tells refused clients where to get a token (RFC 9728). Left out: off.", None
    )
    cors: Later[Cors] | None = key(
        "Lets pages of other origins read refusals, and answers their preflights. Left out: refusals have no CORS headers.",
        None,
    )
    realm: Realm = key("The realm in WWW-Authenticate.", "jwt-sidecar")
    close_on_expiry: Literal["websocket", "all", "off"] = key(
        "websocket: a WebSocket ends when its token expires (code 4401). all: long answers too. off: nothing ends.",
        "websocket",
    )
    error_format: Literal["json", "problem"] = key("The format of refusals; problem is RFC 9457.", "json")
    error_detail: Literal["minimal", "code", "full"] = key(
        "minimal: no sentence. code: a sentence. full: also rule and issuer, for a listener on loopback only.", "code"
    )
    timeouts: Timeouts = key("The time limits for clients and backends.", Timeouts())
    limits: Limits = key("The limits against overload.", Limits())
    backend_ignores: tuple[Literal["letter_case", "final_slash", "final_dot", "format"], ...] = key(
        "Parts of a path that backends may ignore. A path that differs from a closed one only in these is a 400. []: none.",
        ("letter_case", "final_slash", "final_dot", "format"),
    )
    method_override: Literal["drop", "pass"] = key(
        "X-HTTP-Method-Override, X-HTTP-Method and X-Method-Override of clients, if a rule names methods. drop: removed.",
        "drop",
    )
    token_cache: TokenCache = key("The cache of verified tokens.", TokenCache())
    routes: tuple[Later[Route], ...] = key(
        "The first matching route decides; a request without one needs a valid token.", ()
    )

    @property
    def default_upstream(self) -> str:
        """The upstream of requests whose route names none. With forward_auth it may be missing."""
        return "default" if "default" in self.upstreams else next(iter(self.upstreams), "default")

    def reports(self, rule: Route | None = None) -> bool:
        """Is this rule, or None for the default rule, in report mode? Not with auth: none or deny."""
        if rule is None:
            return self.mode == "report"
        return (rule.mode or self.mode) == "report" and rule.auth not in ("none", "deny")

    def sends_token(self, rule: Route | None = None) -> bool:
        """Is the token forwarded to the backend? In report mode it is by default: the backend may still check it."""
        if rule is not None and (rule.forward_token is not None or rule.auth == "api_key"):
            return rule.forward_token is True
        if "forward_token" in self.model_fields_set:
            return self.forward_token
        upstream = self.upstreams.get((rule and rule.upstream) or self.default_upstream)
        return self.reports(rule) and (upstream is None or upstream.token is None)

    @property
    def token_sources(self) -> tuple[TokenSource, ...]:
        """The places of tokens: `token_from`, or without it those of the issuers' presets, and Authorization for others."""
        if "token_from" in self.model_fields_set:
            return self.token_from
        found = dict.fromkeys(source for issuer in self.issuers.values() for source in issuer.token_from)
        return tuple(found) or (TokenSource(header="Authorization"),)

    @model_validator(mode="after")
    def _with_the_short_form(self) -> Self:
        if self.upstream and self.upstreams is not None:  # the key is valid
            self.upstreams["default"] = Upstream(name="default", url=self.upstream)
        return self

    @check("listen", "health", "admin")
    def _listeners_have_ports_of_their_own(self, section: Section) -> None:
        several = isinstance(section.get("listen"), list)
        listeners: list[tuple[tuple[str | int, ...], Address]] = [
            (("listen", item) if several else ("listen",), address) for item, address in enumerate(self.listen)
        ]
        listeners += [((name, "listen"), one.listen) for name, one in self._ports() if one.could_read("listen")]
        bound: list[tuple[tuple[str | int, ...], Address]] = []
        for keys, address in listeners:
            for other, taken in bound:
                if address.clashes(taken):
                    # Reported at the address in the file if the other one is a default.
                    at, of = (keys, other) if keys[0] in section else (other, keys)
                    section.report(
                        f"has the port of {'.'.join(map(str, of))}; choose another, or 0 for a free port", *at
                    )
            bound.append((keys, address))

    def _ports(self) -> tuple[tuple[str, Health | Admin], ...]:
        return ("health", self.health), ("admin", self.admin)

    @check("error_detail", "listen")
    def _only_loopback_is_told_everything(self, section: Section) -> None:
        if self.error_detail == "full" and not all(is_loopback(address.host) for address in self.listen):
            text = "tells clients about the configuration, so it needs a listener on loopback; use minimal or code"
            section.report(text, "error_detail")

    @check()
    def _somebody_is_trusted(self, section: Section) -> None:
        if "issuers" not in section and "api_keys" not in section:
            section.report("is missing; add at least one issuer whose tokens are accepted, or api_keys", "issuers")

    @check("issuers")
    def _a_token_leads_to_one_issuer(self, section: Section) -> None:
        check_issuers(section, self.issuers)

    @check()
    def _a_default_upstream(self, section: Section) -> None:
        check_default_upstream(section)

    @check("claims_header", "assertion", "signature", "token_from", "api_keys")
    def _a_header_has_one_meaning(self, section: Section) -> None:
        own = section.get("identity_headers", self.identity_headers)
        others: dict[tuple[str | int, ...], str | None] = {("claims_header",): self.claims_header}
        sections = (("assertion", self.assertion), ("signature", self.signature))
        others |= {(key, "header"): one.header for key, one in sections if one is not None}
        others |= {(*place.path, "header"): source.header for place, source in self._token_places(section)}
        read = {(source.header or "").lower() for source in self.token_from}
        if self.api_keys and (self.api_keys.header or "").lower() not in read:
            others["api_keys", "header"] = self.api_keys.header
        check_header_names(
            own if isinstance(own, dict) else (), {place: name for place, name in others.items() if name}, section
        )

    @check("token_from")
    def _a_place_of_tokens_is_named_once(self, section: Section) -> None:
        seen: list[tuple[str, str]] = []
        for place, source in self._token_places(section):
            for kind, name in (("cookie", source.cookie), ("query", source.query), ("subprotocol", source.subprotocol)):
                if name and (kind, name) in seen:
                    place.report("is in this list twice", kind)
                elif name:
                    seen.append((kind, name))

    def _token_places(self, section: Section) -> list[tuple[Section, TokenSource]]:
        """The valid items of token_from, with their sections."""
        return list(zip(sections_of(section, "token_from"), self.token_from, strict=False))

    @check("workers")
    def _workers_sign_with_one_key(self, section: Section) -> None:
        assertion = section.get("assertion")
        if self.workers > 1 and isinstance(assertion, Section) and "key_file" not in assertion:
            assertion.report("would sign with a different key in each worker; add key_file")

    @check("forward_auth", "trusted_proxies")
    def _somebody_may_ask(self, section: Section) -> None:
        if self.forward_auth is not None and not self.trusted_proxies:
            section.report(
                "needs trusted_proxies, since only those may ask; add the addresses of the front proxy", "forward_auth"
            )

    @check("routes")
    def _routes_name_what_there_is(self, section: Section) -> None:
        check_names_in_routes(section, self._rules(section))

    @check("routes")
    def _routes_are_reached(self, section: Section) -> None:
        check_hidden(self._rules(section, "path", "path_regex", "hosts", "methods"))

    @check("health")
    def _probes_name_upstreams(self, section: Section) -> None:
        if self.health.could_read("probes"):
            check_probes(section, self.health.probes)

    @check("routes", "upstreams", "upstream", "signing", "forward_token")
    def _the_gateway_is_complete(self, section: Section) -> None:
        check_gateway(
            section,
            self._rules(section, "auth", "forward_token", "upstream"),
            upstreams=self.upstreams,
            signing=self.signing,
            default_upstream=self.default_upstream if self.upstreams else None,
            forward_token=self.forward_token,
        )

    def _rules(self, section: Section, *fields: str) -> list[tuple[Section, Route]]:
        """The routes whose `fields` are valid, with their sections."""
        rules = zip(sections_of(section, "routes"), self.routes, strict=False)
        return [(rule, route) for rule, route in rules if route.could_read(*fields)]
