"""API keys: opaque credentials whose hashes are in a file. A valid key gives the claims of its holder.

A key is `jsk_<id>_<secret>`. The id finds the entry and is not secret. The secret is 256 random bits, which nobody can guess, so
one SHA-256 is as good as a slow hash. Hashes are compared in constant time.
"""

import hmac
import json
import re
import secrets
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple

from sidecar.common.clock import Clock
from sidecar.common.encoding import base64url
from sidecar.common.errors import Reason, Rejection
from sidecar.common.masking import KEY, unescaped
from sidecar.common.watched_file import WatchedFile
from sidecar.gateway.key_file import members, moment, rfc3339
from sidecar.http.request_head import RequestHead
from sidecar.jwt.claims import Claims
from sidecar.jwt.token_places import TokenHeader

ISSUER = "api_keys"  # stands for API keys in place of an issuer's name in logs and metrics
LIKE_A_KEY = re.compile(KEY.encode())
NEVER = float("inf")

# Claims that the issuer of a token sets, or that `name` and `scopes` set; scp and scopes are other names of scope.
_NOT_CLAIMS = frozenset(
    {"iss", "aud", "exp", "nbf", "iat", "jti", "sub", "cnf", "act", "scope", "scp", "scopes", "original_iss"}
)
_MEMBERS = {"id", "sha256", "name", "scopes", "claims", "expires", "enabled"}
_ID = re.compile(r"[0-9a-f]{16}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SCOPE = re.compile(r"[!#-\[\]-~]+")  # RFC 6749 section 3.3
_NOBODY = sha256(secrets.token_bytes()).digest()


def carries_a_key(head: bytes) -> bool:
    """Does a head hold an API key, plain or percent-encoded?"""
    if LIKE_A_KEY.search(head) is not None:
        return True
    return b"%" in head and LIKE_A_KEY.search(unescaped(head.decode("latin-1")).encode(errors="replace")) is not None


class ApiKey(NamedTuple):
    """An entry of the file. `expires` is a Unix time or NEVER; `claims` are the holder's claims besides sub and scope."""

    id: str
    digest: bytes
    name: str
    scopes: tuple[str, ...]
    claims: Mapping[str, Any]
    expires: float
    enabled: bool = True

    @classmethod
    def new(cls, name: str, scopes: tuple[str, ...], claims: Mapping[str, Any], expires: float) -> tuple["ApiKey", str]:
        """Make a key; returns (its entry, the key). Raises ValueError for values that an entry cannot hold."""
        number = secrets.token_hex(8)
        key = f"jsk_{number}_{secrets.token_urlsafe(32)}"
        entry = cls(number, sha256(key.encode()).digest(), name, scopes, claims, expires)
        return cls.read(entry.document()), key

    @classmethod
    def read(cls, document: object) -> "ApiKey":
        """Parse an entry. Raises ValueError with a text that holds no hash."""
        if not isinstance(document, dict):
            raise ValueError("must be an object with id, sha256 and name")
        if unknown := document.keys() - _MEMBERS:
            raise ValueError(f"{min(unknown)!r} is not a member of a key; one of: {', '.join(sorted(_MEMBERS))}")
        number, digest, name = (document.get(member) for member in ("id", "sha256", "name"))
        if not isinstance(number, str) or not _ID.fullmatch(number):
            raise ValueError("id must be the 16 hexadecimal digits of the key between its two _")
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise ValueError("sha256 must be the 64 hexadecimal digits of the whole key's SHA-256")
        if not isinstance(name, str) or not 1 <= len(name) <= 128 or not name.isprintable():
            raise ValueError("name must be text of 1 to 128 printable characters; it becomes sub")
        scopes = document.get("scopes", [])
        if not isinstance(scopes, list) or not all(isinstance(one, str) and _SCOPE.fullmatch(one) for one in scopes):
            raise ValueError("scopes must be a list of words")
        claims = document.get("claims", {})
        if not isinstance(claims, dict):
            raise ValueError("claims must be an object")
        if taken := claims.keys() & _NOT_CLAIMS:
            raise ValueError(
                f"claims must not hold {min(taken)}: the sidecar sets it, or it has a member of its own (name, scopes, expires)"
            )
        enabled = document.get("enabled", True)
        if not isinstance(enabled, bool):
            raise ValueError("enabled must be true or false")
        expires = NEVER if "expires" not in document else moment(document["expires"])
        return cls(number, bytes.fromhex(digest), name, tuple(scopes), claims, expires, enabled)

    def document(self) -> dict[str, Any]:
        """The entry in the form of the file."""
        document: dict[str, Any] = {"id": self.id, "sha256": self.digest.hex(), "name": self.name}
        if self.scopes:
            document["scopes"] = list(self.scopes)
        if self.claims:
            document["claims"] = dict(self.claims)
        if self.expires != NEVER:
            document["expires"] = rfc3339(self.expires)
        return document if self.enabled else document | {"enabled": False}

    def state(self, now: float) -> str:
        """on, expired or disabled."""
        return "disabled" if not self.enabled else "expired" if now >= self.expires else "on"

    def holder(self) -> Claims:
        """The claims of the key's holder."""
        scope = {"scope": " ".join(self.scopes)} if self.scopes else {}
        claims = {"sub": self.name, **scope, **self.claims}
        segment = base64url(json.dumps(claims, separators=(",", ":")).encode()).encode()
        return Claims(ISSUER, claims, segment, valid_until=self.expires, kid=self.id)


class HashedKey(NamedTuple):
    """A key that a request brings, as the sidecar keeps it: its id, and the SHA-256 of all of it."""

    id: str
    digest: bytes

    @classmethod
    def of(cls, key: bytes) -> "HashedKey":
        """Hash a key. Raises Rejection for other credentials."""
        form = LIKE_A_KEY.fullmatch(key)
        if form is None:
            raise Rejection(Reason.API_KEY_UNKNOWN)
        return cls(form[1].decode(), sha256(key).digest())


class Entries(dict[str, tuple[ApiKey, Claims]]):
    """Id -> the key and the claims of its holder."""

    @classmethod
    def read(cls, content: bytes, before: "Entries | None" = None) -> "Entries":
        """Parse a file, all entries or none. Raises ValueError. An entry that is also in `before` keeps its claims."""
        entries = cls()
        for number, document in enumerate(members(content)):
            try:
                entry = ApiKey.read(document)
                if entry.id in entries:
                    raise ValueError("another one has the same id")
            except ValueError as error:
                raise ValueError(f"key {number}: {error}") from None
            known = None if before is None else before.get(entry.id)
            entries[entry.id] = known if known is not None and known[0] == entry else (entry, entry.holder())
        return entries


class ApiKeys:
    """Verifies API keys. `header` is the header that brings the key, `scheme` the name of the scheme in challenges."""

    def __init__(self, file: WatchedFile[Entries], header: TokenHeader, clock: Clock, scheme: str) -> None:
        self.file = file
        self.header = header
        self.scheme = scheme
        self._clock = clock

    def __repr__(self) -> str:
        return f"<ApiKeys: {len(self.file.value)} of {self.file.path}>"

    def authenticate(self, head: RequestHead) -> Claims:
        """The claims of the holder of the key in this head, which is hashed once. Raises Rejection."""
        if head.api_key is None:
            key = self.header.take(head.special.get(self.header.role))
            if key is None:
                raise Rejection(Reason.TOKEN_MISSING)
            head.api_key = HashedKey.of(key)
        return self.holder(head.api_key)

    def holder(self, key: HashedKey) -> Claims:
        """The claims of the holder of a key. Raises Rejection; the one for a wrong secret says nothing about the id."""
        known = self.file.value.get(key.id)
        if not hmac.compare_digest(key.digest, _NOBODY if known is None else known[0].digest):
            raise Rejection(Reason.API_KEY_UNKNOWN)
        assert known is not None
        entry, claims = known
        if (state := entry.state(self._clock.wall())) != "on":
            rejection = Rejection(Reason.API_KEY_DISABLED if state == "disabled" else Reason.API_KEY_EXPIRED)
            rejection.issuer, rejection.kid = ISSUER, entry.id  # the secret is right, so this may be told
            raise rejection
        return claims
