"""The request for `explain` from the command line."""

import argparse
import sys
from collections.abc import Iterator
from urllib.parse import quote

from sidecar.app.explain.question import Question
from sidecar.app.local_socket import Running
from sidecar.cli.curl import NotUnderstood, Request, of_curl, of_url


def question(options: argparse.Namespace) -> Question:
    """The request of the options. Raises NotUnderstood, and OSError for a token that cannot be read."""
    if options.path is not None and not options.path.startswith("/"):
        raise NotUnderstood(f"--path {options.path}: a path begins with /; write /{options.path}")
    if options.curl is not None:
        request = of_curl(sys.stdin.read() if options.curl == "-" else options.curl)
        token = _token(options.token_file) if options.token_file is not None else None
    else:
        request = Request("GET", options.path, "localhost", ()) if options.url is None else of_url(options.url)
        token = _token(options.token_file)
    return Question(
        options.method or request.method, request.path, token, options.host or request.host, request.headers
    )


def _token(file: str | None) -> bytes | None:
    """The token in the file, or on stdin, without spaces around it; None if empty or if stdin is a terminal. Raises OSError."""
    if file is not None:
        with open(file, "rb") as opened:
            content = opened.read()
    else:
        content = b"" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer.read()
    return content.strip() or None


def refusal(one: Running, request_id: str) -> tuple[Iterator[str], bool]:
    """Return (lines about a kept refusal with its cause and remedy, whether the request was really refused)."""
    kept = one.ask("GET", f"/rejections/{quote(request_id, safe='')}")
    advice = one.ask("GET", "/codes").get(kept["code"], {})
    told = kept | {"cause_in_general": advice.get("cause"), "do": advice.get("operator")}
    lines = (
        f"{name:<17} {', '.join(value) if isinstance(value, list) else value}"
        for name, value in told.items()
        if value not in (None, [], "")
    )
    return lines, kept["mode"] == "enforce"
