"""Fetches documents from the server of an issuer's keys over HTTP. Every failure is a FetchFailed."""

import asyncio
import json
import os
import re
import ssl
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from sidecar.common.errors import Unusable
from sidecar.common.file_content import content
from sidecar.common.loopback import is_loopback
from sidecar.common.tls import system_context
from sidecar.jwt.jwks.key_set import MOST_SHOWN, FetchFailed, quoted

MAX_BODY_BYTES = 1024 * 1024  # of a key set or a discovery document
TOO_LARGE = f"larger than {MAX_BODY_BYTES // 1024**2} MiB"
NO_SUCH_KEY = (400, 403, 410)  # besides 404; some storage servers answer 403 for a missing file
TOTAL_S = 5.0  # for one document, from connecting to its last byte

# Some key servers answer 406 if only JSON is accepted (kube-apiserver), and some firewalls refuse the names of HTTP libraries.
HEADERS = {
    "Accept": "application/jwk-set+json, application/json, */*;q=0.1",
    "User-Agent": f"jwt-sidecar/{version('jwt-sidecar')}",
}

MOST_URL = 300  # characters of a URL in a message
_USER = re.compile(r"://[^/?#]*@")
_TOKEN = re.compile(r"[!-~]+")
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age=(\d{1,9})(?:$|[,\s])", re.IGNORECASE)


class Session:
    """The HTTP client for key sets, opened at the first use. It never sends anything that came from a client."""

    def __init__(self) -> None:
        self._opened: aiohttp.ClientSession | None = None

    def __call__(self) -> aiohttp.ClientSession:
        """The client."""
        if self._opened is None:
            self._opened = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), headers=HEADERS)
        return self._opened

    async def close(self) -> None:
        """End its connections."""
        if self._opened is not None:
            await self._opened.close()


class Answer(NamedTuple):
    """A document, its freshness in seconds (None: unknown), and how many seconds the server's clock is ahead (None: unknown)."""

    body: bytes
    max_age_s: float | None
    clock_offset_s: float | None


