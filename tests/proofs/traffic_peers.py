"""The clients and the backend of `traffic`. They are also its judges: each records a broken rule as a failure."""

import asyncio
import json
import re
import socket
import struct
from base64 import urlsafe_b64decode
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from tests.proofs.http_model import Answer, Got, Head, Malformed, Reader, Steps, Truncated, framing
from tests.proofs.traffic_scenes import Case, Connection, Scene, Script, Step

PATIENCE_S = 10.0
QUIET_S = 0.06
LINGER_S = 0.03
SPENT_S = 0.5
KEPT_SCENES = 400
"""A request may still arrive this many scenes later: the run does not wait for requests of clients that have left."""
KEPT_IDS = 200_000
FRAMES = (b"\x81\x85\x00\x00\x00\x00hello", b"\x81\x05hello")
"""A text frame, masked by a client and unmasked by a server."""
_CASE = re.compile(r"/(?:t|public|maybe)/([0-9a-f]+-[0-9a-f]+)(?![0-9a-f-])")
_IDENTITY = {"x-jwt-status", "x-jwt-sub", "x-jwt-iss", "x-jwt-claims", "x-jwt-who"}


class Wrong(Exception):
    """A rule was broken."""


class Wire(asyncio.Protocol):
    """One side of a connection; `reader` has the received bytes."""

    def __init__(self, keep: int = 0, made: Callable[["Wire"], None] | None = None) -> None:
        self.reader = Reader()
        self.received = bytearray()
        self.transport: asyncio.Transport
        self.finished = False
        self._keep = keep
        self._made = made
        self._news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's is no asyncio.Transport
        if self._made is not None:
            self._made(self)

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        if len(self.received) < self._keep:
            self.received += data
        self._news.set()

    def eof_received(self) -> None:
        self.reader.end = self.reader.end or "fin"
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.reader.end = self.reader.end or ("fin" if exc is None else "reset")
        self._news.set()

    async def more(self) -> None:
        """Wait for bytes, or the end."""
        await self._news.wait()
        self._news.clear()

    async def read(self, steps: Steps[Got]) -> Got:
        """Read a message with the model. Raises Malformed and Truncated."""
        while True:
            try:
                next(steps)
            except StopIteration as end:
                value: Got = end.value
                return value
            await self.more()

    def write(self, data: bytes) -> None:
        """Send, unless the connection has ended."""
        if not self.transport.is_closing() and not self.finished:
            self.transport.write(data)

    def reset(self) -> None:
        """End it so that the other side gets ECONNRESET."""
        own: socket.socket | None = self.transport.get_extra_info("socket")
        if own is not None and not self.transport.is_closing():
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class Backend:
    """Answers by the script of each request, after checking its identity. `failures`: (scene, what was wrong)."""

    def __init__(self) -> None:
        self.failures: list[tuple[int, str]] = []
        self.requests = 0
        self.connections = 0
        self._cases: dict[str, Case] = {}
        self._scenes: deque[tuple[int, list[str]]] = deque()
        self._ids: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wires: set[Wire] = set()
        self._server: asyncio.Server

    async def start(self) -> str:
        """Listen. Return the URL."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Wire(made=self._connected), "127.0.0.1", 0, backlog=1000)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Stop listening, and end every connection."""
        self._server.close()
        self.drop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drop(self) -> None:
        """End every connection."""
        for wire in list(self._wires):
            wire.transport.abort()

    def expect(self, scene: Scene) -> None:
        """Accept the requests of this scene from now on, and those of old scenes no longer."""
        cases = {case.id: case for connection in scene.connections for case in connection.cases}
        self._cases |= cases
        self._scenes.append((scene.number, list(cases)))
        if len(self._scenes) > KEPT_SCENES:
            for name in self._scenes.popleft()[1]:
                del self._cases[name]

    def _connected(self, wire: Wire) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(wire))
        self._wires.add(wire)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._wires.discard(wire))

    async def _serve(self, wire: Wire) -> None:
        case: Case | None = None
        try:
            before: Case | None = None
            while head := await wire.read(wire.reader.request()):
                self.requests += 1
                case = self._case(head)
                if before is not None:
                    by, case = case.id, before
                    raise Wrong(f"{by} came on a connection that had ended with the answer to {before.id}")
                self._look_at(case, head)
                if not await self._perform(wire, case, head):
                    break
                before = case if case.script.spent else None
                if before is not None:
                    asyncio.get_running_loop().call_later(SPENT_S, wire.transport.close)
        except Truncated:
            pass  # its client has left, or the sidecar has stopped reading the answer
        except (Wrong, Malformed) as error:
            scene = int(case.id.partition("-")[0], 16) if case else -1
            self.failures.append((scene, f"at the backend: {error}"))
        finally:
            wire.transport.close()

    def _case(self, head: Head) -> Case:
        match = _CASE.match(head.target)
        case = self._cases.get(match[1]) if match else None
        if case is None:
            raise Wrong(f"a request that nobody sent, or long ago: {head}")
        return case

    def _look_at(self, case: Case, head: Head) -> None:
        """Is this the request of its client, sent once, with the identity of its own token? Raises Wrong."""
        again = case.arrivals - case.sent + 1
        if again > (case.deaths if case.safe else 0):
            raise Wrong(f"{case.id} came {case.arrivals + 1} times, and was sent {case.sent} times: {head}")
        case.arrivals += 1
        if case.kind not in ("good", "anonymous") and not case.late:
            raise Wrong(f"a request that is {case.kind} was passed on: {head}")
        if (head.method, head.target, head.version) != (case.method, case.target, "HTTP/1.1"):
            raise Wrong(f"{case.method} {case.target} came as {head}")
        check_identity(case, head)
        if head.all("x-own") != [case.owner] or head.all("x-mark") != [case.id] * case.marked:
            raise Wrong(f"the lines of another request: {head}")
        if head.all("traceparent") != [case.trace] * bool(case.trace):
            raise Wrong(f"the trace of another request, instead of {case.trace}: {head}")
        if head.all("authorization"):
            raise Wrong(f"the token was passed on: {head}")
        own_id = head.get("x-request-id")
        if own_id is None or (case.request_id and own_id != case.request_id):
            raise Wrong(f"the request id {own_id} instead of {case.request_id}: {head}")
        if self._ids.setdefault(own_id, case.id) != case.id:
            raise Wrong(f"the request id {own_id} is that of {self._ids[own_id]} too: {head}")
        if len(self._ids) > KEPT_IDS:
            del self._ids[next(iter(self._ids))]
        case.seen_ids.append(own_id)

    async def _perform(self, wire: Wire, case: Case, head: Head) -> bool:
        """Answer. Return whether the connection persists. Raises Wrong, Malformed and Truncated."""
        script = case.script
        if case.deaths < script.deaths:
            case.deaths += 1
            wire.reset()
            return False
        if not script.early:
            await self._read_body(wire, case, head)
        for pause_s, piece in script.pieces:
            if pause_s:
                await asyncio.sleep(pause_s)
            wire.write(piece)
        if script.tunnel:
            await self._tunnel(wire, case)
            return False
        if script.early and script.ending == "keep":
            await self._read_body(wire, case, head)
        if script.ending == "reset":
            case.deaths += 1  # it may destroy the bytes before it
            wire.reset()
        return script.ending == "keep"

    async def _read_body(self, wire: Wire, case: Case, head: Head) -> None:
        if case.script.slow:
            wire.transport.pause_reading()
            await asyncio.sleep(0.02)
            wire.transport.resume_reading()
        body = await wire.read(wire.reader.body(head, *framing(head)))
        if case.late:
            raise Wrong(f"a body that had no end was given one: {body!r}")
        if body != case.body:
            raise Wrong(f"{case.id} has another body: {body[:200]!r} instead of {case.body[:200]!r}")

    async def _tunnel(self, wire: Wire, case: Case) -> None:
        buffer = wire.reader.buffer
        sent, answer = FRAMES
        while not wire.reader.end:
            while buffer.startswith(sent):
                del buffer[: len(sent)]
                wire.write(answer + case.id.encode())
            if buffer and not sent.startswith(buffer):
                raise Wrong(f"other bytes in the tunnel of {case.id}: {bytes(buffer)!r}")
            await wire.more()


