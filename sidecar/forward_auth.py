"""Forward authentication: a front proxy asks about each request before it sends it to the backend by itself.

The question is a request to one path of ours. Which request it is about is said by headers that the front proxy sets, or for
Envoy by the rest of the path; the configuration says by which. What another program would be believed, a client could write too:
so nobody is asked but a peer of `trusted_proxies`, and only in the one form that is configured.
"""

import re
from typing import NamedTuple

from sidecar.rejections import Reason, Rejection
from sidecar.request import Request

_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 9.1


class Said(NamedTuple):
    """The headers that name the original request; without one for the host it is that of the question."""

    method: bytes
    target: bytes
    host: bytes | None = None


SAID = {
    "x-forwarded": Said(b"x-forwarded-method", b"x-forwarded-uri", b"x-forwarded-host"),  # Traefik, Caddy
    "x-original": Said(b"x-original-method", b"x-original-uri"),  # nginx, as its configuration has it
    "path": None,  # Envoy: its path_prefix is our path, and the original path follows
}


class ForwardAuth:
    """Knows the questions by their `path`; `original` is a key of SAID."""

    def __init__(self, path: str, original: str) -> None:
        self._path = path
        self._said = SAID[original]

    def asks(self, request: Request) -> bool:
        """Is it a question? Then it has become the request that it asks about: its method, target and host. Raises Rejection."""
        target = request.target
        if not target.startswith(self._path):
            return False
        rest = target[len(self._path) :]
        if rest[:1] not in (("/",) if self._said is None else ("", "?")):
            return False
        if not request.connection.forwarded.trusted:
            raise Rejection(Reason.ROUTE_DENIED, "Only a proxy among trusted_proxies may ask here.")
        if self._said is None:
            request.target = rest
            return True
        method, asked = _only(self._said.method, request), _only(self._said.target, request)
        if _METHOD.fullmatch(method) is None:
            raise Rejection(Reason.REQUEST_MALFORMED, "The front proxy names a method that is none.")
        request.method, request.target = method.decode(), asked.decode("utf-8", "surrogateescape")
        if self._said.host is not None:
            request.name_host(_only(self._said.host, request))
        return True


def _only(name: bytes, request: Request) -> bytes:
    """The value of a header that must be there once: a second one could be the client's."""
    values = [value for other, value in request.message.raw_headers if other.lower() == name]
    if len(values) != 1:
        raise Rejection(Reason.REQUEST_MALFORMED, f"The front proxy must say {name.decode()} exactly once.")
    return values[0]
