"""The backend behind every proxy: nginx for requests, a thread of this process for bodies of a gigabyte."""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.loopback import Handler, listening
from benchmarks.peers.installed import find
from benchmarks.process import LOAD_CORE, reserved_port, running
from benchmarks.setting import BULK_BYTES, ECHOED, SEEN

BYTES = "/bytes/"
"""Below it, a body of so many bytes, for the powers of two up to a MiB."""

_NGINX = """\
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr;
events { worker_connections 4096; }
http {
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    default_type application/json;
    server {
        listen 127.0.0.1:%(port)d;
        location / { return 200 '{"message":"hello"}'; }
        location %(bytes)s { alias bytes/; }
        location = %(seen)s { return 200 '{%(headers)s}'; }
    }
}
"""


@contextlib.contextmanager
def nginx_origin(directory: Path) -> Iterator[int]:
    """nginx on the load core: a small constant; at SEEN the headers that it got; bodies below BYTES. Its port, or `Missing`."""
    headers = ",".join(f'"{name.lower()}":"$http_{name.lower().replace("-", "_")}"' for name in ECHOED)
    directory.mkdir()
    (directory / "bytes").mkdir()
    for power in range(21):
        (directory / "bytes" / str(1 << power)).write_bytes(b"." * (1 << power))
    with reserved_port() as port:
        (directory / "nginx.conf").write_text(_NGINX % {"port": port, "seen": SEEN, "headers": headers, "bytes": BYTES})
        with running([find("nginx"), "-e", "stderr", "-p", ".", "-c", "nginx.conf"], directory, LOAD_CORE):
            yield port


@contextlib.contextmanager
def bulk_origin() -> Iterator[int]:
    """Sends BULK_BYTES to a GET, reads the body of a POST, answers SEEN like `nginx_origin`. Yields its port."""
    with tempfile.TemporaryFile() as sparse:
        sparse.truncate(BULK_BYTES)

        class Bulk(Handler):
            def do_GET(self) -> None:
                if self.path == SEEN:
                    seen = {name.lower(): self.headers.get(name, "") for name in ECHOED}
                    self.answer(200, json.dumps(seen).encode())
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(BULK_BYTES))
                self.end_headers()
                self.connection.sendfile(sparse)

            def do_POST(self) -> None:
                left = int(self.headers["Content-Length"])
                piece = memoryview(bytearray(1 << 20))
                while left > 0 and (got := self.rfile.readinto(piece[: min(left, len(piece))])):
                    left -= got
                self.answer(200, b"{}")

        with listening(Bulk) as port:
            yield port
