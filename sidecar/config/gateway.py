"""The gateway half, in the configuration: API keys that are accepted, and tokens of our own that are sent on in their place."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from sidecar.config.addresses import WebUrl
from sidecar.config.identity import Prefix, TokenHeaderName
from sidecar.config.struct import Struct, key
from sidecar.config.values import ClaimName, ClaimPath, ConfigFile, PositiveSeconds, Text
from sidecar.config.yaml_source import Section

if TYPE_CHECKING:
    from sidecar.config.file import Config
    from sidecar.config.route import Route

OWN_CLAIMS = frozenset({"iss", "aud", "exp", "nbf", "iat", "jti", "cnf"})
MIN_TTL_S = 10.0  # a shorter token may have expired by the time that it is read on another machine


def _own_issuer(value: str) -> str:
    if "?" in value:
        raise ValueError("must not have a query: the key set is below the path of this URL")
    return value


def _claim(name: str) -> str:
    if name in OWN_CLAIMS:
        raise ValueError("is set by the signer, whoever the token is for")
    return name


def _ttl(seconds: float) -> float:
    if seconds < MIN_TTL_S:
        raise ValueError(f"must be at least {MIN_TTL_S:g}s, or the token has expired before it is read")
    return seconds


class ApiKeys(Struct):
    """API keys, for routes with `auth: api_key`."""

    file: ConfigFile = key("Their hashes (JSON), as `jwt-sidecar keys new` writes them; read again when it changes.")
    header: TokenHeaderName = key("The header that brings the key. It never reaches the backend.", "Authorization")
    prefix: Prefix | None = key(
        "The word before the key, in any case. Left out: Bearer for Authorization, and none for other headers.", None
    )

    @property
    def scheme(self) -> str:
        """The word before the key, empty when there is none."""
        if self.prefix is None:
            return "Bearer" if self.header.lower() == "authorization" else ""
        return self.prefix


class MintedToken(Struct):
    """A short-lived JWT of our own for whoever was authenticated."""

    audience: Text = key("Its `aud`: what the backend behind expects.")
    ttl_s: Annotated[PositiveSeconds, AfterValidator(_ttl)] = key(
        "How long it is valid; never longer than the key or token that it stands for.", 300.0, "ttl"
    )
    algorithm: Literal["EdDSA", "RS256", "ES256"] = key("How it is signed; a key for it must be there.", "EdDSA")
    claims: Annotated[Mapping[Annotated[ClaimName, AfterValidator(_claim)], ClaimPath], Field(min_length=1)] | None = (
        key("Its claim: the claim of the key or token that it holds. Left out: all of them as they are.", None)
    )


class Signing(Struct):
    """Tokens of our own: who signs them, and where the keys are that prove it."""

    issuer: Annotated[WebUrl, AfterValidator(_own_issuer)] = key(
        "Their `iss`. Its discovery document and key set are served here, below the path of this URL."
    )
    keys_file: ConfigFile = key(
        "The private keys with their times (JSON), as `jwt-sidecar keys rotate` writes them; read again when it changes."
    )
    token_endpoint: MintedToken | None = key(
        "What POST {issuer}/token gives to the holder of an API key. Left out: nobody can ask for a token.", None
    )


def check_gateway(config: "Config", section: Section, rules: Iterable[tuple[Section, "Route"]]) -> None:
    """What the parts of the gateway say about each other, and about the routes that can be read."""
    upstreams = config.upstreams or {}
    minting = {name for name, upstream in upstreams.items() if upstream.token is not None}
    signing = config.signing
    for rule, route in rules:
        if route.auth == "api_key" and "api_keys" not in section:
            rule.report("needs `api_keys`, with the file that knows their hashes", "auth")
        if route.auth in ("required", "optional") and "issuers" not in section and "api_keys" in section:
            text = "asks for a token, and this file has no issuer; add issuers, or auth: api_key"
            rule.report(text, *(["auth"] if "auth" in rule else []))
        if route.forward_token and minting and (route.upstream or config.default_upstream) in minting:
            rule.report("contradicts the `token` of its upstream, which goes in the same place", "forward_token")
    if config.forward_token and minting:
        text = (
            "contradicts the `token` of an upstream, which goes in the same place; set it on routes to other upstreams"
        )
        section.report(text, "forward_token")
    if "signing" not in section:
        for name in minting:
            section.report("needs `signing`, with the issuer and the keys that sign", "upstreams", name, "token")
    elif signing is not None and signing.token_endpoint is None and not _mentions_token(section.get("upstreams")):
        section.report("signs nothing; give an upstream a `token`, or add token_endpoint", "signing")
    if signing is not None and signing.token_endpoint is not None and "api_keys" not in section:
        text = "gives tokens to holders of API keys; add `api_keys`, with the file that knows their hashes"
        section.report(text, "signing", "token_endpoint")


def _mentions_token(upstreams: object) -> bool:
    """Is there an upstream with a token, be it one with problems?"""
    found = upstreams.values() if isinstance(upstreams, Section) else ()
    return any("token" in upstream for upstream in found if isinstance(upstream, Section))
