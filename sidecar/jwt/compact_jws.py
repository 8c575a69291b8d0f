"""Parses a compact JWS (RFC 7515 section 7.1) strictly, before a library gets it.

python-jose splits at the first and last dot, drops bytes outside the alphabet and takes the last of two equal members. Two
spellings of one token would then have two cache keys and two meanings. This parser accepts exactly one spelling of a token.
"""

import json
import re
from binascii import a2b_base64
from math import isfinite
from typing import Any, Final

import msgspec

from sidecar.common.errors import Reason, Rejection

MAX_TOKEN_BYTES: Final = 16 * 1024  # Azure's largest tokens are about 10 KB
MAX_HEADER_BYTES: Final = 4 * 1024  # a JOSE header names an algorithm and a key
MAX_REMEMBERED, MAX_REMEMBERED_BYTES = 256, 512  # JOSE headers, and the most bytes of each
MAX_DEPTH: Final = 32  # nesting of a payload; deeper nesting serves only to exhaust a stack

PADDED = "The token's parts are padded with =; a JWT has no padding."

_EQUALS: Final = 0x3D  # `in` finds a number in bytes much faster than it finds other bytes
_BACKSLASH: Final = 0x5C

_COMPACT: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_COMPACT_PADDED: Final = re.compile(rb"[A-Za-z0-9_-]+={0,2}\.[A-Za-z0-9_-]+={0,2}\.[A-Za-z0-9_-]*={0,2}")


class Jws:
    """The parts of one token, none of them verified. `text` is the JSON of the payload; `padded`: a part ended in `=`."""

    __slots__ = ("header", "padded", "payload", "payload_segment", "signature", "signing_input", "text")

    def __init__(
        self,
        header: dict[str, Any],
        payload: dict[str, Any],
        text: bytes,
        payload_segment: bytes,
        signing_input: bytes,
        signature: bytes,
        *,
        padded: bool,
    ) -> None:
        self.header = header
        self.payload = payload
        self.text = text
        self.payload_segment = payload_segment
        self.signing_input = signing_input
        self.signature = signature
        self.padded = padded

    @property
    def values(self) -> int:
        """The payload takes at most the memory of this number of values."""
        text = self.text
        values = _values_in(self.payload)
        if (_BACKSLASH in text and b"\\u" in text) or not text.isascii():
            values += len(text) // 16  # one wide character makes all of a text take four bytes each
        return values


