"""The rules that every request at the backend and every answer at the client must meet, for any input."""

import asyncio
import json
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from tests.peers.backend import Request
from tests.peers.raw import read_response
from tests.peers.wire import READ_LIMIT, Malformed, Message, Truncated, framing, read_body, read_head
from tests.proofs import grammar

_HALF_AN_END = re.compile(rb"\r(?!\n)|(?<!\r)\n")
OURS = {"X-JWT-Status", "X-JWT-Sub", "X-JWT-Iss", "X-JWT-Claims"}


class Broken(AssertionError):
    """A rule was broken."""


@dataclass
class Answer(Message):
    """One answer as a client reads it; `body` is None if it is incomplete."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes | None


def check_seen(requests: Iterable[Request], name: str, tokens: int) -> None:
    """The backend saw requests of `name`, no more than `tokens` were sent, and what is open to all. Raises Broken."""
    verified = 0
    for seen in requests:
        identity = [name for name, _ in seen.headers if re.sub("[^a-z0-9]", "-", name.lower()).startswith("x-jwt-")]
        if not OURS.issuperset(identity) or len(set(identity)) != len(identity):
            raise Broken(f"the backend saw {identity}")
        if seen.target.encode("latin-1") in grammar.UNSEEN or seen.all("authorization") or len(seen.all("host")) != 1:
            raise Broken(f"the backend saw {seen.head!r}")
        match seen.all("x-jwt-status"), seen.all("x-jwt-sub"):
            case ["verified"], [sub] if sub == name:
                verified += 1
            case ["anonymous"], [] if _is_public(seen.target) or _is_preflight(seen):
                pass
            case _:
                raise Broken(f"the backend saw {seen.head!r}")
    if verified > tokens:
        raise Broken(f"{verified} requests with {tokens} tokens")


def _is_public(target: str) -> bool:
    """Is this below /public for every possible backend?"""
    path = target.partition("?")[0]
    plain = "/".join(segment.partition(";")[0] for segment in path.split("/"))
    readings = [path, unquote(path), unquote(unquote(path)), plain, unquote(plain), path.replace("\\", "/")]
    return all(f"{posixpath.normpath(reading)}/".startswith("/public/") for reading in readings)


def _is_preflight(seen: Request) -> bool:
    return seen.method == "OPTIONS" and bool(seen.all("origin") and seen.all("access-control-request-method"))


async def read_answers(received: bytes, *, head: bool) -> list[Answer]:
    """The answers in what a client got; with `head`, some may be to HEAD. What follows a 101 is not read.

    Raises Broken for what is not HTTP, and for an answer of the sidecar's own that is not as documented.
    """
    answers: list[Answer] = []
    while received and (not answers or answers[-1].body is not None):
        raw, found, rest = received.partition(b"\r\n\r\n")
        if not found:
            answers.append(Answer(0, [], None))
            break
        try:
            _, first, headers = await read_head(_reader(raw + found))
            answer = Answer(int(first[9:12]), headers, b"")
            if answer.status == 101:
                return [*answers, answer]
            bodiless = answer.status < 200 or answer.status in (204, 304)
            if not bodiless and not (head and (not rest or rest.startswith(b"HTTP/1.1 "))):
                answer.body, rest = await _read_body(answer, rest)
                _check_own(answer)
        except (Malformed, ValueError) as error:
            raise Broken(f"an answer is not HTTP: {error}: {received[:500]!r}") from None
        answers.append(answer)
        received = rest
    return answers


async def meaning(raw: bytes, method: str) -> Answer | None:
    """The answer in these bytes of a backend (`body` None: it breaks off), or None if they have two readings."""
    if _HALF_AN_END.search(raw):  # of a line, to some
        return None
    try:
        answer = await read_response(_reader(raw), method)
        while answer.status < 200 and answer.status != 101:
            raw = raw[len(answer.raw) :]
            answer = await read_response(_reader(raw), method)
    except Truncated:
        return Answer(0, [], None)
    except Malformed:
        return None
    return Answer(answer.status, answer.headers, answer.body)


async def _read_body(answer: Answer, rest: bytes) -> tuple[bytes | None, bytes]:
    if framing(answer.headers) is None:
        return rest, b""  # ends with the connection
    try:
        body, on_wire, _ = await read_body(_reader(rest), answer.headers)
    except Truncated:
        return None, b""
    return body, rest[len(on_wire) :]


def _check_own(answer: Answer) -> None:
    own = answer.get("x-jwt-sidecar")
    if own is not None and answer.body is not None and (own != "rejected" or not json.loads(answer.body)["code"]):
        raise Broken(f"not a refusal as documented: {answer}")


def _reader(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(READ_LIMIT)
    reader.feed_data(data)
    reader.feed_eof()
    return reader
