"""HTTP/1.1 over whole byte strings, as RFC 9112 has it and this proxy's stricter rules: it shares no code with the product.

A reader of streams, slow and plain, that `core` compares the product with. It knows no pieces, no memory and no states.
"""

from collections.abc import Sequence
from typing import NamedTuple

HEXADECIMAL = b"0123456789abcdefABCDEF"
LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
TCHAR = LETTERS + b"!#$%&'*+-.^_`|~"
HOST_CHARACTERS = LETTERS + b"-._~"
ADDRESS_CHARACTERS = HEXADECIMAL + b":."
VISIBLE = bytes(range(0x21, 0x7F))
TEXT = b"\t " + VISIBLE + bytes(range(0x80, 0x100))
DIGITS = b"0123456789"

MOST_EMPTY_LINES = 4
MOST_SIZE_LINE = 256
MOST_SIZE_DIGITS = 15
MOST_LENGTH_DIGITS = 18

HOP_BY_HOP = set(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade "
    b"http2-settings proxy".split()
)
WRITTEN_ANEW = {*b"host content-length expect x-request-id forwarded authorization".split(), *HOP_BY_HOP}
OF_FRONT_PROXIES = set(b"x-real-ip x-original-url x-rewrite-url".split())


class Limits(NamedTuple):
    """Of heads, in bytes and headers, and of one line."""

    head_bytes: int
    headers: int
    line_bytes: int


class Message(NamedTuple):
    """`start` is (method, target, minor) of a request, (status, phrase, minor) of an answer."""

    start: tuple[bytes, bytes, int]
    fields: list[tuple[bytes, bytes]]
    body: bytes


class Stream(NamedTuple):
    """The complete messages, the incomplete one, and the reason for refusing the rest."""

    messages: list[Message]
    begun: Message | None
    refused: str


class _Refused(Exception):
    pass


class _Unfinished(Exception):
    """More bytes must arrive; with the received part of a body."""

    def __init__(self, body: bytes = b"") -> None:
        super().__init__()
        self.body = body


def _only(part: bytes, allowed: bytes) -> bool:
    return not part.translate(None, allowed)


def read(raw: bytes, limits: Limits, head_only: Sequence[bool] | None = None) -> Stream:
    """A whole connection: requests, or answers when `head_only` says for each whether it answers HEAD."""
    messages: list[Message] = []
    at = finals = 0
    while True:
        begun = None
        try:
            at, lines = _head(raw, at, limits, MOST_EMPTY_LINES if head_only is None else 0)
            start, fields = _parsed(lines, limits, is_answer=head_only is not None)
            begun = Message(start, fields, b"")
            if head_only is None:
                length = _request_length(start, fields)
            else:
                length = _answer_length(start, fields)
                if int(start[0]) < 200:
                    length = 0
                else:
                    length = 0 if head_only[finals % len(head_only)] else length
                    finals += 1
            at, body = _body(raw, at, length, limits)
        except _Unfinished as unfinished:
            return Stream(messages, begun and begun._replace(body=unfinished.body), "")
        except _Refused as refused:
            return Stream(messages, begun, str(refused))
        messages.append(Message(start, fields, body))


def _head(raw: bytes, at: int, limits: Limits, empty_lines: int) -> tuple[int, list[bytes]]:
    empty = 0
    while raw[at : at + 2] == b"\r\n":
        at += 2
        empty += 1
        if empty > empty_lines:
            raise _Refused("empty lines")
    end = raw.find(b"\r\n\r\n", at)
    head = raw[at : end + 2] if end >= 0 else raw[at:]
    if len(head) + 2 > limits.head_bytes if end >= 0 else len(head) >= limits.head_bytes:
        raise _Refused("bytes of a head")
    lines = head.split(b"\r\n")
    if end < 0 and lines[-1].endswith(b"\r"):
        lines[-1] = lines[-1][:-1]  # its LF may come
    for line in lines:
        if not _only(line, TEXT):
            raise _Refused("character")
    if end < 0:
        raise _Unfinished
    if len(lines) - 2 > limits.headers:
        raise _Refused("headers of a head")
    return end + 4, lines[:-1]


