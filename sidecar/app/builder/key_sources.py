"""Builds the key source of an issuer."""

import ssl
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import aiohttp

from sidecar.common.clock import Clock
from sidecar.common.tls import client_context, system_context
from sidecar.common.watched_file import POLL_S
from sidecar.config import Issuer
from sidecar.config.claims import TokenRules
from sidecar.config.key_place import SOURCES, KeyPlace
from sidecar.config.preset_keys import PresetKeys
from sidecar.config.secret import shared_secret
from sidecar.jwt.jwks.algorithms import ALGORITHMS, SECRET_ALGORITHMS
from sidecar.jwt.jwks.cache import JwksSource
from sidecar.jwt.jwks.fetcher import FileKeySet, FixedKeySet, KeysByKid, RemoteKeySet, SeveralKeySets
from sidecar.jwt.jwks.jwk import public_key, secret_key
from sidecar.jwt.jwks.key_server import KeyServer
from sidecar.jwt.jwks.key_set import Fetch, Jwks
from sidecar.jwt.jwks.snapshot import Snapshot


def key_source(
    issuer: Issuer, clock: Clock, session: Callable[[], aiohttp.ClientSession], snapshot_dir: Path | None
) -> JwksSource:
    """The key source of one issuer, before its first fetch. Only keys from a server get a snapshot; secrets never do."""
    snapshot = None
    if snapshot_dir is not None and issuer.fetched:
        snapshot = Snapshot(snapshot_dir / f"{issuer.name}.json", issuer.issuer, places(issuer))
    brings = fetch(issuer, clock, session)
    return JwksSource(
        issuer.name,
        brings,
        all_algorithms(issuer),
        clock,
        refresh_interval_s=issuer.refresh_interval_s if issuer.fetched or not _files(issuer) else POLL_S,
        max_stale_s=issuer.max_stale_s,
        removed_key_grace_s=issuer.removed_key_grace_s,
        clock_skew_s=issuer.clock_skew_s,
        snapshot=snapshot,
        want=brings.want if isinstance(brings, KeysByKid) else None,
        fixed=isinstance(brings, FixedKeySet),
    )


def places(issuer: Issuer) -> str:
    """All places of an issuer's keys: the keys of a place that the file no longer names are in no snapshot that counts."""
    return " ".join(str(getattr(place, place.keys_from, "discovery")) for place in (issuer, *issuer.more_keys))


def _files(issuer: Issuer) -> bool:
    return any(place.keys_from.endswith("_file") for place in (issuer, *issuer.more_keys))


def same_keys(one: Issuer, other: Issuer) -> bool:
    """Do both issuers have the same key source? The rules for their tokens do not matter."""
    others = {"issuer_aliases", "required", "assume_issuer", "signer", "preset", "preset_require"}
    names = Issuer.model_fields.keys() - TokenRules.model_fields.keys() - PresetKeys.model_fields.keys() - others
    return all(getattr(one, name) == getattr(other, name) for name in {*names, "clock_skew_s"})


def same_place(one: Issuer, other: Issuer) -> bool:
    """Do both issuers have the same `iss`, place of keys and TLS settings?"""
    names = ("issuer", *SOURCES, "kid", "more_keys", "jwks_tls", "allow_http")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def fetch(issuer: Issuer, clock: Clock, session: Callable[[], aiohttp.ClientSession]) -> Fetch:
    """The fetcher of an issuer's keys."""
    places = [(_of_place(issuer, issuer, clock, session), algorithms(issuer, issuer))]
    places += [(_of_place(place, issuer, clock, session), algorithms(place, issuer)) for place in issuer.more_keys]
    return places[0][0] if len(places) == 1 else SeveralKeySets(places)


def algorithms(place: KeyPlace, issuer: Issuer) -> Collection[str]:
    """The algorithms for the keys of one place of an issuer: a secret never gets algorithms of public keys."""
    if place.secret:
        return SECRET_ALGORITHMS if not issuer.secret else issuer.algorithms
    return ALGORITHMS if issuer.secret else issuer.algorithms


def all_algorithms(issuer: Issuer) -> frozenset[str]:
    """The algorithms for all places of an issuer."""
    return frozenset(name for place in (issuer, *issuer.more_keys) for name in algorithms(place, issuer))


def _of_place(place: KeyPlace, issuer: Issuer, clock: Clock, session: Callable[[], aiohttp.ClientSession]) -> Fetch:
    allowed = algorithms(place, issuer)
    if place.jwks_file is not None:
        return FileKeySet(place.jwks_file)
    if place.jwks_inline is not None:
        return FixedKeySet(place.jwks_inline)
    if place.public_key_file is not None:
        return FileKeySet(place.public_key_file, partial(_of_pem, place.kid, allowed))
    if place.secret_file is not None:
        return FileKeySet(place.secret_file, lambda content: _of_secret(shared_secret(content), allowed))
    if place.secret_env is not None:
        return FixedKeySet(_of_secret(place.secret_env.get_secret_value(), allowed))
    context: Callable[[], ssl.SSLContext] = system_context
    server_name, tls = None, issuer.jwks_tls
    if tls is not None:
        server_name = tls.server_name
        context = partial(client_context, tls.ca_file, tls.cert_file, tls.key_file, verify=not tls.insecure_skip_verify)
    server = KeyServer(
        session,
        issuer.jwks_uri or issuer.issuer,
        headers=issuer.jwks_headers,
        bearer_token_file=issuer.jwks_bearer_token_file,
        tls=context,
        server_name=server_name,
        wall=clock.wall,
    )
    if place.jwks_uri is not None and place.by_kid:
        return KeysByKid(server, place.jwks_uri, allowed)
    return RemoteKeySet(server, issuer.issuer, place.jwks_uri, issuer.allow_http)


def _of_pem(kid: str | None, allowed: Collection[str], pem: bytes) -> Jwks:
    return Jwks([public_key(pem, kid, allowed)], any_kid=kid is None)


def _of_secret(secret: bytes, allowed: Collection[str]) -> Jwks:
    return Jwks([secret_key(secret, allowed)], any_kid=True)
