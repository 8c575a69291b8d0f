"""Builds all objects that a request uses, once for a configuration. It opens nothing but files of signing keys.

One assembly belongs to one configuration. Its `handler` refers to all of its objects.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar import config as settings
from sidecar.app.builder.access_rules import iss_names, routes, trusted
from sidecar.app.builder.components import (
    UpstreamTls,
    backend,
    cors,
    form,
    forward_auth,
    header_policy,
    identity,
    pages,
    signature,
    signing_keys,
    token_sources,
    tracing,
    upstream_tls,
)
from sidecar.app.builder.gateway import gateway
from sidecar.app.builder.key_sources import key_source, same_keys, same_place
from sidecar.app.probe import CONNECT_S, Probe
from sidecar.common.clock import Clock
from sidecar.common.deadlines import Deadlines
from sidecar.common.loopback import is_loopback
from sidecar.common.watched_file import WatchedFile
from sidecar.config import Config
from sidecar.jwt.denylist import DenyList
from sidecar.jwt.jwks.cache import JwksSource
from sidecar.jwt.jwks.key_server import Session
from sidecar.jwt.verifier import Verifier
from sidecar.observability.telemetry import Telemetry
from sidecar.proxy.handler import Handler
from sidecar.proxy.resources import Resources
from sidecar.proxy.upstream_pool import UpstreamPool

SourceOf = Callable[[settings.Issuer, Clock, Session, Path | None], JwksSource]


if TYPE_CHECKING:
    from sidecar.observability.tracing import Tracing


class Assembly:
    """The objects of one configuration, by their names in it. Raises Unusable.

    Objects of `previous`, the assembly in use, are reused if their settings have not changed, so that keys need no fetch and
    connections stay open.
    """

    def __init__(
        self,
        config: Config,
        clock: Clock,
        deadlines: Deadlines,
        resources: Resources,
        telemetry: Telemetry,
        previous: "Assembly | None" = None,
        source_of: SourceOf = key_source,
    ) -> None:
        self.config = config
        self._session: Session = Session() if previous is None else previous._session
        sources, upstreams, contexts = ({}, {}, {}) if previous is None else previous._unchanged(config)
        self.sources = {
            name: sources.get(name) or source_of(issuer, clock, self._session, config.jwks_snapshot_dir)
            for name, issuer in config.issuers.items()
        }
        self._contexts = {
            name: contexts[name] if name in contexts else upstream_tls(upstream)
            for name, upstream in config.upstreams.items()
        }

        def pool(name: str) -> UpstreamPool:
            return backend(config, config.upstreams[name], clock, deadlines, resources, self._contexts[name])

        self.upstreams = {name: upstreams.get(name) or pool(name) for name in config.upstreams}
        signs = signature(config, clock)
        self.beside = [
            Probe(pool(name), None, CONNECT_S, None)
            for name, upstream in config.upstreams.items()
            if upstream.scheme == "unix" or is_loopback(upstream.host)
        ]
        self.probes = {
            # A separate pool: a backend without a free connection is busy, not unhealthy.
            name: Probe(pool(probe.upstream or config.default_upstream), probe.path, probe.timeout_s, signs)
            for name, probe in config.health.probes.items()
        }
        denied = None if previous is None else previous.denylist
        self.denylist: DenyList = DenyList(clock, iss_names(config), config.denylist_file, denied)
        issuers = [trusted(issuer, self.sources[name]) for name, issuer in config.issuers.items()]
        self.signing_keys = signing_keys(config)
        tokens = token_sources(config)
        self.tracing: Tracing | None = tracing(config, clock) if previous is None else previous.tracing
        self.gateway = gateway(config, clock, telemetry.minted)
        self.handler = Handler(
            routes(config),
            Verifier(
                issuers,
                clock,
                self.denylist,
                config.token_cache.entries,
                config.token_cache.most_bytes,
                minted=len(self.gateway.mints) + (config.assertion is not None),
            ),
            identity(config, self.signing_keys, clock, telemetry.minted),
            self.upstreams,
            telemetry,
            clock,
            resources,
            tokens=tokens,
            header_policy=header_policy(config, tokens),
            signature=signs,
            form=form(config),
            cors=cors(config),
            in_flight=config.limits.in_flight,
            close_on_expiry=config.close_on_expiry,
            gateway=self.gateway,
            pages=pages(config, self.gateway),
            forward_auth=forward_auth(config),
            tracing=self.tracing,
        )

    def _unchanged(
        self, config: Config
    ) -> tuple[dict[str, JwksSource], dict[str, UpstreamPool], dict[str, UpstreamTls | None]]:
        """The key sources, upstreams and contexts of upstreams that are the same with another configuration."""
        own = self.config
        sources = {
            name: self.sources[name]
            for name, issuer in config.issuers.items()
            if name in self.sources
            and same_keys(issuer, own.issuers[name])
            and config.jwks_snapshot_dir == own.jwks_snapshot_dir
        }
        upstreams = {
            name: self.upstreams[name]
            for name, upstream in config.upstreams.items()
            if (upstream, config.timeouts, config.limits) == (own.upstreams.get(name), own.timeouts, own.limits)
        }
        return sources, upstreams, {name: self._contexts[name] for name in upstreams}

    def take_over(self, old: "Assembly") -> None:
        """Take over state from the previous assembly: missing keys, grace periods, added entries of the deny list, counters."""
        for name, issuer in self.config.issuers.items():
            if name in old.sources and same_place(issuer, old.config.issuers[name]):
                self.sources[name].begin_with(old.sources[name])
        self.denylist.have_added(old.denylist.added())
        self.denylist.tell_waiting()
        own, before = self.handler.authentication.verifier, old.handler.authentication.verifier
        # The old verifier still serves requests that wait for a key, so later revocations must reach it too.
        before.denylist = self.denylist
        own.count_from(before)

    @property
    def kept_fresh(self) -> list[JwksSource | DenyList | WatchedFile[Any]]:
        """The objects with a background task that keeps them fresh."""
        return [*self.sources.values(), self.denylist, *(file for file in self.files if file is not self.denylist.file)]

    @property
    def files(self) -> list[WatchedFile[Any]]:
        """The files that are read again when they change, apart from those of issuers."""
        files = (self.denylist.file, *self._contexts.values(), *self.gateway.files)
        return [file for file in files if file is not None and file.files]

    def awaited_issuers(self, *, late: bool) -> list[str]:
        """The issuers whose first keys readiness waits for. `late`: only the required ones, if any issuer has keys."""
        missing = [name for name, source in self.sources.items() if source.jwks is None]
        without_them = late and len(missing) < len(self.sources)
        waits = (True,) if without_them else (True, None)
        return sorted(name for name in missing if self.config.issuers[name].required in waits)

    def stale(self) -> bool:
        """Has no issuer trusted keys?"""
        return bool(self.sources) and not any(source.usable for source in self.sources.values())

    async def close(self, *, at_once: bool = False) -> None:
        """Close everything that the objects have opened; `at_once`: without waiting for spans to be sent."""
        for upstream in self.upstreams.values():
            upstream.close()
        for source in self.sources.values():
            await source.stop()
        await self._session.close()
        if self.tracing is not None and not at_once:
            tracing, self.tracing = self.tracing, None
            await tracing.close()
