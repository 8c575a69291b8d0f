"""What a cluster may see, on a port that a kubelet can reach: probes and metrics. It changes nothing."""

import asyncio

from aiohttp import web

from sidecar.app.state import Live
from sidecar.common.clock import Clock


class Health:
    """Answers the probes."""

    def __init__(self, live: Live, clock: Clock) -> None:
        self._live = live
        self._clock = clock
        self._has_been_ready = False

    def app(self) -> web.Application:
        """The listener's routes."""
        app = web.Application()
        app.router.add_get("/livez", self._alive)
        app.router.add_get("/startupz", self._alive)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/probe/{name}", self._probe)
        return app

    async def _alive(self, _request: web.Request) -> web.Response:
        # Never about the issuer or the backend: a restart of this container would mend neither.
        return web.Response(text="ok\n")

    async def _ready(self, _request: web.Request) -> web.Response:
        if self._live.telemetry.draining:
            return web.Response(status=503, text="draining\n")
        if not self._live.telemetry.workers:
            return web.Response(status=503, text="no worker serves\n")
        # Only the start waits for keys: neither an outage later nor a new issuer may take every replica out of service.
        if not self._has_been_ready and (names := self._live.assembly.awaited_issuers()):
            return web.Response(status=503, text=f"waiting for the keys of: {', '.join(names)}\n")
        self._has_been_ready = True
        health = self._live.assembly.config.health
        if health.fail_ready_when_stale and self._live.assembly.stale():
            return web.Response(status=503, text="no issuer's keys may be believed any more\n")
        probes = self._live.assembly.probes
        statuses = await asyncio.gather(*(probes[name].status() for name in health.ready_probes))
        if failed := [name for name, status in zip(health.ready_probes, statuses, strict=True) if status >= 400]:
            return web.Response(status=503, text=f"failing probes: {', '.join(failed)}\n")
        return web.Response(text="ok\n")

    async def _probe(self, request: web.Request) -> web.Response:
        probe = self._live.assembly.probes.get(request.match_info["name"])
        if probe is None:
            return web.Response(status=404, text="no probe of this name\n")
        return web.Response(status=await probe.status())

    async def _metrics(self, _request: web.Request) -> web.Response:
        from sidecar.observability.prometheus import (  # a twentieth of a start, which no request has to wait for
            CONTENT_TYPE,
            Shown,
            exposition,
        )

        live, assembly = self._live, self._live.assembly
        shown = Shown(
            live.telemetry,
            live.token_cache,
            assembly.sources.values(),
            assembly.denylist,
            assembly.gateway,
            assembly.upstreams,
            assembly.config.digest,
        )
        return web.Response(body=exposition(shown, self._clock), headers={"Content-Type": CONTENT_TYPE})
