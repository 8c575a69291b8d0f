"""Lines reach standard output together and whole, and delay no request."""

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from select import PIPE_BUF

import pytest

from sidecar.observability.access_lines import ecs_line, json_line
from sidecar.observability.access_log import FLUSH_BYTES, MAX_WAITING_BYTES, AccessLog
from sidecar.observability.record import Record
from tests.peers import patience

LINE = b"x" * 99 + b"\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe whose ends do not block."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    yield reading, writing
    for descriptor in (reading, writing):
        os.close(descriptor)


def lines_to(descriptor: int) -> AccessLog:
    numbers = iter(range(10**9))

    def line(_request: Record, _duration_s: float) -> bytes:
        return b"%099d\n" % next(numbers)

    return AccessLog(line, descriptor)


def fill(log: AccessLog, size: int) -> int:
    """Add lines of 100 bytes up to `size` bytes; return their number."""
    request = Record("id-1", "GET", "/", b"sidecar.test", 1, "127.0.0.1", "http", 0.0)
    for _ in range(size // 100):
        log.write(request, 0.0)
    return size // 100


def taken(reading: int) -> bytes:
    """The content of the pipe."""
    pieces = list[bytes]()
    while True:
        try:
            piece = os.read(reading, 65536)
        except BlockingIOError:
            return b"".join(pieces)
        pieces.append(piece)


def numbers(lines: bytes) -> list[int]:
    return [int(line) for line in lines.splitlines()]


async def test_a_few_lines_are_written_together_after_a_short_pause(pipe: tuple[int, int]) -> None:
    log = lines_to(pipe[1])
    fill(log, 300)
    assert taken(pipe[0]) == b""
    lines = b""
    async with patience("three lines"):
        while not lines:
            await asyncio.sleep(0.01)
            lines = taken(pipe[0])
    assert numbers(lines) == [0, 1, 2]


async def test_many_lines_are_written_at_once(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "log")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    log = lines_to(descriptor)
    fill(log, FLUSH_BYTES + 1000)
    assert os.path.getsize(path) > FLUSH_BYTES
    os.close(descriptor)


async def test_lines_reach_a_slow_reader_whole_and_in_order(pipe: tuple[int, int]) -> None:
    log = lines_to(pipe[1])
    count = fill(log, 1_000_000)
    lines = taken(pipe[0])
    assert 0 < len(lines) < 1_000_000
    async with patience("all lines"):
        while len(lines) < 1_000_000:
            await asyncio.sleep(0.01)
            lines += taken(pipe[0])
    assert numbers(lines) == list(range(count))


async def test_a_blocking_pipe_delays_no_request_and_stays_blocking_for_other_writers() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    log = lines_to(writing)
    assert os.get_blocking(writing)
    assert not os.get_blocking(log._descriptor)
    count = fill(log, 1_000_000)
    lines = b""
    async with patience("all lines"):
        while len(lines) < 1_000_000:
            lines += taken(reading)
            await asyncio.sleep(0)
    assert numbers(lines) == list(range(count))
    log.close()
    log.close()  # a second signal closes it again
    os.close(writing)
    assert os.read(reading, 1) == b"", "the pipe has no further writer"
    os.close(reading)


async def test_a_blocking_socket_delays_no_request() -> None:
    """systemd gives such a socket; it cannot be opened again."""
    receiving, sending = socket.socketpair()
    receiving.setblocking(False)
    assert sending.getblocking()
    log = lines_to(sending.fileno())
    count = fill(log, 1_000_000)
    lines = b""
    async with patience("all lines"):
        while len(lines) < 1_000_000:
            with suppress(BlockingIOError):
                lines += receiving.recv(65536)
            await asyncio.sleep(0)
    assert numbers(lines) == list(range(count))
    log.close()
    for end in (receiving, sending):
        end.close()


async def test_waiting_lines_are_written_at_the_end_if_a_reader_reads(
    pipe: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    log = lines_to(pipe[1])
    count = fill(log, 1_000_000)
    pieces: list[bytes] = []

    def read_on() -> None:
        while piece := os.read(reading, 4096):
            pieces.append(piece)

    reading = os.dup(pipe[0])
    os.set_blocking(reading, True)
    reader = threading.Thread(target=read_on)
    reader.start()
    log.close()
    os.dup2(os.open(os.devnull, os.O_WRONLY), pipe[1])  # the last writer has closed
    reader.join()
    os.close(reading)
    assert numbers(b"".join(pieces)) == list(range(count))
    assert caplog.records == []


async def test_a_reader_that_leaves_after_lost_lines_is_reported(
    pipe: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    log = lines_to(pipe[1])
    fill(log, MAX_WAITING_BYTES + 500_000)
    os.dup2(os.open(os.devnull, os.O_RDONLY), pipe[0])
    log.flush()
    assert [record.getMessage().partition(" do=")[0] for record in caplog.records] == [
        "event=access_log_failed error=EPIPE"
    ]


async def test_lines_that_no_reader_takes_at_the_end_are_counted_as_lost(
    pipe: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    log = lines_to(pipe[1])
    count = fill(log, 1_000_000)
    log.close()
    came = taken(pipe[0]).count(b"\n")
    [said] = [record.getMessage().partition(" do=")[0] for record in caplog.records]
    assert said == f"event=access_log_lost lines={count - came}"
    log.close()
    assert len(caplog.records) == 1
    assert not log._blocked


async def test_lines_beyond_the_buffer_are_counted_as_lost(
    pipe: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    log = lines_to(pipe[1])
    count = fill(log, MAX_WAITING_BYTES + 500_000)
    lines = b""
    async with patience("the waiting lines"):
        while not caplog.records:
            lines += taken(pipe[0])
            log.flush()
    lines += taken(pipe[0])
    came = numbers(lines)
    assert came == list(range(len(came)))
    assert 0 < count - len(came) <= 5000
    [said] = [record.getMessage().partition(" do=")[0] for record in caplog.records]
    assert said == f"event=access_log_lost lines={count - len(came)}"


async def test_a_full_disk_loses_lines_and_no_request(pipe: tuple[int, int], caplog: pytest.LogCaptureFixture) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    descriptor = os.dup(full)
    log = lines_to(descriptor)
    for _ in range(2):
        fill(log, 500)
        log.flush()
    os.dup2(pipe[1], descriptor)  # the disk has room again
    for _ in range(2):
        fill(log, 100)
        log.flush()
    os.dup2(full, descriptor)
    fill(log, 100)
    log.flush()
    for end in (descriptor, full):
        os.close(end)
    assert numbers(taken(pipe[0])) == [10, 11]
    assert [record.getMessage().partition(" do=")[0] for record in caplog.records] == [
        "event=access_log_failed error=ENOSPC",
        "event=access_log_lost lines=10",
        "event=access_log_failed error=ENOSPC",
    ]


def test_a_line_has_its_time_and_durations() -> None:
    asked = Record("id-1", "GET", "/", b"sidecar.test", 1, "127.0.0.1", "http", 0.0)
    asked.sent, asked.answered = 5.0, 5.0123456
    before = time.time()
    line = json.loads(json_line(asked, 0.0234567))
    after = time.time()
    assert (line["duration_ms"], line["upstream_ms"]) == (23.457, 12.346)
    assert before - 0.001 <= datetime.fromisoformat(line["time"]).timestamp() <= after
    assert json.loads(ecs_line(asked, 0.0234567))["event.duration"] == 23_456_700


def test_lines_of_several_writers_stay_whole() -> None:
    receiving, sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # keeps the borders of writes
    log = AccessLog(lambda _request, _s: LINE, sending.fileno())
    long_line = b"y" * (PIPE_BUF + 1000) + b"\n"
    log._waiting = [LINE] * 100 + [long_line, LINE]
    log.flush()
    sending.close()
    pieces = []
    while piece := receiving.recv(65536):
        pieces.append(piece)
    receiving.close()
    assert b"".join(pieces) == LINE * 100 + long_line + LINE
    assert pieces[-2:] == [long_line, LINE]
    assert all(piece.endswith(b"\n") and len(piece) <= PIPE_BUF for piece in pieces[:-2])
    assert len(pieces) == 5
