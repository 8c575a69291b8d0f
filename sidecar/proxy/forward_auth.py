"""Forward authentication: a front proxy asks about each request, and sends accepted requests to the backend itself.

A question is a request to the path of `forward_auth`. Headers of the front proxy name the original request, or for Envoy the
rest of the path does; the configuration chooses. A client could send such headers too, so only a peer in `trusted_proxies` may
ask, and only the configured form counts.
"""

import re
from typing import NamedTuple

from sidecar.common.errors import Reason, Rejection
from sidecar.http.forwarded import Forwarded
from sidecar.http.header_policy import HOST
from sidecar.http.request_head import RequestHead

_TARGET = re.compile(rb"[!-~]+")
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")  # RFC 9110 section 9.1


class Said(NamedTuple):
    """The headers that name the original request. Without a header for the host, the question's Host counts."""

    method: str
    target: str
    host: str | None = None


SAID = {
    "x-forwarded": Said("x-forwarded-method", "x-forwarded-uri", "x-forwarded-host"),  # Traefik, Caddy
    "x-original": Said("x-original-method", "x-original-uri"),  # nginx, as configured in deploy/forward-auth/nginx.conf
    "path": None,  # Envoy: path_prefix is the question's path, and the original path follows
}


class ForwardAuth:
    """Recognizes questions by their `path`; `original` is a key of SAID."""

    def __init__(self, path: str, original: str) -> None:
        self._path = path
        self._said = SAID[original]

    def asks(self, head: RequestHead, forwarded: Forwarded) -> bool:
        """Is this a question? Raises Rejection if the peer may not ask."""
        target = head.target
        if not target.startswith(self._path):
            return False
        if target[len(self._path) :][:1] not in (("/",) if self._said is None else ("", "?")):
            return False
        if not forwarded.trusted:
            raise Rejection(Reason.ROUTE_DENIED, "Only a proxy in trusted_proxies may ask here.")
        return True

    def asked_about(self, head: RequestHead) -> tuple[str, str, bytes]:
        """The method, target and host of the original request. Raises Rejection."""
        if self._said is None:
            return head.method, head.target[len(self._path) :], head.host
        method, target = _only(self._said.method, head), _only(self._said.target, head)
        if _METHOD.fullmatch(method) is None:
            raise Rejection(Reason.REQUEST_MALFORMED, "The front proxy names an invalid method.")
        host = head.host
        if self._said.host is not None:
            host = _only(self._said.host, head)
            if HOST.fullmatch(host) is None:
                raise Rejection(Reason.REQUEST_MALFORMED, "The request needs exactly one valid Host header.")
        if _TARGET.fullmatch(target) is None:
            raise Rejection(Reason.REQUEST_MALFORMED, "The front proxy names an invalid target.")
        return method.decode(), target.decode(), host


def _only(name: str, head: RequestHead) -> bytes:
    """The value of a header that must come exactly once: a second one could be the client's."""
    values = head.values(name)
    if len(values) != 1:
        raise Rejection(Reason.REQUEST_MALFORMED, f"The front proxy must send {name} exactly once.")
    return values[0]
