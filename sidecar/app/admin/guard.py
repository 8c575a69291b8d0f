"""Protects the admin listener, which has no password, from pages in browsers.

A page in a browser on the same machine can send requests to it: under its own name that resolves to loopback (DNS rebinding),
or by a form. So the Host must be a name of this machine, an Origin must be the same, and a request that changes something must
be JSON, which a form cannot send.
"""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from sidecar.common.loopback import is_loopback
from sidecar.http.responses import PHRASES

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110 section 9.2.1


class Refused(web.HTTPException):
    """A refused request; the text says why."""

    def __init__(self, status: int, text: str) -> None:
        self.status_code = status
        super().__init__(text=text)


def guarded(host: str) -> Middleware:
    """Middleware that refuses requests of other origins to a listener at `host`, and writes every refusal as JSON."""

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            _check(request, host)
            response = await handler(request)
        except web.HTTPException as error:  # aiohttp's own errors are text
            allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
            phrase = PHRASES.get(error.status) or HTTPStatus(error.status).phrase
            fields = {"error": error.text if isinstance(error, Refused) else phrase}
            response = web.json_response(fields, status=error.status, headers=allow)
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        return response

    return guard


def _check(request: web.Request, bound_to: str) -> None:
    host = request.headers.get("Host", "")
    if not _is_here(host, request, bound_to):
        raise Refused(403, "The Host header must name this listener: localhost, or the address that it listens on.")
    if request.headers.get("Origin", f"http://{host}") != f"http://{host}":
        raise Refused(403, "The Origin header names another site.")
    if request.method not in SAFE_METHODS and request.content_type != "application/json":
        raise Refused(415, "The Content-Type must be application/json.")


def _is_here(host: str, request: web.Request, bound_to: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    here = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return is_loopback(name) or name in (bound_to.lower(), here[0] if here else None)
