"""Claims -> identity headers: what the backend reads, in an encoding that loses nothing and smuggles nothing.

A string keeps its printable ASCII; every other byte of its UTF-8 form, `%`, and a space at either end are percent-encoded.
Booleans are `true` and `false`, integers keep all their digits, a list of scalars is joined by `,` (percent-encoded inside an
item), objects and nested lists are base64url(JSON). A claim that is missing, null or empty adds no header.
"""

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from sidecar.claims import Claims
from sidecar.rejections import Reason, Rejection

MAX_HEADER_BYTES = 4 * 1024  # one identity header; backends read lines of 8 KB and more
MAX_ALL_BYTES = 16 * 1024  # all of them together

VERIFIED = b"X-JWT-Status: verified\r\n"
ANONYMOUS = b"X-JWT-Status: anonymous\r\n"
REPORT = b"X-JWT-Status: report\r\n"

_SAFE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_SAFE_IN_LIST = _SAFE.replace(",", "")


class IdentityHeaders:
    """The headers that tell the backend who is asking; made from the configuration once.

    `mapping` is header name -> claim path, `claims_header` the name of the one that carries all claims (None: left out).
    """

    def __init__(self, mapping: Mapping[str, Sequence[str]], claims_header: str | None) -> None:
        self._mapping = tuple((f"{name}: ", tuple(path)) for name, path in mapping.items())
        self._claims_header = None if claims_header is None else f"{claims_header}: ".encode()

    def lines(self, claims: Claims) -> bytes:
        """The header lines for verified claims, ready to be sent; rendered once for a token.

        Raises Rejection: claims_too_large when they would not fit.
        """
        if claims.headers is None:
            claims.headers = self._render(claims)
        return claims.headers

    def _render(self, claims: Claims) -> bytes:
        lines = [VERIFIED]
        for prefix, path in self._mapping:
            value = encode(find(claims.claims, path))
            if value is not None:
                if len(value) > MAX_HEADER_BYTES:
                    raise Rejection(Reason.CLAIMS_TOO_LARGE)
                lines.append(f"{prefix}{value}\r\n".encode("ascii"))
        if self._claims_header is not None:
            lines.append(self._claims_header + claims.payload_segment + b"\r\n")
        rendered = b"".join(lines)
        if len(rendered) > MAX_ALL_BYTES:
            raise Rejection(Reason.CLAIMS_TOO_LARGE)
        return rendered


def find(claims: Mapping[str, Any], path: Sequence[str]) -> Any:
    """The claim at `path`, or None. The whole path written as one top-level name wins over nesting."""
    value: Any = claims.get(".".join(path))
    if value is not None:
        return value
    value = claims
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def encode(value: Any) -> str | None:
    """A claim as header text, or None when it adds no header. Reversible for each type of claim."""
    if value is None or value == "" or value == []:
        return None
    if isinstance(value, dict):
        return _json(value)
    if isinstance(value, list):
        if any(isinstance(item, dict | list) or item is None for item in value):
            return _json(value)
        return ",".join(_text(item, _SAFE_IN_LIST) for item in value)
    return _text(value, _SAFE)


def _text(value: Any, safe: str) -> str:
    if isinstance(value, str):
        text = quote(value, safe=safe)
        if text.startswith(" "):
            text = "%20" + text[1:]
        if text.endswith(" "):
            text = text[:-1] + "%20"
        return text
    return json.dumps(value)


def _json(value: Any) -> str:
    return urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).rstrip(b"=").decode()
