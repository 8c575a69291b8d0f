"""Turns claims into identity headers, in an encoding that is lossless and cannot inject other headers.

A string keeps its printable ASCII. Every other byte of its UTF-8 form, `%`, and a space at either end are percent-encoded.
Booleans are `true` and `false`, integers keep all their digits, a list of scalars is joined by `,` (percent-encoded inside an
item), objects and nested lists are base64url(JSON). A claim that is missing, null or empty adds no header. The claim `scope`
means the scopes in any form that issuers use; the header has words with spaces between them.

ENCODINGS has two more encodings of a scalar or an item of a list: base64url of all of it, or raw UTF-8 in which only control
characters, `%` and spaces at the ends are percent-encoded.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import punctuation
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from sidecar.common.encoding import base64url
from sidecar.common.errors import Reason, Rejection
from sidecar.jwt.claims import Claims, Path, find
from sidecar.policy.granted import scopes_in_one_form

log = logging.getLogger("sidecar.identity")

VERIFIED: Final = b"X-JWT-Status: verified\r\n"
ANONYMOUS: Final = b"X-JWT-Status: anonymous\r\n"

_SCOPE: Final = ("scope",)

_SAFE: Final = " " + punctuation.replace("%", "")  # `quote` always keeps letters and digits
# C0, DEL and C1 (some programs take U+0085 for a line break), and the separators of lines and paragraphs.
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029%]")


class Encoding(NamedTuple):
    """How a text is encoded on its own, and as an item of a list."""

    text: Callable[[str], str]
    item: Callable[[str], str]


@dataclass(frozen=True)
class IdentityHeader:
    """The value of one header: the claim at a path, or a `template` of texts and claim paths.

    `omit`: a header that is too large is left out, and the request is not refused.
    """

    claim: Path = ()
    template: Sequence[str | tuple[str, ...]] = ()
    omit: bool = False


class HeaderLimits(NamedTuple):
    """The most bytes of the value of one identity header, of the claims header, and of all lines together."""

    one: int
    claims: int
    together: int


class IdentityHeaders:
    """Renders the identity headers; made from the configuration once.

    `mapping` is header name -> claim path or IdentityHeader. `claims_header` is the name of the header with all claims (None:
    left out). `encoding` is one of ENCODINGS.
    """

    def __init__(
        self,
        mapping: Mapping[str, Path | IdentityHeader],
        claims_header: str | None,
        encoding: str,
        limits: HeaderLimits,
    ) -> None:
        self._headers = [
            (name, what if isinstance(what, IdentityHeader) else IdentityHeader(what)) for name, what in mapping.items()
        ]
        self._claims_header = None if claims_header is None else f"{claims_header}: ".encode()
        self._encoding = ENCODINGS[encoding]
        self._limits = limits

    def lines(self, claims: Claims) -> bytes:
        """The header lines for verified claims, rendered once for a token.

        Raises Rejection: claims_too_large.
        """
        if claims.headers is None:
            claims.headers = self._render(claims)
        return claims.headers

    def _render(self, claims: Claims) -> bytes:
        lines = [VERIFIED]
        omittable: list[tuple[int, str, bytes]] = []
        for name, header in self._headers:
            text = self._text(header, claims.claims)
            if text is None:
                continue
            value = text.encode()
            if len(value) > self._limits.one:
                if not header.omit:
                    raise too_large(name, len(value))
                _omitted(name, len(value))
                continue
            lines.append(b"%b: %b\r\n" % (name.encode(), value))
            if header.omit:
                omittable.append((len(value), name, lines[-1]))
        if self._claims_header is not None:
            if len(claims.payload_segment) > self._limits.claims:
                raise too_large(self._claims_header[:-2].decode(), len(claims.payload_segment))
            lines.append(self._claims_header + claims.payload_segment + b"\r\n")
        size = sum(map(len, lines))
        for length, name, line in sorted(omittable, reverse=True):
            if size > self._limits.together:
                lines.remove(line)
                size -= len(line)
                _omitted(name, length)
        if size > self._limits.together:
            raise too_large("(all)", size)
        return b"".join(lines)

    def _text(self, header: IdentityHeader, claims: Mapping[str, Any]) -> str | None:
        if not header.template:
            path = header.claim
            if path == _SCOPE:
                return encode(scopes_in_one_form(claims), self._encoding)
            return encode(find(claims, path), self._encoding)
        pieces = [piece if isinstance(piece, str) else _scalar(find(claims, piece)) for piece in header.template]
        known = [piece for piece in pieces if piece]
        return None if len(known) < len(pieces) else self._encoding.text("".join(known))


def too_large(header: str, size: int) -> Rejection:
    """The refusal of claims that are too large. The log names the header and its size in bytes."""
    log.info("event=claims_too_large header=%s bytes=%d", header, size)
    return Rejection(Reason.CLAIMS_TOO_LARGE)


def _omitted(header: str, size: int) -> None:
    log.info("event=header_omitted header=%s bytes=%d", header, size)


def encode(value: Any, encoding: Encoding | None = None) -> str | None:
    """A claim as header text, or None if it adds no header. Reversible for each type of claim. The default is `percent`."""
    if value is None or value == "" or value == []:
        return None
    encoding = encoding or ENCODINGS["percent"]
    if isinstance(value, list):
        items = [text for text in map(_scalar, value) if text is not None]
        return _json(value) if len(items) < len(value) else ",".join(map(encoding.item, items))
    text = _scalar(value)
    return _json(value) if text is None else encoding.text(text)


def _scalar(value: Any) -> str | None:
    """A text, number or boolean as text; None for anything else."""
    if isinstance(value, str):
        return value
    return None if value is None or isinstance(value, dict | list) else json.dumps(value)


def _percent(text: str) -> str:
    if not text.isascii() or not text.isprintable() or "%" in text:  # `quote` changes no other text, and is slow
        text = quote(text, safe=_SAFE)
    return _edges(text)


def _raw(text: str) -> str:
    return _edges(_UNSAFE.sub(lambda character: quote(character[0]), text))


def _in_list(text: str) -> str:
    """Encode the commas of an encoded item."""
    return text.replace(",", "%2C")


def _edges(text: str) -> str:
    """Encode the spaces at the ends of a value, which a recipient would strip (RFC 9110 section 5.5)."""
    if text.startswith(" "):
        text = "%20" + text[1:]
    if text.endswith(" "):
        text = text[:-1] + "%20"
    return text


def _base64url(text: str) -> str:
    return base64url(text.encode())


def _json(value: Any) -> str:
    return _base64url(json.dumps(value, separators=(",", ":")))


ENCODINGS = {
    "percent": Encoding(_percent, lambda text: _in_list(_percent(text))),
    "base64url": Encoding(_base64url, _base64url),
    "raw_utf8": Encoding(_raw, lambda text: _in_list(_raw(text))),
}
