"""One direction of a connection, read to its end as the connections read it: bytes in any pieces, messages out."""

from collections.abc import Iterable, Sequence
from random import Random
from typing import NamedTuple

from sidecar.http.chunked import MAX_SIZE_LINE
from sidecar.http.grammar import ProtocolError
from sidecar.http.header_policy import RequestHeaderPolicy, ResponseHeaderPolicy
from sidecar.http.message_reader import MessageReader
from sidecar.http.request_head import RequestHead, parse_request_head
from sidecar.http.response_head import ResponseHead, parse_response_head

HEAD_BYTES, HEADERS, LINE_BYTES, BLANK_LINES = 65_536, 128, 32_768, 4


class Message(NamedTuple):
    """One message: its head, and the part of its body that arrived."""

    head: RequestHead | ResponseHead
    raw: bytes
    body: bytes


class Outcome(NamedTuple):
    """The parsed messages of a stream.

    - `messages` are the complete ones, `begun` the one that is not, `unread` how many bytes wait for more of their head.
    - `refused` is why nothing more is read; "" at the end of what came.
    """

    messages: list[Message]
    begun: Message | None
    unread: int
    refused: str
    too_large: bool


class Reading:
    """Reads one stream. `head_only` says for each answer whether it answers HEAD; None: they are requests."""

    def __init__(
        self,
        policy: RequestHeaderPolicy | ResponseHeaderPolicy,
        head_only: Sequence[bool] | None = None,
        *,
        head_bytes: int = HEAD_BYTES,
        headers: int = HEADERS,
    ) -> None:
        self.reader = MessageReader(head_bytes, BLANK_LINES if head_only is None else 0)
        self.headers = headers
        self.head_bytes = head_bytes
        self.policy = policy
        self.head_only = head_only
        self.messages: list[Message] = []
        self.head: RequestHead | ResponseHead | None = None
        self.raw = b""
        self.body: list[bytes] = []
        self.refused = ""
        self.too_large = False
        self.most_at_once = 0  # bytes of a body that one call reads

    def read(self, pieces: Iterable[bytes]) -> Outcome:
        """Read everything; then the sender closes."""
        for piece in pieces:
            self.reader.feed(piece)
            try:
                self._go_on()
            except ProtocolError as error:
                self.refused, self.too_large = error.rule, error.too_large
                break
            assert len(self.reader.buffer) < max(self.head_bytes, MAX_SIZE_LINE), (
                "more bytes wait than the limit allows"
            )
        else:
            if self.head is not None and self.reader.state == "body" and self.reader.end():
                self._complete()
        begun = None if self.head is None else Message(self.head, self.raw, b"".join(self.body))
        return Outcome(self.messages, begun, len(self.reader.buffer), self.refused, self.too_large)

    def _go_on(self) -> None:
        reader = self.reader
        while True:
            if reader.state == "head":
                raw = reader.head()
                if raw is None:
                    return
                self._begin(raw)
            while reader.ready:
                before = len(reader.buffer)
                self.body.append(reader.body())
                self.most_at_once = max(self.most_at_once, before - len(reader.buffer))
                assert len(reader.buffer) < before or not reader.ready, "nothing was done"
            if reader.state != "complete":
                return
            self._complete()
            reader.next_message()

    def _begin(self, raw: bytes) -> None:
        if isinstance(self.policy, RequestHeaderPolicy):
            request = parse_request_head(raw, self.policy, LINE_BYTES, self.headers)
            if request.problem:
                raise ProtocolError(request.problem)
            self.head, length = request, request.length
        else:
            assert isinstance(self.policy, ResponseHeaderPolicy)
            response = parse_response_head(raw, self.policy, self.headers)
            answered = sum(message.head.status >= 200 for message in self.messages)  # type: ignore[union-attr]
            self.head, length = response, response.length
            if self.head_only and self.head_only[answered % len(self.head_only)]:
                length = 0
        self.raw = raw
        self.reader.begin_body(length)

    def _complete(self) -> None:
        assert self.head is not None
        self.messages.append(Message(self.head, self.raw, b"".join(self.body)))
        self.head, self.body = None, []


def facts(outcome: Outcome) -> tuple[object, ...]:
    """The part of the result that no cut of the bytes changes."""
    begun = outcome.begun
    body = (
        b"" if begun is None or outcome.refused else begun.body
    )  # the number of bytes before a fault depends on the cuts
    unread = outcome.unread if not outcome.refused and begun is None else 0
    return [(m.raw, m.body) for m in outcome.messages], begun and begun.raw, body, unread, bool(outcome.refused)


def byte_by_byte(raw: bytes) -> list[bytes]:
    """Each byte in its own piece."""
    return [raw[at : at + 1] for at in range(len(raw))]


def cut(raw: bytes, places: Iterable[int]) -> list[bytes]:
    """The same bytes, in pieces that end at these places."""
    ends = sorted({place for place in places if 0 < place < len(raw)})
    return [raw[begin:end] for begin, end in zip([0, *ends], [*ends, len(raw)], strict=True)]


def somewhere(random: Random, raw: bytes) -> list[bytes]:
    """The same bytes, in a few pieces."""
    return cut(raw, [random.randrange(len(raw) + 1) for _ in range(random.choice((1, 2, 3, 8)))])
