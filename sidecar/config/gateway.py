"""The gateway half in the configuration: API keys, and the tokens that the sidecar mints for them."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from sidecar.config.addresses import WebUrl
from sidecar.config.identity import Prefix, TokenHeaderName
from sidecar.config.struct import Struct, key
from sidecar.config.values import ClaimName, ClaimPath, ConfigFile, PositiveSeconds, Text

OWN_CLAIMS = frozenset({"iss", "aud", "exp", "nbf", "iat", "jti", "cnf"})
MIN_TTL_S = 10.0  # a shorter token may expire before another machine reads it


def _own_issuer(value: str) -> str:
    if "?" in value:
        raise ValueError("must not have a query; the key set is below the path of this URL")
    return value


def _claim(name: str) -> str:
    if name in OWN_CLAIMS:
        raise ValueError("is set by the sidecar in every token; remove it")
    return name


def _ttl(seconds: float) -> float:
    if seconds < MIN_TTL_S:
        raise ValueError(f"must be at least {MIN_TTL_S:g}s; a shorter token may expire before the backend reads it")
    return seconds


class ApiKeys(Struct):
    """API keys, for routes with `auth: api_key`."""

    file: ConfigFile = key(
        "The file with their hashes (JSON), written by `jwt-sidecar keys new`; read again when it changes."
    )
    header: TokenHeaderName = key("The header that brings the key. It never reaches the backend.", "Authorization")
    prefix: Prefix | None = key(
        "The word before the key, in any case. Left out: Bearer for Authorization, and none for other headers.", None
    )

    @property
    def scheme(self) -> str:
        """The word before the key, or empty."""
        if self.prefix is None:
            return "Bearer" if self.header.lower() == "authorization" else ""
        return self.prefix


class MintedToken(Struct):
    """A short-lived JWT that the sidecar mints for an authenticated request."""

    audience: Text = key("Its `aud`: the value that the backend expects.")
    ttl_s: Annotated[PositiveSeconds, AfterValidator(_ttl)] = key(
        "Its lifetime; it never outlives the API key or token of the request.", 300.0, "ttl"
    )
    algorithm: Literal["EdDSA", "RS256", "ES256"] = key(
        "The algorithm of its signature; keys_file needs a key for it.", "EdDSA"
    )
    claims: Annotated[Mapping[Annotated[ClaimName, AfterValidator(_claim)], ClaimPath], Field(min_length=1)] | None = (
        key("New claim: claim of the API key or token. Left out: all claims, unchanged.", None)
    )


class Signing(Struct):
    """The tokens that the sidecar mints: their issuer and signing keys."""

    issuer: Annotated[WebUrl, AfterValidator(_own_issuer)] = key(
        "Their `iss`. The sidecar serves its discovery document and key set below the path of this URL."
    )
    keys_file: ConfigFile = key(
        "The file with the private keys and their times (JSON), written by `jwt-sidecar keys rotate`; read again when it changes."
    )
    token_endpoint: MintedToken | None = key(
        "The token that POST {issuer}/token gives to the holder of an API key. Left out: no token endpoint.", None
    )
