"""Builds single objects from parts of the configuration. The functions open nothing but files."""

import ssl
from collections.abc import Sequence
from functools import partial
from pathlib import Path as File
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sidecar import config as settings
from sidecar.common.clock import Clock
from sidecar.common.deadlines import Deadlines
from sidecar.common.errors import Unusable
from sidecar.common.file_content import content
from sidecar.common.folding import fold
from sidecar.common.tls import client_context, renewed_context
from sidecar.common.watched_file import WatchedFile, unread
from sidecar.config import Config
from sidecar.config.secret import shared_secret
from sidecar.gateway.assertion import AssertedIdentity
from sidecar.gateway.gateway import Gateway
from sidecar.gateway.key_ring import KeyRing, TimedKey
from sidecar.gateway.local_endpoints import Page
from sidecar.gateway.resource_metadata import ResourceMetadata, metadata_url
from sidecar.gateway.signing_key import SigningKey, own_key
from sidecar.gateway.token_minter import Mint
from sidecar.http.cors import Cors
from sidecar.http.header_policy import HOP_BY_HOP, METHOD_OVERRIDE, RequestHeaderPolicy
from sidecar.http.responses import Form
from sidecar.jwt.token_extractor import TokenSources
from sidecar.jwt.token_places import Place, TokenCookie, TokenHeader, TokenParameter, TokenSubprotocol
from sidecar.policy.identity_headers import HeaderLimits, IdentityHeader, IdentityHeaders
from sidecar.policy.request_signature import Signature
from sidecar.proxy.client_limits import ClientLimits
from sidecar.proxy.forward_auth import ForwardAuth
from sidecar.proxy.resources import Resources
from sidecar.proxy.upstream_pool import UpstreamPool

if TYPE_CHECKING:
    from sidecar.observability.tracing import Tracing

UpstreamTls = WatchedFile[ssl.SSLContext]


def files_read(config: Config) -> list[File]:
    """The files that an assembly of this configuration reads once. A change of one needs a new assembly.

    Files of keys, certificates, bearer tokens and the deny list are not among them: their users check them for changes.
    """
    files = [
        config.assertion.key_file if config.assertion else None,
        config.signature.secret_file if config.signature else None,
    ]
    return [file for file in files if file is not None]


def token_sources(config: Config) -> TokenSources:
    """The places of tokens in requests."""
    return TokenSources(list(map(_place, config.token_sources)), first=config.several_tokens == "first")


def _place(source: settings.TokenSource) -> Place:
    if source.cookie is not None:
        return TokenCookie(source.cookie, in_pieces=source.pieces, json_member=source.json_member)
    if source.query is not None:
        return TokenParameter(source.query)
    if source.subprotocol is not None:
        return TokenSubprotocol(source.subprotocol)
    return TokenHeader(source.header or "", source.scheme)


def header_policy(config: Config, tokens: TokenSources) -> RequestHeaderPolicy:
    """The policy for clients' headers: those that could pass for the sidecar's own headers are dropped."""
    own = [*config.identity_headers, config.claims_header or ""]
    own += [ours.header for ours in (config.assertion, config.signature) if ours is not None]
    read = tokens.roles
    if config.api_keys is not None:
        read |= {config.api_keys.header.lower()}
    if config.signing is not None:
        read |= {"authorization"}  # the minted token goes there, and no other one
    dropped = HOP_BY_HOP | set(map(fold, own))
    if config.method_override == "drop" and any(route.methods for route in config.routes):
        dropped |= METHOD_OVERRIDE
    return RequestHeaderPolicy(
        dropped,
        read=read,
        underscores=config.underscore_headers,
        traced=config.tracing is not None,  # then the sidecar writes its own
    )


def signing_keys(config: Config) -> list[SigningKey]:
    """The keys of the assertion; none without it. Raises Unusable."""
    if config.assertion is None:
        return []
    alg, file = config.assertion.alg, config.assertion.key_file
    return [own_key(alg) if file is None else SigningKey.load(file, alg)]


def identity(config: Config, keys: Sequence[SigningKey], clock: Clock, counts: dict[str, int]) -> IdentityHeaders:
    """The identity headers; `keys` are the assertion's, `counts` counts its tokens."""
    headers = {
        name: content
        if isinstance(content, tuple)
        else IdentityHeader(content.claim or (), content.value or (), omit=content.on_oversize == "omit")
        for name, content in config.identity_headers.items()
    }
    sizes = config.limits
    limits = HeaderLimits(sizes.identity_header_bytes, sizes.claims_header_bytes, sizes.identity_headers_bytes)
    wanted = config.assertion
    if wanted is None:
        return IdentityHeaders(headers, config.claims_header, config.encoding, limits)
    ring = KeyRing(map(TimedKey, keys))
    mint = Mint(
        lambda: ring,
        clock,
        counts,
        issuer=wanted.issuer,
        audience=wanted.audience,
        ttl_s=wanted.ttl_s,
        algorithm=wanted.alg,
        before=f"{wanted.header}: ",
    )
    return AssertedIdentity(headers, config.claims_header, config.encoding, limits, wanted.header, mint)


