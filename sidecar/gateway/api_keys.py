"""API keys: opaque credentials that a file knows by their hashes. A key in, the claims of its holder out.

A key is `jsk_<id>_<secret>`. The id finds its entry and may be told to anyone; the secret is 256 random bits, so one SHA-256 is
as good as a slow hash: there is nothing to guess. Hashes are compared in constant time.
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
from sidecar.common.watched_file import FollowedFile
from sidecar.gateway.key_file import members, moment, rfc3339
from sidecar.jwt.claims import Claims
from sidecar.jwt.token_places import TokenHeader

ISSUER = "api_keys"  # the word for them where the names of issuers stand: in logs and metrics
LIKE_A_KEY = re.compile(KEY.encode())
NEVER = float("inf")

# Said by whoever issues a token, or by `name` and `scopes` here; scp and scopes are other names of scope.
_NOT_CLAIMS = frozenset(
    {"iss", "aud", "exp", "nbf", "iat", "jti", "sub", "cnf", "act", "scope", "scp", "scopes", "original_iss"}
)
_MEMBERS = {"id", "sha256", "name", "scopes", "claims", "expires", "enabled"}
_ID = re.compile(r"[0-9a-f]{16}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SCOPE = re.compile(r"[!#-\[\]-~]+")  # RFC 6749 section 3.3
_NOBODY = sha256(secrets.token_bytes()).digest()


def carries_a_key(head: bytes) -> bool:
    """Is there an API key in a head, as it is or behind percent escapes?"""
    if LIKE_A_KEY.search(head) is not None:
        return True
    return b"%" in head and LIKE_A_KEY.search(unescaped(head.decode("latin-1")).encode(errors="replace")) is not None


class ApiKey(NamedTuple):
    """An entry of the file. `expires` is a Unix time, NEVER for none; `claims` are those of its holder besides sub and scope."""

    id: str
    digest: bytes
    name: str
    scopes: tuple[str, ...]
    claims: Mapping[str, Any]
    expires: float
    enabled: bool = True

    @classmethod
    def new(cls, name: str, scopes: tuple[str, ...], claims: Mapping[str, Any], expires: float) -> tuple["ApiKey", str]:
        """(an entry for a new key, the key itself). ValueError for what an entry cannot hold."""
        number = secrets.token_hex(8)
        key = f"jsk_{number}_{secrets.token_urlsafe(32)}"
        entry = cls(number, sha256(key.encode()).digest(), name, scopes, claims, expires)
        return cls.read(entry.document()), key

    @classmethod
    def read(cls, document: object) -> "ApiKey":
        """The entry that a document describes. Raises ValueError, in words that tell no hash."""
        if not isinstance(document, dict):
            raise ValueError("must be an object with id, sha256 and name")
        if unknown := document.keys() - _MEMBERS:
            raise ValueError(f"unknown member {min(unknown)!r}; one of: {', '.join(sorted(_MEMBERS))}")
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
                f"claims must not hold {min(taken)}: it is not the key's to say, or has a member of its own"
            )
        enabled = document.get("enabled", True)
        if not isinstance(enabled, bool):
            raise ValueError("enabled must be true or false")
        expires = NEVER if "expires" not in document else moment(document["expires"])
        return cls(number, bytes.fromhex(digest), name, tuple(scopes), claims, expires, enabled)

    def document(self) -> dict[str, Any]:
        """The entry as the file has it."""
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
        """The claims of whoever has the key."""
        scope = {"scope": " ".join(self.scopes)} if self.scopes else {}
        claims = {"sub": self.name, **scope, **self.claims}
        segment = base64url(json.dumps(claims, separators=(",", ":")).encode()).encode()
        return Claims(ISSUER, claims, segment, valid_until=self.expires, kid=self.id)


class Entries(dict[str, tuple[ApiKey, Claims]]):
    """The keys of a file by their ids, each with the claims of its holder."""

    @classmethod
    def read(cls, content: bytes, before: "Entries | None" = None) -> "Entries":
        """The entries of a file, all or none. Raises ValueError. An entry that was there before keeps its claims."""
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
    """Judges API keys. `header` is where a request brings its key, `scheme` what a challenge calls that."""

    def __init__(self, file: FollowedFile[Entries], header: TokenHeader, clock: Clock, scheme: str) -> None:
        self.file = file
        self.header = header
        self.scheme = scheme
        self._clock = clock

    def __repr__(self) -> str:
        return f"<ApiKeys: {len(self.file.value)} of {self.file.path}>"

    def authenticate(self, special: Mapping[str, list[bytes]]) -> Claims:
        """The claims of whoever sent a request with these headers. Raises Rejection."""
        key = self.header.take(special.get(self.header.role))
        if key is None:
            raise Rejection(Reason.TOKEN_MISSING)
        return self.holder(key)

    def holder(self, key: bytes) -> Claims:
        """The claims of the holder of a key. Raises Rejection; a wrong secret is told nothing about the key of that id."""
        form = LIKE_A_KEY.fullmatch(key)
        known = None if form is None else self.file.value.get(form[1].decode())
        if form is None or not hmac.compare_digest(sha256(key).digest(), _NOBODY if known is None else known[0].digest):
            raise Rejection(Reason.API_KEY_UNKNOWN)
        assert known is not None
        entry, claims = known
        if (state := entry.state(self._clock.wall())) != "on":
            rejection = Rejection(Reason.API_KEY_DISABLED if state == "disabled" else Reason.API_KEY_EXPIRED)
            rejection.issuer, rejection.kid = ISSUER, entry.id  # its holder has shown the secret
            raise rejection
        return claims
