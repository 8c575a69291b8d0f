"""The readings of a path by a second implementation: the changes that programs make, one at a time, in any order and number."""

import posixpath
import re
from collections.abc import Callable, Sequence
from urllib.parse import unquote

from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.common.errors import Rejection
from sidecar.policy.path_normalization import (
    readings,
)
from sidecar.policy.routes import Auth, Route, Routes
from tests.policy.example_routes import ADMIN, CLOSED, OTHERWISE, PUBLIC, READ, ROBOTS, match


def dots_resolved(path: str, *, above: bool = False) -> str:
    kept: list[str] = []
    for segment in path.split("/")[1:]:
        if segment == "..":
            kept = [*kept, ".."] if above and set(kept) <= {".."} else kept[:-1]
        elif segment != ".":
            kept.append(segment)
    return "/" + "/".join(kept) + ("/" if path.endswith(("/.", "/..")) and kept else "")


PROGRAMS: Sequence[Callable[[str], str]] = (
    unquote,
    dots_resolved,
    lambda path: re.sub("/+", "/", path),
    lambda path: path.replace("\\", "/"),
    lambda path: unquote(re.sub("(?i)%(2f|5c)", r"%25\1", path)),
    lambda path: re.sub(r'[\[\]{}^"<>|]', lambda raw: f"%{ord(raw[0]):02X}", path),
    lambda path: path.split("?")[0],
    lambda path: path.split("#")[0],
    lambda path: path.split("\0")[0],
    lambda path: re.sub(";[^/]*", "", path),
    lambda path: re.sub(r"(?i)%(?:2e|2f|5c)", lambda escape: unquote(escape[0]), path),
    lambda path: re.sub("/(?:%2[Ee]|[.]){1,2}(?![^/])", lambda dots: unquote(dots[0]), path),
    lambda path: re.sub(";[^;/]*(?![^/])", "", path),
    lambda path: "/" + path.lstrip("/"),
    lambda path: posixpath.normpath(path) if re.match("//[^/]", path + "x") else path,
    lambda path: "/" + path[2:].partition("/")[2] if path.startswith("//") else path,
    lambda path: "/" + path.lstrip("/").partition("/")[2] if path.startswith("//") else path,
)


def every_reading(path: str) -> set[str]:
    found, waiting = set[str](), [path]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += [program(one) for program in PROGRAMS]
    return found


PIECES = (
    *(
        "/",
        "//",
        "public",
        "closed",
        "admin",
        "robots.txt",
        "a",
        ".",
        "..",
        "...",
        "%2e",
        "%2E%2e",
        "%252e",
        "%2f",
        "%5c",
    ),
    *(
        "\\",
        ";",
        "..;",
        ";a=1",
        "%3b",
        "%253b",
        "%3f",
        "%23",
        "#",
        "%",
        "%00",
        "%61dmin",
        "%25",
        "%2561",
        "%C3%A9",
        "x",
    ),
)


PATHS = st.lists(st.sampled_from(PIECES), max_size=8).map(lambda pieces: "/" + "".join(pieces))


def readings_by_every_program(path: str) -> set[str] | None:
    """The readings of a path when each program reads every reading again; None for an unreadable path."""
    readable = r"/(?:[A-Za-z0-9\-._~!$&'()*+,=:@/;\[\]{}^\"<>|]|%[0-9A-Fa-f]{2})*"
    if len(path) > 2048 or re.fullmatch(readable, path) is None:
        return None
    programs: list[Callable[[str], str]] = [
        lambda path: unquote(path, errors="surrogateescape"),
        lambda path: unquote(re.sub("(?i)%(2f|5c)", r"%25\1", path), errors="surrogateescape"),
        lambda path: path.replace("\\", "/"),
        lambda path: re.split("[?#]", path)[0],
        lambda path: re.sub(r"(?i)%(?:2e|2f|5c)", lambda escape: unquote(escape[0]), path),
        lambda path: re.sub("/(?:%2[Ee]|[.]){1,2}(?![^/])", lambda dots: unquote(dots[0]), path),
        lambda path: re.sub(";[^;/]*(?![^/])", "", path),
        lambda path: "/" + path.lstrip("/"),
        lambda path: posixpath.normpath(path) if re.match("//[^/]", path + "x") else path,
        lambda path: dots_resolved(path, above=True),
        lambda path: re.sub("^//[^/]*", "", path) or "/",
        lambda path: re.sub("^//+[^/]*", "", path) or "/",
        lambda path: re.sub("/{2,}", "/", path),
        lambda path: dots_resolved(path),
    ]
    raw = [
        "".join(f"%{ord(one):02X}" if one in encoded else one for one in path)
        for encoded in ('[]{}^"<>|', '{}^"<>|', '{}"<>')
    ]
    found, unread, read = set[str](), {path, *raw}, 0
    while unread:
        reading = unread.pop()
        found.add(reading)
        read += len(reading)
        if (
            re.search(r"(?i)%(?:[01][0-9a-f]|7f|c[01]%[89ab]|e0%[89]|f0%8)|/\.{1,2}(;| +(/|$))", reading)
            or len(found) > 64
            or read > 8 * 2048
        ):
            return None
        unread |= {program(reading) for program in programs} - found
    return found


@given(st.one_of(PATHS, st.tuples(PATHS, st.integers(1, 400)).map(lambda made: made[0] * made[1])))
@example("/" * 2000)
@example("/;" * 1000)
@example("//a" * 600)
@example("/.a;/.b//..")
@example("///public/")
def test_the_readings_equal_those_of_all_programs_in_any_order(path: str) -> None:
    try:
        found = readings(path)
    except Rejection:
        found = None
    assert found == readings_by_every_program(path)


def match_plain(path: str) -> Route:
    """The first rule that covers the path without normalization."""
    return next((route for route in (CLOSED, PUBLIC, ROBOTS, ADMIN, READ) if route.covers(path)), OTHERWISE)


@given(PATHS)
@example("/a;x/..%3f/admin")
@example("/admin%3bx%3f/../../public")
@example("/public;/a%3b/..%253b/../admin")
@example("/a/..//x/admin")
@example("/;///x/admin")
def test_no_reading_of_an_accepted_path_meets_another_rule(path: str) -> None:
    try:
        served = match(path)
    except Rejection:
        return
    for reading in every_reading(path):
        assert match_plain(reading) is served, reading


@given(PATHS, st.sampled_from(["/public", "/a", "/public/closed", "/admin"]))
@example("/public/../../public/closed", "/public")
@example("/public/x/../../../public", "/public")
def test_no_reading_of_a_path_after_its_stripped_prefix_meets_another_rule(path: str, prefix: str) -> None:
    """Each reading of the backend's path is also accepted as a plain request."""
    stripped = Route("/public/*", auth=Auth.NONE, strip_prefix=prefix) if prefix.startswith("/public") else Route(
        f"{prefix}/*", strip_prefix=prefix
    )  # fmt: skip
    rules = [CLOSED, stripped, ROBOTS, ADMIN]
    routes = Routes(rules, OTHERWISE)
    try:
        served = routes.match("GET", path)
        sent = served.sent(path)
    except Rejection:
        return
    for reading in every_reading(sent):
        plain = served.strip_prefix + reading
        assert next((route for route in rules if route.covers(plain)), OTHERWISE) is served, reading
