"""The listener for operators, on loopback unless the configuration says otherwise. It has no password.

Any page in a browser on the same machine can send requests here: under the page's own name that it lets point to loopback (DNS
rebinding), or as a form. So the Host must be one that only this machine has, an Origin the same, and what changes something
must be JSON, which a form cannot send.
"""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import urlsplit

from aiohttp import web

from sidecar.assembly import Live
from sidecar.config.addresses import is_loopback
from sidecar.jws import strict_json_object
from sidecar.minting import key_set
from sidecar.unusable import Unusable

MAX_BODY_BYTES = 64 * 1024  # of a request; the largest is an entry of the deny list
KEY_SET_CACHE_CONTROL = (
    "public, max-age=60"  # a restart may bring a new key, and backends should not be long without it
)
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110 section 9.2.1

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Admin:
    """Answers operators. `host` is the one that the listener is bound to."""

    def __init__(self, live: Live, host: str) -> None:
        self._live = live
        self._host = host

    def app(self) -> web.Application:
        """The listener's routes."""
        app = web.Application(middlewares=[self._guarded], client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/denylist", self._deny)
        app.router.add_get("/.well-known/jwks.json", self._jwks)
        return app

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._check(request)
            return await handler(request)
        except web.HTTPException as error:  # aiohttp's own are text
            allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
            fields = {"error": error.text if isinstance(error, _Refused) else HTTPStatus(error.status).phrase}
            return web.json_response(fields, status=error.status, headers=allow)

    def _check(self, request: web.Request) -> None:
        host = request.headers.get("Host", "")
        if not self._is_here(host, request):
            raise _Refused(
                403, "The Host header must name this listener: localhost, or the address that it listens on."
            )
        if request.headers.get("Origin", f"http://{host}") != f"http://{host}":
            raise _Refused(403, "The Origin header names another site.")
        if request.method not in SAFE_METHODS and request.content_type != "application/json":
            raise _Refused(415, "The Content-Type must be application/json.")

    def _is_here(self, host: str, request: web.Request) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        here = request.transport.get_extra_info("sockname") if request.transport is not None else None
        return is_loopback(name) or name in (self._host.lower(), here[0] if here else None)

    async def _jwks(self, _request: web.Request) -> web.Response:
        keys = self._live.assembly.signing_keys
        if not keys:
            raise web.HTTPNotFound
        return web.json_response(key_set(keys), headers={"Cache-Control": KEY_SET_CACHE_CONTROL})

    async def _deny(self, request: web.Request) -> web.Response:
        denylist = self._live.assembly.denylist
        try:
            denylist.add(strict_json_object(await request.read()))
        except ValueError:
            raise _Refused(400, "The body must be a JSON object: an entry of the deny list.") from None
        except Unusable as error:
            raise _Refused(400, f"The entry cannot be used: {error}.") from None
        return web.json_response({"entries": len(denylist)})


class _Refused(web.HTTPException):
    """A request that is not served; the text says why."""

    def __init__(self, status: int, text: str) -> None:
        self.status_code = status
        super().__init__(text=text)
