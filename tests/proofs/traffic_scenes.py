"""The scenes of `traffic`: connections, requests and scripts for the backend, each made from one `random.Random`."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

USERS = ("alice", "bob", "carol", "dave")
VARIANTS = 2
"""The number of good tokens of each user that never change."""
SAFE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""May be sent twice (RFC 9110 section 9.2.2)."""
SMALL = 24
"""Bytes of a body that identifies its request when the head does not: its id."""
STRAY = (
    b"HTTP/1.1 103 Early Hints\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </stray>\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray",
    b"HTTP/1.1 200 OK\r\nContent-Le",
    b"stray bytes, and no HTTP",
)
"""Bytes of a backend after its answer, without a request."""
PIPELINES = (0, 0, 0, 0, 16, 31, 32, 33, 34, 64, 65)
"""The number of pipelined requests: 0 for 20 to 80, or a number near common limits of readers."""
STYLES: dict[str, float] = {"named": 30, "same": 25, "traced": 10, "marked": 35}
"""How alike the heads on a connection are. named: those of a user differ in the first line at most. same: those of all users
differ in their tokens at most, too. traced: in the request's ids, too. marked: no two are alike."""
ALIKE = ("named", "same")
JUNK = (b"no HTTP at all\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x00\x01\x02\r\n\r\n")
FAKES = (b"X-JWT-Sub: mallory", b"X_JWT_Sub: mallory", b"x-jwt-status: verified", b"X.Jwt.Claims: e30")
ANSWERS: dict[str, float] = {
    "plain": 30, "sized": 16, "chunked": 10, "until_close": 4, "bare": 6, "interim": 6, "stray": 10, "early": 4, "broken": 5,
    "dead": 3, "junk": 2, "close": 4, "old": 2,
}  # fmt: skip
"""The kinds of answers, with their frequencies."""
_REASONS = {200: "OK", 201: "Created", 204: "No Content", 304: "Not Modified", 404: "Not Found", 500: "Oops"}


@dataclass
class Script:
    """The backend's script for a request: pieces, each after a pause, and then `ending` (keep, close, reset)."""

    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    status: int = 200
    body: bytes = b""
    named: bool = False
    """Whether X-Case says whose answer it is; without it all answers have the same head."""
    interim: int = 0
    ending: str = "keep"
    spent: bool = False
    """Must no request use the connection after this answer, though it stays open for some time?"""
    early: bool = False
    """It answers before it has read the body."""
    deaths: int = 0
    """The number of times that it resets the connection instead of answering."""
    whole: bool = True
    may_fail: bool = False
    """May the client get a 502, or an incomplete answer?"""
    slow: bool = False
    """It waits before it reads the body."""
    tunnel: bool = False


@dataclass
class Case:
    """One request, what it is worth, and what became of it. `sent`: more than once for one whose bytes are sent again."""

    id: str
    method: str
    target: str
    kind: str
    """good, anonymous, refused, broken (malformed; `late` if only its body is), unserved (behind a request that says close)."""
    user: str = ""
    version: str = "HTTP/1.1"
    owner: str = "nobody"
    marked: bool = False
    request_id: str = ""
    trace: str = ""
    late: bool = False
    closes: bool = False
    expects: bool = False
    upgrade: bool = False
    head: bytes = b""
    body: bytes = b""
    wire: bytes = b""
    """The body as sent."""
    script: Script = field(default_factory=Script)
    sent: int = 0
    arrivals: int = 0
    deaths: int = 0
    seen_ids: list[str] = field(default_factory=list)

    @property
    def safe(self) -> bool:
        """May it be sent again if its connection ends before a byte of an answer?"""
        return self.method in SAFE


@dataclass
class Step:
    """Bytes that are written at once, after waiting: now, pause, quiet (for all answers, or silence), invited (for a 100)."""

    data: bytes
    wait: str = "now"
    pause_s: float = 0.0
    after: int = 0
    """The number of requests that were sent completely before it."""


