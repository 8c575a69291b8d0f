"""Finds the token of a request: by default in exactly one `Authorization: Bearer` header (RFC 6750 section 2.1).

The configuration may name other headers, cookies, query parameters and subprotocols. Everything in these places that may be a
token is removed before the request goes to the backend, unless `forward_token` is set. All other bytes stay as they are.
"""

from collections.abc import Sequence

from sidecar.common.errors import Reason, Rejection
from sidecar.common.folding import fold
from sidecar.http.header_policy import OWN_PREFIX
from sidecar.jwt.token_places import SUBPROTOCOLS, Place, TokenHeader, TokenParameter, TokenSubprotocol

AUTHORIZATION = TokenHeader("Authorization", "Bearer")
Special = dict[str, list[bytes]]
"""The values of the headers that the sidecar reads, by their lower-case names."""


class TokenSources:
    """The places where a request may bring its token, in order.

    `first`: if two places hold different tokens, the earlier place counts. Otherwise such a request is refused.
    """

    def __init__(self, places: Sequence[Place] = (AUTHORIZATION,), *, first: bool = False) -> None:
        self._places = tuple(places)
        self._first = first
        self.only_in_headers = all(isinstance(place, TokenHeader) for place in places)
        """Removing a token never changes the target or a part of a header: whole headers are dropped."""
        alone = places[0] if len(places) == 1 else None
        self._alone = alone if isinstance(alone, TokenHeader) else None
        self._names = {place.role: place.name for place in places if place.role}
        self._markers = tuple(place for place in places if isinstance(place, TokenSubprotocol))
        self.roles = frozenset(self._names)
        """The lower-case names of the headers that may bring a token."""

    def take(self, special: Special, target: str) -> bytes | None:
        """The token of a request with these headers and this target; None without one.

        Raises Rejection: token_ambiguous for two different tokens (RFC 6750 section 2), or token_malformed.
        """
        if self._alone is not None:  # one header, as in most configurations
            return self._alone.take(special.get(self._alone.role))
        found: bytes | None = None
        for place in self._places:
            token = _token_in(place, special, target.encode("utf-8", "surrogateescape"))
            if token is None or token == found:
                continue
            if found is not None:
                raise Rejection(Reason.TOKEN_AMBIGUOUS)
            found = token
            if self._first:
                break
        return found

    def sent_on(self, target: bytes, special: Special, forward_token: bool) -> tuple[bytes, bytes]:
        """Return (target, lines of the headers that may bring a token) for the backend, unchanged or without every token.

        With `first`, the tokens that do not count are removed although the token is forwarded.
        """
        emptied = self._places if not forward_token else self._overruled(target, special) if self._first else ()
        for place in emptied:
            if isinstance(place, TokenParameter):
                target = place.without(target)
        lines: list[bytes] = []
        for role, name in self._names.items():
            if not (values := special.get(role)):
                continue
            if role == SUBPROTOCOLS:
                values = [b", ".join(values)]  # a token may be in the line after its marker's line
            elif role != "cookie":
                if fold(role).startswith(OWN_PREFIX):
                    continue  # only the sidecar may send names that begin so
                values = [value for value in values if value][:1]
            for value in values:
                kept = value
                for place in emptied:
                    if place.role == role:
                        kept = place.without(kept)
                if kept:
                    lines += (name.encode(), b": ", kept, b"\r\n")
        return target, b"".join(lines)

    def marker(self, special: Special) -> bytes:
        """The subprotocol for the answer to a WebSocket's client if the backend, which did not get it, names none."""
        offered = special.get(SUBPROTOCOLS)
        if not offered:
            return b""
        return next((place.marker for place in self._markers if place.is_offered(offered)), b"")

    def _overruled(self, target: bytes, special: Special) -> list[Place]:
        """The places of the tokens that do not count."""
        found: bytes | None = None
        overruled: list[Place] = []
        for place in self._places:
            try:
                token = _token_in(place, special, target)
            except Rejection:  # on a public route, where tokens are not checked
                overruled.append(place)
                continue
            if token is not None and found is None:
                found = token
            elif token not in (None, found):
                overruled.append(place)
        return overruled


def _token_in(place: Place, special: Special, target: bytes) -> bytes | None:
    values = special.get(place.role) if place.role else [target]
    return place.take(values) if values else None
