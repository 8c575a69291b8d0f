"""An issuer in the configuration: its `iss`, its keys and the rules for its tokens."""

import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, StrictBool, model_validator
from pydantic.json_schema import SkipJsonSchema

from sidecar.common.loopback import is_loopback
from sidecar.config.addresses import web_url
from sidecar.config.claims import Condition, Require, TokenRules
from sidecar.config.header_names import RESERVED_HEADERS, HeaderToken
from sidecar.config.identity import TokenSource
from sidecar.config.key_place import SECRET_SOURCES, SOURCES, KeyPlace, MoreKeys
from sidecar.config.preset_filling import check_preset, filled_in
from sidecar.config.preset_keys import PresetKeys
from sidecar.config.presets import PRESETS, PresetName
from sidecar.config.struct import Later, check, key
from sidecar.config.tls import ClientTls
from sidecar.config.values import (
    ALGORITHMS,
    SECRET_ALGORITHMS,
    Algorithm,
    ConfigFile,
    IssuerId,
    NonEmpty,
    PositiveSeconds,
    Seconds,
    Text,
    matching,
)
from sidecar.config.yaml_source import Section

_TENANT = re.compile(r"\{[^{}]+\}")
_HEADER_VALUE = re.compile(r"[!-~]+(?: +[!-~]+)*")


def _request_header(name: str) -> str:
    if name.lower() in RESERVED_HEADERS - {"authorization", "cookie"}:
        raise ValueError("is a header that HTTP needs and cannot be set")
    return name


HeaderValue = Annotated[str, matching(_HEADER_VALUE, "must be printable ASCII, not empty, without spaces at its ends")]
RequestHeaders = dict[Annotated[HeaderToken, AfterValidator(_request_header)], HeaderValue]


class Issuer(KeyPlace, PresetKeys, TokenRules):
    """An issuer of tokens, and the rules for them."""

    name: SkipJsonSchema[str]
    preset_require: SkipJsonSchema[Require | None] = None
    """The preset's rules for claims, in addition to `require`."""
    preset: PresetName | None = key("A known issuer; fills in the settings of its tokens.", None)
    issuer: IssuerId = key(
        "The exact `iss` of its tokens. Without another place of keys, discovery begins there. "
        "In the path, {tid} stands for the token's own claim tid, for an issuer of many tenants."
    )
    issuer_aliases: tuple[IssuerId, ...] = key("Other `iss` values of the same issuer.", ())
    assume_issuer: StrictBool = key(
        "Tokens without `iss` belong to this issuer; only for a file with one issuer.", False
    )
    signer: Text | None = key("The required `signer` in the header of its tokens, which AWS load balancers set.", None)
    more_keys: tuple[Later[MoreKeys], ...] = key(
        "Further places of its keys, for example for another policy, or a secret for tokens from before a migration.",
        (),
    )
    jwks_tls: Later[ClientTls] | None = key("TLS to the server of its keys.", None)
    jwks_headers: RequestHeaders = key("Headers of requests for its keys, only to the server that this file names.", {})
    jwks_bearer_token_file: ConfigFile | None = key(
        "A file with a bearer token for these requests, read again for each.", None
    )
    allow_http: StrictBool = key(
        "Allow keys over plain http from another host; an attacker on the way can replace them.", False
    )
    algorithms: NonEmpty[Algorithm] = key(
        "The accepted algorithms; by default all that need no shared secret.", ALGORITHMS
    )
    refresh_interval_s: PositiveSeconds = key(
        "The time between two fetches of its keys. The max-age of the answer, between 60 s and 1 h, wins over it.",
        600.0,
        "refresh_interval",
    )
    max_stale_s: Seconds = key(
        "How long keys stay trusted after the time at which the next fetch was due, while fetches fail; then 503.",
        3600.0,
        "max_stale",
    )
    removed_key_grace_s: Seconds = key(
        "How long a key stays trusted after the issuer removed it.", 0.0, "removed_key_grace"
    )
    required: StrictBool | None = key(
        "true: not ready before it has keys. false: ready without. Left out: 30s at most, if another issuer has keys.",
        None,
    )

    @property
    def fetched(self) -> bool:
        """Does any of the keys come over HTTP?"""
        return any(place.keys_from in ("jwks_uri", "discovery") for place in (self, *self.more_keys))

    @property
    def token_from(self) -> tuple[TokenSource, ...]:
        """The places of its tokens, if the preset has some."""
        places = PRESETS[self.preset].token_from if self.preset else ({"header": "Authorization"},)
        return tuple(TokenSource(**place) for place in places)

    @property
    def all_claims(self) -> Mapping[tuple[str, ...], Condition]:
        """The rules for claims of the preset and the file; for the same claim the file wins."""
        asked = (self.preset_require, self.require)
        return {
            path: condition for require in asked if require is not None for path, condition in require.claims.items()
        }

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, values: Any) -> Any:
        return filled_in(values) if isinstance(values, dict) else values

    @check()
    def _fits_its_preset(self, section: Section) -> None:
        check_preset(section)

    @check()
    def _fetches_what_is_fetched(self, section: Section) -> None:
        if (written := _source(section)) not in (None, "jwks_uri"):
            for asked in ("jwks_tls", "jwks_headers", "jwks_bearer_token_file"):
                if asked in section:
                    section.report(f"is for keys that are fetched, and {written} is not fetched; remove it", asked)

    @check("jwks_headers")
    def _one_authorization(self, section: Section) -> None:
        if "jwks_bearer_token_file" in section and any(name.lower() == "authorization" for name in self.jwks_headers):
            section.report("contradicts Authorization in jwks_headers; keep one of the two", "jwks_bearer_token_file")

    @check("issuer", "issuer_aliases")
    def _one_claim_names_the_tenant(self, section: Section) -> None:
        """One claim names the tenant in all of them: else a key of one tenant could sign for what another claim says."""
        places: list[tuple[tuple[str | int, ...], str]] = [(("issuer",), self.issuer)]
        places += [(("issuer_aliases", number), alias) for number, alias in enumerate(self.issuer_aliases)]
        first = ""
        for place, iss in places:
            if (claim := _TENANT.search(iss)) is not None:
                first = first or claim[0]
                if claim[0] != first:
                    section.report(f"{{input}} names the tenant by another claim than {first}; use one in all", *place)

    @check("algorithms")
    def _algorithms_fit_the_keys(self, section: Section) -> None:
        secret = _source(section) in SECRET_SOURCES
        for number, name in enumerate(self.algorithms if "algorithms" in section else ()):
            if name in SECRET_ALGORITHMS and not secret:
                text = f"needs a shared secret, and a key set holds no secrets; one of: {', '.join(ALGORITHMS)}"
                section.report(f"{{input}} {text}", "algorithms", number)
            elif secret and name not in SECRET_ALGORITHMS:
                text = f"needs a public key, and this issuer has a secret; one of: {', '.join(SECRET_ALGORITHMS)}"
                section.report(f"{{input}} {text}", "algorithms", number)

    @check("more_keys", "jwks_uri")
    def _keys_with_a_url_each_are_alone(self, section: Section) -> None:
        """Only a token tells which of them exist, and a fetch of several places has no token."""
        if self.more_keys and (self.by_kid or any(place.by_kid for place in self.more_keys)):
            section.report("cannot be combined with a jwks_uri with {kid}; keep one of the two", "more_keys")

    @check("more_keys", "allow_http")
    def _more_keys_are_safe_on_the_way(self, section: Section) -> None:
        for number, place in enumerate(self.more_keys):
            self._report_plain_http(section, place.jwks_uri or "", "more_keys", number, "jwks_uri")

    @check("jwks_uri", "issuer", "allow_http")
    def _keys_are_found_and_safe_on_the_way(self, section: Section) -> None:
        if _source(section) not in (None, "jwks_uri"):
            return
        place, url = "jwks_uri", self.jwks_uri or self.issuer
        if "jwks_uri" not in section:
            place = "issuer"
        try:
            parts = web_url(url)
        except ValueError:
            parts = None
        if self.jwks_uri is None and "{" in url:
            section.report(
                "is a template for many issuers, so keys cannot be discovered; add jwks_uri or jwks_file", place
            )
            return
        if parts is None or (self.jwks_uri is None and "?" in url):
            section.report("is not an http(s) URL, so keys cannot be discovered; add jwks_uri or jwks_file", place)
        else:
            self._report_plain_http(section, url, place)

    def _report_plain_http(self, section: Section, url: str, *place: str | int) -> None:
        parts = urlsplit(url)
        if parts.scheme == "http" and not self.allow_http and not is_loopback(parts.hostname or ""):
            text = "an attacker on the way can replace keys over plain http; use https, or set allow_http: true"
            section.report(text, *place)


