"""The places of tokens, and the identity headers for the backend, in the configuration."""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    GetPydanticSchema,
    PlainValidator,
    StrictBool,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
)
from pydantic_core.core_schema import with_info_wrap_validator_function

from sidecar.common.folding import fold
from sidecar.config.header_names import RESERVED_HEADERS, HeaderName, HeaderToken
from sidecar.config.secret import SecretFile
from sidecar.config.struct import FileSchema, Struct, check, key
from sidecar.config.values import (
    STRING,
    TOKEN,
    ClaimPath,
    ConfigFile,
    PositiveSeconds,
    Text,
    claim_path,
    matching,
)
from sidecar.config.yaml_source import Section

# Headers of front proxies about a request's origin. Others with this prefix may bring a token: X-Forwarded-Access-Token.
_FORWARDED = frozenset(
    f"x-forwarded-{name}"
    for name in ("for", "proto", "host", "port", "server", "ssl", "scheme", "uri", "method", "prefix")
)
_PARAMETER = re.compile(r"[A-Za-z0-9._~-]+")  # the unreserved characters of RFC 3986
_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")

PLACES = ("header", "cookie", "query", "subprotocol")
"""The keys of TokenSource that name the place of a token: exactly one of them is given."""

Template = tuple[str | tuple[str, ...], ...]
"""Texts, and the paths of claims between them."""


def _token_header(name: str) -> str:
    if fold(name) == "sec-websocket-protocol":
        raise ValueError("is not a place for header; use `subprotocol` with the name before the token")
    if fold(name) in RESERVED_HEADERS - {"authorization"} | _FORWARDED:
        raise ValueError("is reserved: HTTP or the proxy uses this header; for a cookie use `cookie`")
    return name


def _prefix(value: str) -> str:
    word = value.removesuffix(" ")
    if word and not TOKEN.fullmatch(word):
        raise ValueError("must be one word, such as Bearer, or '' for a header that holds nothing but the token")
    return word


def _cookie(name: str) -> str:
    if not TOKEN.fullmatch(name):
        raise ValueError("is not the name of a cookie: letters, digits and !#$%&'*+-.^_`|~ only")
    if not name.strip("*"):
        raise ValueError("matches every cookie; write more of its name than *")
    return name


def _template(value: object) -> Template:
    if not isinstance(value, str) or not value:
        raise ValueError('must be text, such as "user:{sub}", in which {claim} is replaced')
    parts: list[str | tuple[str, ...]] = [""]
    end = 0
    for brace in _BRACES.finditer(value):
        text = value[end : brace.start()]
        if brace[1] is None:
            if len(brace[0]) == 1:
                raise ValueError(
                    f"{{input}} has a single {brace[0]}; write {{sub}} for a claim, and {{{{ or }}}} for a brace"
                )
            text += brace[0][0]
        parts[-1] = f"{parts[-1]}{text}"
        if brace[1] is not None:
            parts += (tuple(claim_path(brace[1])), "")
        end = brace.end()
    parts[-1] = f"{parts[-1]}{value[end:]}"
    return tuple(part for part in parts if part)


TokenHeaderName = Annotated[HeaderToken, AfterValidator(_token_header)]
Prefix = Annotated[str, AfterValidator(_prefix)]
Parameter = Annotated[str, matching(_PARAMETER, "is not the name of a parameter: letters, digits and ._~- only")]
Subprotocol = Annotated[
    str,
    matching(TOKEN, "is not the name of a subprotocol: letters, digits and !#$%&'*+-.^_`|~ only, such as bearer"),
]