class KeyServer:
    """The server of one issuer's keys.

    `headers`, the token in `bearer_token_file` and `server_name` go only to the server of `url`, which the configuration names: a
    discovery document may name another server. `tls` makes the context of a connection; `wall` returns the Unix time.
    """

    def __init__(
        self,
        session: Callable[[], aiohttp.ClientSession],
        url: str,
        total_s: float = TOTAL_S,
        *,
        headers: Mapping[str, str] | None = None,
        bearer_token_file: Path | None = None,
        tls: Callable[[], ssl.SSLContext] = system_context,
        server_name: str | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._session = session
        self._origin = urlsplit(url)[:2]
        self._total_s = total_s
        self._headers = headers or {}
        self._bearer_token_file = bearer_token_file
        self._tls = tls
        self._server_name = server_name
        self._wall = wall

    async def get(self, url: str) -> Answer:
        """Fetch a document. Raises FetchFailed, NotFound for a 404."""
        try:
            async with asyncio.timeout(self._total_s):
                encrypted = "https" in (urlsplit(url).scheme, urlsplit(egress_proxy(url) or "").scheme)
                context = await asyncio.to_thread(self._tls) if encrypted else True
                return await self._get_following(url, context)
        except TimeoutError:
            raise FetchFailed(f"{shown(url)}: no complete answer within {self._total_s:g} s") from None
        except Unusable as error:
            raise FetchFailed(str(error)) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise FetchFailed(f"{shown(url)}: {_in_our_words(error)}") from error

    async def _get_following(self, url: str, context: ssl.SSLContext | bool, redirects: int = 1) -> Answer:
        ours = urlsplit(url)[:2] == self._origin
        async with self._session().get(
            url,
            allow_redirects=False,
            proxy=egress_proxy(url),
            ssl=context,
            headers=self._credentials() if ours else {},
            server_hostname=self._server_name if ours else None,
        ) as response:
            if response.status in (301, 302, 307, 308) and redirects:
                target = urljoin(url, response.headers.get("Location", ""))
                if urlsplit(target)[:2] != urlsplit(url)[:2]:
                    scheme, authority = urlsplit(target)[:2]
                    other = quoted(f"{scheme}://{authority.rpartition('@')[2]}", MOST_SHOWN)
                    raise FetchFailed(f"{shown(url)}: redirects to another origin ({other}), which is not followed")
                return await self._get_following(target, context, redirects - 1)
            if response.status == 404:
                raise NotFound(f"{shown(url)}: status 404")
            if response.status in NO_SUCH_KEY:
                raise NoSuchKey(f"{shown(url)}: status {response.status}")
            if response.status != 200:
                raise FetchFailed(f"{shown(url)}: status {response.status}")
            offset_s = clock_offset_s(response.headers.get("Date", ""), response.headers.get("Age", ""), self._wall())
            body = bytearray()
            async for (
                chunk
            ) in response.content.iter_any():  # counted after decompression, so that a decompression bomb ends here
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise FetchFailed(f"{shown(url)}: {TOO_LARGE}")
            return Answer(bytes(body), max_age(response.headers.get("Cache-Control", "")), offset_s)

    def _credentials(self) -> Mapping[str, str]:
        if self._bearer_token_file is None:
            return self._headers
        try:
            token = content(self._bearer_token_file).decode("ascii").strip()
        except (OSError, ValueError):
            token = ""
        if not _TOKEN.fullmatch(token):
            raise FetchFailed(f"{self._bearer_token_file}: holds no bearer token")
        return {**self._headers, "Authorization": f"Bearer {token}"}


class NoSuchKey(FetchFailed):
    """The server has no key at this URL. Other failures, such as 429, say nothing about the key."""


class NotFound(NoSuchKey):
    """There is no document at this URL: status 404."""


def _in_our_words(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return "its certificate is not trusted"
        case aiohttp.ClientConnectorSSLError():
            return "the TLS handshake failed"
        case aiohttp.ClientConnectorDNSError():
            return "its host name cannot be resolved"
        case aiohttp.ClientProxyConnectionError():
            return "the egress proxy cannot be reached"
        case aiohttp.ClientHttpProxyError():
            return f"the egress proxy refused with status {error.status}"
        case aiohttp.ClientConnectorError():
            return "no connection"
        case aiohttp.InvalidURL() | UnicodeError():  # UnicodeError: a label of the host is too long
            return "not a URL"
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError() | OSError():
            return "the connection broke off"
    return "not a valid HTTP answer"


def max_age(cache_control: str) -> float | None:
    """The `max-age` of an answer in seconds (RFC 9111 section 5.2.2); 0 for `no-store` and `no-cache`, None without one."""
    if re.search(r"no-store|no-cache", cache_control, re.IGNORECASE):
        return 0.0
    found = _MAX_AGE.search(cache_control)
    return float(found[1]) if found else None


def clock_offset_s(date: str, age: str, now: float) -> float | None:
    """How many seconds the server's clock is ahead of `now` (Unix time), by the headers of its answer; None without a Date.

    A cache on the way keeps the `Date` and adds the `Age` (RFC 9111 section 4.2.3).
    """
    try:
        made = parsedate_to_datetime(date).timestamp()
        return made + (int(age) if age.isdecimal() else 0) - now
    except (ValueError, OverflowError):
        return None


def shown(url: str) -> str:
    """A URL for logs and people: on one line, cut, and without its query and its user, which may hold a credential.

    An issuer may name any URL in its discovery document.
    """
    text = json.dumps(_USER.sub("://", url.partition("?")[0]))[1:-1]
    return text if len(text) <= MOST_URL else f"{text[:MOST_URL]}..."


def egress_proxy(url: str) -> str | None:
    """The proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name for a key set's URL; None for loopback.

    A proxy without a scheme is used over http, as curl does. Raises FetchFailed for a proxy that cannot be used.
    """
    parts = urlsplit(url)
    host = parts.hostname
    if host is None or is_loopback(host) or proxy_bypass(host):
        return None
    proxy = getproxies().get(parts.scheme)
    if not proxy:
        return None
    named = proxy if "://" in proxy else f"http://{proxy}"
    lower = f"{parts.scheme}_proxy"
    variable = lower if lower in os.environ else lower.upper()
    try:
        found = urlsplit(named)
        usable = found.hostname is not None and found.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise FetchFailed(f"{variable} is not the URL of a proxy, such as http://proxy.example:3128")
    if found.scheme not in ("http", "https"):
        raise FetchFailed(f"{variable} names a proxy of {found.scheme}; only http and https proxies are supported")
    return named
