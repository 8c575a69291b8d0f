"""Interim answers come before the final head of their own request, and nowhere else; a flood of them meets a limit."""

import asyncio

import pytest

from tests.peers import patience
from tests.peers.backend import Handler, RawBackend, Request
from tests.peers.kernel import Narrow, Wire, narrow, still
from tests.peers.wire import response
from tests.proxy.conftest import Stack, running

ON_EVERY_LOOP = True
HELD = 128 << 10  # bytes of one direction in the sidecar: its 64 KiB, and one more read on the way
HINT = response(103, headers=[("Link", "</a.css>; rel=preload")])
BEHIND = {
    "103": HINT,
    "102": response(102),
    "100": response(100),
    "two": HINT + HINT,
    "half a 103": HINT[:20],
    "103 and an answer": HINT + response(200, b"nobody asked for this"),
}


def parted(*, chunks: bool) -> tuple[bytes, bytes]:
    """An answer of `part1part2`: what comes first, and the rest of it."""
    if chunks:
        whole = response(200, chunks=[b"part1", b"part2"])
        at = whole.index(b"5\r\npart2")
    else:
        whole = response(200, b"part1part2")
        at = whole.index(b"part2")
    return whole[:at], whole[at:]


def with_behind(first: bytes, rest: bytes, read: asyncio.Event | None) -> Handler:
    """Answers /a with `first`, and in one segment, when that has been read, the rest; all else with its target."""

    async def handler(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.target != "/a":
            writer.write(response(200, request.target.encode()))
            return
        writer.write(first)
        if read is not None:
            await read.wait()
        writer.write(rest)

    return handler


@pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND)
@pytest.mark.parametrize("chunks", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("pieces", [1, 2], ids=["one segment", "two segments"])
async def test_bytes_after_an_answer_reach_no_client(pieces: int, chunks: bool, behind: bytes) -> None:
    read = asyncio.Event() if pieces == 2 else None
    first, rest = parted(chunks=chunks)
    async with running(backend=RawBackend(with_behind(first, rest + behind, read))) as stack, stack.client() as client:
        await client.send(stack.good("GET", "/a"))
        if read is not None:
            async with patience("the first part"):
                begun = await client.reader.readuntil(b"part1")
            assert begun.startswith(b"HTTP/1.1 200 ")
            read.set()
            ending = b"\r\n5\r\npart2\r\n0\r\n\r\n" if chunks else b"part2"
            assert await client.read(len(ending)) == ending
        else:
            answer = await client.response()
            assert (answer.status, answer.body, answer.interim) == (200, b"part1part2", [])
        await stack.backend.disconnected()
        for target in ("/b", "/c"):
            answer = await client.request(stack.good("GET", target))
            assert (answer.status, answer.body, answer.interim) == (200, target.encode(), [])
        assert stack.backend.requests[1].connection == 2


async def test_a_103_after_the_answer_ends_the_connection_to_the_backend(stack: Stack) -> None:
    """It holds without a waiting request too: bytes on an idle connection do not answer the next request."""
    read = asyncio.Event()
    stack.backend.handler = with_behind(response(200, b"hello"), HINT, read)
    async with stack.client() as client:
        assert (await client.request(stack.good("GET", "/a"))).body == b"hello"
        read.set()
        await stack.backend.disconnected()
        answer = await client.request(stack.good("GET", "/b"))
        assert (answer.body, answer.interim) == (b"/b", [])


@pytest.mark.parametrize("chunks", [False, True], ids=["sized", "chunked"])
async def test_clients_never_get_each_others_answers(chunks: bool) -> None:
    """Node sends such bytes with `res.end('world'); res.writeProcessing()`. The test has 40 clients."""

    async def handler(request: Request, writer: asyncio.StreamWriter) -> None:
        target = request.target.encode()
        whole = response(200, chunks=[b"hello", target]) if chunks else response(200, b"hello" + target)
        at = whole.index(b"hello") + 5
        writer.write(whole[:at])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        writer.write(whole[at:] + response(102))

    async def ask(stack: Stack, number: int) -> None:
        async with stack.client() as client:
            for turn in range(6):
                answer = await client.request(stack.good("GET", f"/{number}/{turn}"))
                told.append((answer.body, [one.status for one in answer.interim]))
                expected.append((f"hello/{number}/{turn}".encode(), []))

    told: list[tuple[bytes, list[int]]] = []
    expected: list[tuple[bytes, list[int]]] = []
    async with running(backend=RawBackend(handler)) as stack, asyncio.TaskGroup() as clients:
        for number in range(40):
            clients.create_task(ask(stack, number))
    assert told == expected


async def test_a_103_in_one_segment_with_its_answer_is_relayed(stack: Stack) -> None:
    async def handler(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(HINT + response(200, b"hello"))

    stack.backend.handler = handler
    async with stack.client() as client:
        for _ in range(3):
            answer = await client.request(stack.good())
            assert (answer.body, [one.status for one in answer.interim]) == (b"hello", [103])
    assert stack.backend.connections == 1


# A flood of them


async def test_a_client_that_reads_nothing_pauses_a_flood_of_interim_answers() -> None:
    """The sidecar may also refuse the flood. The buffered bytes are counted from outside."""
    large = response(103, headers=[("Link", "x" * 1000)])
    wires: asyncio.Future[Wire] = asyncio.Future()
    given = 0

    async def flood(_request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal given
        narrow(writer)
        wires.set_result(Wire(writer.get_extra_info("sockname"), writer.get_extra_info("peername")))
        while given < 32 << 20:
            writer.write(large)
            given += len(large)
            await writer.drain()

    async with running(backend=RawBackend(flood)) as stack:
        with Narrow(stack.sidecar.proxy_address) as client:
            client.send(stack.good())
            async with patience("the backend's request"):
                wire = await wires
            await still(lambda: given, lambda: stack.health("/livez"))
            held = wire.taken(given) - client.down.given(0)
            assert given < 32 << 20, "all of it was taken"
            assert held <= HELD or stack.backend.open_connections == 0


async def test_a_flood_of_interim_answers_is_a_502() -> None:
    async def flood(_request: Request, writer: asyncio.StreamWriter) -> None:
        for _ in range(20_000):
            writer.write(HINT)
            await writer.drain()
        writer.write(response(200, b"hello"))

    async with running(backend=RawBackend(flood)) as stack:
        answer = await stack.fetch(stack.good())
        assert (answer.status, answer.json()["code"]) == (502, "upstream_invalid")
        assert len(answer.interim) < 1000
        await stack.backend.disconnected()