def check_identity(case: Case, head: Head) -> None:
    """Do the identity headers match the request's own token? Raises Wrong."""
    said: dict[str, list[str]] = {}
    for name, value in head.headers:
        folded = re.sub("[^a-z0-9]", "-", name.lower())
        if folded.startswith("x-jwt-"):
            said.setdefault(folded, []).append(value)
    who = said.pop("x-jwt-who", [case.user])  # only in some configurations
    subject = said.get("x-jwt-sub", [])
    expected = [case.user] if case.user else []
    status = ["verified" if case.user else "anonymous"]
    if subject != expected or said.get("x-jwt-status") != status or who != [case.user]:
        raise Wrong(f"{case.id} is of {case.user or 'nobody'}, and is said to be of {subject or 'nobody'}: {head}")
    claims = [json.loads(urlsafe_b64decode(value + "==="))["sub"] for value in said.get("x-jwt-claims", [])]
    if claims != expected or said.keys() - _IDENTITY:
        raise Wrong(f"{case.id} is of {case.user or 'nobody'}, and its claims are of {claims}: {head}")


class Client:
    """Plays one connection and looks at each answer. Raises Wrong and Malformed."""

    def __init__(
        self, connection: Connection, figures: Counter[str], patience_s: float = PATIENCE_S, *, forgiving: bool = False
    ) -> None:
        self._connection = connection
        self._patience_s = patience_s
        self._forgiving = forgiving
        self._figures = figures
        self.wire = Wire(keep=200_000)
        self._answered = 0
        self._interim: list[Head] = []
        self._changed = asyncio.Event()
        self._left = False
        """Whether the client ended the connection, or stopped sending."""

    async def play(self, address: tuple[str, int]) -> None:
        """Send, read and judge."""
        loop = asyncio.get_running_loop()
        own = socket.socket()
        own.setblocking(False)
        if self._connection.stalls:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await loop.sock_connect(own, address)
        await loop.create_connection(lambda: self.wire, sock=own)
        tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._stall())]
        try:
            await self._read()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.wire.transport.abort()

    async def _stall(self) -> None:
        for after_s, for_s in self._connection.stalls:
            await asyncio.sleep(after_s)
            if self.wire.transport.is_closing():
                return
            self.wire.transport.pause_reading()
            await asyncio.sleep(for_s)
            if not self.wire.transport.is_closing():
                self.wire.transport.resume_reading()

    async def _send(self) -> None:
        for step in self._connection.steps:
            await self._wait(step)
            if self._left:
                return
            self.wire.write(step.data)
        if self._connection.ending != "read":
            await asyncio.sleep(self._connection.ends_after_s)
            self._left = True
            match self._connection.ending:
                case "fin":
                    if not self.wire.transport.is_closing():
                        self.wire.finished = True
                        self.wire.transport.write_eof()
                        asyncio.get_running_loop().call_later(0.2, self.wire.transport.abort)
                case "close":
                    self.wire.reader.end = "left"
                    self.wire.transport.close()
                case _:
                    self.wire.reader.end = "left"
                    self.wire.reset()

    async def _wait(self, step: Step) -> None:
        match step.wait:
            case "pause":
                await asyncio.sleep(step.pause_s)
            case "quiet":
                await self._until(lambda: self._answered >= step.after)
            case "invited":
                await self._until(lambda: self._answered > step.after or bool(self._interim))
                if self._answered > step.after:
                    self._left = True  # its body is refused, and without it no request can follow

    async def _until(self, done: Callable[[], bool]) -> None:
        """Wait for it, or for silence."""
        while not done():
            size = len(self.wire.received)
            try:
                async with asyncio.timeout(QUIET_S):
                    while not done() and size == len(self.wire.received):
                        self._changed.clear()
                        await self._changed.wait()
            except TimeoutError:
                if size == len(self.wire.received):
                    return

    async def _read(self) -> None:
        closes, may_close = "", False
        for at, case in enumerate(self._connection.cases):
            if case.kind == "unserved":
                break
            self._interim = []
            try:
                answer = await self._answer(case)
            except Truncated as error:
                self._broke_off(case, at, error)
                return
            if answer is None:
                self._ended_before(at, bool(closes) or may_close)
                return
            if closes:
                raise Wrong(f"an answer behind the one to {closes}, which said that it is the last: {answer}")
            self._judge(case, answer)
            self._answered += 1
            self._changed.set()
            if answer.ends_with == "tunnel":
                await self._tunnel(case)
                return
            if (case.closes and not case.upgrade) or not answer.lasts:
                closes = case.id
            may_close = case.version == "HTTP/1.0" and "keep-alive" not in answer.options
            if answer.ends_with == "close":
                return
        await self._rest(closes)

    async def _answer(self, case: Case) -> Answer | None:
        steps = self.wire.reader.answer(case.method, self._interim)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                answer: Answer | None = end.value
                return answer
            self._changed.set()
            await self._more()

    async def _more(self) -> None:
        """Wait for bytes, or the end. Raises Wrong."""
        try:
            async with asyncio.timeout(self._patience_s):
                await self.wire.more()
        except TimeoutError:
            raise Wrong(f"nothing more came in {self._patience_s:g} s; {self._answered} answers before") from None

    async def _rest(self, closes: str) -> None:
        """Assert that only the announced end follows the last answer."""
        if self._connection.lingers and not closes:
            await asyncio.sleep(LINGER_S)
        while closes and not self.wire.reader.end and not self._left:
            await self._more()
        if self.wire.reader.buffer:
            raise Wrong(f"bytes behind the last answer: {bytes(self.wire.reader.buffer[:300])!r}")

    def _ended_before(self, at: int, closes: bool) -> None:
        """The connection ended between two answers: which side may have ended it? Raises Wrong."""
        rest = self._connection.cases[at:]
        if not (self._left or closes or any(case.script.may_fail or case.late for case in rest)):
            self._figures["unannounced ends"] += 1
            if self._forgiving:
                return
            raise Wrong(f"the connection ended ({self.wire.reader.end}) before the answer to {rest[0].id}")

    def _broke_off(self, case: Case, at: int, error: Truncated) -> None:
        """The connection ended within an answer: that is allowed, but the received part must be right. Raises Wrong."""
        self._figures["answers that broke off"] += 1
        if not self._left and not any(one.script.may_fail or one.late for one in self._connection.cases[at:]):
            raise Wrong(f"the answer to {case.id} broke off: {error}")
        if error.head is not None and error.head.get("x-jwt-sidecar") is None:
            self._look_at_head(case, error.head)
            if not case.script.body.startswith(error.body):
                raise Wrong(f"the part of an answer to {case.id} has another body: {error.body[:200]!r}")

    def _judge(self, case: Case, answer: Answer) -> None:
        """Is this an answer to this request? Raises Wrong."""
        self._figures["answers"] += 1
        for interim in self._interim:
            hint = interim.status == 103 and interim.all("link") == [f"</{case.id}>"]
            if case.version == "HTTP/1.0" or not (hint or (interim.status == 100 and case.expects)):
                raise Wrong(f"an interim answer that is not for {case.id}: {interim}")
        if Counter(one.status for one in self._interim) - Counter(
            {100: 1, 103: case.script.interim * max(1, case.arrivals)}
        ):
            raise Wrong(f"too many interim answers for {case.id}: {self._interim}")
        if case.version == "HTTP/1.0" and answer.ends_with == "chunked":
            raise Wrong(f"chunks for HTTP/1.0: {answer}")
        if answer.get("x-jwt-sidecar") is not None:
            self._judge_own(case, answer)
            return
        self._look_at_head(case, answer)
        if not case.script.whole:
            raise Wrong(f"an answer of which the backend sent a part was passed off as whole: {answer}")
        if self._left and answer.ends_with == "close":
            return  # after its own FIN a client cannot know the end of the body
        if answer.ends_with != "none" and answer.body != case.script.body:
            raise Wrong(f"another body than {case.script.body[:100]!r}: {str(answer)[:1000]}")

    def _look_at_head(self, case: Case, head: Head) -> None:
        """Is this the head of the backend's answer to this request? Raises Wrong."""
        if not case.arrivals or case.kind not in ("good", "anonymous"):
            raise Wrong(
                f"an answer of the backend to {case.id}, which is {case.kind} and came there {case.arrivals} times: {head}"
            )
        named = [case.id] if case.script.named else []
        if head.status != case.script.status or head.all("x-case") != named:
            raise Wrong(f"not the answer to {case.id}: {head}")
        if head.status != 101 and head.get("x-request-id") not in case.seen_ids:
            raise Wrong(f"the request id of another: {head} instead of {case.seen_ids}")

    def _judge_own(self, case: Case, answer: Answer) -> None:
        """Is this an answer that the sidecar may make to this request? Raises Wrong."""
        self._figures["answers of the sidecar"] += 1
        unsent = (
            not case.safe or bool(case.wire)
        ) and case.arrivals == 0  # the connection may have ended as it was sent
        expected = {"refused": {401}, "broken": {400}}.get(case.kind, set())
        if case.kind in ("good", "anonymous") and (case.script.may_fail or unsent):
            expected = {502}
        if case.late and unsent:
            expected = {400, 502}
        if self._forgiving and case.script.spent:
            expected.add(502)
        if answer.status not in expected:
            raise Wrong(f"{case.id} is {case.kind}, and was refused: {answer.status} {answer.body.decode()}")
        own_id = answer.get("x-request-id")
        if case.request_id and own_id != case.request_id:
            raise Wrong(f"the request id {own_id} instead of {case.request_id}: {answer}")
        if case.method != "HEAD":
            said: dict[str, Any] = json.loads(answer.body)
            if said["request_id"] != own_id:
                raise Wrong(f"two request ids: {answer}")

    async def _tunnel(self, case: Case) -> None:
        """Some frames there and back. Raises Wrong."""
        sent, answer = FRAMES
        expected = answer + case.id.encode()
        for _ in range(3):
            self.wire.write(sent)
            while len(self.wire.reader.buffer) < len(expected):
                if self.wire.reader.end:
                    if self._left:
                        return
                    raise Wrong(f"the tunnel of {case.id} ended ({self.wire.reader.end})")
                await self._more()
            if self.wire.reader.buffer != expected:
                raise Wrong(f"other bytes in the tunnel of {case.id}: {bytes(self.wire.reader.buffer)!r}")
            self.wire.reader.buffer.clear()