def _parsed(
    lines: list[bytes], limits: Limits, *, is_answer: bool
) -> tuple[tuple[bytes, bytes, int], list[tuple[bytes, bytes]]]:
    if not is_answer and max(map(len, lines)) > limits.line_bytes:
        raise _Refused("bytes of a line")
    start = _status_line(lines[0]) if is_answer else _request_line(lines[0])
    return start, [_field(line) for line in lines[1:]]


def _field(line: bytes) -> tuple[bytes, bytes]:
    colon = line.find(b":")
    if colon < 1 or not _only(line[:colon], TCHAR):
        raise _Refused("field")
    return line[:colon], line[colon + 1 :].strip(b" \t")


def _request_line(line: bytes) -> tuple[bytes, bytes, int]:
    words = line.split(b" ")
    if len(words) != 3 or not all(words):
        raise _Refused("request line")
    method, target, version = words
    if not _only(method, TCHAR) or len(method) > 64 or not _only(target, VISIBLE):
        raise _Refused("method or target")
    if version not in (b"HTTP/1.0", b"HTTP/1.1"):
        raise _Refused("version")
    return method, target, version[-1] - 0x30


def _status_line(line: bytes) -> tuple[bytes, bytes, int]:
    version, status, phrase = line[:9], line[9:12], line[12:]
    if version[:7] != b"HTTP/1." or not _only(version[7:8], DIGITS) or version[8:] != b" ":
        raise _Refused("version")
    if len(status) != 3 or not _only(status, DIGITS) or status < b"100" or phrase[:1] not in (b"", b" "):
        raise _Refused("status")
    return status, phrase[1:], 0 if version[7:8] == b"0" else 1