def pages(config: Config, gateway: Gateway) -> dict[str, Page]:
    """The sidecar's own pages by their paths."""
    found = {} if gateway.issuer is None else dict(gateway.issuer.pages)
    if config.resource_metadata is not None:
        found |= resource_metadata(config, config.resource_metadata).pages
    return found


def resource_metadata(config: Config, wanted: settings.ResourceMetadata) -> ResourceMetadata:
    """The metadata page that tells clients where to get a token."""
    required = [route.require.scopes for route in config.routes if route.require is not None]
    return ResourceMetadata(
        wanted.resource,
        [issuer.issuer for issuer in config.issuers.values()],
        in_query=any(source.query is not None for source in config.token_sources),
        scopes=sorted({scope for scopes in required for scope in (*scopes.all, *scopes.any)}),
        name=wanted.resource_name,
    )


def tracing(config: Config, clock: Clock) -> "Tracing | None":
    """The tracing, if configured; imports OpenTelemetry. Raises Unusable if it is not installed."""
    if config.tracing is None:
        return None
    try:
        from sidecar.observability.tracing import Tracing, otlp
    except ImportError:
        raise Unusable("tracing: needs OpenTelemetry; install the extra otel (deploy/requirements-otel.txt)") from None
    return Tracing(otlp(config.tracing.endpoint), clock)


def form(config: Config) -> Form:
    """The form of refusals."""
    metadata = None if config.resource_metadata is None else metadata_url(config.resource_metadata.resource)
    return Form(config.realm, config.error_format == "problem", config.error_detail, resource_metadata=metadata)


def cors(config: Config) -> Cors | None:
    """The CORS settings, if configured."""
    wanted = config.cors
    if wanted is None:
        return None
    return Cors(wanted.origins, credentials=wanted.credentials, max_age_s=wanted.max_age_s)


def signature(config: Config, clock: Clock) -> Signature | None:
    """The signature of requests to the backend, if configured. Raises Unusable."""
    wanted = config.signature
    if wanted is None:
        return None
    try:
        secret = shared_secret(content(wanted.secret_file))
    except OSError as error:
        raise Unusable(unread(wanted.secret_file, error)) from error
    except ValueError as error:
        raise Unusable(f"{wanted.secret_file}: {error}") from error
    return Signature(wanted.header, secret, clock)


def backend(
    config: Config,
    upstream: settings.Upstream,
    clock: Clock,
    deadlines: Deadlines,
    resources: Resources,
    tls: UpstreamTls | None,
) -> UpstreamPool:
    """The pool of connections to one backend, with its `upstream_tls`."""
    timeouts = config.timeouts
    unix = upstream.scheme == "unix"
    return UpstreamPool(
        upstream.name,
        upstream.path if unix else (upstream.host, upstream.port),
        clock,
        deadlines,
        resources,
        authority="localhost" if unix else urlsplit(upstream.url).netloc,
        tls=None if tls is None else lambda: tls.value,
        server_name=upstream.tls.server_name or upstream.host if upstream.scheme == "https" else None,
        connections=config.limits.upstream_connections,
        connect_s=timeouts.connect_s,
        answer_s=timeouts.response_headers_s,
        idle_s=timeouts.idle_s,
        head_bytes=config.limits.upstream_header_bytes,
        headers=config.limits.upstream_headers,
    )


def client_limits(config: Config) -> ClientLimits:
    """The settings of client connections."""
    timeouts, limits = config.timeouts, config.limits
    return ClientLimits(
        request_headers_s=timeouts.request_headers_s,
        idle_s=timeouts.idle_s,
        keep_alive_s=timeouts.keep_alive_s,
        header_bytes=limits.header_bytes,
        headers=limits.headers,
        connections=limits.connections,
        buffered_bytes=limits.buffered_bytes,
        trusted=config.trusted_proxies,
    )


def upstream_tls(upstream: settings.Upstream) -> UpstreamTls | None:
    """The context of connections to an https backend. Raises Unusable."""
    if upstream.scheme != "https":
        return None
    tls = upstream.tls
    make = partial(client_context, verify=not tls.insecure_skip_verify)
    return renewed_context(make, tls.ca_file, tls.cert_file, tls.key_file)


def forward_auth(config: Config) -> ForwardAuth | None:
    """The forward authentication, if configured."""
    wanted = config.forward_auth
    return None if wanted is None else ForwardAuth(wanted.path, wanted.original)
