"""`jwt-sidecar dev`: the proxy with an issuer and a backend at the addresses in the configuration."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from aiohttp import web

from sidecar.app.server import CannotStart, Sidecar, build, serve
from sidecar.cli.dev.backend import Backend
from sidecar.cli.dev.issuer import Handler, Issuer, answer_for
from sidecar.common.loopback import from_here, is_loopback
from sidecar.config import Address, Config
from sidecar.gateway.signing_key import ALGORITHMS, SigningKey

HEADER_BYTES = 64 * 1024  # the claims header of a large token exceeds aiohttp's default of 8190
TAKEN = "not embedded: another program listens there"
SHUTDOWN_S = 1.0  # no client waits for these servers after the proxy has drained


@dataclass
class Embedded:
    """The servers that `embed` started, by their names in the configuration."""

    issuers: dict[str, Issuer] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    """Addresses of issuers where another program listens."""
    report: list[tuple[str, str, str]] = field(default_factory=list)
    """Lines of (kind, address, embedded or why not)."""


async def run_dev(config: Config, config_path: str) -> None:
    """Run everything until SIGINT or SIGTERM, then drain. Raises CannotStart if an address is in use."""
    # No load balancer must notice the drain, so Ctrl-C ends when no request is in flight.
    config = config.model_copy(update={"timeouts": config.timeouts.model_copy(update={"drain_delay_s": 0.0})})
    async with embed(config) as embedded:
        await serve(
            lambda: build(config),
            lambda sidecar: print(_overview(config, config_path, embedded, sidecar), flush=True),
        )


@asynccontextmanager
async def embed(config: Config) -> AsyncIterator[Embedded]:
    """Start an issuer for every key set on loopback, and a backend for every http upstream on loopback."""
    embedded = Embedded()
    async with AsyncExitStack() as running:
        await _embed_issuers(config, embedded, running)
        await _embed_backends(config, embedded, running)
        yield embedded


async def _embed_issuers(config: Config, embedded: Embedded, running: AsyncExitStack) -> None:
    outcomes: dict[str, str] = {}
    addresses: dict[tuple[str, int], dict[str, Issuer]] = {}
    keys: dict[str, list[SigningKey]] = {}
    for name, settings in config.issuers.items():
        place = urlsplit(settings.jwks_uri or settings.issuer)
        if not settings.fetched:
            outcomes[name] = "not embedded: its keys are in the configuration"
        elif place.scheme != "http" or not is_loopback(place.hostname or ""):
            outcomes[name] = f"not embedded: {place.netloc}"
        else:
            audience = settings.audiences[0] if settings.audiences else None
            issuer = Issuer(settings.issuer, audience=audience, jwks_uri=settings.jwks_uri)
            # Issuers with the same key set share the keys.
            issuer.keys = keys.setdefault(issuer.jwks_uri, issuer.keys)
            addresses.setdefault((place.hostname or "", place.port or 80), {})[name] = issuer
    for (host, port), issuers in addresses.items():
        if await _listens(host, port):
            outcomes |= dict.fromkeys(issuers, TAKEN)
            embedded.others.append(f"http://{Address(host, port)}")
        else:
            await _serve(answer_for(issuers.values()), host, port, running)
            outcomes |= dict.fromkeys(issuers, "embedded")
            embedded.issuers |= issuers
    embedded.report += [
        ("issuer", settings.issuer, f"{name}, {outcomes[name]}") for name, settings in config.issuers.items()
    ]


async def _embed_backends(config: Config, embedded: Embedded, running: AsyncExitStack) -> None:
    addresses: dict[tuple[str, int], list[str]] = {}
    for name, upstream in config.upstreams.items():
        if upstream.scheme != "http" or not is_loopback(upstream.host):
            embedded.report.append(("backend", upstream.url, f"{name}, not embedded: yours"))
        else:
            addresses.setdefault((upstream.host, upstream.port), []).append(name)
    for (host, port), names in addresses.items():
        if await _listens(host, port):
            outcome = TAKEN
        else:
            await _serve(Backend(config.claims_header).answer, host, port, running)
            outcome = "embedded"
        embedded.report.append(("backend", f"http://{Address(host, port)}", f"{', '.join(names)}, {outcome}"))


async def _serve(handler: Handler, host: str, port: int, running: AsyncExitStack) -> None:
    server = web.Server(handler, access_log=None, max_line_size=HEADER_BYTES, max_field_size=HEADER_BYTES)
    runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    running.push_async_callback(runner.cleanup)
    if host == "localhost":
        host = "127.0.0.1"  # also for ::1, which cannot be bound if IPv6 is off
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise CannotStart(
            f"cannot listen on {host}:{port}, which the configuration names: {os.strerror(error.errno or 0)}"
        ) from error


async def _listens(host: str, port: int) -> bool:
    """Does a program accept connections there? Some systems would let a second program bind the same port."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