def values(fields: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """All values of a header."""
    return [value for field, value in fields if field.lower() == name]


def _request_length(start: tuple[bytes, bytes, int], fields: list[tuple[bytes, bytes]]) -> int | str:
    method, target, minor = start
    hosts = values(fields, b"host")
    if len(hosts) > 1 or (minor and not hosts) or (hosts and not _is_host(hosts[0])):
        raise _Refused("host")
    if target == b"*" and method == b"OPTIONS":
        raise _Refused("asterisk")
    if is_absolute(target) and not _is_same_host(target, b"".join(hosts)):
        raise _Refused("authority")
    length = _length(minor, fields)
    return 0 if length == "until the end" else length


def _is_same_host(target: bytes, host: bytes) -> bool:
    """Does a target name this host, where no port, an empty one and that of its scheme are the same?"""
    usual = b"443" if target[:5].lower() == b"https" else b"80"
    one, other = (
        (name, b"" if port == usual else port)
        for name, port in (_split_port(authority(target).lower()), _split_port(host.lower()))
    )
    return one == other


def _split_port(host: bytes) -> tuple[bytes, bytes]:
    name, colon, port = host.rpartition(b":")
    return (name, port) if colon and _only(port, DIGITS) else (host, b"")


def is_absolute(target: bytes) -> bool:
    """Does it name a host?"""
    scheme, colon, rest = target.partition(b"://")
    return bool(colon) and scheme.lower() in (b"http", b"https") and rest[:1] not in (b"", b"/", b"?", b"#")


def authority(target: bytes) -> bytes:
    """The host that an absolute target names."""
    rest = target.partition(b"://")[2]
    return rest[: min([rest.find(sign) for sign in (b"/", b"?", b"#") if sign in rest], default=len(rest))]


def origin_form(target: bytes) -> bytes:
    """The path and query of a target."""
    if not is_absolute(target):
        return target
    rest = target.partition(b"://")[2][len(authority(target)) :]
    return rest if rest[:1] == b"/" else b"/" + rest


def _is_host(host: bytes) -> bool:
    if host[:1] == b"[":
        literal, bracket, port = host[1:].partition(b"]")
        if not bracket or not literal or not _only(literal, ADDRESS_CHARACTERS):
            return False
    else:
        name, colon, digits = host.partition(b":")
        if not name or not _only(name, HOST_CHARACTERS):
            return False
        port = colon + digits
    return not port or (port[:1] == b":" and len(port) <= 6 and _only(port[1:], DIGITS))


def _answer_length(start: tuple[bytes, bytes, int], fields: list[tuple[bytes, bytes]]) -> int | str:
    length = _length(start[2], fields)
    return 0 if start[0] in (b"204", b"304") else length


def _length(minor: int, fields: list[tuple[bytes, bytes]]) -> int | str:
    codings, lengths = values(fields, b"transfer-encoding"), values(fields, b"content-length")
    if codings:
        if lengths or not minor or [coding.lower() for coding in codings] != [b"chunked"]:
            raise _Refused("transfer-encoding")
        return "chunked"
    if not lengths:
        return "until the end"
    number = lengths[0]
    if len(lengths) > 1 or not 1 <= len(number) <= MOST_LENGTH_DIGITS or not _only(number, DIGITS):
        raise _Refused("content-length")
    return int(number)


def _body(raw: bytes, at: int, length: int | str, limits: Limits) -> tuple[int, bytes]:
    if length == "until the end":
        return len(raw), raw[at:]
    if isinstance(length, str):
        return _chunked(raw, at, limits)
    body = raw[at : at + length]
    if len(body) < length:
        raise _Unfinished(body)
    return at + length, body


def _chunked(raw: bytes, at: int, limits: Limits) -> tuple[int, bytes]:
    body = b""
    while True:
        end = raw.find(b"\n", at) + 1
        if (end or len(raw)) - at > MOST_SIZE_LINE or (not end and len(raw) - at == MOST_SIZE_LINE):
            raise _Refused("bytes of a size")
        if not end:
            raise _Unfinished(body)
        size = _size(raw[at:end])
        if size == 0:
            return _trailers(raw, end, limits, body), body
        data, line_end = raw[end : end + size], raw[end + size : end + size + 2]
        body += data
        if line_end not in (b"\r\n", b"\r", b""):
            raise _Refused("end of a chunk")
        if line_end != b"\r\n":
            raise _Unfinished(body)
        at = end + size + 2


def _size(line: bytes) -> int:
    if line[-2:] != b"\r\n":
        raise _Refused("line end")
    digits, semicolon, extension = line[:-2].partition(b";")
    if semicolon:
        digits = digits.rstrip(b" \t")
    if not 1 <= len(digits) <= MOST_SIZE_DIGITS or not _only(digits, HEXADECIMAL) or not _only(extension, TEXT):
        raise _Refused("size")
    return int(digits, 16)


def _trailers(raw: bytes, at: int, limits: Limits, body: bytes) -> int:
    begin = at
    while True:
        end = raw.find(b"\n", at) + 1
        if (end or len(raw)) - begin > limits.head_bytes:
            raise _Refused("bytes of trailers")
        if not end:
            raise _Unfinished(body)
        line = raw[at : end - 2]
        if raw[end - 2 : end] != b"\r\n" or end - 2 < at or not _only(line, TEXT):
            raise _Refused("trailer")
        at = end
        if not line:
            return at
        _field(line)


# Forwarded heads


def _options(fields: list[tuple[bytes, bytes]]) -> set[bytes]:
    return {option.strip(b" \t").lower() for value in values(fields, b"connection") for option in value.split(b",")}


def _folded(name: bytes) -> bytes:
    return bytes(code if code in LETTERS else 0x2D for code in name).lower()


def forwarded(fields: list[tuple[bytes, bytes]]) -> bytes:
    """The lines of a request that go to a backend from every client, by the default rules."""
    named = _options(fields)
    if len(named) == 1 and len(values(fields, b"connection")) == 1:
        named -= {b"close", b"keep-alive", b"upgrade"}
    lines = []
    for name, value in fields:
        lower, folded = name.lower(), _folded(name)
        if lower in WRITTEN_ANEW or lower in named or folded.startswith((b"x-jwt-", b"x-forwarded-")):
            continue
        if lower in OF_FRONT_PROXIES or folded != lower:
            continue
        lines.append(name + b": " + value + b"\r\n")
    return b"".join(lines)


def passed_on(fields: list[tuple[bytes, bytes]]) -> bytes:
    """The lines of an answer that go to the client."""
    named = _options(fields) - {b"close", b"keep-alive", b"upgrade"}
    dropped = HOP_BY_HOP | named | {b"content-length", b"x-request-id", b"x-jwt-sidecar"}
    return b"".join(b"%b: %b\r\n" % (name, value) for name, value in fields if name.lower() not in dropped)
