"""Where the token is: by default exactly one `Authorization: Bearer` header (RFC 6750 section 2.1), and nothing else.

Other headers, cookies, query parameters and subprotocols are looked at where the configuration names them. Whatever may hold a
token is taken out of what goes to the backend, byte for byte, unless the token is to be sent on.
"""

from collections.abc import Mapping, Sequence

from sidecar.common.errors import Reason, Rejection
from sidecar.common.folding import fold
from sidecar.http.header_policy import OWN_PREFIX
from sidecar.jwt.token_places import SUBPROTOCOLS, Place, TokenHeader, TokenParameter, TokenSubprotocol

AUTHORIZATION = TokenHeader("Authorization", "Bearer")
Special = Mapping[str, list[bytes]]
"""The values of the headers that have a meaning here, by their lower-case names."""


class TokenSources:
    """The places where a request may bring its token, in their order.

    `first`: of tokens that differ in two places the one of the earlier place counts; otherwise such a request is refused.
    """

    def __init__(self, places: Sequence[Place] = (AUTHORIZATION,), *, first: bool = False) -> None:
        self._places = tuple(places)
        self._first = first
        self.only_in_headers = all(isinstance(place, TokenHeader) for place in places)
        """Nothing has to be taken out of what is sent on but whole headers."""
        alone = places[0] if len(places) == 1 else None
        self._take = alone.take if isinstance(alone, TokenHeader) else None
        self._role = alone.role if isinstance(alone, TokenHeader) else ""
        self._names = {place.role: place.name for place in places if place.role}
        self._markers = tuple(place for place in places if isinstance(place, TokenSubprotocol))
        self.roles = frozenset(self._names)
        """The lower-case names of the headers that are read here."""

    def take(self, special: Special, target: str) -> bytes | None:
        """The token of a request with these headers and this target, or None when it brings none.

        Raises Rejection: token_ambiguous for tokens that differ (RFC 6750 section 2); token_malformed.
        """
        if self._take is not None:  # the one place that most configurations have
            return self._take(special.get(self._role))
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
        """(target, lines of the headers that are read here) for the backend: with what came, or with every token taken out.

        Where the first of several tokens counts, the others are taken out although the token is sent on.
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
                values = [b", ".join(values)]  # a token may stand in the line behind that of its marker
            elif role != "cookie":
                if fold(role).startswith(OWN_PREFIX):
                    continue  # what begins so is the sidecar's to say, whatever came under that name
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
        """The subprotocol that a WebSocket's client is answered with where its backend, which never saw it, names none."""
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
            except Rejection:  # on a public route, where nobody has asked for it
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
