"""The health listener: probes and metrics for the cluster, read only."""

import asyncio
import logging

from aiohttp import web

from sidecar.app.state import Live
from sidecar.common.clock import Clock

START_S = 30.0  # how long readiness waits for the first keys of all issuers

log = logging.getLogger("sidecar.health")


class Health:
    """Answers the probes."""

    def __init__(self, live: Live, clock: Clock) -> None:
        self._live = live
        self._clock = clock
        self._waits_until = clock.monotonic() + START_S
        self._has_been_ready = False

    def routes(self) -> list[web.RouteDef]:
        """The listener's routes."""
        return [
            web.get("/livez", self._alive),
            web.get("/startupz", self._alive),
            web.get("/readyz", self._ready),
            web.get("/readyz/upstream", self._ready_with_upstream),
            web.get("/metrics", self._metrics),
            web.get("/probe/{name}", self._probe),
        ]

    async def _alive(self, _request: web.Request) -> web.Response:
        # Liveness ignores issuers and backends: a restart of this container would help neither.
        return web.Response(text="ok\n")

    async def _ready(self, _request: web.Request) -> web.Response:
        if self._live.resources.draining:
            return web.Response(status=503, text="draining\n")
        # Only the start waits for keys: a later outage or a new issuer must not make every replica unready.
        if not self._has_been_ready:
            late = self._clock.monotonic() >= self._waits_until
            if names := self._live.assembly.awaited_issuers(late=late):
                return web.Response(status=503, text=f"waiting for the keys of: {', '.join(names)}\n")
            if late and (names := self._live.assembly.awaited_issuers(late=False)):
                log.warning(
                    "event=ready_without issuers=%s do='Find the cause in last_error of these issuers; their tokens get a 503.'",
                    ",".join(names),
                )
            self._has_been_ready = True
        health = self._live.assembly.config.health
        if health.fail_ready_when_stale and self._live.assembly.stale():
            return web.Response(status=503, text="no issuer has trusted keys\n")
        probes = self._live.assembly.probes
        statuses = await asyncio.gather(*(probes[name].status() for name in health.ready_probes))
        if failed := [name for name, status in zip(health.ready_probes, statuses, strict=True) if status >= 400]:
            return web.Response(status=503, text=f"failing probes: {', '.join(failed)}\n")
        return web.Response(text="ok\n")

    async def _ready_with_upstream(self, request: web.Request) -> web.Response:
        """Ready, and the backends on loopback or a unix socket accept a connection."""
        ready = await self._ready(request)
        if (
            ready.status == 200
            and max(await asyncio.gather(*(one.status() for one in self._live.assembly.beside)), default=0) >= 400
        ):
            return web.Response(status=503, text="the backend accepts no connection\n")
        return ready

    async def _probe(self, request: web.Request) -> web.Response:
        probe = self._live.assembly.probes.get(request.match_info["name"])
        if probe is None:
            return web.Response(status=404, text="no probe of this name\n")
        return web.Response(status=await probe.status())

    async def _metrics(self, request: web.Request) -> web.Response:
        from sidecar.app.usage import (
            shown,
        )  # imported late: prometheus_client takes a twentieth of the start
        from sidecar.observability.prometheus import exposition

        accept = request.headers.get("Accept", "")
        # In a thread: a scrape of many routes would delay requests.
        text, content_type = await asyncio.to_thread(exposition, shown(self._live), self._clock, accept)
        response = web.Response(body=text, headers={"Content-Type": content_type})
        response.enable_compression()
        return response
