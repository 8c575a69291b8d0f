"""Header names in the configuration: valid and reserved names, and the check that each has one meaning."""

from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import AfterValidator, PlainValidator

from sidecar.common.folding import fold
from sidecar.config.values import STRING, TOKEN
from sidecar.config.yaml_source import Section

# Hop-by-hop and framing headers, headers that the proxy writes, and headers of front proxies.
RESERVED_HEADERS = frozenset(
    {
        "connection", "keep-alive", "proxy", "proxy-connection", "proxy-authenticate", "proxy-authentication-info",
        "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings", "expect",
        "host", "content-length", "content-type", "authorization", "cookie", "forwarded", "x-request-id", "x-real-ip",
        "x-original-url", "x-rewrite-url", "x-jwt-status", "x-jwt-sidecar",
    }
)  # fmt: skip


def _header_token(name: str) -> str:
    if not TOKEN.fullmatch(name):
        raise ValueError("is not a header name: letters, digits and !#$%&'*+-.^_`|~ only")
    return name


def _header(name: str) -> str:
    _header_token(name)
    if fold(name) in RESERVED_HEADERS or fold(name).startswith("x-forwarded-"):
        raise ValueError("is reserved: the proxy or the backend uses this header; choose another name")
    return name


def _claims_header(value: object) -> str | None:
    if not isinstance(value, str):
        raise ValueError("must be the name of a header, or the word off")
    return None if value == "off" else _header(value)


def check_header_names(
    identity_headers: Iterable[str], others: Mapping[tuple[str | int, ...], str], section: Section
) -> None:
    """Each header that the sidecar reads or sends has one meaning, also if a backend folds names. `others`: place -> name."""
    how = "to backends that read _ and . as -; choose another name"
    seen: dict[str, str] = {}
    for name in identity_headers:
        other = seen.setdefault(fold(name), name)
        if other != name:
            section.report(f"is {other} {how}", "identity_headers", name, at_key=True)
    meanings = {folded: f"the identity header {name}" for folded, name in seen.items()}
    for place, name in others.items():
        if fold(name) in meanings:
            section.report(f"is {meanings[fold(name)]} {how}", *place)
        else:
            meanings[fold(name)] = ".".join(map(str, place))


HeaderToken = Annotated[str, AfterValidator(_header_token)]
HeaderName = Annotated[str, AfterValidator(_header)]
ClaimsHeader = Annotated[str | None, PlainValidator(_claims_header), STRING]
