"""Relays requests to the backend: the head with the framing of the body, then the body as it comes.

A small body is kept while the request may be sent again. A body for one of the sidecar's own pages is collected.
"""

from collections.abc import Callable

from sidecar.common.errors import Reason, Rejection
from sidecar.http.framing import CHUNKED, LAST_CHUNK, chunk
from sidecar.http.grammar import ProtocolError
from sidecar.http.responses import CONTINUE
from sidecar.proxy.body_limit import check_received
from sidecar.proxy.exchange import BodySender, Exchange
from sidecar.proxy.retry import IDEMPOTENT
from sidecar.proxy.upstream_connection import UpstreamConnection


class RequestRelay(BodySender):
    """Relays requests, no faster than the backend reads. The state of a request is in its exchange."""

    def start(self, exchange: Exchange, upstream: UpstreamConnection) -> None:
        """Send the request over this connection, with the received part of its body. Raises Rejection."""
        exchange.upstream = upstream
        now = exchange.sent = exchange.handler.now()
        client = exchange.client
        assert client is not None
        head, reader = exchange.head, client.reader
        head_only = exchange.method == "HEAD"
        if reader.state == "body":
            self.keep(exchange, self._piece(exchange))
        body = exchange.kept_body
        if reader.state == "complete":
            exchange.body_sent = exchange.is_whole = True
            if head.length:
                framing = b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            else:
                framing = b"Content-Length: 0\r\n\r\n" if head.sized else b"\r\n"
            upstream.start(exchange, exchange.request + framing, head_only=head_only)
            upstream.deadline = now + upstream.pool.answer_s
            if body and not (upstream.used and exchange.method in IDEMPOTENT):
                self.keep(exchange, b"")
            return
        if head.length == CHUNKED:
            framing = b"Transfer-Encoding: chunked\r\n\r\n" + (chunk(body) if body else b"")
        else:
            framing = b"Content-Length: %d\r\n\r\n%b" % (head.length, body)
        upstream.start(exchange, exchange.request + framing, head_only=head_only)
        self.keep(exchange, b"")
        if head.expects_continue and not exchange.body_bytes and not reader.buffer:
            client.write(CONTINUE)
        exchange.send_body()

    def go_on(self, exchange: Exchange) -> None:
        """Pass on the received part of the body. Raises Rejection."""
        client, upstream = exchange.client, exchange.upstream
        if exchange.then is not None and not exchange.is_over:
            exchange.then()
        if client is None or upstream is None or exchange.body_sent or exchange.is_over:
            return
        reader = client.reader
        if not upstream.write_paused:
            piece = self._piece(exchange)
            if piece:
                upstream.write(chunk(piece) if exchange.head.length == CHUNKED else piece)
            if reader.state == "complete":
                if exchange.head.length == CHUNKED:
                    upstream.write(LAST_CHUNK)
                exchange.body_sent = True
                client.body_is_owed(False)
                exchange.await_answer()
                return
            upstream.flush()
        if upstream.write_paused:
            client.receiver_is_slow()
        elif reader.ready:
            exchange.send_body_again()
        client.body_is_owed(not upstream.write_paused)
        exchange.await_answer()

    def collect(self, exchange: Exchange, most_bytes: int, within_s: float, then: Callable[[], None]) -> bool:
        """Collect the body. Returns True if more must come; `then` is called when it is complete. Raises Rejection."""
        client = exchange.client
        assert client is not None
        if exchange.then is None:
            exchange.then = then
            if client.reader.state == "body":
                client.body_is_owed(True, within_s)
                if exchange.head.expects_continue and not client.reader.buffer:
                    client.write(CONTINUE)
        while client.reader.ready:
            exchange.collected += self._piece(exchange)
            if len(exchange.collected) > most_bytes:
                raise Rejection(Reason.BODY_TOO_LARGE)
        return client.reader.state == "body"

    def keep(self, exchange: Exchange, body: bytes) -> None:
        """Keep a small body whole, so that the request can be sent again."""
        assert exchange.client is not None
        exchange.client.resources.hold(len(body) - len(exchange.kept_body))
        exchange.kept_body = body

    def _piece(self, exchange: Exchange) -> bytes:
        """Take a piece of the body. Raises Rejection."""
        client, route = exchange.client, exchange.route
        assert client is not None
        assert route is not None
        try:
            piece = client.reader.body()
        except ProtocolError as error:
            raise Rejection(
                Reason.REQUEST_MALFORMED, "The request's body is not well-formed.", cause=error.rule
            ) from None
        client.unread_changed()
        exchange.body_bytes += len(piece)
        if route.max_body is not None:
            check_received(exchange.body_bytes, route)
        return piece
