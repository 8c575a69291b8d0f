"""The whole life of a request, top to bottom."""

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from traceback import extract_tb
from typing import TYPE_CHECKING

from aiohttp.http import RawResponseMessage

from sidecar.api_keys import LIKE_A_KEY
from sidecar.bearer import TokenSources
from sidecar.clock import Clock
from sidecar.connection import ClientConnection
from sidecar.deadlines import NEVER
from sidecar.forward_auth import ForwardAuth
from sidecar.gateway import Gateway
from sidecar.headers import AnswerHeaders, AnswerRoles, Framing, RelayedHead, Roles
from sidecar.heads import Heads
from sidecar.identity import ANONYMOUS, REPORT, IdentityHeaders
from sidecar.issuing import TOKEN_ROUTE
from sidecar.leg import BrokenOff
from sidecar.pages import Page
from sidecar.rejections import Form, Reason, Rejection, answer
from sidecar.request import REQUEST_ID, Request, new_id
from sidecar.routes import Auth, Route, Routes
from sidecar.signature import Signature
from sidecar.telemetry import Telemetry
from sidecar.tunnel import Tunnel
from sidecar.upstream import Answer, Upstream
from sidecar.verifier import Verifier, digest

if TYPE_CHECKING:
    from sidecar.tracing import Tracing

log = logging.getLogger("sidecar.proxy")

NO_BODY = frozenset({204, 304})  # RFC 9110 section 6.4.1
UNSURE_WHERE_IT_ENDS = frozenset({Reason.REQUEST_MALFORMED, Reason.EXPECTATION_FAILED})
_REASON_PHRASE = re.compile(r"[\x20-\x7e]*")


_NOTHING = Framing(b"")
_CHUNKED = Framing(b"Transfer-Encoding: chunked\r\n")
_UNTIL_CLOSED = Framing(b"")  # an HTTP/1.0 client learns the end from the end of the connection


