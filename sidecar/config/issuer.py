"""An issuer in the configuration: whose tokens, with which keys, judged how."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, StrictBool, model_validator
from pydantic.json_schema import SkipJsonSchema

from sidecar.config.addresses import WebUrl, is_loopback, web_url
from sidecar.config.claims import TokenRules
from sidecar.config.presets import PRESETS, SECRET_SOURCES, SOURCES, PresetName, filled_in
from sidecar.config.secret import SecretFile, SecretVariable
from sidecar.config.struct import key
from sidecar.config.tls import ClientTls
from sidecar.config.values import (
    ALGORITHMS,
    RESERVED_HEADERS,
    SECRET_ALGORITHMS,
    Algorithm,
    ConfigFile,
    HeaderToken,
    IssuerId,
    NonEmpty,
    PositiveSeconds,
    Seconds,
    Text,
)
from sidecar.config.yaml_source import Section

_HEADER_VALUE = re.compile(r"[!-~]+(?: +[!-~]+)*")


def _request_header(name: str) -> str:
    if name.lower() in RESERVED_HEADERS - {"authorization", "cookie"}:
        raise ValueError("is a header that HTTP itself needs; it cannot be set")
    return name


def _header_value(value: str) -> str:
    if not _HEADER_VALUE.fullmatch(value):
        raise ValueError("must be printable ASCII, not empty, without blanks at its ends")
    return value


def _key_set(value: dict[str, Any]) -> dict[str, Any]:
    keys = value.get("keys")
    if not isinstance(keys, list):
        raise ValueError("is no JWK Set: it has no list of keys")
    if any(isinstance(member, dict) and member.keys() & {"d", "k"} for member in keys):
        raise ValueError("holds a private key or a secret (d or k); only the public members of a key belong here")
    return value


RequestHeaders = dict[
    Annotated[HeaderToken, AfterValidator(_request_header)], Annotated[str, AfterValidator(_header_value)]
]


class Issuer(TokenRules):
    """Who signs tokens, and what these must be."""

    name: SkipJsonSchema[str]
    preset: PresetName | None = key("An issuer that is known: fills in where its keys are and how it signs.", None)
    issuer: IssuerId = key(
        "The exact `iss` of its tokens; its keys are looked for there if no key below says where. "
        "In the path, {tid} stands for the token's own claim tid, for an issuer of many tenants."
    )
    issuer_aliases: tuple[IssuerId, ...] = key("Other `iss` values of the same issuer.", ())
    assume_issuer: StrictBool = key(
        "It is the issuer of tokens without `iss`, too; for the one issuer of a file.", False
    )
    signer: Text | None = key(
        "What `signer` in the header of its tokens must be, as AWS load balancers write it.", None
    )
    jwks_uri: WebUrl | None = key(
        "Its key set. Left out: discovery (OpenID Connect, {issuer}/.well-known/jwks.json or RFC 8414).", None
    )
    jwks_file: ConfigFile | None = key("A file with its key set instead, read again when it changes.", None)
    jwks_inline: Annotated[dict[str, Any], AfterValidator(_key_set)] | None = key("Its key set, written here.", None)
    public_key_file: ConfigFile | None = key("A file with its one public key (PEM), read again when it changes.", None)
    kid: Text | None = key("The kid of that public key. Left out: its tokens may name any.", None)
    secret_file: SecretFile | None = key("A file with the secret it shares with this proxy, for HS256 to HS512.", None)
    secret_env: SecretVariable | None = key("The environment variable with that secret instead.", None)
    jwks_tls: ClientTls | None = key("How to know the server of its keys.", None)
    jwks_headers: RequestHeaders = key("Headers for requests for its keys, to the server that this file names.", {})
    jwks_bearer_token_file: ConfigFile | None = key("A token for these requests, read again for each.", None)
    allow_http: StrictBool = key(
        "Keys over plain http from another host, where they can be replaced on the way.", False
    )
    algorithms: NonEmpty[Algorithm] = key("Signatures that are accepted; all that need no shared secret.", ALGORITHMS)
    refresh_interval_s: PositiveSeconds = key(
        "How often its keys are fetched, unless it says so itself: its max-age, between 60 s and 1 h, takes the place of this.",
        600.0,
        "refresh_interval",
    )
    max_stale_s: Seconds = key("How much longer good keys serve while it is down; then 503.", 3600.0, "max_stale")
    removed_key_grace_s: Seconds = key(
        "How long a key is trusted after it was taken out of the set.", 0.0, "removed_key_grace"
    )
    required: StrictBool | None = key(
        "Not ready before its keys were loaded once. Left out: for 30s at most, if other issuers' keys are there.", None
    )

    @property
    def keys_from(self) -> str:
        """Which key of the file, or preset, says where the keys are; `discovery` when none does."""
        return next((source for source in SOURCES if getattr(self, source) is not None), "discovery")

    @property
    def fetched(self) -> bool:
        """Do the keys come over HTTP?"""
        return self.keys_from in ("jwks_uri", "discovery")

    @property
    def token_header(self) -> str | None:
        """The header in which the preset's issuer sends its tokens; None for Authorization."""
        return PRESETS[self.preset].token_header if self.preset else None

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, values: Any) -> Any:
        return filled_in(values) if isinstance(values, dict) else values

    def check(self, section: Section) -> None:
        """One place for the keys, reached in a way that nobody can tamper with, and algorithms that fit them."""
        super().check(section)
        written = [source for source in SOURCES if source in section]
        for other in written[1:]:
            section.report(f"contradicts {written[0]}; keep one of the two", other)
        if "kid" in section and "public_key_file" not in section:
            section.report("is that of public_key_file, which is not here", "kid")
        self._check_algorithms(section, secret=bool(written and written[0] in SECRET_SOURCES))
        if written and written[0] != "jwks_uri":
            for asked in ("jwks_tls", "jwks_headers", "jwks_bearer_token_file"):
                if asked in section:
                    section.report(f"is for keys that are fetched, and those of {written[0]} are not", asked)
        else:
            self._check_url(section)
        if "jwks_bearer_token_file" in section and any(
            name.lower() == "authorization" for name in self.jwks_headers or {}
        ):
            section.report("contradicts Authorization in jwks_headers; keep one of the two", "jwks_bearer_token_file")

    def _check_algorithms(self, section: Section, *, secret: bool) -> None:
        for number, name in enumerate(self.algorithms or () if "algorithms" in section else ()):
            if name in SECRET_ALGORITHMS and not secret:
                text = f"verifies with the secret that signs, and a key set holds no secrets; one of: {', '.join(ALGORITHMS)}"
                section.report(f"{{input}} {text}", "algorithms", number)
            elif secret and name not in SECRET_ALGORITHMS:
                text = f"needs a public key, and this issuer has a secret; one of: {', '.join(SECRET_ALGORITHMS)}"
                section.report(f"{{input}} {text}", "algorithms", number)

    def _check_url(self, section: Section) -> None:
        place, url = "jwks_uri", self.jwks_uri
        if "jwks_uri" not in section:
            place, url = "issuer", self.jwks_uri or self.issuer
        if not url:
            return
        try:
            parts = web_url(url)
        except ValueError:
            parts = None
        if self.jwks_uri is None and "{" in url:
            section.report("stands for many issuers, where no keys can be discovered; add jwks_uri or jwks_file", place)
            return
        if parts is None or (self.jwks_uri is None and "?" in url):
            section.report("is no http(s) URL, where keys could be discovered; add jwks_uri or jwks_file", place)
        elif parts.scheme == "http" and self.allow_http is False and not is_loopback(parts.hostname):
            text = "keys over plain http can be replaced on the way; use https, or set allow_http: true"
            section.report(text, place)


def check_issuers(section: Section, issuers: Mapping[str, Issuer]) -> None:
    """Report what the issuers of a file say about each other: a token must lead to one of them."""
    seen: dict[str, tuple[str | int, ...]] = {}
    for name, issuer in issuers.items():
        if issuer.assume_issuer and len(issuers) > 1:
            section.report(
                "has assume_issuer, which is for a file with one issuer: a token without iss could be of any",
                "issuers",
                name,
            )
        aliases = enumerate(issuer.issuer_aliases or ())
        places: dict[tuple[str | int, ...], str] = {("issuer",): issuer.issuer}
        places |= {("issuer_aliases", number): alias for number, alias in aliases}
        for place, iss in places.items():
            if iss in seen:
                other, *where = seen[iss]
                text = f"is also the issuer of {other} (line {section.line('issuers', str(other), *where)})"
                section.report(f"{text}; a token must lead to one of them", "issuers", name, *place)
            elif iss:
                seen[iss] = (name, *place)
