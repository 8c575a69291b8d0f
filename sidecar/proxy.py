"""The whole life of a request, top to bottom."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from traceback import extract_tb
from typing import TYPE_CHECKING

from sidecar.api_keys import LIKE_A_KEY
from sidecar.bearer import TokenSources
from sidecar.clock import Clock
from sidecar.connection import ClientConnection
from sidecar.forward_auth import ForwardAuth
from sidecar.gateway import Gateway
from sidecar.headers import Roles
from sidecar.heads import Heads
from sidecar.identity import ANONYMOUS, REPORT, IdentityHeaders
from sidecar.issuing import TOKEN_ROUTE
from sidecar.pages import Page
from sidecar.rejections import Form, Reason, Rejection, answer
from sidecar.relay import NO_BODY, Relay
from sidecar.request import Request, new_id
from sidecar.routes import Auth, Route, Routes
from sidecar.signature import Signature
from sidecar.telemetry import Telemetry
from sidecar.upstream import Upstream
from sidecar.verifier import Verifier, digest

if TYPE_CHECKING:
    from sidecar.tracing import Tracing

log = logging.getLogger("sidecar.proxy")

UNSURE_WHERE_IT_ENDS = frozenset({Reason.REQUEST_MALFORMED, Reason.EXPECTATION_FAILED})


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
        close_on_expiry: str,
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
        self._in_flight = in_flight
        self._relay = Relay(telemetry, clock, close_on_expiry)
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
            answer = await upstream.send(head, request, lambda message: self._relay.interim(request, message))
            request.answered = self._clock.monotonic()
            return await self._relay.answer(request, answer)
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
                request.refused(Rejection(Reason.INTERNAL_ERROR))
                request.connection.abort()
                raise ConnectionAbortedError from None  # nothing may follow, not even an orderly end
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
