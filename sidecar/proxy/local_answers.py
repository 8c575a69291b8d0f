"""The sidecar's own answers: refusals, its pages, preflights and answers to front proxies."""

import re
from functools import partial

from sidecar.common.errors import Reason, Rejection
from sidecar.gateway.api_keys import ApiKeys
from sidecar.gateway.local_endpoints import Page
from sidecar.gateway.token_endpoint import TOKEN_ROUTE
from sidecar.http.cors import Cors
from sidecar.http.responses import Form, accepted, connection_line, local, refusal
from sidecar.observability.telemetry import Telemetry
from sidecar.policy.request_signature import Signature
from sidecar.policy.routes import Auth, Route
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.request_id import new_id
from sidecar.proxy.request_relay import RequestRelay

PREFLIGHT_ROUTE = Route("/*", name="(preflight)")  # for logs and metrics
GRPC = re.compile(rb"application/grpc(?:[+;]|$)", re.IGNORECASE).match
UNSURE_WHERE_IT_ENDS = frozenset({Reason.REQUEST_MALFORMED, Reason.EXPECTATION_FAILED})


class LocalAnswers:
    """Writes the sidecar's own answers, and ends their exchanges.

    `form` is the form of refusals; `signature` signs identity headers.
    """

    def __init__(
        self,
        form: Form,
        telemetry: Telemetry,
        api_keys: ApiKeys | None,
        signature: Signature | None,
        cors: Cors | None,
        request_relay: RequestRelay,
    ) -> None:
        self._form = form
        self._telemetry = telemetry
        self._api_keys = api_keys
        self._signature = signature
        self._cors = cors
        self._request_relay = request_relay

    def refuse(self, exchange: Exchange, rejection: Rejection) -> None:
        """Answer a refused request.

        The connection stays open unless more of the request's body may come, or its end is unknown.
        """
        client = exchange.client
        assert client is not None
        if exchange.is_over:
            return
        reason = rejection.reason
        exchange.refused(rejection)
        exchange.status = reason.status
        keep = exchange.may_keep_client and reason not in UNSURE_WHERE_IT_ENDS
        form, where = self._form, None
        if (route := exchange.route) is not None:
            if form.detail == "full":
                where = {"route": route.name, "issuer": exchange.issuer}
                if rejection.cause:
                    where["cause"] = rejection.cause
            if route is TOKEN_ROUTE:
                form = form._replace(scheme="Basic", oauth=True)
            elif route.auth is Auth.API_KEY and self._api_keys is not None:
                form = form._replace(scheme=self._api_keys.scheme)
        if exchange.is_question and any(map(GRPC, exchange.head.values("content-type"))):
            form = form._replace(plain=True)  # a front proxy puts it into the gRPC status message
        lines = connection_line(keep, exchange.minor)
        if self._cors is not None:
            lines += self._cors.refusal(exchange.head.values("origin"))
        head_only = exchange.head.method == "HEAD"
        client.write(refusal(rejection, exchange.id, form, lines, head_only=head_only, where=where))
        exchange.finish(keep=keep)

    def refuse_unread(self, reason: Reason, peer: str, cause: str) -> bytes:
        """The refusal of bytes that are no valid request; counted, and logged with its request id."""
        request_id = new_id()
        self._telemetry.unread(reason, request_id, peer, cause)
        rejection = Rejection(reason, cause=cause)
        where = {"cause": cause} if cause else None
        lines = connection_line(False)
        if self._cors is not None:
            lines += self._cors.refusal([])
        return refusal(rejection, request_id, self._form, lines, where=where)

    def reply(self, exchange: Exchange, page: Page) -> None:
        """Answer with one of the sidecar's own pages, after its body has come. Raises Rejection."""
        client = exchange.client
        assert client is not None
        if page.body_bytes:
            again = partial(self.reply, exchange, page)
            if self._request_relay.collect(exchange, page.body_bytes, page.body_s, again):
                return
        status, headers, content = page.answer(exchange, exchange.collected)
        exchange.status = status
        keep = exchange.may_keep_client
        head_only = exchange.method == "HEAD"
        connection = connection_line(keep, exchange.minor)
        client.write(local(status, headers, content, page.mark, exchange.id, connection, head_only=head_only))
        exchange.finish(keep=keep)

    def preflight(self, exchange: Exchange) -> bool:
        """Answer a CORS preflight if its origin is one of `cors.origins`; returns whether it did."""
        client = exchange.client
        assert client is not None
        assert self._cors is not None
        headers = self._cors.preflight(exchange.head)
        if headers is None:
            return False
        exchange.route = PREFLIGHT_ROUTE
        exchange.status = 204
        keep = exchange.may_keep_client
        connection = connection_line(keep, exchange.minor)
        client.write(local(204, headers, b"", "preflight", exchange.id, connection, head_only=False))
        exchange.finish(keep=keep)
        return True

    def accept(self, exchange: Exchange, identity: bytes) -> None:
        """Accept a front proxy's question: answer with the identity headers."""
        client = exchange.client
        assert client is not None
        if self._signature is not None:
            identity += self._signature.line(exchange.method, exchange.target.encode(), identity)
        keep = exchange.may_keep_client
        exchange.status = 200
        client.write(accepted(identity, exchange.id, connection_line(keep, exchange.minor)))
        exchange.finish(keep=keep)
