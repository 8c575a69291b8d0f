"""Streams of requests and of answers through the HTTP core, without sockets, judged by `reference`, which shares no code with it.

    python -m tests.proofs.core --seconds 1800
    python -m tests.proofs.core --seed 1 --replay 4711     # the case of that number again

Each stream is read whole, with all lines remembered that came before, and again in pieces and with nothing remembered:

- What the reference refuses is refused, and nothing else; every other message has its method, target, headers and body, and
  what would go on of its headers is what may.
- Where the bytes were cut, and what is remembered, makes no difference.
- What waits to be read stays within the limit of a head, and a call takes no more than so many chunks.
- Nothing raises but ProtocolError.
"""

import argparse
import sys
import time
import traceback
from collections import Counter
from random import Random

from sidecar.http import header_policy
from sidecar.http.chunked import MAX_CHUNKS
from sidecar.http.grammar import split_field
from sidecar.http.request_head import RequestHead
from tests.http.heads import attributes, policy
from tests.http.streams import LINE_BYTES, Message, Outcome, Reading, byte_by_byte, facts, somewhere
from tests.proofs import reference, subject, verdict
from tests.proofs.running import memory_mib

MOST_FAILURES = 20
WARM_CASES = 50_000
TELL_S = 60.0
SMALL_HEAD = (200, 6)
LARGE_HEAD = (65_536, 128)