def told(connection: Connection, client: Client, tokens: dict[str, bytes]) -> str:
    """A connection as text: its sent bytes, the backend's script, and the received bytes."""
    stalls = f", stalls {connection.stalls}" if connection.stalls else ""
    lines = [f"{len(connection.cases)} requests, then {connection.ending}{stalls}"]
    for step in connection.steps:
        data = step.data
        for name, token in tokens.items():
            data = data.replace(token, b"{%b}" % name.encode())
        how = f"{step.pause_s * 1000:.0f} ms" if step.wait == "pause" else step.wait
        lines.append(f"  send ({how}) {_short(data)}")
    for case in connection.cases:
        if not _ordinary(case.script) or case.kind != "good":
            came = f"{case.kind} of {case.owner}, {case.arrivals} times at the backend"
            lines.append(f"  {case.id} {came}{_short_script(case.script)}")
    lines.append(f"  got {_short(bytes(client.wire.received))}, then {client.wire.reader.end or 'nothing'}")
    return "\n".join(lines)


def _ordinary(script: Script) -> bool:
    return len(script.pieces) <= 1 and not script.named and script.ending == "keep" and not script.spent


def _short(data: bytes, most: int = 3000) -> str:
    return repr(data) if len(data) <= most else f"{data[:most]!r} ... {data[-100:]!r} ({len(data)} bytes)"


def _short_script(script: Script) -> str:
    if _ordinary(script):
        return ""
    pieces = ", ".join(f"{pause_s * 1000:.0f} ms {_short(piece, 300)}" for pause_s, piece in script.pieces)
    return f", script [{pieces}] {script.ending}, early {script.early}, deaths {script.deaths}"
