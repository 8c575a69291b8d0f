"""config -> objects: everything that a request meets, made once. Nothing is opened here.

One assembly belongs to one configuration. Whoever holds the `proxy` of an assembly holds all of it.
"""

from collections.abc import Callable
from urllib.parse import urlsplit

import aiohttp

from sidecar import config as settings
from sidecar.access_log import AccessLog
from sidecar.claims import ClaimRules
from sidecar.clock import Clock
from sidecar.config import Config
from sidecar.deadlines import Deadlines
from sidecar.fetch import FILE_POLL_S, FileKeySet, RemoteKeySet
from sidecar.headers import HOP_BY_HOP, Roles, fold
from sidecar.identity import IdentityHeaders
from sidecar.jwks import JwksSource
from sidecar.policy import Policy
from sidecar.proxy import Proxy
from sidecar.routes import Auth, Route, Routes
from sidecar.telemetry import Telemetry
from sidecar.upstream import Upstream
from sidecar.verifier import Issuer, Verifier


class Assembly:
    """The objects of one configuration, by the names that it uses."""

    def __init__(self, config: Config, clock: Clock, deadlines: Deadlines, access_log: AccessLog | None) -> None:
        self.config = config
        self._session: aiohttp.ClientSession | None = None
        self.sources = {name: key_source(issuer, clock, self.session) for name, issuer in config.issuers.items()}
        self.upstreams = {
            name: backend(config, upstream, clock, deadlines) for name, upstream in config.upstreams.items()
        }
        self.proxy = Proxy(
            routes(config),
            Verifier([trusted(issuer, self.sources[name]) for name, issuer in config.issuers.items()], clock),
            IdentityHeaders(config.identity_headers, config.claims_header),
            self.upstreams,
            Telemetry(clock, access_log),
            clock,
            roles=Roles(HOP_BY_HOP | {fold(name) for name in (*config.identity_headers, config.claims_header or "")}),
            realm=config.realm,
            in_flight=config.limits.in_flight,
        )

    def session(self) -> aiohttp.ClientSession:
        """The HTTP client for key sets, opened by the first who needs it. It never sends what a client of ours sent."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(), headers={"Accept": "application/json"}
            )
        return self._session

    async def close(self) -> None:
        """End everything that the objects have opened."""
        for upstream in self.upstreams.values():
            upstream.close()
        for source in self.sources.values():
            await source.stop()
        if self._session is not None:
            await self._session.close()


def key_source(issuer: settings.Issuer, clock: Clock, session: Callable[[], aiohttp.ClientSession]) -> JwksSource:
    """Where an issuer's keys come from, and how long they are good."""
    fetch = (
        FileKeySet(issuer.jwks_file)
        if issuer.jwks_file is not None
        else RemoteKeySet(session, issuer.issuer, issuer.jwks_uri, issuer.allow_http)
    )
    return JwksSource(
        issuer.name,
        fetch,
        issuer.algorithms,
        clock,
        refresh_interval_s=FILE_POLL_S if issuer.jwks_file is not None else issuer.refresh_interval_s,
        max_stale_s=issuer.max_stale_s,
    )


def trusted(issuer: settings.Issuer, source: JwksSource) -> Issuer:
    """What an issuer's tokens must be and say."""
    rules = ClaimRules(issuer.audiences, clock_skew_s=issuer.clock_skew_s, require_exp=issuer.require_exp)
    return Issuer(issuer.name, issuer.issuer, issuer.algorithms, rules, source)


def backend(config: Config, upstream: settings.Upstream, clock: Clock, deadlines: Deadlines) -> Upstream:
    """The way to one backend."""
    timeouts = config.timeouts
    unix = upstream.scheme == "unix"
    return Upstream(
        upstream.name,
        upstream.path if unix else (upstream.host, upstream.port),
        clock,
        deadlines,
        authority="localhost" if unix else urlsplit(upstream.url).netloc,
        connections=config.limits.upstream_connections,
        connect_s=timeouts.connect_s,
        answer_s=timeouts.response_headers_s,
        idle_s=timeouts.idle_s,
    )


def routes(config: Config) -> Routes:
    """The rules in their order, and the one for what no rule names: a valid token, the default upstream."""
    listed = [
        Route(
            route.path,
            auth=Auth(route.auth),
            methods=route.methods,
            policy=Policy(route.issuers, route.require.scopes if route.require is not None else ()),
            report=route.mode == "report",
            upstream=route.upstream or config.default_upstream,
            forward_token=config.forward_token if route.forward_token is None else route.forward_token,
        )
        for route in config.routes
    ]
    otherwise = Route("/*", upstream=config.default_upstream, forward_token=config.forward_token, name="(default)")
    return Routes(listed, otherwise)
