"""The last refusals by request id, for operators who are asked why: what was refused and for which reason, never a token."""

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from sidecar.common.clock import Clock
from sidecar.common.errors import Reason
from sidecar.observability.record import Record

KEPT = 100
MAX_PATH = 500  # characters of a path; clients choose them
MAX_HOST = 255  # characters of a host; a name of DNS has no more


class Refusal(NamedTuple):
    """One refusal at a Unix time; with `reported` one that would have been, on a route that only reports.

    `status` is that of the answer, `issuer` that of the token whose signature held, `kid` what a token calls its key once that
    was looked up, and `claims` are the names of what a verified token claims. `method`, `path` and `host` are empty where bytes
    never became a request. `cause` says which rule a message breaks, if it is one about those; `expected` and `found` say what a
    check of the token did.
    """

    at: float
    request_id: str
    method: str
    path: str
    route: str
    issuer: str
    claims: tuple[str, ...]
    status: int
    reason: Reason
    details: str
    peer: str
    reported: bool
    cause: str
    host: str = ""
    kid: str | None = None
    expected: str = ""
    found: str = ""


class Refusals:
    """The last KEPT refusals of `total`. A request id may be the client's own, so several may bear the same."""

    def __init__(self, clock: Clock) -> None:
        self.total = 0
        self._clock = clock
        self._last: deque[Refusal] = deque(maxlen=KEPT)

    def add(self, request: Record, reason: Reason, route: str) -> None:
        """Keep what is told of a refused request."""
        self.total += 1
        path, claims = request.path, request.claims
        self._last.append(
            Refusal(
                self._clock.wall(),
                request.id,
                request.method_shown,
                path if len(path) <= MAX_PATH else f"{path[:MAX_PATH]}...",
                route,
                request.issuer,
                () if claims is None else tuple(claims.claims),
                request.status,
                reason,
                request.details,
                request.peer,
                request.reported,
                request.cause,
                request.host_shown[:MAX_HOST],
                request.token_kid if claims is None else claims.kid,
                request.expected,
                request.found,
            )
        )

    def add_unread(self, reason: Reason, request_id: str, peer: str, route: str, cause: str) -> None:
        """Keep that bytes were refused which never became a request."""
        self.total += 1
        at, status = self._clock.wall(), reason.status
        self._last.append(
            Refusal(at, request_id, "", "", route, "none", (), status, reason, reason.details, peer, False, cause)
        )

    def __iter__(self) -> Iterator[Refusal]:
        """The newest first."""
        return reversed(self._last)

    def after(self, number: int, most: int = KEPT) -> Iterator[Refusal]:
        """The last `most` of those that came after so many of `total`, the newest first."""
        return islice(self, min(most, max(0, self.total - number)))

    def find(self, request_id: str) -> Refusal | None:
        """The newest refusal with this id, if it is among the last."""
        return next((refusal for refusal in self if refusal.request_id == request_id), None)