class Proxy:
    """Takes each request through the rules to the backend, and the answer back. Made from the configuration once."""

    def __init__(
        self,
        routes: Routes,
        verifier: Verifier,
        identity: IdentityHeaders,
        upstreams: Mapping[str, Upstream],
        telemetry: Telemetry,
        clock: Clock,
        *,
        tokens: TokenSources,
        roles: Roles,
        signature: Signature | None,
        form: Form,
        gateway: Gateway,
        in_flight: int,
        close_on_expiry: str = "websocket",
        pages: Mapping[str, Page] | None = None,
        forward_auth: ForwardAuth | None = None,
        tracing: "Tracing | None" = None,
    ) -> None:
        self.routes = routes
        self.verifier = verifier
        self.identity = identity
        self.upstreams = upstreams
        self.telemetry = telemetry
        self.form = form
        self._clock = clock
        self.tokens = tokens
        self.heads = Heads(roles)
        self._signature = signature
        self._answer_roles = AnswerRoles()
        self._in_flight = in_flight
        self._close_on_expiry = close_on_expiry
        self._api_keys = gateway.api_keys
        self._mints = gateway.mints
        self.pages = pages or {}
        self._forward_auth = forward_auth
        self.tracing = tracing

    async def handle(self, request: Request) -> bool:
        """Serve one request; returns whether its connection can be used for another."""
        self.telemetry.requests_in_flight += 1
        try:
            self.heads.read(request)
            self._admit()
            if self.pages and (page := self.pages.get(request.target.partition("?")[0])) is not None:
                return await self.reply(request, page)
            asked = self._forward_auth is not None and self._forward_auth.asks(request)
            route = request.route = self.routes.match(request.method, request.target, request.host)
            identity = await self.authenticate(request, route)
            if asked:
                return self.accept(request, identity)
            self.heads.let_in(request)
            _check_length(request, route)
            upstream = self.upstreams.get(route.upstream)
            if upstream is None:
                raise Rejection(Reason.ROUTE_NOT_FOUND)
            head = self.head(request, route, identity, upstream)
            request.sent = self._clock.monotonic()
            answer = await upstream.send(head, request, lambda message: self.relay_interim(request, message))
            request.answered = self._clock.monotonic()
            return await self.relay(request, answer)
        except Rejection as rejection:
            return await self.refuse(request, rejection)
        except ConnectionError:
            raise  # the client is gone; nobody is left to be answered
        except Exception as error:  # noqa: BLE001  # a bug: said in the log, and never more than "internal error" outside
            at = extract_tb(error.__traceback__)[-1]
            log.error(
                "request_id=%s event=bug type=%s at=%s:%s do='Please report it with this line.'",
                request.id,
                type(error).__name__,
                at.filename,
                at.lineno,
            )
            if request.status:  # the answer has begun; a second one would be read as its continuation
                request.connection.abort()
                return False
            return await self.refuse(request, Rejection(Reason.INTERNAL_ERROR))
        finally:
            self.telemetry.requests_in_flight -= 1
            if self.tracing is not None:
                self.tracing.ended(request)
            self.telemetry.ended(request)

    def _admit(self) -> None:
        if self.telemetry.requests_in_flight > self._in_flight:
            raise Rejection(Reason.OVERLOADED, retry_after_s=1)

    async def authenticate(self, request: Request, route: Route) -> bytes:
        """The identity headers for this request on this route. Raises Rejection."""
        if route.auth is Auth.NONE:
            return ANONYMOUS
        if route.auth is Auth.DENY:
            raise Rejection(Reason.ROUTE_DENIED)
        if route.preflight and request.preflight:
            return ANONYMOUS
        try:
            special = request.headers.special
            if route.auth is Auth.API_KEY:
                assert self._api_keys is not None
                claims = self._api_keys.authenticate(special)
            else:
                token_digest = request.headers.digest
                known = None if token_digest is None else self.verifier.known(token_digest)
                if known is None:
                    token = self.tokens.take(special, request.target)
                    if token is None:
                        if route.auth is Auth.OPTIONAL:
                            return ANONYMOUS
                        raise Rejection(Reason.TOKEN_MISSING)
                    token_digest = digest(token)
                    known = self.verifier.known(token_digest) or await self.verifier.verify(token)
                    if self.tokens.only_in_headers:
                        request.headers.digest = token_digest
                claims = known
            request.claims = claims
            route.policy.authorize(claims)
            return self.identity.lines(claims)
        except Rejection as rejection:
            if not route.report:
                raise
            request.refused(rejection, reported=True)
            return REPORT

    def head(self, request: Request, route: Route, identity: bytes, upstream: Upstream) -> bytes:
        """The request's head for the backend, but for its framing: the exact bytes of the target, `Host` kept."""
        special = request.headers.special
        target = _target(request, route)
        credentials = b""
        if route.forward_token or not self.tokens.only_in_headers:
            target, credentials = self.tokens.sent_on(target, special, route.forward_token)
        if self._signature is not None:
            identity += self._signature.line(request.method, target, identity)
        if self._mints and request.authorized and (mint := self._mints.get(upstream.name)) is not None:
            assert request.claims is not None
            credentials += mint.line(request.claims)
        host = request.host if route.preserve_host and request.host else upstream.authority
        pieces = [
            request.method.encode(), b" ", target, b" HTTP/1.1\r\nHost: ", host, b"\r\n",
            *request.headers.kept,
            credentials,
            identity,
            request.connection.forwarded.lines(request.host or host, special),
            b"X-Request-Id: ", request.id.encode(), b"\r\n",
        ]  # fmt: skip
        if self.tracing is not None:
            pieces.append(self.tracing.asked(request, upstream))
        if (protocol := request.upgrade) is not None:
            pieces += (b"Connection: Upgrade\r\nUpgrade: ", protocol, b"\r\n")
        head = b"".join(pieces)
        if self._api_keys is not None and LIKE_A_KEY.search(head) is not None:
            raise Rejection(
                Reason.REQUEST_MALFORMED, "An API key came where it would reach the service behind this proxy."
            )
        return head

    async def reply(self, request: Request, page: Page) -> bool:
        """Answer with a page of our own; returns whether the connection stays usable. Raises Rejection."""
        request.route = page.route
        status, headers, content = await page.answer(request)
        request.status = status
        keep = self._keeps(request)
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        if status not in NO_BODY:
            lines += ("Content-Type: application/json", f"Content-Length: {len(content)}")
        lines += (
            f"X-JWT-Sidecar: {page.mark}",
            f"X-Request-Id: {request.id}",
            *([] if keep else ["Connection: close"]),
            "",
            "",
        )
        request.connection.write("\r\n".join(lines).encode() + (b"" if request.method == "HEAD" else content))
        return keep

    def relay_interim(self, request: Request, message: RawResponseMessage) -> None:
        """Pass on a 1xx answer (RFC 9110 section 15.2); `100 Continue` has been given by the sidecar itself."""
        client = request.connection
        if message.code == 100 or request.message.version.minor == 0 or client.transport is None:
            return
        headers = AnswerHeaders(message.raw_headers, self._answer_roles)
        if headers.clean:
            client.write(b"%b%b\r\n" % (_status_line(message), b"".join(headers.kept)))

    async def relay(self, request: Request, answer: Answer) -> bool:
        """Pass the answer on as it comes, no faster than the client takes it; returns whether the connection stays usable.

        Raises Rejection while nothing has been sent. Later, an answer that breaks off ends the client's connection: a short
        answer is never to be taken for a whole one.
        """
        try:
            message = answer.message
            if message.code == 101:
                await self.tunnel(request, answer)
                return False
            head = answer.head.relayed or self._relayed(request, answer)
            keep = (
                request.keep_alive
                and not self.telemetry.draining
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
        framing = self.framing(request, answer, headers)
        given_id = headers.special.get("x-request-id")
        if given_id is not None and REQUEST_ID.fullmatch(given_id) is None:
            given_id = None
        relayed = RelayedHead(b"".join((_status_line(message), *headers.kept, framing.line)), framing, given_id)
        answer.head.relayed = relayed  # a head that keeps coming needs this once
        return relayed

    async def tunnel(self, request: Request, answer: Answer) -> None:
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

    def framing(self, request: Request, answer: Answer, headers: AnswerHeaders) -> Framing:
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
            request.refused(error if isinstance(error, Rejection) else Rejection(Reason.UPSTREAM_INVALID))
            client.abort()
            raise ConnectionAbortedError from None
        if chunked:
            client.write(b"0\r\n\r\n")

    def accept(self, request: Request, identity: bytes) -> bool:
        """Answer a front proxy's question with the identity headers; returns whether the connection stays usable."""
        if self._signature is not None:
            target = request.target.encode("utf-8", "surrogateescape")
            identity += self._signature.line(request.method, target, identity)
        keep = self._keeps(request)
        request.status = 200
        request.connection.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nCache-Control: no-store\r\n%bX-Request-Id: %b\r\n%b\r\n"
            % (identity, request.id.encode(), b"" if keep else b"Connection: close\r\n")
        )
        return keep

    async def refuse(self, request: Request, rejection: Rejection) -> bool:
        """Answer a request that is refused; returns whether its connection stays usable.

        It does not when the rest of the request's body may still be on its way, or when nobody can be sure where it ends.
        """
        reason = rejection.reason
        request.refused(rejection)
        request.status = reason.status
        keep = self._keeps(request) and reason not in UNSURE_WHERE_IT_ENDS
        form, where = self.form, None
        if (route := request.route) is not None:
            where = {"route": route.name, "issuer": request.issuer}
            if route is TOKEN_ROUTE:
                form = form._replace(scheme="Basic", oauth=True)
            elif route.auth is Auth.API_KEY and self._api_keys is not None:
                form = form._replace(scheme=self._api_keys.scheme)
        head_only = request.message.method == "HEAD"
        request.connection.write(answer(rejection, request.id, form, head_only=head_only, close=not keep, where=where))
        return keep

    def _keeps(self, request: Request) -> bool:
        """Can the connection of a request that has no backend's answer be used again?"""
        return (
            request.keep_alive
            and not self.telemetry.draining
            and not request.message.upgrade
            and request.payload.is_eof()
        )

    def refuse_unread(self, reason: Reason, client: ClientConnection) -> bytes:
        """The answer to bytes that never became a request; counted, and logged with the id that it bears."""
        request_id = new_id()
        self.telemetry.unread(reason, request_id, client.forwarded.peer)
        retry_after_s = 1.0 if reason is Reason.OVERLOADED else None
        return answer(Rejection(reason, retry_after_s=retry_after_s), request_id, self.form, close=True)


def _check_length(request: Request, route: Route) -> None:
    """Refuse a body that says it is too large. One that does not say is counted on its way."""
    if route.max_body is not None and max(request.length or 0, request.payload.total_bytes) > route.max_body:
        raise Rejection(Reason.BODY_TOO_LARGE)


def _target(request: Request, route: Route) -> bytes:
    """The target's exact bytes, without the prefix that the route strips.

    Raises Rejection where the prefix came in other spelling, or where what is left begins with `//`: many take that for a host.
    """
    target = request.target
    if route.strip_prefix:
        if not target.startswith(route.strip_prefix):
            raise Rejection(Reason.PATH_AMBIGUOUS)
        target = target[len(route.strip_prefix) :]
        if not target.startswith("/"):
            target = "/" + target
        elif target.startswith("//"):
            raise Rejection(Reason.PATH_AMBIGUOUS)
    return target.encode("utf-8", "surrogateescape")  # as aiohttp decoded it


def _status_line(message: RawResponseMessage) -> bytes:
    phrase = message.reason if _REASON_PHRASE.fullmatch(message.reason) else ""
    return b"HTTP/1.1 %d %b\r\n" % (message.code, phrase.encode())
