"""What a cluster may see: /livez, /readyz, /startupz and /metrics, on a port that a kubelet can reach. It changes nothing."""

from aiohttp import web

from sidecar.assembly import Live
from sidecar.metrics import CONTENT_TYPE, Collector, exposition


class Health:
    """Answers the probes."""

    def __init__(self, live: Live, collector: Collector) -> None:
        self._live = live
        self._collector = collector
        self._has_been_ready = False

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
        if self._live.telemetry.draining:
            return web.Response(status=503, text="draining\n")
        # Only the start waits for keys: neither an outage later nor a new issuer may take every replica out of service.
        if not self._has_been_ready and (names := self._live.assembly.awaited_issuers()):
            return web.Response(status=503, text=f"waiting for the keys of: {', '.join(names)}\n")
        self._has_been_ready = True
        return web.Response(text="ok\n")

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=exposition(self._collector), headers={"Content-Type": CONTENT_TYPE})
