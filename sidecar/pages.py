"""Pages of our own on the proxy's listener, each at one exact path, looked at before any route."""

import json
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

from sidecar.rejections import Reason, Rejection
from sidecar.request import Request
from sidecar.routes import Route

MAX_AGE_S = 60  # for verifiers' copies of the keys: for as long they may believe a key that was withdrawn


class Reply(NamedTuple):
    """An answer that is no refusal and does not come from a backend."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Page(NamedTuple):
    """`answer` gives the reply or raises Rejection; `route` is for logs and metrics, `mark` for X-JWT-Sidecar."""

    route: Route
    answer: Callable[[Request], Awaitable[Reply]]
    mark: str = "issuer"


def cacheable(request: Request, document: Mapping[str, Any]) -> Reply:
    """A page that may be kept for MAX_AGE_S, and then asked about with its ETag (RFC 9110 section 13.1.2)."""
    if request.method not in ("GET", "HEAD"):
        raise Rejection(Reason.METHOD_NOT_ALLOWED, allow="GET, HEAD")
    content = json.dumps(document).encode()
    etag = f'"{sha256(content).hexdigest()[:32]}"'
    headers = {"Cache-Control": f"public, max-age={MAX_AGE_S}", "ETag": etag}
    known = request.message.headers.get("If-None-Match", "")
    if known == "*" or etag in (one.strip().removeprefix("W/") for one in known.split(",")):
        return Reply(304, headers, b"")
    return Reply(200, headers, content)
