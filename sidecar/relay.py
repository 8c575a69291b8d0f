"""The answer's way back to the client: its head made anew, its body as it comes, or a tunnel after a 101."""

import re

from aiohttp.http import RawResponseMessage

from sidecar.clock import Clock
from sidecar.deadlines import NEVER
from sidecar.headers import AnswerHeaders, AnswerRoles, Framing, RelayedHead
from sidecar.leg import BrokenOff
from sidecar.rejections import Reason, Rejection
from sidecar.request import REQUEST_ID, Request
from sidecar.telemetry import Telemetry
from sidecar.tunnel import Tunnel
from sidecar.upstream import Answer

NO_BODY = frozenset({204, 304})  # RFC 9110 section 6.4.1
_REASON_PHRASE = re.compile(r"[\x20-\x7e]*")


_NOTHING = Framing(b"")
_CHUNKED = Framing(b"Transfer-Encoding: chunked\r\n")
_UNTIL_CLOSED = Framing(b"")  # an HTTP/1.0 client learns the end from the end of the connection


class Relay:
    """Passes answers on. `close_on_expiry` says what ends with the token that opened it: "websocket", "all" or "off"."""

    def __init__(self, telemetry: Telemetry, clock: Clock, close_on_expiry: str) -> None:
        self._telemetry = telemetry
        self._clock = clock
        self._close_on_expiry = close_on_expiry
        self._answer_roles = AnswerRoles()

    def interim(self, request: Request, message: RawResponseMessage) -> None:
        """Pass on a 1xx answer (RFC 9110 section 15.2); `100 Continue` has been given by the sidecar itself."""
        client = request.connection
        if message.code == 100 or request.message.version.minor == 0 or client.transport is None:
            return
        headers = AnswerHeaders(message.raw_headers, self._answer_roles)
        if headers.clean:
            client.write(b"%b%b\r\n" % (_status_line(message), b"".join(headers.kept)))

    async def answer(self, request: Request, answer: Answer) -> bool:
        """Pass the answer on as it comes, no faster than the client takes it; returns whether the connection stays usable.

        Raises Rejection while nothing has been sent. Later, an answer that breaks off ends the client's connection: a short
        answer is never to be taken for a whole one.
        """
        try:
            message = answer.message
            if message.code == 101:
                await self._tunnel(request, answer)
                return False
            head = answer.head.relayed or self._relayed(request, answer)
            keep = (
                request.keep_alive
                and not self._telemetry.draining
                and not request.message.upgrade  # what was declined may already be on its way
                and answer.request_sent
                and head.framing is not _UNTIL_CLOSED
            )
            client = request.connection
            request.status = message.code
            pieces = [head.lines, b"X-Request-Id: ", head.given_id or request.id.encode(), b"\r\n"]
            if not keep:
                pieces.append(b"Connection: close\r\n")
            elif request.message.version.minor == 0:
                pieces.append(b"Connection: keep-alive\r\n")
            pieces.append(b"\r\n")
            body = b"" if request.method == "HEAD" else answer.whole()
            if body is not None:
                pieces.append(body)
                client.write(b"".join(pieces))
            else:
                client.write(b"".join(pieces))
                await self._stream(request, answer, chunked=head.framing is _CHUNKED)
            return keep
        finally:
            answer.release()

    def _relayed(self, request: Request, answer: Answer) -> RelayedHead:
        """The answer's head as it goes on. Raises Rejection."""
        message = answer.message
        headers = AnswerHeaders(message.raw_headers, self._answer_roles)
        framing = self._framing(request, answer, headers)
        given_id = headers.special.get("x-request-id")
        if given_id is not None and REQUEST_ID.fullmatch(given_id) is None:
            given_id = None
        relayed = RelayedHead(b"".join((_status_line(message), *headers.kept, framing.line)), framing, given_id)
        answer.head.relayed = relayed  # a head that keeps coming needs this once
        return relayed

    async def _tunnel(self, request: Request, answer: Answer) -> None:
        """Pass on a 101 and then bytes, until either side or the token ends.

        Raises Rejection for a 101 that nobody asked for, or did not wait for.
        """
        headers = AnswerHeaders(answer.message.raw_headers, self._answer_roles)
        protocol = request.upgrade
        if protocol is None or not headers.clean:
            raise Rejection(Reason.UPSTREAM_INVALID)
        websocket = protocol == b"websocket"
        if not websocket and (request.connection.sent_on or not request.connection.parse_afresh()):
            # Some of these bytes are lost: what follows is parsed as HTTP, unless it is a WebSocket's.
            raise Rejection(Reason.REQUEST_MALFORMED, "Bytes of the other protocol came before it was agreed on.")
        request.status = 101
        pieces = [_status_line(answer.message), *headers.kept]
        pieces += (b"Connection: Upgrade\r\nUpgrade: ", protocol, b"\r\n\r\n")
        request.connection.write(b"".join(pieces))
        lasts_s = self._lasts_s(request) if self._close_on_expiry != "off" else NEVER
        await Tunnel(request.connection, answer.connection, answer.idle_s, lasts_s, websocket=websocket).run()

    def _lasts_s(self, request: Request) -> float:
        """How long the request's token is still good; NEVER to end without one, or without exp."""
        return NEVER if request.claims is None else request.claims.valid_until - self._clock.wall()

    def _framing(self, request: Request, answer: Answer, headers: AnswerHeaders) -> Framing:
        """How the client learns where the answer ends, made anew (RFC 9112 section 6.3). Raises Rejection."""
        special = headers.special
        length = special.get("content-length")
        coding = special.get("transfer-encoding")
        if not headers.clean or (coding is not None and coding.lower() != b"chunked"):
            raise Rejection(Reason.UPSTREAM_INVALID)
        if length is not None and answer.message.code != 204:
            return Framing(b"Content-Length: %b\r\n" % length)
        if request.method == "HEAD" or answer.message.code in NO_BODY:
            return _NOTHING
        if answer.payload.is_eof():
            return Framing(b"Content-Length: %d\r\n" % answer.payload.total_bytes)
        return _CHUNKED if request.message.version.minor == 1 else _UNTIL_CLOSED

    async def _stream(self, request: Request, answer: Answer, chunked: bool) -> None:
        client, upstream, payload = request.connection, answer.connection, answer.payload
        idle_s = answer.idle_s
        now = self._clock.monotonic
        ends = now() + self._lasts_s(request) if self._close_on_expiry == "all" else NEVER
        try:
            while True:
                upstream.deadline = min(now() + idle_s, ends)
                chunk = await payload.readany()
                upstream.deadline = NEVER
                if not chunk:
                    break
                if now() >= ends:
                    raise Rejection(Reason.TOKEN_EXPIRED)
                if chunked:
                    client.writelines((b"%x\r\n" % len(chunk), chunk, b"\r\n"))
                else:
                    client.write(chunk)
                await client.drain(now() + idle_s)
        except (Rejection, BrokenOff) as error:
            request.broken_off = isinstance(error, BrokenOff)
            if now() >= ends:  # then that was the deadline, and no silence of the backend
                request.refused(Rejection(Reason.TOKEN_EXPIRED))
            else:
                request.refused(error if isinstance(error, Rejection) else Rejection(Reason.UPSTREAM_INVALID))
            client.abort()
            raise ConnectionAbortedError from None
        if chunked:
            client.write(b"0\r\n\r\n")


def _status_line(message: RawResponseMessage) -> bytes:
    phrase = message.reason if _REASON_PHRASE.fullmatch(message.reason) else ""
    return b"HTTP/1.1 %d %b\r\n" % (message.code, phrase.encode())
