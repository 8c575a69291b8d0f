"""The readings of a path by Python's servers and parsers: the answer is a JSON list."""

import json
import os
import posixpath
from collections.abc import Callable
from contextlib import suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit
from wsgiref.simple_server import WSGIRequestHandler

import yarl


class Handler(WSGIRequestHandler, SimpleHTTPRequestHandler):
    """Answers with what each of them makes of the path."""

    protocol_version = "HTTP/1.1"
    raw_requestline: bytes

    def handle(self) -> None:
        """As HTTP's, not as WSGI's."""
        SimpleHTTPRequestHandler.handle(self)

    def do_GET(self) -> None:
        """Each reads the request line for itself, or refuses it."""
        target = self.raw_requestline.split()[1].decode("latin-1")
        parsers: list[Callable[[], str]] = [
            lambda: self.path.partition("?")[0],
            lambda: self.translate_path(self.path).removeprefix(os.getcwd()),
            lambda: self.get_environ()["PATH_INFO"].encode("latin-1").decode("utf-8", "replace"),
            lambda: urlsplit(target).path,
            lambda: unquote(urlsplit(target).path),
            lambda: posixpath.normpath(unquote(target.partition("?")[0])),
            lambda: yarl.URL(target).path,
            lambda: yarl.URL(target, encoded=True).path,
            lambda: yarl.URL.build(path=target.partition("?")[0], encoded=True).path,  # as aiohttp's server
        ]
        found = []
        for parser in parsers:
            with suppress(ValueError):
                found.append(parser() or "/")
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.base_environ = {}  # type: ignore[attr-defined]
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
