"""One request and its answer: the only object that knows both connections.

A client's connection has at most one exchange, and a backend's connection belongs to at most one. The exchange holds both links;
nothing else decides which answer belongs to which request.
"""

from asyncio import Task
from collections.abc import Callable
from typing import Protocol

from sidecar.common.deadlines import NEVER
from sidecar.common.errors import Reason, Rejection
from sidecar.http.cors import could_be_preflight
from sidecar.http.forwarded import Forwarded
from sidecar.http.message_reader import MessageReader
from sidecar.http.request_head import RequestHead
from sidecar.http.response_head import ResponseHead
from sidecar.jwt.examination import Examination
from sidecar.observability.record import Record
from sidecar.proxy.connection import Receiver
from sidecar.proxy.resources import Resources
from sidecar.proxy.tunnel import ClientSide
from sidecar.proxy.upstream_connection import Asker, UpstreamConnection


class Client(ClientSide, Receiver, Protocol):
    """The client's connection, as an exchange sees it."""

    __slots__ = ()

    reader: MessageReader

    def flush(self) -> None:
        """Send the bytes of this turn now. Call it before you read `write_paused`."""

    def body_is_owed(self, owed: bool, within_s: float | None = None) -> None:
        """Set whether the client must send a piece of its body."""

    def unread_changed(self) -> None:
        """Some unread bytes were taken."""

    def receiver_is_slow(self) -> None:
        """The backend reads slowly."""

    def abort(self) -> None:
        """Close the connection at once."""

    def exchange_over(self, keep: bool, now: float) -> None:
        """The exchange has ended."""


class BodySender(Protocol):
    """Relays a request to its backend (proxy/request_relay.py)."""

    def start(self, exchange: "Exchange", upstream: UpstreamConnection) -> None:
        """Send the head, and the received part of the body. Raises Rejection."""

    def go_on(self, exchange: "Exchange") -> None:
        """Pass on the received part of the body. Raises Rejection."""

    def keep(self, exchange: "Exchange", body: bytes) -> None:
        """Keep a body, so that the request can be sent again."""


class Rules(Protocol):
    """The handler of an exchange."""

    resources: Resources
    request_relay: BodySender

    def refuse(self, exchange: "Exchange", rejection: Rejection) -> None:
        """Answer a refused request."""

    def now(self) -> float:
        """Monotonic seconds."""

    def relay(self, exchange: "Exchange") -> None:
        """Pass on the received part of the answer."""

    def bug(self, exchange: "Exchange", error: Exception) -> None:
        """Report a bug, and fail the exchange."""

    def ended(self, exchange: "Exchange", now: float) -> None:
        """The exchange has ended."""


class Waiting(Protocol):
    """Gives an exchange a connection to the backend, or lets it wait."""

    def send(self, exchange: "Exchange") -> None:
        """Send a request as soon as a connection is free."""

    def withdraw(self, exchange: "Exchange") -> None:
        """Remove a request from the queue."""


