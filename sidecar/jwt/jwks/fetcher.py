"""Fetches key sets: from a server, from a file, or from several places. Every failure is a FetchFailed."""

import asyncio
import json
import random
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from sidecar.common.file_content import content
from sidecar.common.loopback import is_loopback
from sidecar.common.watched_file import unread
from sidecar.jwt.jwks.jwk import UnusableKey, VerificationKey, public_key
from sidecar.jwt.jwks.key_server import KeyServer, NoSuchKey, NotFound, shown
from sidecar.jwt.jwks.key_set import Fetch, FetchFailed, Jwks, KeySet, quoted

MOST_QUOTED = 200  # characters of a value of a discovery document

MOST_KIDS, MOST_WANTED = 16, 8  # keys with a URL each: kept ones, and new ones in one fetch

_KID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAY_BE_FETCHED = "https; from an issuer on loopback http there, too"


class RemoteKeySet:
    """The key set at `jwks_uri`, or at the URL in the issuer's discovery document (OpenID Connect Discovery section 4).

    Without a `jwks_uri` each refresh fetches the discovery document. If there is none (404), the set is expected at
    `{issuer}/.well-known/jwks.json`, or else at the URL in the OAuth 2.0 metadata (RFC 8414). The `issuer` in either document
    must be exactly the configured one (section 4.3).
    """

    def __init__(self, server: KeyServer, issuer: str, jwks_uri: str | None, allow_http: bool) -> None:
        self._server = server
        self._issuer = issuer
        self._jwks_uri = jwks_uri
        self._allow_http = allow_http

    async def __call__(self) -> KeySet:
        """Fetch the key set. Raises FetchFailed, with each URL and its failure."""
        if self._jwks_uri is not None:
            return await self._get(self._jwks_uri)
        base = self._issuer.rstrip("/")
        try:
            return await self._discovered(f"{base}/.well-known/openid-configuration")
        except NotFound as error:
            tried = str(error)
        try:
            return await self._get(f"{base}/.well-known/jwks.json")
        except NotFound as error:
            tried = f"{tried}; {error}"
        except FetchFailed as error:
            raise FetchFailed(f"{tried}; {error}") from error
        try:
            return await self._discovered(metadata_url(base))
        except FetchFailed as error:
            raise FetchFailed(f"{tried}; {error}") from error

    async def _discovered(self, place: str) -> KeySet:
        """The key set that the metadata at a URL names. Raises NotFound if there is no metadata."""
        document = (await self._get(place)).document
        named = document.get("issuer") if isinstance(document, dict) else None
        if not isinstance(document, dict) or named != self._issuer:
            found, ours = quoted(named, MOST_QUOTED), quoted(self._issuer, MOST_QUOTED)
            raise FetchFailed(f"{place}: names the issuer {found}; the configured one is {ours}")
        jwks_uri = document.get("jwks_uri")
        if not isinstance(jwks_uri, str) or not self._may_fetch(jwks_uri):
            found = f'"{shown(jwks_uri)}"' if isinstance(jwks_uri, str) else quoted(jwks_uri, MOST_QUOTED)
            raise FetchFailed(f"{place}: has no jwks_uri that may be fetched ({_MAY_BE_FETCHED}), but {found}")
        try:
            return await self._get(jwks_uri)
        except NotFound as error:
            raise FetchFailed(str(error)) from error

    def _may_fetch(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
        except ValueError:
            return False
        if not parts.hostname:
            return False
        if parts.scheme == "http" and not self._allow_http:
            # An issuer on another host must not send requests to services on loopback: a backend, the admin listener.
            return is_loopback(parts.hostname) and is_loopback(urlsplit(self._issuer).hostname or "")
        return parts.scheme in ("https", "http")

    async def _get(self, url: str) -> KeySet:
        answer = await self._server.get(url)
        document = decode_json(answer.body, shown(url))
        max_age_s = refresh_hint(document) if answer.max_age_s is None else answer.max_age_s
        return KeySet(document, max_age_s, answer.clock_offset_s)


class FileKeySet:
    """The key set in a file, read again at each refresh, so that a mounted Secret or ConfigMap may change.

    `read` parses a file in another form (PEM, a shared secret); it raises UnusableKey, or ValueError with a text for operators.
    """

    def __init__(self, path: Path, read: Callable[[bytes], Jwks] | None = None) -> None:
        self._path = path
        self._read = read

    async def __call__(self) -> KeySet:
        """Read the file. Raises FetchFailed."""
        try:
            body = content(self._path)
        except OSError as error:
            raise FetchFailed(unread(self._path, error)) from error
        if self._read is None:
            return KeySet(decode_json(body, str(self._path)), None)
        try:
            return KeySet(self._read(body), None)
        except (UnusableKey, ValueError) as error:
            raise FetchFailed(f"{self._path}: {error}") from error


class FixedKeySet:
    """A key set in the configuration itself."""

    def __init__(self, document: object) -> None:
        self._key_set = KeySet(document, None)

    async def __call__(self) -> KeySet:
        """The key set."""
        return self._key_set


class SeveralKeySets:
    """The keys of several places as one set. Each place has the algorithms that its keys may be used with.

    Every place must succeed: with a part of the keys, valid tokens would be refused like forged ones.
    """

    def __init__(self, places: Sequence[tuple[Fetch, Collection[str]]]) -> None:
        self._places = places

    async def __call__(self) -> KeySet:
        """Fetch all places. Raises FetchFailed."""
        found = await asyncio.gather(*(self._one(*place) for place in self._places), return_exceptions=True)
        sets: list[tuple[Jwks, KeySet]] = []
        for one in found:
            if isinstance(one, BaseException):
                raise one
            sets.append(one)
        keys = dict.fromkeys(key for jwks, _ in sets for key in jwks.keys)
        skipped = [text for jwks, _ in sets for text in jwks.skipped]
        ages = [key_set.max_age_s for _, key_set in sets if key_set.max_age_s is not None]
        offset_s = next((key_set.clock_offset_s for _, key_set in sets if key_set.clock_offset_s is not None), None)
        return KeySet(Jwks(list(keys), skipped), min(ages, default=None), offset_s)

    async def _one(self, fetch: Fetch, algorithms: Collection[str]) -> tuple[Jwks, KeySet]:
        key_set = await fetch()
        return await Jwks.of_in_turns(key_set.document, algorithms), key_set


class KeysByKid:
    """Public keys in PEM, each at its own URL that holds its kid, as AWS load balancers publish them.

    Only tokens tell which keys exist. The next fetch tries each kid that a token names and that looks like one, at most
    MOST_WANTED at once. Of more, the last one takes the place of one that `choose` picks by its number, so strangers who name
    many keep no kid out for long. Keys that exist are kept.
    """

    def __init__(
        self,
        server: KeyServer,
        jwks_uri: str,
        algorithms: Collection[str],
        choose: Callable[[int], int] = random.randrange,
    ) -> None:
        self._server = server
        self._jwks_uri = jwks_uri
        self._algorithms = algorithms
        self._choose = choose
        self._kids: dict[str, None] = {}
        self._wanted: dict[str, None] = {}

    def want(self, kid: str) -> bool:
        """Try this kid in the next fetch. Returns False if it cannot be a kid of these keys."""
        if _KID.fullmatch(kid) is None:
            return False
        if kid not in self._wanted and len(self._wanted) == MOST_WANTED:
            del self._wanted[list(self._wanted)[self._choose(MOST_WANTED)]]
        self._wanted[kid] = None
        return True

    async def __call__(self) -> KeySet:
        """Fetch the known keys and the wanted ones. Raises FetchFailed if a known key fails, or if none comes."""
        kids = list({**self._kids, **self._wanted})
        self._wanted = {}
        failed: dict[str, str] = {}
        keys: list[VerificationKey] = []
        for kid, found in zip(kids, await asyncio.gather(*map(self._key, kids), return_exceptions=True), strict=True):
            if isinstance(found, FetchFailed) and kid not in self._kids:
                failed[kid] = str(found)  # it must not stop the fetch of other keys
            elif isinstance(found, BaseException):
                raise found
            elif found is not None:
                keys.append(found)
        if failed and not keys:
            raise FetchFailed("; ".join(failed.values()))
        left_out, keys = keys[:-MOST_KIDS], keys[-MOST_KIDS:]  # the newest count
        self._kids = dict.fromkeys(key.kid for key in keys if key.kid is not None)
        unsure = failed.keys() | {key.kid for key in left_out}
        return KeySet(Jwks(keys, list(failed.values())), None, looked_up=[kid for kid in kids if kid not in unsure])

    async def _key(self, kid: str) -> VerificationKey | None:
        url = self._jwks_uri.replace("{kid}", kid)
        try:
            answer = await self._server.get(url)
            return public_key(answer.body, kid, self._algorithms)
        except NoSuchKey:
            return None
        except UnusableKey as error:
            if kid not in self._kids:  # a made-up kid must not stop the fetch of other keys
                return None
            raise FetchFailed(f"{shown(url)}: {error}") from error


def decode_json(body: bytes, where: str) -> object:
    """The JSON of a key set or discovery document. Raises FetchFailed."""
    try:
        document: object = json.loads(body)
    except (ValueError, RecursionError):
        page = "an HTML page, " if body.lstrip().startswith(b"<") else ""
        raise FetchFailed(f"{where}: {page}not JSON") from None
    return document


def refresh_hint(document: object) -> float | None:
    """The `spiffe_refresh_hint` of a SPIFFE bundle in seconds (SPIFFE Trust Domain and Bundle section 4.1.2), or None."""
    hint = document.get("spiffe_refresh_hint") if isinstance(document, dict) else None
    return float(hint) if type(hint) is int and 0 <= hint < 2**31 else None


def metadata_url(base: str) -> str:
    """The URL of the OAuth 2.0 metadata of an issuer that does not end in a slash (RFC 8414 section 3.1)."""
    scheme, authority, path = urlsplit(base)[:3]
    return f"{scheme}://{authority}/.well-known/oauth-authorization-server{path}"
