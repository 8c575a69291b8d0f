"""What a path is: every way in which the programs behind a sidecar read it.

The bytes of a path are sent on as they came, and the rules are asked about each of its readings. `READINGS` lists them, with
programs that read so where not most of them do; `tests/real/test_paths.py` asks these programs. What some programs do not look
at, such as the case of letters, is no reading of its own: see `Ignored`.
"""

import posixpath
import re
from collections.abc import Callable
from string import punctuation
from urllib.parse import unquote

from sidecar.common.errors import Reason, Rejection

MAX_READ = 2048  # characters of a path that is read in more than one way; each way costs time
MAX_READINGS = 64  # of one path; more than a few come only from layers of escapes, which no honest client makes
MAX_READ_TOGETHER = 8 * MAX_READ  # characters of all of them: long paths have fewer

# RFC 3986's pchar without escapes and `;`: such a path has one reading, unless a segment is empty, `.` or `..`.
_PLAIN = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,=:@/]*")
_FOLDED = re.compile(r"//|/\.\.?(?:/|$)")
_READABLE = re.compile(r"/(?:[A-Za-z0-9\-._~!$&'()*+,=:@/;\[\]{}^\"<>|]++|%[0-9A-Fa-f]{2})*+")
# No part of a path by RFC 3986, and sent as they are by many clients. Some programs encode them: all, or all but what IPv6
# addresses need (Node's url.parse), or those that HTML needs (Node's URL).
_RAW = tuple(map(re.compile, (r'[\[\]{}^"<>|]', r'[{}^"<>|]', r'[{}"<>]')))
# %00 ends a string to some; other control characters have no business in a path. Old decoders of UTF-8 take what is too long
# (%C0%AE, %E0%80%AF) for a dot or a slash.
_FORBIDDEN_ESCAPE = re.compile(r"%(?:[01][0-9a-f]|7f|c[01]%[89ab]|e0%[89]|f0%8)", re.IGNORECASE)
_SLASH = re.compile("%(2f|5c)", re.IGNORECASE)
_DOT_SEGMENT = re.compile(r"(?<=/)(?:\.|%2e){1,2}(?=/|$)", re.IGNORECASE)
_DOT_OR_SLASH = re.compile("%(?:2e|2f|5c)", re.IGNORECASE)
# `..;x` is `..` to a servlet container, and `..` with spaces behind it to Windows; to all others they are names.
_NEARLY_DOTS = re.compile(r"/\.{1,2}(?:;| ++(?:/|$))")
_PARAMETER = re.compile(r";[^;/]*(?=/|$)")
_AUTHORITY = re.compile(r"^//[^/]*")
_LATE_AUTHORITY = re.compile(r"^//+[^/]*")

# What programs may not look at in a path.
LETTER_CASE = "letter_case"  # Express, IIS and ASP.NET; file systems of macOS and Windows
FINAL_SLASH = "final_slash"  # Express, Rails, Spring before 6
FINAL_DOT = "final_dot"  # dots and spaces behind a name: file systems of Windows
FORMAT = "format"  # /x.json is /x to Rails, and to Spring before 5.3
IGNORABLE = (LETTER_CASE, FINAL_SLASH, FINAL_DOT, FORMAT)

# In small letters, with no dot and no final slash: such a path has one reading, of which nothing can be ignored.
BARE = re.compile(r"/|(?:/[a-z0-9\-_~!$&'()*+,=:@]+)+")
_FINAL_DOTS = re.compile(r"(?<=[^/. ])[. ]++(?=/|$)")


class Ignored:
    """What the programs behind a sidecar may not look at in a path."""

    def __init__(self, *names: str) -> None:
        self.names = frozenset(names)

    def form(self, path: str) -> str:
        """The path without it, but for a format: of all paths that are alike the same."""
        if LETTER_CASE in self.names:
            path = path.lower() if path.isascii() else path.upper().lower()  # to some, `ı` is an `i`
        if FINAL_DOT in self.names:
            path = _FINAL_DOTS.sub("", path)
        if FINAL_SLASH in self.names:
            path = path.rstrip("/") or "/"
        return path

    def forms(self, path: str) -> set[str]:
        """The same with and without its format."""
        form = self.form(path)
        above, _, name = form.rpartition("/")
        if FORMAT not in self.names or "." not in name:
            return {form}
        return {form, *(f"{above}/{stem}" for stem in (name.rpartition(".")[0], name.partition(".")[0]) if stem)}


