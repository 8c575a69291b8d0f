"""An issuer of the configuration -> where its keys come from, and for how long they are good."""

import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path

import aiohttp

from sidecar.common.clock import Clock
from sidecar.common.tls import client_context, system_context
from sidecar.config import Issuer
from sidecar.config.claims import TokenRules
from sidecar.config.presets import SOURCES
from sidecar.config.secret import shared_secret
from sidecar.jwt.jwks.cache import JwksSource
from sidecar.jwt.jwks.fetcher import FILE_POLL_S, FileKeySet, FixedKeySet, RemoteKeySet
from sidecar.jwt.jwks.jwk import public_key, secret_key
from sidecar.jwt.jwks.key_set import Fetch, Jwks
from sidecar.jwt.jwks.snapshot import Snapshot


def key_source(
    issuer: Issuer, clock: Clock, session: Callable[[], aiohttp.ClientSession], snapshot_dir: Path | None
) -> JwksSource:
    """The keys of one issuer, not yet fetched. Only those of another server are worth a snapshot; a secret never has one."""
    snapshot = None
    if snapshot_dir is not None and issuer.fetched:
        snapshot = Snapshot(snapshot_dir / f"{issuer.name}.json", issuer.issuer, issuer.jwks_uri or "discovery")
    return JwksSource(
        issuer.name,
        fetch(issuer, clock, session),
        issuer.algorithms,
        clock,
        refresh_interval_s=FILE_POLL_S if issuer.keys_from.endswith("_file") else issuer.refresh_interval_s,
        max_stale_s=issuer.max_stale_s,
        removed_key_grace_s=issuer.removed_key_grace_s,
        clock_skew_s=issuer.clock_skew_s,
        snapshot=snapshot,
    )


def same_keys(one: Issuer, other: Issuer) -> bool:
    """Would both have the same keys, from the same place, for the same time? What their tokens must say does not matter."""
    names = Issuer.model_fields.keys() - TokenRules.model_fields.keys() - {"issuer_aliases", "required"}
    return all(getattr(one, name) == getattr(other, name) for name in {*names, "clock_skew_s"})


def same_place(one: Issuer, other: Issuer) -> bool:
    """Are the keys of both of the same issuer, from the same file or server, and known in the same way?"""
    names = ("issuer", *SOURCES, "kid", "jwks_tls", "allow_http")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def fetch(issuer: Issuer, clock: Clock, session: Callable[[], aiohttp.ClientSession]) -> Fetch:
    """What brings an issuer's keys."""
    if issuer.jwks_file is not None:
        return FileKeySet(issuer.jwks_file)
    if issuer.jwks_inline is not None:
        return FixedKeySet(issuer.jwks_inline)
    if issuer.public_key_file is not None:
        return FileKeySet(issuer.public_key_file, partial(_of_pem, issuer))
    if issuer.secret_file is not None:
        return FileKeySet(issuer.secret_file, lambda content: _of_secret(issuer, shared_secret(content)))
    if issuer.secret_env is not None:
        return FixedKeySet(_of_secret(issuer, issuer.secret_env.get_secret_value()))
    context: Callable[[], ssl.SSLContext] = system_context
    server_name, tls = None, issuer.jwks_tls
    if tls is not None:
        server_name = tls.server_name
        context = partial(client_context, tls.ca_file, tls.cert_file, tls.key_file, verify=not tls.insecure_skip_verify)
    return RemoteKeySet(
        session,
        issuer.issuer,
        issuer.jwks_uri,
        issuer.allow_http,
        headers=issuer.jwks_headers,
        bearer_token_file=issuer.jwks_bearer_token_file,
        tls=context,
        server_name=server_name,
        wall=clock.wall,
    )


def _of_pem(issuer: Issuer, pem: bytes) -> Jwks:
    return Jwks([public_key(pem, issuer.kid, issuer.algorithms)], any_kid=issuer.kid is None)


def _of_secret(issuer: Issuer, secret: bytes) -> Jwks:
    return Jwks([secret_key(secret, issuer.algorithms)], any_kid=True)
