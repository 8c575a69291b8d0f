"""What a cluster may see: /livez, /readyz, /startupz and /metrics, on a port that a kubelet can reach. It changes nothing."""

from collections.abc import Collection

from aiohttp import web

from sidecar.jwks import JwksSource
from sidecar.metrics import CONTENT_TYPE, Collector, exposition
from sidecar.proxy import Proxy


class Health:
    """Answers the probes. `required` are the key sources that readiness waits for."""

    def __init__(self, proxy: Proxy, required: Collection[JwksSource], collector: Collector) -> None:
        self._proxy = proxy
        self._awaited = set(required)
        self._collector = collector

    def app(self) -> web.Application:
        """The listener's routes."""
        app = web.Application()
        app.router.add_get("/livez", self._alive)
        app.router.add_get("/startupz", self._alive)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._metrics)
        return app

    async def _alive(self, _request: web.Request) -> web.Response:
        # Never about the issuer or the backend: a restart of this container would mend neither.
        return web.Response(text="ok\n")

    async def _ready(self, _request: web.Request) -> web.Response:
        # An issuer counts until its first keys have come. Later an outage must not take every replica out of service.
        self._awaited = {source for source in self._awaited if source.jwks is None}
        if self._proxy.draining:
            return web.Response(status=503, text="draining\n")
        if self._awaited:
            names = ", ".join(sorted(source.name for source in self._awaited))
            return web.Response(status=503, text=f"waiting for the keys of: {names}\n")
        return web.Response(text="ok\n")

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=exposition(self._collector), headers={"Content-Type": CONTENT_TYPE})
