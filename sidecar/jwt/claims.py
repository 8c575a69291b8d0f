"""What a token says once its signature has been verified."""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

LATEST_DATE = 253_402_300_799  # the end of the year 9999 (RFC 3339); a later NumericDate counts in milliseconds

_SAYABLE = re.compile(r"[ !#-\[\]-~]+")  # what error_description may hold: RFC 6750 section 3

Path = Sequence[str]
"""The way to a claim: its name, or the names of the objects around it and its own."""


class Claims:
    """The verified claims of one token. Never made from an unverified payload.

    `valid_from` and `valid_until` are Unix times with the issuer's clock skew already allowed for, so that a remembered
    token is judged by two comparisons. `payload_segment` is the verified payload exactly as it was signed, in base64url.
    `headers` holds the identity headers once they have been rendered for the upstream, `minted` the tokens of our own that stand
    for them, by their mint. `kid` is that of the issuer's key, or the id of an API key.
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
        """What stands for the subject where its name should not: the same for the same `iss` and `sub`. Made once for a token."""
        if self._user_hash is None:
            user = f"{self.claims.get('iss', '')} {self.claims.get('sub', '')}"
            self._user_hash = sha256(user.encode(errors="surrogatepass")).hexdigest()[:16]
        return self._user_hash

    def __repr__(self) -> str:
        return f"<Claims of {self.issuer}: {', '.join(self.claims)}>"


def find(claims: Mapping[str, Any], path: Path) -> Any:
    """The claim at `path`, or None. The whole path written as one top-level name wins over nesting."""
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
    """A claim's name for a sentence of an answer; one that cannot stand there is not said."""
    name = ".".join(path)
    return f"{name} claim" if _SAYABLE.fullmatch(name) else "claim"
