"""The sidecar's own pages on the proxy's listener. Each has one exact path and comes before any route."""

import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

from sidecar.common.errors import Reason, Rejection
from sidecar.http.request_head import RequestHead
from sidecar.jwt.claims import Claims
from sidecar.policy.routes import Route

MAX_AGE_S = 60  # how long verifiers may cache the keys, and trust a key after it was withdrawn


class Request(Protocol):
    """The request that a page answers. A page that authenticates the client sets `claims`, for logs and metrics."""

    claims: Claims | None

    @property
    def head(self) -> RequestHead:
        """Its head."""


class Reply(NamedTuple):
    """An answer of the sidecar that is no refusal."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Page(NamedTuple):
    """A page. `answer` returns the reply to a request and its body, or raises Rejection.

    `route` is for logs and metrics, `mark` is the value of X-JWT-Sidecar. A page with a body has a limit in bytes and in seconds.
    """

    route: Route
    answer: Callable[[Request, bytes], Reply]
    mark: str = "issuer"
    body_bytes: int = 0
    body_s: float = 0.0


def cacheable(head: RequestHead, document: Mapping[str, Any]) -> Reply:
    """A document that clients may cache for MAX_AGE_S and then revalidate by its ETag (RFC 9110 section 13.1.2)."""
    if head.method not in ("GET", "HEAD"):
        raise Rejection(Reason.METHOD_NOT_ALLOWED, allow="GET, HEAD")
    content = json.dumps(document).encode()
    etag = f'"{sha256(content).hexdigest()[:32]}"'
    headers = {"Cache-Control": f"public, max-age={MAX_AGE_S}", "ETag": etag}
    known = b",".join(head.values("if-none-match")).decode("latin-1")
    if known == "*" or etag in (one.strip().removeprefix("W/") for one in known.split(",")):
        return Reply(304, headers, b"")
    return Reply(200, headers, content)