class Exchange(Record, Asker):
    """A request and the state of its answer.

    Without a `client` it is a request of `explain`, and `examination` records the checks of its token.

    - `forwarded`: the X-Forwarded-* writer. `request`: the head for the backend without its framing.
    - `id_line`: the header line of the request id, for both sides.
    - `upstream`: its connection to the backend. `pool`: the pool of that connection. `waiting`: the task that it waits for.
    - `response`: the final head of the answer. `keeps_client`: the client's connection stays open after the answer.
    - `body_sent`: all of the request's body was sent. `kept_body`: a whole body for a second try. `is_whole`: all of the body has
    come. `body_bytes`: the number of its bytes that have come.
    - `ends`: when the token ends the answer. `deadline`: how long it waits for a connection. Both are monotonic seconds.
    - `subprotocol`: for the answer to a WebSocket's client if the backend names none (RFC 6455 section 4.2.2).
    - `is_question`: a front proxy asks about another request. `collected`: the body of a request for one of the sidecar's own
    pages; `then` is called when more of it has come.
    """

    # Most requests need none of these.
    body_bytes = 0
    body_sent = False
    chunked_answer = False
    collected = b""
    examination: Examination | None = None
    interim_answers = 0
    is_over = False
    is_question = False
    is_whole = False
    kept_body = b""
    keeps_client: bool
    raw: bytes
    response: ResponseHead | None = None
    subprotocol = b""
    _answer_is_deferred = False
    _body_is_deferred = False

    def __init__(
        self,
        head: RequestHead,
        forwarded: Forwarded,
        handler: Rules,
        request_id: str,
        started: float,
        client: Client | None = None,
    ) -> None:
        super().__init__(
            request_id, head.method, head.target, head.host, head.minor, forwarded.peer, forwarded.scheme, started
        )
        self.id_line = b"X-Request-Id: %b\r\n" % request_id.encode()
        self.head = head
        self.forwarded = forwarded
        self.handler = handler
        self.client = client
        self.request: bytes
        self.deadline = self.ends = NEVER
        self.pool: Waiting | None = None
        self.upstream: UpstreamConnection | None = None
        self.waiting: Task[None] | None = None
        self.then: Callable[[], None] | None = None

    @property
    def may_keep_client(self) -> bool:
        """May the client's connection stay open after the answer? Not if a part of this request may still come."""
        client = self.client
        return (
            client is not None
            and self.head.persists
            and self.head.upgrade is None  # bytes of the declined protocol may already come
            and client.reader.state == "complete"
            and not self.handler.resources.draining
        )

    @property
    def is_preflight(self) -> bool:
        """Is this a CORS preflight? Browsers send it without credentials."""
        return self.method == "OPTIONS" and could_be_preflight(self.head, self.target)

    def ask_about(self, method: str, target: str, host: bytes) -> None:
        """Turn a front proxy's question into the request that it asks about."""
        self.is_question = True
        self.method, self.target, self.host = method, target, host

    # Called by its connections.

    def connected(self, upstream: UpstreamConnection) -> None:
        """Send the request over this connection to the backend, with the received part of its body."""
        try:
            self.handler.request_relay.start(self, upstream)
        except Rejection as rejection:
            self.fail(rejection)
        except Exception as error:  # noqa: BLE001
            self.handler.bug(self, error)

    def send_body(self) -> None:
        """Pass on the received part of the request's body, no faster than the backend reads."""
        if self._body_is_deferred:
            return
        try:
            self.handler.request_relay.go_on(self)
        except Rejection as rejection:
            self.fail(rejection)
        except Exception as error:  # noqa: BLE001
            self.handler.bug(self, error)

    def send_body_again(self) -> None:
        """Continue the body in the next turn of the loop: there is more than one call passes on."""
        assert self.client is not None
        self._body_is_deferred = True
        self.client.resources.defer(self._body_deferred)

    def _body_deferred(self) -> None:
        self._body_is_deferred = False
        self.send_body()

    def await_answer(self) -> None:
        """Start the backend's deadline for an answer; it does not run while the client must send a piece of its body."""
        upstream, client = self.upstream, self.client
        assert upstream is not None
        assert client is not None
        if self.response is None:
            owed_by_client = not self.body_sent and not upstream.write_paused
            upstream.deadline = NEVER if owed_by_client else client.now() + upstream.pool.answer_s

    def answer_came(self) -> None:
        """A part of the answer has come, or the backend's connection has closed."""
        if not self.is_over and not self._answer_is_deferred:
            self.handler.relay(self)

    def answer_again(self) -> None:
        """Continue the answer in the next turn of the loop: there is more than one call passes on."""
        assert self.client is not None
        self._answer_is_deferred = True
        self.client.resources.defer(self._answer_deferred)

    def _answer_deferred(self) -> None:
        self._answer_is_deferred = False
        self.answer_came()

    def client_writable(self) -> None:
        """The client has read all sent bytes."""
        if self.upstream is not None:
            assert self.client is not None
            self.upstream.receiver_goes_on(self.client)
            self.await_answer()
            self.answer_came()

    def upstream_silent(self) -> None:
        """The backend was silent for too long, or the token that the answer ends with has expired."""
        expired = self.client is not None and self.client.now() >= self.ends
        self.fail(Rejection(Reason.TOKEN_EXPIRED if expired else Reason.UPSTREAM_TIMEOUT))

    def expire(self) -> None:
        """No connection to the backend became free in time."""
        busy = "All connections to the service behind this proxy are in use."
        self.fail(Rejection(Reason.OVERLOADED, busy))

    def send_again(self) -> None:
        """Send the whole request over another connection."""
        assert self.pool is not None
        assert self.upstream is not None
        self.upstream.abandon()
        self.upstream = None
        self.pool.send(self)

    # The end of an exchange.

    def fail(self, rejection: Rejection) -> None:
        """End the exchange: by a refusal if no answer has begun, else by a reset, since the answer is incomplete."""
        if self.is_over:
            return
        if not self.status:
            self.handler.refuse(self, rejection)
            return
        self.refused(rejection)
        if self.client is not None:
            self.client.abort()
        self.finish()

    def finish(self, *, keep: bool = False, now: float | None = None) -> None:
        """End the exchange, once. `keep`: the client's connection stays open. `now`: monotonic seconds, if known."""
        if self.is_over:
            return
        self.is_over = True
        if self.kept_body:
            self.handler.request_relay.keep(self, b"")
        if now is None:
            now = self.handler.now()
        if self.waiting is not None:
            self.waiting.cancel()
        if self.pool is not None and self.upstream is None:
            self.pool.withdraw(self)
        if self.upstream is not None:
            self.upstream.abandon()
            self.upstream = None
        try:
            self.handler.ended(self, now)
        finally:
            if self.client is not None:
                self.client.exchange_over(keep, now)
