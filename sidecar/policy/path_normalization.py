"""Computes the readings of a path: every path that a backend might take it for.

The bytes of a path are forwarded unchanged, and the routes are matched against each reading. `READINGS` lists the ways to read a
path, with the programs that use the rare ones; `tests/real/test_paths.py` runs these programs. Differences that some programs
ignore, such as the case of letters, are no readings: see `Ignored`.
"""

import posixpath
import re
from collections.abc import Callable
from string import punctuation
from urllib.parse import unquote

from sidecar.common.errors import Reason, Rejection

MAX_READ = 2048  # characters of a path that has more than one reading; each reading takes time
MAX_READINGS = 64  # of one path; only escapes of escapes cause more than a few, and honest clients do not send them
MAX_READ_TOGETHER = 8 * MAX_READ  # characters of all readings: long paths may have fewer

# pchar of RFC 3986 without escapes and `;`: such a path has one reading, unless a segment is empty, `.` or `..`.
_PLAIN = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,=:@/]*")
_FOLDED = re.compile(r"//|/\.\.?(?:/|$)")
_READABLE = re.compile(
    r"/(?>(?:[A-Za-z0-9\-._~!$&'()*+,=:@/;\[\]{}^\"<>|]++|%[0-9A-Fa-f]{2})*)"
)  # `(...)*+` ends too late in Python 3.11.2
# Characters that RFC 3986 forbids in a path and many clients send. Some programs encode them: all, all but those of IPv6
# addresses (Node's url.parse), or those that HTML needs (Node's URL).
_RAW = tuple(map(re.compile, (r'[\[\]{}^"<>|]', r'[{}^"<>|]', r'[{}"<>]')))
# %00 ends a string in some programs, and no path needs control characters. Old UTF-8 decoders take overlong forms (%C0%AE,
# %E0%80%AF) for a dot or a slash.
_FORBIDDEN_ESCAPE = re.compile(r"%(?:[01][0-9a-f]|7f|c[01]%[89ab]|e0%[89]|f0%8)", re.IGNORECASE)
_SLASH = re.compile("%(2f|5c)", re.IGNORECASE)
_DOT_SEGMENT = re.compile(r"(?<=/)(?:\.|%2e){1,2}(?=/|$)", re.IGNORECASE)
_DOT_OR_SLASH = re.compile("%(?:2e|2f|5c)", re.IGNORECASE)
# Servlet containers read `..;x` as `..`, and Windows reads `..` with spaces after it so; other programs take both for names.
_NEARLY_DOTS = re.compile(r"/\.{1,2}(?:;| ++(?:/|$))")
_PARAMETER = re.compile(r";[^;/]*(?=/|$)")
_AUTHORITY = re.compile(r"^//[^/]*")
_LATE_AUTHORITY = re.compile(r"^//+[^/]*")

# Differences between paths that programs may ignore.
LETTER_CASE = "letter_case"  # Express, IIS and ASP.NET; file systems of macOS and Windows
FINAL_SLASH = "final_slash"  # Express, Rails, Spring before 6
FINAL_DOT = "final_dot"  # dots and spaces behind a name: file systems of Windows
FORMAT = "format"  # /x.json is /x to Rails, and to Spring before 5.3
IGNORABLE = (LETTER_CASE, FINAL_SLASH, FINAL_DOT, FORMAT)

# Lower case, no dot, no final slash: such a path has one reading, and nothing in it can be ignored.
BARE = re.compile(r"/|(?:/[a-z0-9\-_~!$&'()*+,=:@]+)+")
_FINAL_DOTS = re.compile(r"(?<=[^/. ])[. ]++(?=/|$)")


class Ignored:
    """The differences between paths that the backends may ignore."""

    def __init__(self, *names: str) -> None:
        self.names = frozenset(names)

    def form(self, path: str) -> str:
        """A normal form that is equal for all paths that differ only in ignored parts, except for a format."""
        if LETTER_CASE in self.names:
            path = path.lower() if path.isascii() else path.upper().lower()  # some programs take `ı` for an `i`
        if FINAL_DOT in self.names:
            path = _FINAL_DOTS.sub("", path)
        if FINAL_SLASH in self.names:
            path = path.rstrip("/") or "/"
        return path

    def forms(self, path: str) -> set[str]:
        """The normal forms with and without a format."""
        form = self.form(path)
        above, _, name = form.rpartition("/")
        if FORMAT not in self.names or "." not in name:
            return {form}
        return {form, *(f"{above}/{stem}" for stem in (name.rpartition(".")[0], name.partition(".")[0]) if stem)}


IGNORED = Ignored(*IGNORABLE)


def is_plain(path: str) -> bool:
    """Does the path have one reading only? False means unknown."""
    return _PLAIN.fullmatch(path) is not None and _FOLDED.search(path) is None


def readings(path: str) -> set[str]:
    """Every reading of a path, by any of READINGS in any order.

    Raises Rejection if the path is malformed or has too many readings.
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
        return "The path has a % that begins no escape; write %25 for a %."
    shown = f"{character!r} as it is" if character in punctuation else "a character outside visible ASCII"
    return f"The path has {shown}, which programs read in different ways; percent-encode it."


def _decoded(path: str) -> str:
    return unquote(path, errors="surrogateescape")


def _decoded_but_slashes(path: str) -> str:
    """Some programs keep an encoded slash as a part of a name."""
    return _decoded(_SLASH.sub(r"%25\1", path))


def _dots_decoded(path: str) -> str:
    """The URL parser of browsers and Node takes `/%2e` for a dot segment and keeps other escapes."""
    return _DOT_SEGMENT.sub(lambda dots: unquote(dots[0]), path)


def _dots_and_slashes_decoded(path: str) -> str:
    """Rack::Protection decodes dots, slashes and backslashes."""
    return _DOT_OR_SLASH.sub(lambda escape: unquote(escape[0]), path)


def _backslashes_turned(path: str) -> str:
    return path.replace("\\", "/")


def _cut(path: str) -> str:
    """Without the part that looks like a query or fragment after decoding."""
    return re.split("[?#]", path)[0]


def _without_parameters(path: str) -> str:
    """Servlet containers drop the parameter `;x` of a segment: Jetty the last one, Tomcat and Spring all of them."""
    return _PARAMETER.sub("", path)


def _without_authority(path: str) -> str:
    """URL parsers read `//x/admin` as `/admin` of the host x (RFC 3986 section 4.2)."""
    return _AUTHORITY.sub("", path) or "/"


def _without_late_authority(path: str) -> str:
    """The URL parser of browsers and Node also reads `///x/admin` as `/admin` of the host x."""
    return _LATE_AUTHORITY.sub("", path) or "/"


def _merged(path: str) -> str:
    return re.sub("/{2,}", "/", path)


def _merged_in_front(path: str) -> str:
    """Python's http.server merges only the slashes at the beginning."""
    return "/" + path.lstrip("/")


def _normal(path: str) -> str:
    """posixpath keeps exactly two slashes at the beginning, since POSIX gives them a meaning of their own."""
    return posixpath.normpath(path) if path.startswith("//") and not path.startswith("///") else path


def _resolved(path: str) -> str:
    """Remove dot segments (RFC 3986 section 5.2.4)."""
    return _without_dots(path, above=False)


def _resolved_above(path: str) -> str:
    """Java's URI keeps `..` that lead above the root, as RFC 2396 says."""
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


# Each with characters that a path must hold for it to change anything: a cheap check.
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
