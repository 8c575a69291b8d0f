"""`check`: tries everything that the configuration names: files always, key sets and backends with `--online`."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sidecar.app.builder.access_rules import iss_names
from sidecar.app.builder.components import backend, signature, signing_keys, upstream_tls
from sidecar.app.builder.gateway import api_keys, gateway
from sidecar.app.builder.key_sources import all_algorithms, fetch
from sidecar.common.clock import Clock
from sidecar.common.deadlines import Deadlines
from sidecar.common.errors import Rejection, Unusable
from sidecar.common.tls import certificate_time, client_context, server_context
from sidecar.config import Config, Issuer, Upstream
from sidecar.config.preset_filling import other_spelling
from sidecar.config.presets import PRESETS
from sidecar.config.tls import ClientTls
from sidecar.jwt.denylist import DenyList
from sidecar.jwt.jwks.key_server import Session
from sidecar.jwt.jwks.key_set import FetchFailed, Jwks
from sidecar.proxy.resources import Resources


class _Part(NamedTuple):
    """A check. `use` raises Unusable, FetchFailed or Rejection; `key` is the place in the configuration."""

    key: str
    files: tuple[Path | None, ...]
    use: Callable[[], Awaitable[object]]


async def problems_of(config: Config, *, online: bool) -> list[str]:
    """The problems, each with its place in the configuration.

    A missing file is a problem only with `online`; otherwise it may be mounted later.
    """
    clock = Clock()
    session = Session()
    parts = [*_files(config, clock), *_keys(config, clock, session, online=online)]
    if online:
        parts += _backends(config, clock)
    else:
        parts = [part for part in parts if all(map(_is_here, part.files))]
    try:
        found = await asyncio.gather(*map(_problem, parts))
    finally:
        await session.close()
    return [problem for problem in found if problem is not None]


def unseen(config: Config) -> list[str]:
    """The missing files, each with its place in the configuration. They were not checked."""
    return [f"{key}: {file}" for key, file in _named(config) if not _is_here(file)]


def seen_as_root(config: Config) -> bool:
    """Were files read as root, who can read more than the user of the sidecar?"""
    return os.name == "posix" and os.geteuid() == 0 and any(_is_here(file) for _, file in _named(config))


def _named(config: Config) -> Iterator[tuple[str, Path]]:
    """The files that the configuration names, each with its place in it."""
    clock = Clock()
    for part in (*_files(config, clock), *_keys(config, clock, Session(), online=False)):
        yield from ((part.key, file) for file in part.files if file is not None)


def _is_here(file: Path | None) -> bool:
    """Does the file exist, or is there none to check?"""
    return file is None or os.path.exists(file)  # Path.exists raises for such a name


def preset_lines(config: Config) -> Iterator[str]:
    """The settings that each preset gives, for its issuer in the file."""
    places = ", ".join(map(str, config.token_sources))
    for issuer in config.issuers.values():
        if issuer.preset is None:
            continue
        yield f"issuers.{issuer.name}, with preset {issuer.preset}:"
        audiences = "any" if issuer.audiences is None else ", ".join(issuer.audiences)
        if issuer.audience_claims != ("aud",):
            audiences += f" in {', '.join(issuer.audience_claims)}"
        told = {
            "issuer": ", ".join((issuer.issuer, *issuer.issuer_aliases)),
            "audiences": audiences,
            "keys from": ", ".join(str(place.jwks_uri or place.keys_from) for place in (issuer, *issuer.more_keys)),
            "algorithms": ", ".join(issuer.algorithms),
            "typ": ", ".join(issuer.accepted_typ),
            "signer": issuer.signer or "",
            "no iss": "belongs to this issuer too" if issuer.assume_issuer else "",
            "subjects": ""
            if issuer.subjects is None
            else ", ".join(
                (*issuer.subjects.exact, *(f"{prefix}*" for prefix in issuer.subjects.prefix), *issuer.subjects.glob)
            ),
            "claims": "; ".join(
                f"{'.'.join(path)} {_said(wanted.operators())}" for path, wanted in issuer.all_claims.items()
            ),
            "without": ", ".join(map(".".join, issuer.reject_claims)),
            "roles in": ", ".join(map(".".join, issuer.role_claims or ())),
            "token in": places,
        }
        yield from (f"  {name}: {text}" for name, text in told.items() if text)
        if (right := other_spelling(PRESETS[issuer.preset], issuer.issuer)) is not None:
            which = "many" if issuer.issuer.endswith("/") else "few"
            yield f"  issuer has a slash too {which}; the tokens have {right}, which is accepted too: write that"


def _said(operators: Mapping[str, object]) -> str:
    return ", ".join(f"{operator} {json.dumps(operand)}" for operator, operand in operators.items())


async def _problem(part: _Part) -> str | None:
    try:
        await part.use()
    except (Unusable, FetchFailed) as error:
        return f"{part.key}: {error}"
    except Rejection as rejection:
        return f"{part.key}: {rejection.cause or rejection.details}"
    return None


def _files(config: Config, clock: Clock) -> Iterator[_Part]:
    tls = config.tls
    if tls is not None:
        files = tls.cert_file, tls.key_file, tls.client_ca_file
        yield _Part("tls", files, lambda: asyncio.to_thread(_server_tls, *files))
    for name, upstream in config.upstreams.items():
        if upstream.scheme == "https":
            yield _client_tls(f"upstreams.{name}.tls", upstream.tls)
    if config.denylist_file is not None:
        yield _Part(
            "denylist_file", (config.denylist_file,), DenyList(clock, iss_names(config), config.denylist_file).load
        )
    if config.assertion is not None:
        yield _Part("assertion", (config.assertion.key_file,), lambda: asyncio.to_thread(signing_keys, config))
    if config.signature is not None:
        files_of_secret = (config.signature.secret_file,)
        yield _Part("signature", files_of_secret, lambda: asyncio.to_thread(signature, config, clock))

    if config.api_keys is not None:
        yield _Part("api_keys", (config.api_keys.file,), lambda: asyncio.to_thread(api_keys, config, clock))
    if config.signing is not None:
        alone = config.model_copy(update={"api_keys": None})
        yield _Part("signing", (config.signing.keys_file,), lambda: asyncio.to_thread(gateway, alone, clock, {}))


def _client_tls(key: str, tls: ClientTls) -> _Part:
    files = tls.ca_file, tls.cert_file, tls.key_file
    return _Part(key, files, lambda: asyncio.to_thread(client_context, *files))


def _keys(config: Config, clock: Clock, session: Session, *, online: bool) -> Iterator[_Part]:
    for name, issuer in config.issuers.items():
        if online or not issuer.fetched:
            places = (issuer, *issuer.more_keys)
            files = tuple(
                file for place in places for file in (place.jwks_file, place.public_key_file, place.secret_file)
            )
            yield _Part(f"issuers.{name}", files, partial(_key_set, issuer, clock, session))
        elif issuer.jwks_tls is not None:
            yield _client_tls(f"issuers.{name}.jwks_tls", issuer.jwks_tls)


def _server_tls(cert_file: Path, key_file: Path | None, client_ca_file: Path | None) -> None:
    server_context(cert_file, key_file, client_ca_file)
    if (why := certificate_time(cert_file, Clock().wall())) is not None:
        raise Unusable(why)


async def _key_set(issuer: Issuer, clock: Clock, session: Session) -> Jwks:
    return Jwks.of((await fetch(issuer, clock, session)()).document, all_algorithms(issuer))


def _backends(config: Config, clock: Clock) -> Iterator[_Part]:
    for name, upstream in config.upstreams.items():
        yield _Part(f"upstreams.{name}", (), partial(_connection, config, upstream, clock))


async def _connection(config: Config, upstream: Upstream, clock: Clock) -> None:
    pool = backend(config, upstream, clock, Deadlines(clock, tick_s=1.0), Resources(), upstream_tls(upstream))
    (await pool.connect()).close()
