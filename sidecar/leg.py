"""One connection to the backend: the lean HTTP/1.1 leg. Only here bytes leave for it.

It serves one request at a time and keeps one response parser for its life. It can be used again only when its answer has been
read to the end and nothing else has come: a byte that nobody asked for would be the next client's answer.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpResponseParser, RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from sidecar.clock import Clock
from sidecar.deadlines import NEVER, Deadlines
from sidecar.headers import RelayedHead
from sidecar.recurring import Recurring
from sidecar.rejections import Reason, Rejection

READ_BYTES = 64 * 1024  # buffered of one body before its sender is held up
MAX_ANSWER_HEADER_BYTES = 64 * 1024  # of one header of an answer
CLOSE_S = 5.0  # how long a backend has to take the rest of what was sent to a connection that is closed
_END = b"\r\n\r\n"
_NO_BODY = frozenset({101, 204, 304})  # RFC 9110 sections 15.2 and 6.4.1, whatever length they name


class Pool(Protocol):
    """Who keeps the connections: it is told when one has ended."""

    clock: Clock
    deadlines: Deadlines
    heads: "Recurring[AnswerHead]"

    def forget(self, connection: "UpstreamConnection") -> None:
        """A connection has ended."""


class BrokenOff(ConnectionError):
    """The backend ended the connection before its answer was complete."""


class AnswerHead:
    """An answer's head as it was parsed. One that keeps coming, byte for byte, is parsed once.

    `length` is that of the body that came with it. `relayed` is what was made of it to be passed on.
    """

    __slots__ = ("length", "message", "relayed")

    def __init__(self, message: RawResponseMessage, length: int) -> None:
        self.message = message
        self.length = length
        self.relayed: RelayedHead | None = None


class UpstreamConnection(BaseProtocol):
    """One connection to the backend.

    `deadline` is when the silence has lasted too long. `request_sent` says whether all of the request has gone out, `spoken`
    whether any byte of an answer has come, `reusable` whether the next request may have the connection.
    """

    __slots__ = (
        "_answer",
        "_early",
        "_ended",
        "_had_trailers",
        "_head_only",
        "_on_writable",
        "_payload",
        "_pool",
        "_responses",
        "_tunnel",
        "deadline",
        "interim",
        "request_sent",
        "reusable",
        "spoken",
        "used",
    )  # fmt: skip

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._pool = pool
        self._answer: asyncio.Future[tuple[AnswerHead, StreamReader | bytes]] | None = None
        self._payload: StreamReader = EMPTY_PAYLOAD
        self._head_only = self._had_trailers = False
        self._use_new_parser()
        self.interim: Callable[[RawResponseMessage], None] | None = None
        self._tunnel: Callable[[bytes], None] | None = None
        self._early: bytes  # what came behind a 101
        self._ended: asyncio.Future[None] | None = None
        self._on_writable: Callable[[], None] | None = None
        self.deadline = NEVER
        self.request_sent = False
        self.spoken = False
        self.used = False
        self.reusable = True

    def _use_new_parser(self) -> None:
        self._parser = self._responses = HttpResponseParser(
            self,
            self._loop,
            READ_BYTES,
            payload_exception=BrokenOff,
            response_with_body=not self._head_only,
            read_until_eof=True,
            auto_decompress=False,
            max_line_size=MAX_ANSWER_HEADER_BYTES,
            max_field_size=MAX_ANSWER_HEADER_BYTES,
        )

    async def exchange(self, head: bytes, head_only: bool, timeout_s: float) -> tuple[AnswerHead, StreamReader | bytes]:
        """Send a request's head (and what of its body follows it at once); return the answer's head and body.

        Raises BrokenOff when the connection ended first, Rejection when the answer was late or not HTTP.
        """
        # An answer to HEAD has a length and no body. After a chunked one, aiohttp's parser would take its last trailer for a
        # header of the next answer.
        if head_only is not self._head_only or self._had_trailers:
            self._head_only = head_only
            self._had_trailers = False
            self._use_new_parser()
        self.spoken = False
        self._answer = self._loop.create_future()
        self.deadline = self._pool.clock.monotonic() + timeout_s
        self.write(head)
        try:
            return await self._answer
        finally:
            self._answer = None
            self.deadline = NEVER

    @property
    def at_rest(self) -> bool:
        """Can the next request have the connection, once its answer has come?

        Not before its request has gone out, or the next one would be the rest of that; and not when another answer has begun.
        """
        try:
            return (
                self.reusable and self.request_sent and self._responses.feed_eof() is None
            )  # else the head that has begun
        except HttpProcessingError:
            return False  # and one that is none

    def write(self, piece: bytes) -> None:
        """Write bytes of a request. Raises BrokenOff when the connection has ended."""
        if self.transport is None:
            raise BrokenOff
        self.transport.write(piece)

    async def drain(self) -> None:
        """Wait until the backend has taken enough. Raises ConnectionError when it is gone."""
        if self._paused:
            await self._drain_helper()

    def hold(self) -> None:
        """The backend is not to be blamed for silence now, as long as it owes an answer."""
        if self._answer is not None:
            self.deadline = NEVER

    def wait_until(self, deadline: float) -> None:
        """The backend owes an answer by then, if it has not begun to give it."""
        if self._answer is not None:
            self.deadline = deadline

    def data_received(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel(data)
            return
        answer = self._answer
        if answer is not None and answer.done():
            answer = None  # it has its answer: what comes now is the rest of that
        if answer is None and self._payload.is_eof():
            if data:  # aiohttp feeds nothing at all when reading goes on after a pause
                self.close()  # nobody asked for this
            return
        first = b"" if self.spoken or self._head_only else data[: data.find(_END) + len(_END)]
        self.spoken = True
        known = self._pool.heads.get(first)
        if known is not None and answer is not None and len(data) == len(first) + known.length:
            answer.set_result((known, data[len(first) :]))
            return
        try:
            messages, self._upgraded, self._early = self._responses.feed_data(data)
        except HttpProcessingError:
            self.fail(Rejection(Reason.UPSTREAM_INVALID))
            return
        if self._upgraded:
            assert self.transport is not None
            self.transport.pause_reading()  # until somebody takes what follows
        for message, payload in messages:
            code = message.code
            if message.chunked:
                self._had_trailers = True
            if answer is None or answer.done():
                self.fail(Rejection(Reason.UPSTREAM_INVALID))  # it came behind the answer, which is whole and stays so
                break
            if code == 101:
                self.reusable = False
            elif 100 <= code < 200:
                if self.interim is not None:
                    self.interim(message)
                continue
            # aiohttp knows no body of 2**64 - 1 bytes, within which its parser would be for good.
            has_end = payload is not EMPTY_PAYLOAD or self._head_only or code == 101
            if code >= 101 and message.version.major == 1 and has_end:
                self._payload = payload
                head = AnswerHead(message, payload.total_bytes)
                # Only where the parser ended the head at the same place.
                ours = len(data) == len(first) + head.length
                if ours and _may_recur(message, payload) and self._pool.heads.come_again(first):
                    self._pool.heads.keep(first, head)
                answer.set_result((head, payload))
            else:
                self.fail(Rejection(Reason.UPSTREAM_INVALID))
        if data and not self._reading_paused and not self._payload.is_eof():
            self.data_received(b"")  # a pause that is over may have stopped aiohttp's parser: nobody else lets it go on

    def eof_received(self) -> None:
        """The backend has finished; connection_lost follows."""

    def connection_lost(self, exc: BaseException | None) -> None:
        self._pool.deadlines.watched.discard(self)
        self._pool.forget(self)
        self.reusable = False
        if exc is None:
            with suppress(HttpProcessingError):
                self._responses.feed_eof()  # completes an answer that lasts until the connection ends; a reset does not
        self._break_off(BrokenOff())
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        super().connection_lost(exc)

    async def enter_tunnel(self, sink: Callable[[bytes], None]) -> None:
        """Hand what comes to `sink` from now on, beginning with what came behind the 101; returns when the connection ends."""
        self._tunnel = sink
        if self.transport is not None:
            self.transport.resume_reading()
        if self._early:
            sink(self._early)
        if self.transport is not None:
            self._ended = self._loop.create_future()
            await self._ended

    def on_writable(self, resume: Callable[[], None]) -> None:
        """Call `resume` once when the backend has taken enough."""
        self._on_writable = resume

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._reading_paused:  # aiohttp's streams say so after every read
            super().resume_reading(resume_parser)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._on_writable is not None:
            resume, self._on_writable = self._on_writable, None
            resume()

    def expire(self) -> None:
        """The backend was silent for too long."""
        self.fail(Rejection(Reason.UPSTREAM_TIMEOUT))

    def close(self) -> None:
        """End the connection; it cannot be used again. What the backend does not take in time is lost."""
        self.reusable = False
        if self.transport is not None:
            self.deadline = self._pool.clock.monotonic() + CLOSE_S
            self.transport.close()

    def fail(self, rejection: Rejection) -> None:
        """End the connection; whoever waits for its answer gets this rejection."""
        self._break_off(rejection)
        self.reusable = False
        if self.transport is not None:
            self.transport.abort()

    def _break_off(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        if not self._payload.is_eof():
            self._payload.set_exception(error)


def _may_recur(message: RawResponseMessage, payload: StreamReader) -> bool:
    """Does the head alone say all about the answer, and leave the connection as it was?"""
    return message.code not in _NO_BODY and not message.chunked and not message.should_close and payload.is_eof()
