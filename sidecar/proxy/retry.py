"""Decides whether a request may be sent to the backend again."""

from typing import Final

from sidecar.proxy.exchange import Exchange

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # RFC 9110 section 9.2.2; TRACE is refused


def may_be_sent_again(exchange: Exchange) -> bool:
    """May the request be sent again, after its connection closed before any answer (RFC 9110 section 9.2.2)?

    Only if the connection had been idle, so that the backend may have closed it before the request came; only if the method is
    idempotent; and only if all of the body is kept.
    """
    upstream = exchange.upstream
    return (
        upstream is not None
        and upstream.used
        and not upstream.spoken
        and exchange.is_whole
        and exchange.method in IDEMPOTENT
    )
