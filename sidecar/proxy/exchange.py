"""One request in hand and its answer: the only object that knows both connections, and the one that ends.

A client's connection has at most one exchange, and a backend's connection belongs to at most one. What belongs to whom is said
here and derived from nothing.
"""

from asyncio import Task
from collections.abc import Callable
from typing import Protocol

from sidecar.common.deadlines import NEVER
from sidecar.common.errors import Reason, Rejection
from sidecar.http.forwarded import Forwarded
from sidecar.http.message_reader import COMPLETE, MessageReader
from sidecar.http.request_head import RequestHead
from sidecar.http.response_head import ResponseHead
from sidecar.jwt.examination import Examination
from sidecar.observability.record import Record
from sidecar.proxy.resources import Resources
from sidecar.proxy.tunnel import ClientSide
from sidecar.proxy.upstream_connection import UpstreamConnection


class Client(ClientSide, Protocol):
    """The client's connection, as an exchange sees it."""

    reader: MessageReader

    def body_is_owed(self, owed: bool, within_s: float | None = None) -> None:
        """The client owes a piece of its body, or it does not."""

    def unread_changed(self) -> None:
        """Some of what waited unread has been taken."""

    def receiver_is_slow(self) -> None:
        """The backend does not take all at once."""

    def abort(self) -> None:
        """End the connection at once."""

    def exchange_over(self, keep: bool, now: float) -> None:
        """The exchange has ended."""


class BodySender(Protocol):
    """What takes a request to its backend (proxy/request_relay.py)."""

    def start(self, exchange: "Exchange", upstream: UpstreamConnection) -> None:
        """Send the head, and what is here of the body."""

    def go_on(self, exchange: "Exchange") -> None:
        """Pass on what is here of the body. Raises Rejection."""

    def keep(self, exchange: "Exchange", body: bytes) -> None:
        """Keep a body that may have to be sent again."""


class Answers(Protocol):
    """What writes our own answers."""

    def refuse(self, exchange: "Exchange", rejection: Rejection) -> None:
        """Answer a request that is refused."""


class Rules(Protocol):
    """What an exchange was taken through, and what decides how it goes on."""

    resources: Resources

    @property
    def answers(self) -> Answers:
        """What answers in place of the backend."""

    @property
    def request_relay(self) -> BodySender:
        """What sends requests."""

    def now(self) -> float:
        """Monotonic seconds."""

    def relay(self, exchange: "Exchange") -> None:
        """Pass on what is here of the answer."""

    def bug(self, exchange: "Exchange", error: Exception) -> None:
        """Something here is wrong."""

    def ended(self, exchange: "Exchange", now: float) -> None:
        """It is over."""


class Waiting(Protocol):
    """Where an exchange gets a connection to the backend, and waits for it."""

    def send(self, exchange: "Exchange") -> None:
        """Send a request as soon as there is a connection."""

    def withdraw(self, exchange: "Exchange") -> None:
        """A request waits no more."""