METHODS = [b"GET", b"GET", b"POST", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"get", b"QUERY", b"A(", b""]
TARGETS = [
    b"/", b"/x", b"/x?a=b", b"*", b"http://a/x", b"http://a", b"http://b/x", b"HTTPS://A?x", b"a:1", b"/\xc3\xa9", b"/a b", b"/#",
    b"", b"/%2e%2e/x", b"//a/x", b"http://", b"http:///x",
]  # fmt: skip
VERSIONS = (
    [b"HTTP/1.1"] * 12 + [b"HTTP/1.0"] * 2 + [b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/1.1 ", b"HTTP/1.", b""]
)
STATUS = [
    b"200 OK", b"200 OK", b"200", b"204 No Content", b"304 Not Modified", b"100 Continue", b"103 Early Hints",
    b"101 Switching Protocols", b"404 Not  Found", b"099 x", b"1000", b"200\tOK", b"20", b"200 \xff",
]  # fmt: skip
HOSTS = [b"Host: a"] * 80 + [b"host:a", b"Host: A:80", b"Host: [::1]:8", b"Host: a b", b"Host:", b"Host: a:123456", b""]
NAMES = [
    b"Accept", b"Connection", b"X-A", b"X-JWT-Sub", b"x_jwt_sub", b"X-Forwarded-For", b"X-Real-IP", b"Via", b"TE", b"Cookie",
    b"Expect", b"Upgrade", b"X-Request-Id", b"Authorization", b"ETag", b"Set-Cookie", b"x_other", b"X.A", b"Proxy_Connection",
    b"Traceparent", b"X-JWT-Sidecar", b"Keep-Alive", b"X-Forwarded-", b"Origin",
]  # fmt: skip
ODD_NAMES = [b"Content-Length ", b" X", b"X\xe9", b"", b"Content-Length", b"Host", b"Transfer-Encoding"]
VALUES = [
    b"a", b"close", b"keep-alive", b"x-a", b"Upgrade, X-A", b"", b" a ", b"a\tb", b"\xff", b"chunked", b"5", b"websocket",
    b"host", b"accept, close", b"100-continue", b"a:b", b"eyJ.", b",", b"x" * 300,
]  # fmt: skip
ODD_VALUES = [b"a\0", b"\x7f", b"a\r", b"a\n b"]
CODINGS = [b"chunked"] * 40 + [b"Chunked", b"gzip, chunked", b"identity", b"chunked;a", b"xchunked", b""]
ODD_TRAILERS = [b"no colon\r\n", b"X: y\n", b"a: \0\r\n", b" a: b\r\n", b"X : y\r\n"]
ODD = [
    b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"0\r\n\r\n", b"\x0b", b"\x7f", b"\x80", b"\xff",
    b"-", b"_", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Host: a\r\n",
    b"Connection: x-a\r\n",
    b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"ffffffffffffffff", b"HTTP/1.1",
    b"5\r\nhello\r\n", b"x" * 260,
]  # fmt: skip


def request(random: Random) -> bytes:
    """Nearly always a request."""
    first = b"%b %b %b" % (
        random.choice(METHODS) if random.random() < 0.2 else b"POST",
        random.choice(TARGETS) if random.random() < 0.2 else b"/x",
        random.choice(VERSIONS),
    )
    return _message(random, [first, random.choice(HOSTS)])


def answer(random: Random) -> bytes:
    """Nearly always an answer."""
    return _message(
        random, [b"%b %b" % (random.choice(VERSIONS), random.choice(STATUS) if random.random() < 0.4 else b"200 OK")]
    )


def _message(random: Random, lines: list[bytes]) -> bytes:
    for _ in range(random.choice((0, 0, 1, 1, 2, 4))):
        odd = random.random()
        name = random.choice(ODD_NAMES if odd < 0.02 else NAMES)
        lines.append(b"%b: %b" % (name, random.choice(ODD_VALUES if odd > 0.98 else VALUES)))
    body = random.choice((b"", b"hello", b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", random.randbytes(300)))
    kind = random.random()
    if kind < 0.4:
        lines.append(b"Transfer-Encoding: " + random.choice(CODINGS))
        body = _chunks(random, body)
    elif kind < 0.7:
        lines.append(b"Content-Length: %d" % (len(body) + random.choice((*[0] * 20, -1, 1))))
    elif kind < 0.95:
        body = b""
    if random.random() < 0.2:
        tail = lines[1:]
        random.shuffle(tail)
        lines[1:] = tail
    return b"\r\n".join([line for line in lines if line] + [b"", body])


def _chunks(random: Random, body: bytes) -> bytes:
    pieces = []
    while body:
        size = random.randrange(1, len(body) + 1) if random.random() < 0.8 else len(body)
        extension = random.choice((*[b""] * 40, b";a=b", b";a=b", b" ;a", b" ", b";" + b"x" * 251, b";" + b"x" * 254))
        pieces.append(b"%x%b\r\n%b\r\n" % (size, extension, body[:size]))
        body = body[size:]
    trailer = random.choice(
        (b"", b"", b"", b"X: y\r\n", b"a:\r\n" * 60, b"no colon\r\n", b"X: y\n", b"a: \0\r\n", b" a: b\r\n")
    )
    return b"".join(pieces) + b"0\r\n" + trailer + b"\r\n"


def turned(random: Random, raw: bytes) -> bytes:
    """The bytes with a few changed, added, removed or repeated."""
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(raw) + 1)
        to = at + random.choice((1, 1, 2, 4, 16, 64))
        match random.randrange(6):
            case 0:
                raw = raw[:at] + random.randbytes(1) + raw[at + 1 :]
            case 1 | 2:
                raw = raw[:at] + random.choice(ODD) + raw[at:]
            case 3:
                raw = raw[:at] + raw[to:]
            case 4:
                raw = raw[:to] + raw[at:to] + raw[to:]
            case 5:
                raw = raw[:at] if random.random() < 0.3 else raw[:at] + random.choice(ODD) + raw[to:]
    return raw


class Judge:
    """Reads streams in several ways and compares. Its remembered lines last from case to case."""

    def __init__(self) -> None:
        self.warm = {False: policy(), True: header_policy.ResponseHeaderPolicy()}
        self.cold = {False: policy(), True: header_policy.ResponseHeaderPolicy()}
        self.outcomes: Counter[str] = Counter()
        self.what = b""

    def one(self, random: Random) -> None:
        """One case. Raises AssertionError, or any exception of the core."""
        is_answer = random.random() < 0.4
        make = answer if is_answer else request
        if random.random() < 0.0005:
            raw = self._tiny_chunks(random, is_answer)
        else:
            raw = b"".join(make(random) for _ in range(random.choice((1, 1, 1, 2, 3))))
            if random.random() < 0.1:
                raw = b"\r\n" * random.randrange(1, 7) + raw
            if random.random() < 0.4:
                raw = turned(random, raw)
        self.what = raw
        head_only = [random.random() < 0.2 for _ in range(3)] if is_answer else None
        head_bytes, headers = SMALL_HEAD if random.random() < 0.2 else LARGE_HEAD
        expected = reference.read(raw, reference.Limits(head_bytes, headers, LINE_BYTES), head_only)

        def read(pieces: list[bytes], rules: header_policy.HeaderPolicy) -> Outcome:
            reading = Reading(rules, head_only, head_bytes=head_bytes, headers=headers)  # type: ignore[arg-type]
            return reading.read(pieces)

        whole = read([raw], self.warm[is_answer])
        compare(whole, expected)
        cold = self.cold[is_answer]
        cold.known.clear()
        again = read(byte_by_byte(raw) if random.random() < 0.02 and len(raw) < 1000 else somewhere(random, raw), cold)
        assert facts(again) == facts(whole), "the cuts made a difference"
        for one, other in zip(again.messages, whole.messages, strict=True):
            assert heads_alike(one, other), "what is remembered made a difference"
        assert max(len(rules.known) for rules in self.warm.values()) <= header_policy.MAX_LINES
        self.outcomes[f"{'answers' if is_answer else 'requests'}, {len(whole.messages)} complete"] += 1
        self.outcomes[f"refused: {whole.refused}" if whole.refused else "not refused"] += 1

    def _tiny_chunks(self, random: Random, is_answer: bool) -> bytes:
        number = random.randrange(MAX_CHUNKS - 2, 3 * MAX_CHUNKS)
        first = b"HTTP/1.1 200 OK" if is_answer else b"POST /x HTTP/1.1\r\nHost: a"
        begin = first + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
        reading = Reading(self.cold[is_answer], [False] if is_answer else None)  # type: ignore[arg-type]
        reading.read([begin + b"1\r\na\r\n" * number + b"0\r\n\r\n"])
        assert reading.most_at_once <= 6 * MAX_CHUNKS, "one call took too much"
        return begin + b"1\r\na\r\n" * number + b"0\r\n\r\n"


def compare(found: Outcome, expected: reference.Stream) -> None:
    """Assert that both read a stream alike."""
    assert bool(found.refused) == bool(expected.refused), f"{found.refused!r}, and not {expected.refused!r}"
    assert len(found.messages) == len(expected.messages), "another number of messages"
    for one, other in zip(found.messages, expected.messages, strict=True):
        compare_message(one, other)
        assert one.body == other.body, "another body"
    if found.refused:
        return
    assert (found.begun is None) == (expected.begun is None), "a message has begun, or not"
    if found.begun is not None and expected.begun is not None:
        compare_message(found.begun, expected.begun)
        assert found.begun.body == expected.begun.body, "another part of a body"


def compare_message(found: Message, expected: reference.Message) -> None:
    """Assert that both read a head alike, and forward the same lines of it."""
    head, (one, other, minor) = found.head, expected.start
    assert head.minor == minor, "another version"
    lines = found.raw[:-4].split(b"\r\n")[1:]
    assert [split_field(line) for line in lines] == expected.fields, "other headers"
    if isinstance(head, RequestHead):
        assert (head.method.encode(), head.target.encode()) == (one, reference.origin_form(other)), "another request"
        assert head.forwarded == reference.forwarded(expected.fields), "other headers go on"
        for name, values in head.special.items():
            assert values == reference.values(expected.fields, name.encode()), "other values"
    else:
        assert head.status == int(one), "another status"
        phrase = other if other.isascii() and b"\t" not in other else b""
        expected_lines = b"HTTP/1.1 %b %b\r\n" % (one, phrase) + reference.passed_on(expected.fields)
        assert head.lines == expected_lines, "other headers go on"


def heads_alike(one: Message, other: Message) -> bool:
    """Are the two heads read alike?"""
    return all(getattr(one.head, name) == getattr(other.head, name) for name in attributes(one.head))


def run(seconds: float, seed: str, first: int, last: float) -> int:
    """Run cases of a seed, from a number on. Return the number of broken rules."""
    judge = Judge()
    failures, number = 0, first
    began = told = now = time.monotonic()
    warm_mib = 0.0
    while now - began < seconds and number <= last and failures < MOST_FAILURES:
        try:
            judge.one(Random(f"{seed}:{number}"))
        except Exception:  # noqa: BLE001  # which is what is looked for
            failures += 1
            print(f"case {number} of seed {seed}: {judge.what[:3000]!r}\n{traceback.format_exc()}", flush=True)
        number += 1
        if number == first + WARM_CASES:
            warm_mib = memory_mib("self", "VmRSS")
        now = time.monotonic()
        if now - told > TELL_S:
            told = now
            print(f"{number - first} cases, {failures} failures", flush=True)
    cases = number - first
    print(
        f"seed {seed}: {cases} cases in {now - began:.0f} s, {cases / (now - began):.0f} a second, {failures} failures"
    )
    print(f"memory {warm_mib:.0f} MiB after {WARM_CASES} cases, {memory_mib('self', 'VmRSS'):.0f} MiB at the end")
    print(f"outcomes: {dict(judge.outcomes.most_common())}")
    if first == last:
        print(judge.what)
    return failures


def main() -> int:
    """0: no rule was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--replay", type=int, help="only the case of this number")
    options = parser.parse_args()
    print(subject(), flush=True)
    first, last = (0, float("inf")) if options.replay is None else (options.replay, options.replay)
    return verdict(run(options.seconds, options.seed, first, last))


if __name__ == "__main__":
    sys.exit(main())
