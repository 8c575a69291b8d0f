"""How a key set is had: over HTTP with discovery, or from a file. Everything that can go wrong is a FetchFailed."""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from sidecar.jwks import FetchFailed, KeySet

MAX_BODY_BYTES = 256 * 1024  # of a key set or a discovery document
TOTAL_S = 5.0  # for one document, from connecting to its last byte
FILE_POLL_S = 5.0

_MAX_AGE = re.compile(r"(?:^|[,\s])max-age=(\d{1,9})(?:$|[,\s])", re.IGNORECASE)


class RemoteKeySet:
    """The key set at `jwks_uri`, or where the issuer's discovery document says (OpenID Connect Discovery section 4).

    Without a `jwks_uri` the discovery document is asked for at each refresh; where there is none (404) the set is expected at
    `{issuer}/.well-known/jwks.json`. The document's `issuer` must be the configured one to the letter (section 4.3).
    """

    def __init__(
        self, session: Callable[[], aiohttp.ClientSession], issuer: str, jwks_uri: str | None, allow_http: bool
    ) -> None:
        self._session = session
        self._issuer = issuer
        self._jwks_uri = jwks_uri
        self._allow_http = allow_http

    async def __call__(self) -> KeySet:
        """Fetch the key set. Raises FetchFailed."""
        if self._jwks_uri is not None:
            return await self._key_set(self._jwks_uri)
        base = self._issuer.rstrip("/")
        try:
            document, _ = await self._get(f"{base}/.well-known/openid-configuration")
        except _NotFound:
            return await self._key_set(f"{base}/.well-known/jwks.json")
        if not isinstance(document, dict) or document.get("issuer") != self._issuer:
            raise FetchFailed("the discovery document names another issuer than the configured one")
        jwks_uri = document.get("jwks_uri")
        if not isinstance(jwks_uri, str) or not self._may_fetch(jwks_uri):
            raise FetchFailed("the discovery document has no jwks_uri that may be fetched (https, or http on loopback)")
        return await self._key_set(jwks_uri)

    async def _key_set(self, url: str) -> KeySet:
        document, max_age_s = await self._get(url)
        return KeySet(document, max_age_s)

    def _may_fetch(self, url: str) -> bool:
        parts = urlsplit(url)
        if parts.scheme == "http":
            return self._allow_http or is_loopback(parts.hostname or "")
        return parts.scheme == "https" and bool(parts.hostname)

    async def _get(self, url: str) -> tuple[object, float | None]:
        try:
            async with asyncio.timeout(TOTAL_S):
                return await self._get_following(url)
        except TimeoutError:
            raise FetchFailed(f"{url}: no complete answer within {TOTAL_S:.0f} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise FetchFailed(f"{url}: {_in_our_words(error)}") from error

    async def _get_following(self, url: str, redirects: int = 1) -> tuple[object, float | None]:
        async with self._session().get(url, allow_redirects=False, proxy=egress_proxy(url)) as response:
            if response.status in (301, 302, 307, 308) and redirects:
                target = urljoin(url, response.headers.get("Location", ""))
                if urlsplit(target)[:2] != urlsplit(url)[:2]:
                    raise FetchFailed(f"{url}: redirects to another origin, which is not followed")
                return await self._get_following(target, redirects - 1)
            if response.status == 404:
                raise _NotFound(f"{url}: status 404")
            if response.status != 200:
                raise FetchFailed(f"{url}: status {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_any():  # counted after decompression: a bomb stops here
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise FetchFailed(f"{url}: larger than {MAX_BODY_BYTES // 1024} KiB")
            return decode_json(bytes(body), url), max_age(response.headers.get("Cache-Control", ""))


class FileKeySet:
    """The key set in a file, read again at each refresh, so that a mounted Secret or ConfigMap may be swapped."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __call__(self) -> KeySet:
        """Read the file. Raises FetchFailed."""
        try:
            if self._path.stat().st_size > MAX_BODY_BYTES:
                raise FetchFailed(f"{self._path}: larger than {MAX_BODY_BYTES // 1024} KiB")
            body = self._path.read_bytes()
        except OSError as error:
            raise FetchFailed(f"{self._path}: {error.strerror}") from error
        return KeySet(decode_json(body, str(self._path)), None)


class _NotFound(FetchFailed):
    pass


def _in_our_words(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return "its certificate is not trusted"
        case aiohttp.ClientConnectorSSLError():
            return "no TLS connection could be agreed on"
        case aiohttp.ClientConnectorDNSError():
            return "its host name cannot be resolved"
        case aiohttp.ClientConnectorError():
            return "no connection"
        case aiohttp.InvalidURL():
            return "not a URL"
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError() | OSError():
            return "the connection broke off"
    return "not a valid HTTP answer"


def decode_json(body: bytes, where: str) -> object:
    """The JSON of a key set or discovery document. Raises FetchFailed."""
    try:
        document: object = json.loads(body)
    except (ValueError, RecursionError):
        raise FetchFailed(f"{where}: not JSON") from None
    return document


def max_age(cache_control: str) -> float | None:
    """Seconds that the sender calls its answer fresh (RFC 9111 section 5.2.2); 0 for `no-store` and `no-cache`."""
    if re.search(r"no-store|no-cache", cache_control, re.IGNORECASE):
        return 0.0
    found = _MAX_AGE.search(cache_control)
    return float(found[1]) if found else None


def egress_proxy(url: str) -> str | None:
    """The proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name for a key set's URL; never one for loopback."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or proxy_bypass(host):
        return None
    return getproxies().get(parts.scheme)


def is_loopback(host: str) -> bool:
    """Does this host name or address mean this machine, without asking a name server?"""
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None
