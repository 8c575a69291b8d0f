"""`GET /protected` behind jwt-sidecar. It reads headers and knows no key, no signature and no token: python3 backend.py"""

import json
import os
from base64 import urlsafe_b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote_to_bytes


def text(header: str | None) -> str | None:
    """Percent-encoded UTF-8, None without the claim; http.server hands bytes over as Latin-1."""
    return None if header is None else unquote_to_bytes(header.encode("latin-1")).decode()


def claims(header: str) -> Any:
    return json.loads(urlsafe_b64decode(header + "=" * (-len(header) % 4)))


class Backend(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # send an answer in one piece: a second piece would wait 40 ms for an acknowledgement

    def do_GET(self) -> None:
        # Only a request that came through the sidecar with a valid token has this status.
        if self.headers["X-JWT-Status"] != "verified":
            self.answer(403, {"error": "Not verified"})
        elif self.path != "/protected":
            self.answer(404, {"error": "Not found"})
        else:
            sub, user = text(self.headers["X-JWT-Sub"]), claims(self.headers["X-JWT-Claims"])
            self.answer(200, {"message": "Access granted", "sub": sub, "user": user})

    def answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    # Loopback: only this pod or host can reach it.
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "9292"))), Backend)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
