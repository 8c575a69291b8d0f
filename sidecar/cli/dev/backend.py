"""The embedded backend: `GET /protected` like the backend of the model scenario, and an echo of everything else.

It is also an example of a backend: it reads one header and no tokens.
"""

import json
from base64 import urlsafe_b64decode
from typing import Any

from aiohttp import web


class Backend:
    """Answers with the received request. `claims_header` is the configured name, None if it is off."""

    def __init__(self, claims_header: str | None = "X-JWT-Claims") -> None:
        self.claims_header = claims_header

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Handle a request. The body is counted and not kept."""
        if request.raw_path.partition("?")[0] == "/protected" and request.method in ("GET", "HEAD"):
            return web.json_response({"message": "Access granted", "user": self._claims(request)})
        body_bytes = 0
        async for chunk in request.content.iter_any():
            body_bytes += len(chunk)
        headers = [[_text(name), _text(value)] for name, value in request.raw_headers]
        return web.json_response(
            {"method": request.method, "path": request.raw_path, "headers": headers, "body_bytes": body_bytes}
        )

    def _claims(self, request: web.BaseRequest) -> Any:
        """The verified claims, or None if the sidecar sends none (a public route, or `claims_header: off`)."""
        value = request.headers.get(self.claims_header) if self.claims_header else None
        return json.loads(urlsafe_b64decode(value + "=" * (-len(value) % 4))) if value else None


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
