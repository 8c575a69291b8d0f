"""The verified claims of a token."""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

LATEST_DATE: Final = 253_402_300_799  # the end of the year 9999 (RFC 3339); a later NumericDate counts in milliseconds

_SAYABLE = re.compile(r"[ !#-\[\]-~]+")  # the characters of error_description: RFC 6750 section 3

Path = Sequence[str]
"""The path of a claim: its name, or the names of the enclosing objects and its own."""


class Claims:
    """The verified claims of one token. Never made from an unverified payload.

    `valid_from` and `valid_until` are Unix times that include the issuer's clock skew, so that two comparisons judge a remembered
    token. `payload_segment` is the verified payload exactly as signed, in base64url. `headers` are the identity headers, after
    they were rendered. `minted` are the tokens that the sidecar minted for these claims, by their mint. `kid` is the key id of
    the issuer's key, or the id of an API key.
    """

    __slots__ = (
        "_user_hash", "claims", "headers", "issuer", "kid", "minted", "payload_segment", "valid_from", "valid_until",
    )  # fmt: skip

    def __init__(
        self,
        issuer: str,
        claims: dict[str, Any],
        payload_segment: bytes = b"",
        valid_from: float = float("-inf"),
        valid_until: float = float("inf"),
        kid: str | None = None,
    ) -> None:
        self.issuer = issuer
        self.kid = kid
        self.claims = claims
        self.payload_segment = payload_segment
        self.valid_from = valid_from
        self.valid_until = valid_until
        self.headers: bytes | None = None
        self.minted: dict[Any, Any] = {}
        self._user_hash: str | None = None

    @property
    def user_hash(self) -> str:
        """A hash of `iss` and `sub`, for logs that must not name the subject. Made once for a token."""
        if self._user_hash is None:
            user = f"{self.claims.get('iss', '')} {self.claims.get('sub', '')}"
            self._user_hash = sha256(user.encode(errors="surrogatepass")).hexdigest()[:16]
        return self._user_hash

    def __repr__(self) -> str:
        return f"<Claims of {self.issuer}: {', '.join(self.claims)}>"


def find(claims: Mapping[str, Any], path: Path) -> Any:
    """The claim at `path`, or None. A top-level claim whose name is the whole path with dots wins over nested claims."""
    value: Any = claims.get(".".join(path))
    if value is not None:
        return value
    value = claims
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def named(path: Path) -> str:
    """A claim's name for the sentence of an answer; only "claim" if its characters are not allowed there."""
    name = ".".join(path)
    return f"{name} claim" if _SAYABLE.fullmatch(name) else "claim"
