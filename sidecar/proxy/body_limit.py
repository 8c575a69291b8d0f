"""The body limit of a route (`max_body_bytes`): by the Content-Length before a request goes on, and by what comes of the body."""

from sidecar.common.errors import Reason, Rejection
from sidecar.http.framing import CHUNKED
from sidecar.http.request_head import RequestHead
from sidecar.policy.routes import Route


def check_announced(head: RequestHead, route: Route) -> None:
    """Refuse a body whose Content-Length is too large. Raises Rejection."""
    if route.max_body is not None and head.length != CHUNKED and head.length > route.max_body:
        raise Rejection(Reason.BODY_TOO_LARGE)


def check_received(received_bytes: int, route: Route) -> None:
    """Refuse a body of which more has come than is allowed. Raises Rejection."""
    if route.max_body is not None and received_bytes > route.max_body:
        raise Rejection(Reason.BODY_TOO_LARGE)