def _source(section: Section) -> str | None:
    """The key that says where keys are; None where that is left to the preset, or to discovery."""
    return next((source for source in SOURCES if source in section), None)


def check_issuers(section: Section, issuers: Mapping[str, Issuer]) -> None:
    """Check that each token belongs to exactly one issuer of the file."""
    seen: dict[str, tuple[str | int, ...]] = {}
    for name, issuer in issuers.items():
        if issuer.assume_issuer and len(issuers) > 1:
            section.report(
                "has assume_issuer, which is only for a file with one issuer; remove it",
                "issuers",
                name,
            )
        if issuer.assume_issuer and any("{" in iss for iss in (issuer.issuer or "", *(issuer.issuer_aliases or ()))):
            text = "has assume_issuer, and a token without iss is of no tenant of its template; remove one of the two"
            section.report(text, "issuers", name)
        places: dict[tuple[str | int, ...], str] = {}
        if issuer.could_read("issuer"):
            places["issuer",] = issuer.issuer
        if issuer.could_read("issuer_aliases"):
            places |= {("issuer_aliases", number): alias for number, alias in enumerate(issuer.issuer_aliases)}
        for place, iss in places.items():
            same = next(
                (known for known in seen if known == iss or (seen[known][0] != name and _overlap(known, iss))), None
            )
            if same is None:
                seen[iss] = (name, *place)
                continue
            other, *where = seen[same]
            text = "is also an iss of" if same == iss else "may be the same iss as a template of"
            text = f"{text} {other} (line {section.line('issuers', str(other), *where)})"
            section.report(f"{text}; remove one of the two", "issuers", name, *place)


def _overlap(one: str, other: str) -> bool:
    """May two templates be filled to one `iss`? Each placeholder is a whole segment of the path."""
    both = zip(one.split("/"), other.split("/"), strict=False)
    return (
        "{" in one
        and "{" in other
        and one.count("/") == other.count("/")
        and all(mine == theirs or "{" in mine + theirs for mine, theirs in both)
    )