@dataclass
class Connection:
    """A client: what it sends and how it reads. `ending`: read (all answers), or fin, close or reset before they have come."""

    cases: list[Case] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    ending: str = "read"
    ends_after_s: float = 0.0
    stalls: list[tuple[float, float]] = field(default_factory=list)
    """(after so long, read nothing for so long)."""
    lingers: bool = False
    """It checks whether more bytes follow the last answer."""


@dataclass
class Scene:
    """Connections that begin at about the same time, and whether the configuration changes meanwhile."""

    number: int
    connections: list[Connection] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    reload_after_s: float | None = None


class Author:
    """Writes scenes.

    `tokens`: alice.0, alice.1, bob.0 ..., and for each user `.forged`, `.expired`; `mint` makes a new one. `without`: answers of
    these kinds, and of requests `bad ends`, are left out: a fault that they meet would hide others.
    """

    def __init__(
        self, tokens: Mapping[str, bytes], mint: Callable[[str], bytes], without: frozenset[str] = frozenset()
    ) -> None:
        self._tokens = tokens
        self._mint = mint
        self._without = without

    def scene(self, seed: str, number: int) -> Scene:
        """The scene of this seed and number."""
        return _Writer(self._tokens, self._mint, self._without, Random(f"{seed}:{number}"), number).scene()


