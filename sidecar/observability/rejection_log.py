"""Keeps the last refusals by request id, for operators. Tokens are not kept."""

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from sidecar.common.clock import Clock
from sidecar.common.errors import Reason
from sidecar.observability.record import Record

KEPT = 100
MAX_PATH = 500  # characters of a path; clients choose them
MAX_HOST = 255  # characters of a host: the longest DNS name


class Refusal(NamedTuple):
    """One refusal at a Unix time. `reported`: the request was accepted in report mode.

    `status` is of the answer. `issuer` is set if the signature was verified, `kid` if the key was looked up. `claims` are the
    names of a verified token's claims. `method`, `path` and `host` are empty for bytes that were no valid request. `cause`
    names the rule that a message breaks. `expected` and `found` are the values of the check that refused the token.
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
    """The last KEPT refusals of `total`. Clients may choose request ids, so several refusals may share one."""

    def __init__(self, clock: Clock) -> None:
        self.total = 0
        self._clock = clock
        self._last: deque[Refusal] = deque(maxlen=KEPT)

    def add(self, request: Record, reason: Reason, route: str) -> None:
        """Keep a refused request."""
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
        """Keep a refusal of bytes that were no valid request."""
        self.total += 1
        at, status = self._clock.wall(), reason.status
        self._last.append(
            Refusal(at, request_id, "", "", route, "none", (), status, reason, reason.details, peer, False, cause)
        )

    def __iter__(self) -> Iterator[Refusal]:
        """The refusals, newest first."""
        return reversed(self._last)

    def after(self, number: int, most: int = KEPT) -> Iterator[Refusal]:
        """The last `most` refusals after the first `number` of `total`, newest first."""
        return islice(self, min(most, max(0, self.total - number)))

    def find(self, request_id: str) -> Refusal | None:
        """The newest kept refusal with this id, or None."""
        return next((refusal for refusal in self if refusal.request_id == request_id), None)