IGNORED = Ignored(*IGNORABLE)


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
    readable = _READABLE.match(path)
    assert readable is not None
    if readable.end() < len(path):
        raise Rejection(Reason.PATH_AMBIGUOUS, _unreadable(path[readable.end()]))
    found: set[str] = set()
    unread = {path, *(raw.sub(lambda found: f"%{ord(found[0]):02X}", path) for raw in _RAW)}
    while unread:
        reading = unread.pop()
        found.add(reading)
        if (
            ("%" in reading and _FORBIDDEN_ESCAPE.search(reading) is not None)
            or _NEARLY_DOTS.search(reading) is not None
            or len(found) > MAX_READINGS
            or sum(map(len, found)) > MAX_READ_TOGETHER
        ):
            raise Rejection(Reason.PATH_AMBIGUOUS)
        unread |= {read_by(reading) for sign, read_by in READINGS if sign in reading} - found
    return found


def _unreadable(character: str) -> str:
    if character == "%":
        return "The path has a % that begins no escape: a % itself is %25."
    shown = f"{character!r} as it is" if character in punctuation else "a character that is no visible ASCII"
    return f"The path has {shown}, which programs read in different ways: encode it."


def _decoded(path: str) -> str:
    return unquote(path, errors="surrogateescape")


def _decoded_but_slashes(path: str) -> str:
    """To some an encoded slash is a part of a name."""
    return _decoded(_SLASH.sub(r"%25\1", path))


def _dots_decoded(path: str) -> str:
    """A browser's URL parser, which Node has, takes `/%2e` for a dot segment and leaves other escapes as they are."""
    return _DOT_SEGMENT.sub(lambda dots: unquote(dots[0]), path)


def _dots_and_slashes_decoded(path: str) -> str:
    """So does Rack::Protection, and with slashes and backslashes, too."""
    return _DOT_OR_SLASH.sub(lambda escape: unquote(escape[0]), path)


def _backslashes_turned(path: str) -> str:
    return path.replace("\\", "/")


def _cut(path: str) -> str:
    """Without what looks like a query or fragment once it is decoded."""
    return re.split("[?#]", path)[0]


def _without_parameters(path: str) -> str:
    """A servlet container takes `;x` for a parameter of its segment, and drops it: Jetty the last one, Tomcat and Spring all."""
    return _PARAMETER.sub("", path)


def _without_authority(path: str) -> str:
    """`//x/admin` is `/admin` of the host x to a URL parser (RFC 3986 section 4.2)."""
    return _AUTHORITY.sub("", path) or "/"


def _without_late_authority(path: str) -> str:
    """To a browser's URL parser, which Node has, `///x/admin` is `/admin` of the host x too."""
    return _LATE_AUTHORITY.sub("", path) or "/"


def _merged(path: str) -> str:
    return re.sub("/{2,}", "/", path)


def _merged_in_front(path: str) -> str:
    """Python's http.server leaves the slashes inside."""
    return "/" + path.lstrip("/")


def _normal(path: str) -> str:
    """POSIX gives just two slashes in front a meaning of their own, and so does Python's posixpath."""
    return posixpath.normpath(path) if path.startswith("//") else path


def _resolved(path: str) -> str:
    """RFC 3986 section 5.2.4, remove_dot_segments."""
    return _without_dots(path, above=False)


def _resolved_above(path: str) -> str:
    """RFC 2396 left `..` that lead above the root; so does Java's URI."""
    return _without_dots(path, above=True)


def _without_dots(path: str, *, above: bool) -> str:
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            if kept and kept[-1] != "..":
                kept.pop()
            elif above:
                kept.append(segment)
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
    ("%2", _dots_decoded),
    ("%", _dots_and_slashes_decoded),
    ("\\", _backslashes_turned),
    ("?", _cut),
    ("#", _cut),
    (";", _without_parameters),
    ("//", _without_authority),
    ("//", _without_late_authority),
    ("//", _merged),
    ("//", _merged_in_front),
    ("//", _normal),
    (".", _resolved),
    ("..", _resolved_above),
)
