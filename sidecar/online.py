"""`check --online`: are the key sets, the backends and the deny list there?"""

import asyncio

from sidecar.config import Config
from sidecar.denylist import DenyList, DenyListUnusable
from sidecar.jwks import JwksSource
from sidecar.key_set import FetchFailed, Jwks
from sidecar.rejections import Rejection
from sidecar.server import build
from sidecar.upstream import Upstream


async def problems_online(config: Config) -> list[str]:
    """Fetch every key set, connect to every upstream, read the deny list; what failed, in the order of the file."""
    sidecar = build(config)
    try:
        found = await asyncio.gather(
            *(_keys(name, source) for name, source in sidecar.sources.items()),
            *(_connection(name, upstream) for name, upstream in sidecar.upstreams.items()),
            _entries(sidecar.assembly.denylist),
        )
    finally:
        await sidecar.stop()
    return [problem for problem in found if problem is not None]


async def _keys(name: str, source: JwksSource) -> str | None:
    try:
        Jwks.of((await source.fetch()).document, source.algorithms)
    except FetchFailed as error:
        return f"issuers.{name}: {error}"
    return None


async def _entries(denylist: DenyList) -> str | None:
    try:
        await denylist.load()
    except DenyListUnusable as error:
        return f"denylist_file: {error}"
    return None


async def _connection(name: str, upstream: Upstream) -> str | None:
    try:
        (await upstream.connect()).close()
    except Rejection as rejection:
        return f"upstreams.{name}: {rejection.details}"
    return None
