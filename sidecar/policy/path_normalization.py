"""What a path is: every way in which the programs behind a sidecar read it.

The bytes of a path are sent on as they came, and the rules are asked about each of its readings. `READINGS` lists them, each with
programs that read so; `tests/real/test_paths.py` asks these programs.
"""

import re
from collections.abc import Callable
from urllib.parse import unquote

from sidecar.common.errors import Reason, Rejection

MAX_READ = 2048  # characters of a path that is read in more than one way; each way costs time
MAX_READINGS = 64  # of one path; more than a few come only from layers of escapes, which no honest client makes
MAX_READ_TOGETHER = 8 * MAX_READ  # characters of all of them: long paths have fewer

# RFC 3986's pchar without escapes and `;`: such a path has one reading, unless a segment is empty, `.` or `..`.
_PLAIN = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,=:@/]*")
_FOLDED = re.compile(r"//|/\.\.?(?:/|$)")
_READABLE = re.compile(r"/(?:[A-Za-z0-9\-._~!$&'()*+,=:@/;\[\]{}^\"<>|]++|%[0-9A-Fa-f]{2})*+")
# No part of a path by RFC 3986, and sent as they are by many clients; some programs encode them.
_RAW = re.compile(r'[\[\]{}^"<>|]')
# %00 ends a string to some; other control characters have no business in a path.
_FORBIDDEN_ESCAPE = re.compile(r"%(?:[01][0-9a-f]|7f)", re.IGNORECASE)
_SLASH = re.compile("%(2f|5c)", re.IGNORECASE)
# `..;x` is `..` to a servlet container; RFC 3986 gives `;` no such meaning.
_DOT_PARAMETER = re.compile(r"/\.{1,2};")
_PARAMETER = re.compile(r";[^/]*")
_AUTHORITY = re.compile(r"^//[^/]*")
_LATE_AUTHORITY = re.compile(r"^//+[^/]*")


def is_plain(path: str) -> bool:
    """Has it one reading only? False is no answer."""
    return _PLAIN.fullmatch(path) is not None and _FOLDED.search(path) is None


def readings(path: str) -> set[str]:
    """Every path that a program might take this one for, by any of READINGS in any order.

    Raises Rejection where the path is not to be read at all.
    """
    if not path.startswith("/"):
        raise Rejection(Reason.REQUEST_MALFORMED, "The request target must be a path.")
    if len(path) > MAX_READ:
        raise Rejection(Reason.PATH_AMBIGUOUS)
    if (start := _READABLE.match(path)) is None or start.end() < len(path):
        raise Rejection(Reason.PATH_AMBIGUOUS, _unreadable(path[start.end() if start else 0]))
    found: set[str] = set()
    unread = {path, _RAW.sub(lambda raw: f"%{ord(raw[0]):02X}", path)}
    read = 0
    while unread:
        reading = unread.pop()
        found.add(reading)
        read += len(reading)
        if (
            ("%" in reading and _FORBIDDEN_ESCAPE.search(reading) is not None)
            or (";" in reading and _DOT_PARAMETER.search(reading) is not None)
            or len(found) > MAX_READINGS
            or read > MAX_READ_TOGETHER
        ):
            raise Rejection(Reason.PATH_AMBIGUOUS)
        unread |= {read_by(reading) for sign, read_by in READINGS if sign in reading} - found
    return found


def _unreadable(character: str) -> str:
    if character == "%":
        return "The path has a % that begins no escape: a % itself is %25."
    shown = f"{character!r} as it is" if " " < character < "\x7f" else "a character that is no visible ASCII"
    return f"The path has {shown}, which programs read in different ways: encode it."


def _decoded(path: str) -> str:
    return unquote(path, errors="surrogateescape")


def _decoded_but_slashes(path: str) -> str:
    """To some an encoded slash is a part of a name."""
    return _decoded(_SLASH.sub(r"%25\1", path))


def _backslashes_turned(path: str) -> str:
    return path.replace("\\", "/")


def _cut(path: str) -> str:
    """Without what looks like a query or fragment once it is decoded."""
    return re.split("[?#]", path)[0]


def _without_parameters(path: str) -> str:
    """A servlet container takes `;x` for a parameter of its segment, and drops it before it looks for the resource."""
    return _PARAMETER.sub("", path)


def _without_authority(path: str) -> str:
    """`//x/admin` is `/admin` of the host x to a URL parser (RFC 3986 section 4.2)."""
    return _AUTHORITY.sub("", path) or "/"


def _without_late_authority(path: str) -> str:
    """To a browser's URL parser, which Node has, `///x/admin` is `/admin` of the host x too."""
    return _LATE_AUTHORITY.sub("", path) or "/"


def _merged(path: str) -> str:
    return re.sub("/{2,}", "/", path)


def _resolved(path: str) -> str:
    """RFC 3986 section 5.2.4, remove_dot_segments."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            if kept:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


# Each with what a path must hold for it to do anything, which is quick to see.
READINGS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("%", _decoded),
    ("%2F", _decoded_but_slashes),
    ("%2f", _decoded_but_slashes),
    ("%5C", _decoded_but_slashes),
    ("%5c", _decoded_but_slashes),
    ("\\", _backslashes_turned),
    ("?", _cut),
    ("#", _cut),
    (";", _without_parameters),
    ("//", _without_authority),
    ("//", _without_late_authority),
    ("//", _merged),
    (".", _resolved),
)