class Exchange(Record):
    """A request with the head that came, and what goes on for it.

    Without a `client` it is a question of `explain`, and its `examination` is told how far its token comes.

    - `forwarded` is what the backend is told about the client, `request` the head for the backend without its framing.
    - `id_line` is the header line of the request's id, towards both sides.
    - `upstream` is the backend's connection that it has, `pool` where that comes from, `waiting` the task that it waits for.
    - `response` is the head of the answer once the final one has come; `keeps_client`: the client's connection goes on behind it.
    - `body_sent`: all of the request's body has gone out. `kept_body` is all of one that may have to be sent again, `is_whole`:
      the request is here with all of its body. `body_bytes` counts what has come of it.
    - `ends` is when the answer ends with its token, `deadline` until when it waits for a connection (monotonic seconds).
    - `subprotocol` is what a WebSocket's client is answered with where its backend names none (RFC 6455 section 4.2.2).
    - `is_question`: a front proxy asks about another request. `collected` is the body of a request for a page of our own, and
      `then` is called when more of it has come.
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
    keeps_client = False
    raw = b""
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
        self.request = b""
        self.deadline = self.ends = NEVER
        self.pool: Waiting | None = None
        self.upstream: UpstreamConnection | None = None
        self.waiting: Task[None] | None = None
        self.then: Callable[[], None] | None = None

    @property
    def may_keep_client(self) -> bool:
        """May the client's connection go on behind an answer? Not where a part of this request may still be on its way."""
        client = self.client
        return (
            client is not None
            and self.head.persists
            and self.head.upgrade is None  # what was declined may already be on its way
            and client.reader.state == COMPLETE
            and not self.handler.resources.draining
        )

    @property
    def is_preflight(self) -> bool:
        """Is this a CORS preflight? Browsers send it without credentials, whatever the route asks for."""
        return self.method == "OPTIONS" and self.head.could_be_preflight

    @property
    def upgrade(self) -> bytes | None:
        """The protocol that the client asks to go on with, if its route lets it. Never h2c: it would carry unseen requests."""
        protocol = self.head.upgrade
        return protocol if protocol is not None and self.route is not None and protocol in self.route.upgrades else None

    def ask_about(self, method: str, target: str, host: bytes) -> None:
        """It is a front proxy's question about another request, which is judged in its place."""
        self.is_question = True
        self.method, self.target, self.host = method, target, host

    # What its connections tell it.

    def connected(self, upstream: UpstreamConnection) -> None:
        """A connection to the backend is in hand: send the request, with as much of its body as is here."""
        try:
            self.handler.request_relay.start(self, upstream)
        except Exception as error:  # noqa: BLE001
            self.handler.bug(self, error)

    def send_body(self) -> None:
        """Pass on what is here of the request's body, no faster than the backend takes it."""
        if self._body_is_deferred:
            return
        try:
            self.handler.request_relay.go_on(self)
        except Rejection as rejection:
            self.fail(rejection)
        except Exception as error:  # noqa: BLE001
            self.handler.bug(self, error)

    def send_body_again(self) -> None:
        """Go on with the body in the next turn of the loop: there is more of it than is passed on at once."""
        if self.client is not None:
            self._body_is_deferred = True
            self.client.resources.defer(self._body_deferred)

    def _body_deferred(self) -> None:
        self._body_is_deferred = False
        self.send_body()

    def await_answer(self) -> None:
        """The backend owes an answer from now on, but for the time in which the client owes a piece of its body."""
        upstream, client = self.upstream, self.client
        if upstream is not None and client is not None and self.response is None:
            owed_by_client = not self.body_sent and not upstream.write_paused
            upstream.deadline = NEVER if owed_by_client else client.now() + upstream.pool.answer_s

    def answer_came(self) -> None:
        """Something of an answer has come, or the backend's connection has ended."""
        if not self.is_over and not self._answer_is_deferred:
            self.handler.relay(self)

    def answer_again(self) -> None:
        """Go on with the answer in the next turn of the loop: there is more of it than is passed on at once."""
        if not self._answer_is_deferred and self.client is not None:
            self._answer_is_deferred = True
            self.client.resources.defer(self._answer_deferred)

    def _answer_deferred(self) -> None:
        self._answer_is_deferred = False
        self.answer_came()

    def client_writable(self) -> None:
        """The client has taken all that it was sent."""
        if self.upstream is not None:
            self.await_answer()
            self.answer_came()

    def upstream_silent(self) -> None:
        """The backend was silent for too long, or the token has expired that the answer ends with."""
        expired = self.client is not None and self.client.now() >= self.ends
        self.fail(Rejection(Reason.TOKEN_EXPIRED if expired else Reason.UPSTREAM_TIMEOUT))

    def expire(self) -> None:
        """No connection of the backend has come free in time."""
        assert self.pool is not None
        self.pool.withdraw(self)
        busy = "All connections to the service behind this proxy are busy."
        self.fail(Rejection(Reason.OVERLOADED, busy, retry_after_s=1))

    def send_again(self) -> None:
        """Send all of the request by another connection."""
        assert self.pool is not None
        assert self.upstream is not None
        self.upstream.abandon()
        self.upstream = None
        self.pool.send(self)

    # How it ends.

    def fail(self, rejection: Rejection) -> None:
        """End it for this reason: by a refusal while no answer has begun, else by a reset, so that nobody takes it for whole."""
        if self.is_over:
            return
        if not self.status:
            self.handler.answers.refuse(self, rejection)
            return
        self.refused(rejection)
        if self.client is not None:
            self.client.abort()
        self.finish(keep=False)

    def finish(self, *, keep: bool, now: float | None = None) -> None:
        """End it, once. `keep`: the client's connection goes on. `now` are monotonic seconds, where they are known."""
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