def _url(address: Address) -> str:
    """The URL of a listener; loopback for one on all interfaces."""
    return f"http://{address._replace(host=from_here(address.host))}"


def _overview(config: Config, config_path: str, embedded: Embedded, sidecar: Sidecar) -> str:
    """The text for the terminal: addresses, a token, and commands."""
    proxy = _url(sidecar.proxy_address)
    rows = [
        ("proxy", proxy, config_path),
        ("health", _url(sidecar.health_address), ""),
        ("admin", _url(sidecar.admin_address), "a page with keys, traffic, refusals"),
        *embedded.report,
    ]
    width = max(len(address) for _, address, _ in rows)
    lines = ["jwt-sidecar dev (stop it with Ctrl-C)", ""]
    lines += [f"  {kind:<8} {address:<{width}}  {note}".rstrip() for kind, address, note in rows]
    return "\n".join([*lines, "", *_to_paste(config, embedded, proxy)]).rstrip()


def _to_paste(config: Config, embedded: Embedded, proxy: str) -> list[str]:
    refused = ["Refused, no token:", f"curl -i {proxy}/protected", ""]
    open_paths = [
        route.path
        for route in config.routes
        if route.path and route.auth == "none" and "GET" in (route.methods or ("GET",)) and not route.hosts
    ]
    public = ["Public:", f"curl -i {proxy}{open_paths[0].removesuffix('*')}"] if open_paths else []
    for name, issuer in embedded.issuers.items():
        for alg in ALGORITHMS:
            if alg in config.issuers[name].algorithms:
                return [*_with_token(name, issuer, alg, proxy), *refused, *public]
    if config.api_keys is not None:
        return [
            "Make an API key; the sidecar accepts it within 5 s:",
            f"jwt-sidecar keys new {config.api_keys.file} NAME",
            "",
            *refused,
            *public,
        ]
    if embedded.others:
        taken = " and ".join(embedded.others)
        return [
            f"No token: another program listens at {taken}. Stop it, or give the issuer another port.",
            "",
            *refused,
            *public,
        ]
    return [f"No token: no embedded issuer of this file signs with {' or '.join(ALGORITHMS)}.", "", *refused, *public]


def _with_token(name: str, issuer: Issuer, alg: str, proxy: str) -> list[str]:
    token, expired = issuer.mint(alg), issuer.mint(alg, -3600)
    dev_token = urlsplit(issuer.jwks_uri)._replace(path=f"{issuer.path}/dev-token", query="").geturl()
    return [
        f'A token of {name} ({alg}, sub dev-user, scope "read admin", one hour):',
        token,
        "",
        "Another one (alg, ttl in seconds, and claims):",
        f'curl "{dev_token}?alg={alg}&ttl=600&sub=alice&scope=read"',
        "",
        "Accepted, with its claims:",
        f'curl -i -H "Authorization: Bearer {token}" {proxy}/protected',
        "",
        "Refused, the token has expired:",
        f'curl -i -H "Authorization: Bearer {expired}" {proxy}/protected',
        "",
    ]
