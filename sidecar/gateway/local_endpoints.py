"""Pages of our own on the proxy's listener, each at one exact path, looked at before any route."""

import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

from sidecar.common.errors import Reason, Rejection
from sidecar.http.request_head import RequestHead
from sidecar.jwt.claims import Claims
from sidecar.policy.routes import Route

MAX_AGE_S = 60  # for verifiers' copies of the keys: for as long they may believe a key that was withdrawn


class Request(Protocol):
    """The request that a page answers. A page that finds out whose it is says so in `claims`, for logs and metrics."""

    claims: Claims | None

    @property
    def head(self) -> RequestHead:
        """Its head."""


class Reply(NamedTuple):
    """An answer that is no refusal and does not come from a backend."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Page(NamedTuple):
    """`answer` gives the reply to a request with its body, or raises Rejection.

    `route` is for logs and metrics, `mark` for X-JWT-Sidecar. A page that takes a body says of how many bytes, and within how
    many seconds.
    """

    route: Route
    answer: Callable[[Request, bytes], Reply]
    mark: str = "issuer"
    body_bytes: int = 0
    body_s: float = 0.0


def cacheable(head: RequestHead, document: Mapping[str, Any]) -> Reply:
    """A page that may be kept for MAX_AGE_S, and then asked about with its ETag (RFC 9110 section 13.1.2)."""
    if head.method not in ("GET", "HEAD"):
        raise Rejection(Reason.METHOD_NOT_ALLOWED, allow="GET, HEAD")
    content = json.dumps(document).encode()
    etag = f'"{sha256(content).hexdigest()[:32]}"'
    headers = {"Cache-Control": f"public, max-age={MAX_AGE_S}", "ETag": etag}
    known = b",".join(head.values("if-none-match")).decode("latin-1")
    if known == "*" or etag in (one.strip().removeprefix("W/") for one in known.split(",")):
        return Reply(304, headers, b"")
    return Reply(200, headers, content)