class TokenSource(Struct):
    """A place of tokens in requests."""

    header: TokenHeaderName | None = key("A header.", None)
    prefix: Prefix | None = key(
        "The word before the token, in any case. Left out: Bearer for Authorization, and none for other headers.", None
    )
    cookie: Annotated[str, AfterValidator(_cookie)] | None = key(
        "A cookie; browsers send it with every request. A * in its name stands for any characters.", None
    )
    pieces: StrictBool = key(
        "The cookie may be split into numbered pieces: NAME.0 and NAME.1, also with -, _ or __, or ASP.NET's NAMEC1 and NAMEC2.",
        False,
    )
    json_member: Text | None = key(
        "The cookie holds JSON, percent-encoded or as base64url after base64-, and this member is the token.",
        None,
    )
    query: Parameter | None = key("A query parameter; other programs write it into their logs.", None)
    subprotocol: Subprotocol | None = key(
        "The subprotocol after this one, as a browser's WebSocket offers it: new WebSocket(url, [NAME, token]).", None
    )

    @property
    def scheme(self) -> str:
        """The word before the token in the header, or empty."""
        if self.prefix is None:
            return "Bearer" if self.header is not None and self.header.lower() == "authorization" else ""
        return self.prefix

    def __str__(self) -> str:
        """The place for people."""
        return self.header or self.cookie or self.query or self.subprotocol or ""

    @check()
    def _one_place(self, section: Section) -> None:
        named = [place for place in PLACES if place in section]
        if not named:
            section.report(f"names no place; one of: {', '.join(PLACES)}")
        for other in named[1:]:
            section.report(f"is another place than {named[0]}; write it as a separate item", other)
        for more, place in (("prefix", "header"), ("pieces", "cookie"), ("json_member", "cookie")):
            if more in section and place not in section:
                section.report(f"is for {place}s alone", more)

    @check("pieces", "cookie")
    def _pieces_have_a_name(self, section: Section) -> None:
        if self.pieces and self.cookie and self.cookie.endswith("*"):
            section.report("cannot follow a * at the end of the name; end the name with other characters", "pieces")


class IdentityHeader(Struct):
    """The settings of one identity header."""

    claim: ClaimPath | None = key("The claim.", None)
    value: Annotated[Template, PlainValidator(_template), STRING] | None = key(
        "A text in which {claim} is replaced; without that claim there is no header.", None
    )
    on_oversize: Literal["reject", "omit"] = key(
        "For a header that is too large. reject: a 403. omit: the header is left out.", "reject"
    )

    @check()
    def _claim_or_text(self, section: Section) -> None:
        if "claim" in section and "value" in section:
            section.report("contradicts claim; keep one of the two", "value")
        elif "claim" not in section and "value" not in section:
            section.report("names neither a claim nor a value")


def _claim_or_more(value: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    return IdentityHeader.model_validate(value, context=info.context) if isinstance(value, Section) else handler(value)


class _ClaimOrMore:
    """The JSON Schema of both forms, made on demand, so that it does not slow the start."""

    def __get_pydantic_json_schema__(self, *_: object) -> dict[str, Any]:
        more = IdentityHeader.model_json_schema(schema_generator=FileSchema)
        return {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "string"}}, more]}


HeaderContent = Annotated[
    tuple[str, ...] | IdentityHeader,
    # Not a union of pydantic, which would report a wrong claim once for each member.
    GetPydanticSchema(
        lambda _, handler: with_info_wrap_validator_function(_claim_or_more, handler.generate_schema(ClaimPath))
    ),
    _ClaimOrMore(),
]


class Assertion(Struct):
    """A JWT that the sidecar signs for the backend. The key set is at /.well-known/jwks.json of the admin listener."""

    header: HeaderName = key("Its header.", "X-JWT-Assertion")
    alg: Literal["EdDSA", "ES256"] = key("Its signature.", "EdDSA")
    key_file: ConfigFile | None = key("The private key in PEM. Left out: a new key at every start.", None)
    issuer: Text = key("Its `iss`.", "jwt-sidecar")
    audience: Text = key("Its `aud`: the value that the backend expects.")
    ttl_s: PositiveSeconds = key("Its lifetime; it never outlives the client's token.", 30.0, "ttl")


class Signature(Struct):
    """An HMAC over each request's method, target and identity headers, for a backend that shares the secret."""

    header: HeaderName = key("Its header.", "X-JWT-Signature")
    secret_file: SecretFile = key("A file with the secret, of at least 32 bytes.")