class _Writer:
    def __init__(
        self,
        tokens: Mapping[str, bytes],
        mint: Callable[[str], bytes],
        without: frozenset[str],
        random: Random,
        number: int,
    ) -> None:
        self._tokens = tokens
        self._mint = mint
        self._bad_ends = "bad ends" not in without
        self._answers = {kind: weight for kind, weight in ANSWERS.items() if kind not in without}
        self._random = random
        self._scene = Scene(number)
        self._ids = 0
        self._again: dict[str, Case] = {}

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def _pick(self, **weights: float) -> str:
        return self._random.choices(list(weights), list(weights.values()))[0]

    def scene(self) -> Scene:
        """Some connections; often of the same few users."""
        random = self._random
        users = random.sample(USERS, random.choice((1, 1, 2, 2, 3)))
        for _ in range(random.choice((1, 2, 3, 4, 6))):
            self._scene.connections.append(self._connection(users))
            self._scene.starts.append(random.choice((0.0, 0.0, random.uniform(0, 0.05))))
        if self._chance(0.03):
            self._scene.reload_after_s = random.uniform(0, 0.05)
        return self._scene

    # Clients

    def _connection(self, users: list[str]) -> Connection:
        random = self._random
        connection = Connection()
        user = random.choice(users)
        style = self._pick(**STYLES)
        crowd = users if self._chance(0.3) else [user]  # as after another proxy, a connection may have several users
        for number in range(random.choice((1, 1, 2, 3, 4))):
            self._burst(connection, crowd, style, number)
            if connection.cases[-1].closes or connection.cases[-1].kind == "broken":
                break
        else:
            if self._chance(0.04):
                self._add(connection, [self._upgrade(user)], "quiet")
            elif self._chance(0.05) and self._bad_ends:
                self._add(connection, [self._broken(user)], "now")
        if self._chance(0.15):
            self._kill(connection)
        if self._chance(0.12):
            for _ in range(random.choice((1, 3))):
                connection.stalls.append((random.uniform(0, 0.02), random.uniform(0.01, 0.1)))
        connection.lingers = self._chance(0.1)
        for case in connection.cases:
            case.sent += 1
        return connection

    def _burst(self, connection: Connection, crowd: list[str], style: str, number: int) -> None:
        """Requests that are written together, after the earlier ones."""
        random = self._random
        behind = len(connection.cases) > 5  # many programs handle a single request after a pipeline differently
        form = self._pick(one=60 if behind else 30, upload=20, few=20, pipeline=30)
        size = {"few": random.choice((2, 3, 5)), "pipeline": random.choice(PIPELINES)}.get(form, 1)
        size = size or random.randint(20, 80)
        gets = size > 5 and self._chance(0.6)
        cases: list[Case] = []
        for _ in range(size):
            case = self._request(random.choice(crowd), style, form, gets)
            cases.append(case)
            if case.closes:
                break
        if cases[-1].closes and self._chance(0.3) and self._bad_ends:
            cases.append(self._unserved(crowd[0]))
        wait = self._pick(now=15, pause=20, quiet=80 if behind else 35) if number else "now"
        self._add(connection, cases, wait)

    def _add(self, connection: Connection, cases: list[Case], wait: str) -> None:
        """Put requests at the end of what a connection sends, in one piece or cut."""
        random = self._random
        before = len(connection.cases)
        connection.cases += cases
        pending = b""

        def write(after: int) -> None:
            nonlocal pending, wait
            for at, piece in enumerate(self._cut(pending)):
                how = wait if not at else self._pick(now=20, pause=80)
                connection.steps.append(Step(piece, how, random.uniform(0.001, 0.008), after))
            pending, wait = b"", "pause"

        for at, case in enumerate(cases):
            pending += case.head
            if case.wire and (case.expects or self._chance(0.4)):  # its body comes later
                write(before + at)
                wait = "invited" if case.expects else self._pick(pause=70, quiet=30)
                pending = case.wire
                if case.expects or self._chance(0.6):
                    write(before + at)
                    wait = self._pick(now=20, pause=30, quiet=50)
            else:
                pending += case.wire
        if pending:
            write(before + len(cases) - 1)

    def _cut(self, data: bytes) -> list[bytes]:
        """Whole, or in pieces that end around the ends of lines, or anywhere."""
        random = self._random
        if not data or self._chance(0.65):
            return [data] if data else []
        ends = [match.start() for match in re.finditer(rb"\r\n", data[:20_000])]
        cuts: set[int] = set()
        for _ in range(random.choice((1, 1, 2, 4))):
            if ends and self._chance(0.75):
                place = random.choice(random.choice((ends[:1], ends[:6], ends)))
                cuts.add(place + random.randint(-2, 5))
            else:
                cuts.add(random.randrange(len(data)))
        places = [0, *sorted(cut for cut in cuts if 0 < cut < len(data)), len(data)]
        return [data[a:b] for a, b in pairwise(places)]

    def _kill(self, connection: Connection) -> None:
        """Let the client leave before it has all answers, often before it has sent everything."""
        random = self._random
        connection.ending = self._pick(fin=30, close=35, reset=35)
        connection.ends_after_s = random.choice((0.0, random.uniform(0, 0.03)))
        if self._chance(0.6):
            del connection.steps[random.randrange(len(connection.steps)) + 1 :]
            last = connection.steps[-1]
            last.data = last.data[: random.randint(0, len(last.data))]

    # Requests

    def _id(self) -> str:
        self._ids += 1
        return f"{self._scene.number:x}-{self._ids:x}"

    def _request(self, user: str, style: str, form: str, gets: bool) -> Case:
        random = self._random
        calm, upload = form == "pipeline", form == "upload"
        if not upload and style in ALIKE and user in self._again and self._chance(0.1):
            return self._again[user]
        standing = self._pick(good=72, absent=9, expired=3, forged=4, public=7, maybe=5)
        again = style in ALIKE and standing == "good" and not upload and user not in self._again and self._chance(0.1)
        method = "POST" if upload else "GET"
        if not (again or upload or gets) and (not calm or self._chance(0.15)):
            method = self._pick(GET=60, HEAD=7, POST=18, PUT=6, DELETE=5, OPTIONS=4)
        case = Case(self._id(), method, "", "good")
        room = standing if standing in ("public", "maybe") else "t"
        case.target = f"/{room}/{case.id}" + random.choice(("", "", "", "?q=a%20b", "/more/below?x"))
        token = self._stand(case, user, standing, style)
        if style in ("same", "traced"):
            case.owner = "anyone"
        lines = [b"Host: sidecar.test", *token, b"X-Own: " + case.owner.encode()]
        if style == "marked":
            self._mark(case, lines)
        elif style == "traced":
            case.request_id = f"rid-{case.id}"
            case.trace = f"00-{self._scene.number:016x}{self._ids:016x}-{self._ids:016x}-01"
            lines += [b"X-Request-Id: " + case.request_id.encode(), b"Traceparent: " + case.trace.encode()]
        if case.method in ("POST", "PUT"):
            self._give_body(case, lines)
        if not again and not calm:
            self._decide_version(case, lines)
        if style == "marked" and self._chance(0.3):
            random.shuffle(lines)
        case.head = _head(f"{case.method} {case.target} {case.version}", lines)
        if case.kind != "refused":
            case.script = self._script(case, calm=calm or again)
        if again:
            self._again[user] = case
        return case

    def _stand(self, case: Case, user: str, standing: str, style: str) -> list[bytes]:
        """The line with the token, if any, and the resulting kind of the request."""
        random = self._random
        token: bytes | None = self._tokens[f"{user}.{random.randrange(VARIANTS) if style == 'marked' else 0}"]
        match standing:
            case "good":
                case.kind, case.user = "good", user
                if style != "named" and self._chance(0.2):
                    token = self._mint(user)
            case "absent":
                case.kind, token = "refused", None
            case "expired" | "forged":
                case.kind, token = "refused", self._tokens[f"{user}.{standing}"]
            case "public":
                case.kind = "anonymous"
                token = random.choice((token, None, self._tokens[f"{user}.forged"]))
            case "maybe":
                token = random.choice((token, None))
                case.kind, case.user = ("good", user) if token else ("anonymous", "")
        case.owner = user if token else "nobody"
        return [b"Authorization: Bearer " + token] if token else []

    def _mark(self, case: Case, lines: list[bytes]) -> None:
        """Lines that no other request has."""
        random = self._random
        if self._chance(0.7):
            case.marked = True
            lines.append(b"X-Mark: " + case.id.encode())
        if self._chance(0.6):
            case.request_id = f"rid-{case.id}"
            lines.append(b"X-Request-Id: " + case.request_id.encode())
        if self._chance(0.1):
            lines.append(random.choice(FAKES))

    def _give_body(self, case: Case, lines: list[bytes]) -> None:
        random = self._random
        size = random.choice((0, 5, 40, 300, 5000, 5000 if self._chance(0.8) else 90_000))
        case.body = (case.id.encode() + b" " + random.randbytes(size))[:size]
        if self._chance(0.5):
            lines.append(b"Content-Length: %d" % size)
            case.wire = case.body
        else:
            lines.append(b"Transfer-Encoding: chunked")
            step = random.choice((1, 7, 1000)) if size <= 300 else random.choice((97, 1000, 100_000))
            case.wire = _chunked(case.body, step) + random.choice((b"", b"", b"X-Last: 1\r\n")) + b"\r\n"
        if case.wire and self._chance(0.15):
            case.expects = True
            lines.append(b"Expect: 100-continue")

    def _decide_version(self, case: Case, lines: list[bytes]) -> None:
        chance = self._random.random()
        if chance < 0.03 and not case.wire:
            case.version = "HTTP/1.0"
            case.closes = self._chance(0.5)
            if not case.closes:
                lines.append(b"Connection: keep-alive")
        elif chance < 0.06:
            case.closes = True
            lines.append(b"Connection: close")

    def _unserved(self, user: str) -> Case:
        """A good request that must not be served."""
        case = Case(self._id(), "GET", "", "unserved", user, owner=user, closes=True)
        case.target = f"/t/{case.id}"
        lines = [
            b"Host: sidecar.test",
            b"Authorization: Bearer " + self._tokens[f"{user}.0"],
            b"X-Own: " + user.encode(),
        ]
        case.head = _head(f"GET {case.target} HTTP/1.1", lines)
        return case

    def _broken(self, user: str) -> Case:
        """An invalid request with a good token."""
        case = Case(self._id(), "POST", "", "broken", user, owner=user, closes=True)
        case.target = f"/t/{case.id}"
        lines = [
            b"Host: sidecar.test",
            b"Authorization: Bearer " + self._tokens[f"{user}.0"],
            b"X-Own: " + user.encode(),
        ]
        match self._random.randrange(6):
            case 0:
                lines += [b"Content-Length: 5", b"Transfer-Encoding: chunked"]
                case.wire = b"0\r\n\r\n"
            case 1:
                lines += [b"Content-Length: 5", b"Content-Length: 6"]
                case.wire = b"hello"
            case 2:
                lines.append(b"X-A : b")
            case 3:
                lines.append(b"X-A: b\x00c")
            case 4:
                lines.append(b"no colon")
            case _:
                case.late = True
                lines.append(b"Transfer-Encoding: chunked")
                case.wire = b"5\r\nhello\r\n" + self._random.choice((b"x\r\n", b"5\r\nhelloo\r\n", b"-1\r\n\r\n"))
                case.script = Script([(0.0, _answer(200, [], b""))], may_fail=True)
        case.head = _head(f"POST {case.target} HTTP/1.1", lines)
        return case

    def _upgrade(self, user: str) -> Case:
        """A WebSocket, which the backend may decline."""
        case = Case(self._id(), "GET", "", "good", user, owner=user, closes=True, upgrade=True)
        case.target = f"/t/{case.id}"
        lines = [
            b"Host: sidecar.test", b"Authorization: Bearer " + self._tokens[f"{user}.0"], b"X-Own: " + user.encode(),
            b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ]  # fmt: skip
        case.head = _head(f"GET {case.target} HTTP/1.1", lines)
        accept = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]
        if self._chance(0.8):
            answer = _first(101, "Switching Protocols", [*accept, f"X-Case: {case.id}"])
            case.script = Script([(0.0, answer)], 101, named=True, tunnel=True, spent=True)
        else:
            case.script = self._script(case, calm=True)
        return case

    # Answers

    def _script(self, case: Case, calm: bool) -> Script:
        random = self._random
        kind = "plain"
        if not calm or self._chance(0.12):
            kind = self._pick(**self._answers)
        script = Script()
        own = case.id.encode()
        script.body = own.ljust(SMALL, b".")
        if kind == "plain":
            script.pieces = [(self._delay(), _answer(200, [], script.body, case.method))]
            script.slow = self._chance(0.1)
            if self._chance(0.01):
                script.ending = "close"  # without a byte before
            return script
        script.status = random.choice((200, 200, 200, 201, 404, 500))
        size = random.choice((0, 5, 60, 900, 4000) if kind in ("stray", "broken") else (0, 5, 100, 3000, 70_000))
        if kind == "sized" and self._chance(0.06):
            size = 600_000
        script.body = (own + b" " + random.randbytes(size))[: max(size, len(own) if self._chance(0.8) else 0)]
        lines: list[str] = []
        if self._chance(0.6):
            script.named = True
            lines.append(f"X-Case: {case.id}")
        if kind == "bare":
            script.status, script.body = random.choice((204, 304)), b""
        if kind in ("close", "old"):
            script.spent, script.ending = True, "close"
        if kind == "close":
            lines.append("Connection: close")
        if kind == "junk":
            script.may_fail, script.whole, script.ending = True, False, random.choice(("keep", "close"))
            script.pieces = [
                (
                    self._delay(),
                    random.choice(JUNK),
                )
            ]
            script.spent = True
            return script
        if kind == "dead":
            script.deaths, script.may_fail = random.choice((1, 1, 9)), True
        raw = self._raw(case, script, kind, lines)
        if kind == "interim":
            script.interim = random.choice((1, 1, 2))
            raw = _first(103, "Early Hints", [f"Link: </{case.id}>"]) * script.interim + raw
        if kind == "broken":
            end = raw.find(b"\r\n\r\n") + 4
            from_, to = (end, len(raw)) if self._chance(0.8) and end < len(raw) else (1, len(raw))
            raw = raw[: random.randrange(from_, to)]
            script.whole, script.may_fail, script.ending = False, True, random.choice(("close", "reset"))
            script.spent = True
        script.pieces = self._pieces(raw)
        if kind == "stray":
            pause, last = script.pieces[-1]
            script.pieces[-1] = pause, last + random.choice(STRAY)
            script.spent = True
        if kind == "early":
            script.early = True
            script.ending = random.choice(("keep", "close", "reset"))
            script.spent = script.ending != "keep"
            script.may_fail = bool(case.wire) and script.ending != "keep"
            if script.ending == "reset":
                script.may_fail = True
        return script

    def _raw(self, case: Case, script: Script, kind: str, lines: list[str]) -> bytes:
        """A whole answer."""
        random = self._random
        if kind == "old":
            way = random.choice(("sized", "until closed"))
            return _answer(script.status, lines, script.body, case.method, way, version="HTTP/1.0")
        way = "sized"
        if kind == "until_close":
            way, script.ending, script.spent = "until closed", "close", True
        elif kind == "chunked" or (kind in ("stray", "interim", "broken", "early", "close") and self._chance(0.4)):
            way = "chunked"
        return _answer(
            script.status, lines, script.body, case.method, way, step=random.choice((1 + len(script.body), 50, 7))
        )

    def _pieces(self, raw: bytes) -> list[tuple[float, bytes]]:
        """In one piece, or in some with pauses between them."""
        random = self._random
        cuts: set[int] = set()
        if len(raw) > 1 and self._chance(0.6):
            end = raw.find(b"\r\n\r\n") + 4
            for _ in range(random.choice((1, 1, 2, 3))):
                cuts.add(random.choice((random.randrange(1, len(raw)), end, len(raw) - random.randint(1, 6))))
        places = [0, *sorted(cut for cut in cuts if 0 < cut < len(raw)), len(raw)]
        pieces = [raw[a:b] for a, b in pairwise(places)]
        return [(self._delay() if not at else random.uniform(0.001, 0.008), piece) for at, piece in enumerate(pieces)]

    def _delay(self) -> float:
        return self._random.uniform(0.001, 0.01) if self._chance(0.12) else 0.0


def _first(status: int, reason: str, lines: list[str], version: str = "HTTP/1.1") -> bytes:
    return "\r\n".join([f"{version} {status} {reason}", *lines, "", ""]).encode()


def _head(first: str, lines: list[bytes]) -> bytes:
    return b"\r\n".join([first.encode(), *lines, b"", b""])


def _answer(
    status: int,
    lines: list[str],
    body: bytes,
    method: str = "GET",
    way: str = "sized",
    *,
    step: int = 1,
    version: str = "HTTP/1.1",
) -> bytes:
    """An answer of the backend; to HEAD with the head alone."""
    bodiless = status in (204, 304)
    framing = {"sized": f"Content-Length: {len(body)}", "chunked": "Transfer-Encoding: chunked"}.get(way)
    head = _first(status, _REASONS[status], [*lines, *([framing] if framing and not bodiless else [])], version)
    if method == "HEAD" or bodiless:
        return head
    return head + (_chunked(body, max(step, len(body) // 300)) + b"\r\n" if way == "chunked" else body)


def _chunked(body: bytes, step: int) -> bytes:
    """A chunked body up to its last chunk; trailers and the empty line are to follow."""
    chunks = (body[at : at + step] for at in range(0, len(body), step))
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n"
