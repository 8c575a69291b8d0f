"""When a request is sent to the backend once more."""

from sidecar.proxy.exchange import Exchange

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # RFC 9110 section 9.2.2; TRACE is refused


def may_be_sent_again(exchange: Exchange) -> bool:
    """May it, since its connection ended before any answer (RFC 9110 section 9.2.2)?

    Only on a connection that had been idle, which the backend may have closed meanwhile; and only where sending it twice does no
    harm, and all of its body is still here.
    """
    upstream = exchange.upstream
    return (
        upstream is not None
        and upstream.used
        and not upstream.spoken
        and exchange.is_whole
        and exchange.method in IDEMPOTENT
    )
