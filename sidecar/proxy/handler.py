"""The whole life of a request, top to bottom: match, extract, verify, authorize, build the head, send; receive, relay, record.

If nothing is missing, all of it runs within the call that receives the bytes. A request that waits for keys, a connection or a
body continues where it stopped, by the same code.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sidecar.common.clock import Clock
from sidecar.common.errors import Reason, Rejection, fault
from sidecar.gateway.api_keys import carries_a_key
from sidecar.gateway.gateway import Gateway
from sidecar.gateway.local_endpoints import Page
from sidecar.http.cors import Cors
from sidecar.http.forwarded import Forwarded
from sidecar.http.head_cache import HeadCache
from sidecar.http.header_policy import RequestHeaderPolicy
from sidecar.http.request_head import RequestHead
from sidecar.http.responses import Form
from sidecar.jwt.jwks.shared_fetch import KeysAwaited
from sidecar.jwt.token_extractor import TokenSources
from sidecar.jwt.verifier import Verifier
from sidecar.observability.telemetry import Telemetry
from sidecar.policy.identity_headers import IdentityHeaders
from sidecar.policy.request_signature import Signature
from sidecar.policy.routes import Route, Routes
from sidecar.proxy.authentication import Authentication
from sidecar.proxy.body_limit import check_announced
from sidecar.proxy.exchange import BodySender, Client, Exchange, Rules
from sidecar.proxy.forward_auth import ForwardAuth
from sidecar.proxy.local_answers import LocalAnswers
from sidecar.proxy.request_id import new_id
from sidecar.proxy.request_relay import RequestRelay
from sidecar.proxy.resources import Resources
from sidecar.proxy.response_relay import ConnectionEnded, ResponseRelay
from sidecar.proxy.retry import may_be_sent_again
from sidecar.proxy.upgrade import requested
from sidecar.proxy.upstream_pool import UpstreamPool

if TYPE_CHECKING:
    from sidecar.observability.tracing import Tracing

log = logging.getLogger("sidecar.proxy")


class Handler(Rules):
    """Takes each request through the rules to the backend, and its answer back. Made from the configuration once."""

    def __init__(
        self,
        routes: Routes,
        verifier: Verifier,
        identity: IdentityHeaders,
        upstreams: Mapping[str, UpstreamPool],
        telemetry: Telemetry,
        clock: Clock,
        resources: Resources,
        *,
        tokens: TokenSources,
        header_policy: RequestHeaderPolicy,
        signature: Signature | None,
        form: Form,
        gateway: Gateway,
        in_flight: int,
        close_on_expiry: str,
        pages: Mapping[str, Page] | None = None,
        forward_auth: ForwardAuth | None = None,
        cors: Cors | None = None,
        tracing: "Tracing | None" = None,
    ) -> None:
        self.routes = routes
        self.authentication = Authentication(tokens, verifier, gateway.api_keys, identity)
        self.upstreams = upstreams
        self.telemetry = telemetry
        self.resources = resources
        request_relay = RequestRelay()
        self.request_relay: BodySender = request_relay
        self.answers = LocalAnswers(form, telemetry, gateway.api_keys, signature, cors, request_relay)
        self.tokens = tokens
        self.header_policy = header_policy
        self.heads: HeadCache[RequestHead] = HeadCache()
        self.pages = pages or {}
        self.tracing = tracing
        self._monotonic = clock.monotonic
        self._signature = signature
        self._in_flight = in_flight
        self._relay = ResponseRelay(clock, close_on_expiry)
        self._api_keys = gateway.api_keys
        self._mints = gateway.mints
        self._forward_auth = forward_auth
        self.cors = cors

    def exchange(
        self, head: RequestHead, forwarded: Forwarded, client: Client | None = None, raw: bytes = b""
    ) -> Exchange:
        """Begin the exchange of a request; `raw` are the bytes of a head that is not remembered."""
        exchange = Exchange(head, forwarded, self, head.request_id or new_id(), self.now(), client)
        exchange.raw = raw
        if forwarded.trusted:
            exchange.peer, exchange.scheme = forwarded.client(head)
        if head.traceparent is not None:
            exchange.traceparent, exchange.tracestate = head.traceparent, head.tracestate
        return exchange

    def now(self) -> float:
        """Monotonic seconds."""
        return self._monotonic()

    def receive(self, exchange: Exchange) -> None:
        """A request has come: match its route, then continue."""
        self.resources.requests_in_flight += 1
        head = exchange.head
        try:
            if head.stripped or head.from_front_proxy:
                self._count_stripped(exchange)
            self._admit()
            if head.problem or head.unmet_expectation:
                check_head(head)
            if self.pages and (page := self.pages.get(head.target.partition("?")[0])) is not None:
                exchange.route = page.route
                self.answers.reply(exchange, page)
                return
            if self._forward_auth is not None and self._forward_auth.asks(head, exchange.forwarded):
                exchange.ask_about(*self._forward_auth.asked_about(head))
            elif self.cors is not None and exchange.is_preflight and self.answers.preflight(exchange):
                return
            route = head.route
            if route is None:
                route = head.route = self.routes.match(exchange.method, exchange.target, exchange.host)
            exchange.route = route
            if exchange.raw and head.may_recur and not exchange.is_question:
                self.heads.offer(exchange.raw, head)
            self._go_on(exchange, route)
        except Rejection as rejection:
            self.answers.refuse(exchange, rejection)
        except Exception as error:  # noqa: BLE001
            self.bug(exchange, error)

    def _go_on(self, exchange: Exchange, route: Route, awaited: KeysAwaited | None = None) -> None:
        """Verify, authorize, build the head, send. Called again with `awaited` after a wait for keys. Raises Rejection."""
        try:
            identity = self.authentication.authenticate(exchange, route, awaited)
        except KeysAwaited as keys:
            exchange.waiting = asyncio.create_task(self._go_on_with(exchange, route, keys))
            return
        if exchange.is_question:
            self.answers.accept(exchange, identity)
            return
        head = exchange.head
        if route.max_body is not None:
            check_announced(head, route)
        upstream = self.upstreams.get(route.upstream)
        if upstream is None:
            raise Rejection(Reason.ROUTE_NOT_FOUND)
        exchange.request = self.request_head(exchange, route, identity, upstream)
        upstream.send(exchange)

    async def _go_on_with(self, exchange: Exchange, route: Route, keys: KeysAwaited) -> None:
        await keys.landed()
        exchange.waiting = None
        try:
            self._go_on(exchange, route, keys)
        except Rejection as rejection:
            self.answers.refuse(exchange, rejection)
        except Exception as error:  # noqa: BLE001
            self.bug(exchange, error)

    def refuse(self, exchange: Exchange, rejection: Rejection) -> None:
        """Answer a refused request."""
        self.answers.refuse(exchange, rejection)

    def relay(self, exchange: Exchange) -> None:
        """A part of the answer has come, or the client has read some: receive and relay."""
        try:
            self._relay.go_on(exchange)
        except ConnectionEnded:
            if may_be_sent_again(exchange):
                exchange.send_again()
            else:
                exchange.broken_off = True
                exchange.fail(
                    Rejection(Reason.UPSTREAM_UNREACHABLE, "The service behind this proxy closed the connection.")
                )
        except Rejection as rejection:
            exchange.fail(rejection)
        except Exception as error:  # noqa: BLE001
            self.bug(exchange, error)

    def ended(self, exchange: Exchange, now: float) -> None:
        """A request is over, at `now` in monotonic seconds: record it."""
        self.resources.requests_in_flight -= 1
        if self.tracing is not None:
            self.tracing.ended(exchange)
        self.telemetry.ended(exchange, now)

    def bug(self, exchange: Exchange, error: Exception) -> None:
        """Log a bug; the client gets only "internal error"."""
        log.error("request_id=%s event=bug %s do='Please report this line.'", exchange.id, fault(error))
        exchange.fail(Rejection(Reason.INTERNAL_ERROR))

    def _count_stripped(self, exchange: Exchange) -> None:
        head, counts = exchange.head, self.telemetry.headers_stripped
        for kind in head.stripped:
            counts[kind] += 1
        if not exchange.forwarded.trusted:
            counts["forwarded"] += head.from_front_proxy.count(b"\r\n")

    def _admit(self) -> None:
        if self.resources.requests_in_flight > self._in_flight or self.resources.spent:
            raise Rejection(Reason.OVERLOADED)

    def request_head(self, exchange: Exchange, route: Route, identity: bytes, upstream: UpstreamPool) -> bytes:
        """The request's head for the backend without its framing: the exact bytes of the target, `Host` kept."""
        head = exchange.head
        request_line = head.request_line
        credentials = b""
        if route.strip_prefix or route.forward_token or not self.tokens.only_in_headers or self._signature is not None:
            target = route.sent(exchange.target).encode()
            if route.forward_token or not self.tokens.only_in_headers:
                target, credentials = self.tokens.sent_on(target, head.special, route.forward_token)
                if not route.forward_token:
                    exchange.subprotocol = self.tokens.marker(head.special)
            if self._signature is not None:
                identity += self._signature.line(exchange.method, target, identity)
            request_line = b"%b %b HTTP/1.1" % (exchange.method.encode(), target)
        if self._mints and exchange.authorized and (mint := self._mints.get(upstream.name)) is not None:
            assert exchange.claims is not None
            credentials += mint.line(exchange.claims)
        host = exchange.host if route.preserve_host and exchange.host else upstream.authority
        built = b"%b\r\nHost: %b\r\n%b%b%b%b%b" % (
            request_line,
            host,
            head.forwarded,
            credentials,
            identity,
            exchange.forwarded.lines(exchange.host or host, head),
            exchange.id_line,
        )
        if self.tracing is not None and exchange.client is not None:
            built += self.tracing.asked(exchange, upstream)
        if (protocol := requested(exchange)) is not None:
            built += b"Connection: Upgrade\r\nUpgrade: %b\r\n" % protocol
        if self._api_keys is not None and carries_a_key(built):
            raise Rejection(
                Reason.REQUEST_MALFORMED,
                "The request has an API key in a place that the service behind this proxy would see.",
            )
        return built


def check_head(head: RequestHead) -> None:
    """Refuse a request that can be parsed but not accepted. Raises Rejection."""
    if head.problem:
        raise Rejection(Reason.REQUEST_MALFORMED, head.problem)
    if head.unmet_expectation:
        raise Rejection(Reason.EXPECTATION_FAILED)
