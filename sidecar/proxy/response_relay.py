"""Relays answers to clients: a new head, the body as it comes, or a tunnel after a 101."""

from sidecar.common.clock import Clock
from sidecar.common.deadlines import NEVER
from sidecar.common.errors import Reason, Rejection
from sidecar.http.framing import LAST_CHUNK, UNTIL_CLOSE, chunk
from sidecar.http.grammar import ProtocolError
from sidecar.http.response_head import ResponseHead
from sidecar.http.responses import connection_line, interim, relayed
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.upgrade import accept
from sidecar.proxy.upstream_connection import UpstreamConnection

MOST_INTERIM_ANSWERS = 100  # 1xx before one final answer


class ConnectionEnded(Exception):
    """The backend closed the connection before its answer began."""


class ResponseRelay:
    """Relays answers. `close_on_expiry` says which of them end when their token expires: "websocket", "all" or "off"."""

    def __init__(self, clock: Clock, close_on_expiry: str) -> None:
        self._monotonic, self._wall = clock.monotonic, clock.wall
        self._close_on_expiry = close_on_expiry

    def go_on(self, exchange: Exchange) -> None:
        """Relay the received part of the answer, no faster than the client reads.

        Raises Rejection, also if the backend's connection closed within the answer, and ConnectionEnded if it closed before.
        """
        client, upstream = exchange.client, exchange.upstream
        assert client is not None
        assert upstream is not None
        if client.write_paused:
            upstream.deadline = exchange.ends  # waiting for the client now
            return
        reader = upstream.reader
        head = exchange.response
        beginning = b""
        now = self._monotonic()
        try:
            if head is None:
                head = upstream.next_head()
                if head is None or not head.is_final:
                    head = self._final_head(exchange, upstream, head)
                    if head is None:
                        return
                exchange.answered = now
                exchange.response = head
                if head.status == 101:
                    lasts_s = self._lasts_s(exchange) if self._close_on_expiry != "off" else NEVER
                    accept(exchange, head, upstream, lasts_s)
                    return
                piece = reader.body() if reader.state == "body" else b""
                beginning = self._beginning(exchange, head, upstream, piece, now)
            else:
                piece = reader.body()
        except ProtocolError as error:
            raise Rejection(Reason.UPSTREAM_INVALID, cause=error.rule) from None
        is_complete = reader.state == "complete"
        if upstream.ended and not is_complete and not reader.ready:
            is_complete = upstream.complete_end and reader.end()
            if not is_complete:
                client.write(beginning)
                exchange.broken_off = True
                raise Rejection(Reason.UPSTREAM_INVALID, cause="The connection ended before the answer was complete.")
        if exchange.chunked_answer:
            piece = (chunk(piece) if piece else b"") + (LAST_CHUNK if is_complete else b"")
        if beginning or piece:
            client.write(beginning + piece)
        if is_complete:
            self._complete(exchange, head, upstream, now)
            return
        upstream.unread_changed()
        client.flush()
        if client.write_paused:
            upstream.receiver_waits()
            upstream.deadline = exchange.ends
        elif reader.ready or upstream.ended:
            exchange.answer_again()
        else:
            upstream.deadline = min(now + upstream.pool.idle_s, exchange.ends)

    def _final_head(
        self, exchange: Exchange, upstream: UpstreamConnection, head: ResponseHead | None
    ) -> ResponseHead | None:
        """The head of the final answer, None before it has come. Relays 1xx answers (RFC 9110 section 15.2).

        `head` is the first received head.

        Raises ProtocolError and ConnectionEnded.
        """
        client = exchange.client
        assert client is not None
        while head is not None:
            if head.is_final:
                return head
            exchange.interim_answers += 1
            if exchange.interim_answers > MOST_INTERIM_ANSWERS:
                raise ProtocolError(f"More than {MOST_INTERIM_ANSWERS} interim answers came before a final one.")
            if head.status != 100 and exchange.minor == 1:  # the sidecar sends `100 Continue` itself
                client.write(interim(head))
                client.flush()
            if client.write_paused:
                upstream.deadline = NEVER
                return None
            head = upstream.next_head()
        if upstream.ended:
            raise ConnectionEnded
        return None

    def _beginning(
        self, exchange: Exchange, head: ResponseHead, upstream: UpstreamConnection, piece: bytes, now: float
    ) -> bytes:
        """The head for the client, with the framing of the body (RFC 9112 section 6.3)."""
        keep = exchange.may_keep_client and exchange.body_sent
        framing = head.framing
        if framing:
            pass  # it has a Content-Length
        elif head.length and not upstream.head_only:
            if upstream.reader.state == "complete":
                framing = b"Content-Length: %d\r\n" % len(piece)
            elif exchange.minor == 1:
                exchange.chunked_answer = True
                framing = b"Transfer-Encoding: chunked\r\n"
            else:
                keep = False  # for an HTTP/1.0 client the end of the connection ends the body
        exchange.keeps_client = keep
        exchange.status = head.status
        if self._close_on_expiry == "all":
            exchange.ends = now + self._lasts_s(exchange)
        return relayed(head, framing, exchange.id_line, connection_line(keep, exchange.minor))

    def _complete(self, exchange: Exchange, head: ResponseHead, upstream: UpstreamConnection, now: float) -> None:
        """End a complete answer. Any byte after it closes the backend's connection."""
        exchange.upstream = exchange.pool = None
        if (
            exchange.body_sent
            and head.persists
            and head.length != UNTIL_CLOSE  # a backend that ends a GET by closing may also close after a HEAD
            and upstream.can_be_used_again
        ):
            upstream.release(now)
        else:
            upstream.dismiss()
        exchange.finish(keep=exchange.keeps_client, now=now)

    def _lasts_s(self, exchange: Exchange) -> float:
        """Seconds until the request's token expires; NEVER without a token, without exp, or in report mode."""
        assert exchange.route is not None
        if exchange.route.report or exchange.claims is None:
            return NEVER
        return exchange.claims.valid_until - self._wall()
