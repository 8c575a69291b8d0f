"""CORS for the sidecar's own answers (Fetch standard, section 3.2): a page of another origin can read a refusal.

The backend adds CORS headers to its answers itself. CORS decides who may read an answer; tokens decide who may send a request.
"""

import re
from collections.abc import Collection
from urllib.parse import unquote_plus

from sidecar.http.grammar import TOKEN, options
from sidecar.http.header_policy import METHOD_OVERRIDE
from sidecar.http.request_head import RequestHead

ANY = "*"
MOST_HEADERS_BYTES = 4096  # of the header names that a preflight asks for
# Headers that a page may read besides those that every page may (Fetch, section 3.2.5).
EXPOSED = b"WWW-Authenticate, Retry-After, Allow, X-Request-Id, X-JWT-Sidecar"
# `_method` in a query names another method to WordPress, Symfony and Jersey. PHP also reads `.method` and `[method` so.
_METHOD_PARAMETER = re.compile(r"(?:^|[&;])[^A-Za-z0-9&;=]+method(?![A-Za-z0-9])", re.IGNORECASE)


class Cors:
    """The `origins` whose pages may read the sidecar's answers; ANY alone stands for all.

    `credentials`: also the answers to requests with cookies. Browsers may keep a preflight's answer for `max_age_s`.
    """

    def __init__(self, origins: Collection[str], *, credentials: bool = False, max_age_s: float = 600.0) -> None:
        assert not (credentials and ANY in origins), "every page could read answers to requests with cookies"
        self._any = ANY in origins
        self._origins = frozenset(origin.encode() for origin in origins)
        self._credentials = b"Access-Control-Allow-Credentials: true\r\n" if credentials else b""
        self._max_age_s = max_age_s

    def _allowed(self, origins: list[bytes]) -> bytes | None:
        """The value of Access-Control-Allow-Origin; None if the origin is not allowed."""
        if self._any:
            return b"*"
        return origins[0] if len(origins) == 1 and origins[0] in self._origins else None

    def refusal(self, origins: list[bytes]) -> bytes:
        """The CORS header lines of a refusal; `origins` are the values of the request's `Origin` headers."""
        vary = b"" if self._any else b"Vary: Origin\r\n"  # also for requests without Origin: caches need it
        allowed = self._allowed(origins)
        if allowed is None:
            return vary
        return b"Access-Control-Allow-Origin: %b\r\n%bAccess-Control-Expose-Headers: %b\r\n%b" % (
            allowed,
            self._credentials,
            EXPOSED,
            vary,
        )

    def preflight(self, head: RequestHead) -> dict[str, str] | None:
        """The headers that answer a preflight; None if the origin is not allowed or a requested header name is invalid."""
        allowed = self._allowed(head.values("origin"))
        methods, headers = head.values("access-control-request-method"), head.values("access-control-request-headers")
        asked = options(headers)
        if (
            allowed is None
            or len(methods) != 1
            or sum(map(len, headers)) > MOST_HEADERS_BYTES
            or not all(TOKEN.fullmatch(name) for name in (*methods, *asked))
        ):
            return None
        answer = {
            "Access-Control-Allow-Origin": allowed.decode("latin-1"),
            "Access-Control-Allow-Methods": methods[0].decode(),
            "Access-Control-Max-Age": f"{self._max_age_s:.0f}",
            "Vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        }
        if asked:
            answer["Access-Control-Allow-Headers"] = b", ".join(sorted(asked)).decode()
        if self._credentials:
            answer["Access-Control-Allow-Credentials"] = "true"
        return answer


def could_be_preflight(head: RequestHead, target: str) -> bool:
    """Does an OPTIONS request for this target have the form of a CORS preflight (Fetch, section 3.2.2), as the backend gets it?

    It has no body, asks for no other protocol and names no other method, so nothing else can pass as one.
    """
    if head.length or "upgrade" in head.special:
        return False
    origins, methods = head.values("origin"), head.values("access-control-request-method")
    return (
        len(origins) == len(methods) == 1
        and bool(origins[0])
        and TOKEN.fullmatch(methods[0]) is not None
        and options(head.special.get("connection", [])).isdisjoint({b"origin", b"access-control-request-method"})
        and METHOD_OVERRIDE.isdisjoint(head.folded_names)
        and _METHOD_PARAMETER.search(unquote_plus(target.partition("?")[2])) is None
    )