def parse(token: bytes, *, allow_padding: bool = False) -> Jws:
    """Parse a token. Raises Rejection: token_too_large or token_malformed.

    `allow_padding`: its parts may be padded with `=`, each as base64 requires (AWS load balancers write such tokens).
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise Rejection(Reason.TOKEN_TOO_LARGE)
    signing_input, _, signature_segment = token.rpartition(b".")
    header_segment, _, payload_segment = signing_input.partition(b".")
    padded = _EQUALS in token
    if padded:
        _check_form(token, allow_padding)
        header_segment, payload_segment = _unpadded(header_segment), _unpadded(payload_segment)
        signature_segment = _unpadded(signature_segment)
    header = _headers.get(header_segment)
    if header is None:
        _check_form(token, allow_padding)
        header = _read_header(header_segment)
    try:
        text = base64url(payload_segment)
        payload = strict_json_object(text)
    except ValueError:
        raise _malformed(token, allow_padding, "The token's payload is not a base64url JSON object.") from None
    try:
        signature = base64url(signature_segment)
    except ValueError:
        raise _malformed(token, allow_padding, "The token's signature is not base64url.") from None
    return Jws(header, payload, text, payload_segment, signing_input, signature, padded=padded)


def _check_form(token: bytes, allow_padding: bool) -> None:
    """Refuse a token that is not three base64url parts joined by dots. Raises Rejection.

    A remembered header, a payload and a signature that can be decoded are such parts, so `parse` does not ask for each token.
    """
    if _COMPACT.fullmatch(token) is not None:
        return
    padded = _COMPACT_PADDED.fullmatch(token) is not None
    if padded and not allow_padding:
        raise Rejection(Reason.TOKEN_MALFORMED, PADDED)
    if not padded and token.count(b".") == 4:
        raise Rejection(Reason.TOKEN_MALFORMED, "The token is encrypted (JWE); only signed tokens are accepted.")
    if not padded:
        raise Rejection(Reason.TOKEN_MALFORMED, "The token is not three base64url parts joined by dots.")


def _malformed(token: bytes, allow_padding: bool, details: str) -> Rejection:
    """The refusal of a token with an invalid part: by its form, or else with these details."""
    try:
        _check_form(token, allow_padding)
    except Rejection as rejection:
        return rejection
    return Rejection(Reason.TOKEN_MALFORMED, details)


def _unpadded(segment: bytes) -> bytes:
    if len(segment) % 4:
        raise Rejection(Reason.TOKEN_MALFORMED, "The token's parts are padded with =, but the number of = is wrong.")
    return segment.rstrip(b"=")


_headers: Final[dict[bytes, dict[str, Any]]] = {}  # headers that recur: all tokens of one key have the same


def _read_header(segment: bytes) -> dict[str, Any]:
    if len(segment) > MAX_HEADER_BYTES:
        raise Rejection(Reason.TOKEN_TOO_LARGE, "The token's header is larger than 4 KiB.")
    try:
        header = strict_json_object(base64url(segment))
    except ValueError:
        raise Rejection(Reason.TOKEN_MALFORMED, "The token's header is not a base64url JSON object.") from None
    if len(segment) <= MAX_REMEMBERED_BYTES:
        if len(_headers) >= MAX_REMEMBERED:
            _headers.clear()
        _headers[segment] = header
    return header


def base64url(segment: bytes) -> bytes:
    """Decode unpadded base64url (RFC 7515 section 2). Raises ValueError unless the spelling is canonical."""
    left = len(segment) % 4
    if left == 1 or (left and segment[-1] not in _LAST[left]):
        raise ValueError("not canonical base64url")
    return a2b_base64(segment.translate(_TO_BASE64) + b"=" * (-left % 4), strict_mode=True)


# `-_` in place of `+/`; then the last characters that leave no bits over after one or two more bytes.
_TO_BASE64: Final = bytes.maketrans(b"-_+/=", b"+/\0\0\0")
_LAST: Final = {2: b"AQgw", 3: b"AEIMQUYcgkosw048"}


def strict_json_object(text: bytes) -> dict[str, Any]:
    """Decode a JSON object (RFC 8259) with one meaning.

    Raises ValueError for anything else: duplicate names, NaN and infinities, numbers too long to read, lone surrogates, nesting
    beyond MAX_DEPTH, encodings other than UTF-8.
    """
    try:
        quick = _quick_decode(text)
        if type(quick) is dict and _quick_encode(quick) == text and not _deeper_than(quick, MAX_DEPTH):
            return quick  # encoding it again gives the same bytes, so it has one meaning
    except (msgspec.DecodeError, RecursionError):
        pass  # the slow way finds what is wrong, if anything is
    try:
        value = _DECODER.decode(text.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if type(value) is not dict:
        raise ValueError("not an object")
    if _deeper_than(value, MAX_DEPTH):
        raise ValueError("nested too deeply")
    if b"\\u" in text:  # only an escape can bring half of a surrogate pair
        json.dumps(value, ensure_ascii=False).encode()
    return value


# `float`: the decoder's own floats take 8 us each for a large exponent.
_quick_decode: Final = msgspec.json.Decoder(float_hook=float).decode
_quick_encode: Final = msgspec.json.Encoder().encode


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError("not a finite number")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(name)


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant)


def _deeper_than(value: Any, limit: int) -> bool:
    """Is an object or array nested deeper?"""
    return not limit or any(_deeper_than(inner, limit - 1) for inner in _containers_in(value))


def _values_in(value: Any) -> int:
    """The number of values in an object or array; an object counts two more, and an empty one counts as if it held one."""
    own = max(1, len(value)) + (2 if isinstance(value, dict) else 0)
    return own + sum(_values_in(inner) for inner in _containers_in(value))


def _containers_in(value: dict[str, Any] | list[Any]) -> list[Any]:
    members = value.values() if isinstance(value, dict) else value
    return [member for member in members if type(member) is dict or type(member) is list]
