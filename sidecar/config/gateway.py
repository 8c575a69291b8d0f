"""The gateway half, in the configuration: API keys that are accepted, and tokens of our own that are sent on in their place."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from sidecar.config.addresses import WebUrl
from sidecar.config.identity import Prefix, TokenHeaderName
from sidecar.config.struct import Struct, key
from sidecar.config.values import ClaimName, ClaimPath, ConfigFile, PositiveSeconds, Text

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
