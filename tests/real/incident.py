"""A quarter of an hour of a sidecar, played in a second: valid traffic and an incident, for the page and its pictures."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

from sidecar.app.history import STEP_S
from tests.peers.backend import RawBackend
from tests.peers.issuer import ScriptedIssuer
from tests.peers.tokens import AUDIENCE
from tests.peers.wire import request
from tests.proxy.conftest import Stack, running

ROUTES: list[dict[str, Any]] = [
    {"path": "/healthz", "auth": "none"},
    {"path": "/admin/*", "require": {"scopes": ["admin"]}},
    {"path": "/orders/*", "mode": "report", "require": {"scopes": ["orders:write"]}},
    {"path": "/billing/*", "upstream": "billing"},
]


class Scene:
    """A sidecar with two issuers and two backends, and its traffic. `partner` is the issuer that may go down."""

    def __init__(self, stack: Stack, zuplo: ScriptedIssuer, partner: ScriptedIssuer, file: Path) -> None:
        self.stack = stack
        self.partner = partner
        self._file = file
        self._zuplo = zuplo
        zuplo.now = partner.now = stack.clock.wall
        self._good = cycle(
            [
                self._ask("GET", f"/{path}", issuer)
                for issuer in (zuplo, zuplo, zuplo, partner)
                for path in ("reports", "reports/2026-11", "orders/1042?x=1", "billing/7")
            ]
        )
        now = stack.clock.wall()
        self._noise = cycle(
            [
                self._ask("GET", "/reports/2026-11", zuplo, exp=now - 900, iat=now - 4500),
                self._ask("DELETE", "/admin/users/7", zuplo, scope="read"),
                request("GET", "/reports", host="orders.example"),
            ]
        )

    def _ask(self, method: str, path: str, issuer: ScriptedIssuer, **claims: Any) -> bytes:
        claims.setdefault("scope", "orders:write")
        claims.setdefault("exp", self.stack.clock.wall() + 7200)
        return request(method, path, host="orders.example", token=issuer.token("EdDSA", **claims))

    async def go_on(self, steps: int = 1) -> None:
        """Steps of ten seconds of traffic, with a few refused requests in each."""
        history, clock = self.stack.sidecar.live.history, self.stack.clock
        for number in range(steps):
            async with self.stack.client() as client:
                for _ in range(16 + number % 5):
                    await client.request(next(self._good))
                if number % 9 == 0:
                    await client.request(next(self._noise))
            clock.ahead_s += STEP_S
            history.step(self.stack.sidecar.assembly)

    async def deploy(self, audience: str) -> None:
        """Change the audience of the first issuer's tokens."""
        config = json.loads(self._file.read_text())
        config["issuers"]["zuplo"]["audiences"] = [audience]
        self._file.write_text(json.dumps(config, indent=2))
        assert self.stack.sidecar.reload is not None
        await self.stack.sidecar.reload.reload()

    async def partner_goes_down(self) -> None:
        """The partner issuer no longer serves keys."""
        await self.partner.go_down()
        await self.stack.sidecar.assembly.sources["partner"].fetch_now()

    async def backend_goes_down(self) -> None:
        """The backend of most routes no longer listens."""
        await self.stack.backend.go_down()


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    """Ten minutes of good traffic."""
    file = folder / "config.yaml"
    async with (
        ScriptedIssuer(algs=["EdDSA", "RS256"]) as zuplo,
        ScriptedIssuer(algs=["EdDSA"]) as partner,
        RawBackend() as billing,
    ):
        issuers = {
            "zuplo": {"issuer": zuplo.issuer, "audiences": [AUDIENCE]},
            "partner": {"issuer": partner.issuer, "audiences": [AUDIENCE]},
        }
        upstreams = {"billing": {"url": billing.url}}
        async with running(issuers=issuers, routes=ROUTES, upstreams=upstreams, file=file) as stack:
            told = Scene(stack, zuplo, partner, file)
            await stack.fetch(request("GET", "/reports", token=zuplo.token("EdDSA")))  # its keys are here
            await told.go_on(60)
            yield told
