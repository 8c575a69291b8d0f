"""Whether a connection switches to another protocol, such as WebSocket: the client, the route and the backend all have a say."""

from sidecar.http.grammar import ProtocolError
from sidecar.http.response_head import ResponseHead
from sidecar.http.responses import switching
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.tunnel import Tunnel
from sidecar.proxy.upstream_connection import UpstreamConnection


def requested(exchange: Exchange) -> bytes | None:
    """The protocol that the client requests and its route allows. Never h2c: it would carry requests that nobody verifies."""
    protocol, route = exchange.head.upgrade, exchange.route
    return protocol if route is not None and protocol in route.upgrades else None


def accept(exchange: Exchange, head: ResponseHead, upstream: UpstreamConnection, lasts_s: float) -> None:
    """Relay the 101, then open a tunnel for so many seconds. Raises ProtocolError for a protocol that was not requested."""
    client, protocol = exchange.client, requested(exchange)
    assert client is not None
    if protocol is None or head.upgrade not in (None, protocol):
        raise ProtocolError("A 101 must switch to the requested protocol.")
    exchange.status = 101
    client.write(switching(head, protocol, exchange.subprotocol))
    Tunnel(exchange, client, upstream, lasts_s, websocket=protocol == b"websocket").begin()
