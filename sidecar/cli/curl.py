"""Parses a curl command into the request that it would send."""

import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from sidecar.common.masking import without_tokens

# Options with a value, by their long names; all other options count as switches.
VALUES = {
    "-X": "request", "-H": "header", "-d": "data", "-b": "cookie", "-A": "user-agent", "-e": "referer", "-u": "user",
    "-o": "output", "-m": "max-time", "-x": "proxy", "-E": "cert", "-F": "form", "-T": "upload-file", "-w": "write-out",
    "-c": "cookie-jar", "-r": "range", "-D": "dump-header", "-K": "config", "-U": "proxy-user", "-z": "time-cond",
}  # fmt: skip
LONG = {
    *VALUES.values(), "data-raw", "data-binary", "data-ascii", "data-urlencode", "json", "url", "cacert", "key", "resolve",
    "connect-to", "connect-timeout", "retry", "interface", "unix-socket", "oauth2-bearer", "capath", "retry-delay",
}  # fmt: skip
BODY = {"data", "data-raw", "data-binary", "data-ascii", "data-urlencode", "json", "form"}
OF_THE_CONNECTION = {"host", "content-length", "transfer-encoding", "connection", "expect", "upgrade"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "'": "'", '"': '"', "\\": "\\"}


class NotUnderstood(Exception):
    """The line is not a curl command that can be explained; the text says why."""


class Request(NamedTuple):
    """The request of a command, without settings of the connection."""

    method: str
    path: str
    host: str
    headers: tuple[tuple[str, str], ...]


def of_url(url: str) -> Request:
    """A GET request for a URL. Raises NotUnderstood."""
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("", "http", "https", "ws", "wss") or not parts.netloc:
        raise NotUnderstood(f"{without_tokens(url)} is not a URL such as http://api.example/orders?page=2")
    path = parts.path or "/"
    host = parts.netloc.rpartition("@")[2]
    return Request("GET", f"{path}?{parts.query}" if parts.query else path, host, ())


def of_curl(line: str) -> Request:
    """The request of a curl command. Raises NotUnderstood."""
    try:
        words = shlex.split(_plain_quotes(line.replace("\\\r\n", " ").replace("\\\n", " ")))
    except ValueError as error:
        raise NotUnderstood(f"the line has an open quote ({error}); put all of it in one pair of quotes") from None
    if words and words[0].rpartition("/")[2] in ("curl", "curl.exe"):
        words = words[1:]
    method, urls, headers, has_body, in_query = "", list[str](), list[tuple[str, str]](), False, False
    data: list[str] = []
    for name, value in _options(words):
        if name in ("", "url"):
            urls.append(value)
        elif name == "request":
            method = value
        elif name == "header":
            header, _, text = value.partition(":")
            headers.append((header.strip(), text.strip()))
        elif name == "oauth2-bearer":
            headers.append(("Authorization", f"Bearer {value}"))
        elif name == "cookie":
            headers.append(("Cookie", value))
        elif name == "head":
            method = method or "HEAD"
        elif name == "get":
            in_query = True
        elif name in BODY:
            has_body = True
            data.append(value)
    if not urls:
        raise NotUnderstood("the line names no URL")
    if len(urls) > 1:
        raise NotUnderstood(
            f"only one of these can be the URL of a curl line: {without_tokens(' '.join(urls))}; take the others out"
        )
    request = of_url(urls[0])
    host = next((text for name, text in headers if name.lower() == "host"), request.host)
    path = request.path
    if in_query and data:
        path += ("&" if "?" in path else "?") + "&".join(data)
    kept = tuple((name, text) for name, text in headers if name and name.lower() not in OF_THE_CONNECTION)
    return Request(method or ("POST" if has_body and not in_query else "GET"), path, host, kept)


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (long name, value) of each option; the URL has an empty name."""
    rest = iter(words)
    for word in rest:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            yield name, value if equals else next(rest, "") if name in LONG else ""
        elif word.startswith("-") and len(word) > 1:
            yield from _short(word, rest)
        else:
            yield "", word


def _short(word: str, rest: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Split -sS, -XPOST, -X POST: several switches may follow one -, and the last may have a value."""
    for at, letter in enumerate(word[1:], 1):
        name = VALUES.get(f"-{letter}")
        if name is not None:
            yield name, word[at + 1 :] or next(rest, "")
            return
        if letter in "IG":
            yield ("head" if letter == "I" else "get"), ""


def _plain_quotes(line: str) -> str:
    """Replace `$'...'`, which browsers write, by quotes that shlex knows."""
    return re.sub(
        r"\$'((?:[^'\\]|\\.)*)'",
        lambda found: shlex.quote(re.sub(r"\\(.)", lambda one: _ESCAPES.get(one[1], one[0]), found[1])),
        line,
        flags=re.DOTALL,
    )
