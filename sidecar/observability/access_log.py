"""Writes the lines of the access log without making requests wait for a slow reader."""

import logging
import os
import select
import time
from asyncio import TimerHandle, get_running_loop
from collections.abc import Callable
from contextlib import suppress
from errno import errorcode
from select import PIPE_BUF
from stat import S_ISFIFO, S_ISREG
from typing import Final

from sidecar.observability.counters import Counts
from sidecar.observability.record import Record

FLUSH_S: Final = 0.1  # lines are written together, so that many requests share one system call
FLUSH_BYTES: Final = 64 * 1024  # the most that one call writes
CLOSE_S: Final = 1.0  # to write the rest at the end
MAX_WAITING_BYTES: Final = 4 * 1024 * 1024  # of lines that wait for a slow reader

log = logging.getLogger("sidecar.access_log")


class AccessLog:
    """Writes one line for each ended request to `descriptor`; `line` formats it, and a reload may replace it.

    It writes one of `one_of` accepted requests (0: none), and every request that was refused or would have been in report mode.
    `counts` counts lost lines.

    Other programs may write to the same descriptor, so writes to anything but a file are whole lines of at most PIPE_BUF bytes,
    which are atomic. Lines that cannot be written are lost, and no request waits for them; their number is logged later.
    """

    def __init__(self, line: Callable[[Record, float], bytes], descriptor: int = 1) -> None:
        self.line = line
        self.one_of = 1
        self.counts = Counts()
        self._passed_over = 0
        self._given = descriptor
        self._descriptor = _never_blocking(descriptor)
        self._room = _room(self._descriptor)
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._timer: TimerHandle | None = None
        self._blocked = False
        self._failed = False
        self._lost = 0

    def write(self, request: Record, duration_s: float) -> None:
        """Log a request that took `duration_s`."""
        if self.one_of != 1 and request.rejected is None:
            self._passed_over += 1
            if not self.one_of or self._passed_over < self.one_of:
                return
            self._passed_over = 0
        if self._bytes > MAX_WAITING_BYTES:
            self._lose(1)
            return
        line = self.line(request, duration_s)
        self._waiting.append(line)
        self._bytes += len(line)
        if self._blocked:
            return  # it is written when the reader catches up
        if self._bytes > FLUSH_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = get_running_loop().call_later(FLUSH_S, self.flush)

    def flush(self) -> None:
        """Write the waiting lines."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._unblock()
        lines, written = b"".join(self._waiting), 0
        try:
            while written < len(lines):
                written += self._write_some(lines, written)
        except BlockingIOError:  # the reader is slow: the lines wait
            get_running_loop().add_writer(self._descriptor, self.flush)
            self._blocked = True
        except OSError as error:  # the reader is gone, or the disk is full
            if not self._failed:
                log.error(
                    "event=access_log_failed error=%s do='Check the program that reads standard output; lines are lost.'",
                    errorcode.get(error.errno or 0, "unknown"),
                )
            self._failed = True
            self._lose(lines.count(b"\n", written))
            written = len(lines)
        else:
            if lines:
                self._failed = False
                self._say_lost()
        rest = lines[written:]
        self._waiting, self._bytes = [rest] if rest else [], len(rest)

    def close(self) -> None:
        """Write the waiting lines, within CLOSE_S."""
        self.flush()
        ends = time.monotonic() + CLOSE_S
        while self._blocked and self._room is not None and self._room.poll(max(0.0, ends - time.monotonic()) * 1000):
            self.flush()
        self._unblock()
        self._lose(b"".join(self._waiting).count(b"\n"))
        self._waiting, self._bytes = [], 0
        self._say_lost()
        if self._descriptor != self._given:
            os.close(self._descriptor)
            self._descriptor = self._given

    def _write_some(self, lines: bytes, start: int) -> int:
        """Write a part of the lines; returns the number of bytes. Raises OSError, BlockingIOError while the reader is slow."""
        end = len(lines)
        if self._room is not None:
            if not self._room.poll(0):
                raise BlockingIOError
            if end - start > PIPE_BUF:  # as many whole lines as PIPE_BUF holds, or one longer line
                end = lines.rfind(b"\n", start, start + PIPE_BUF) + 1 or lines.index(b"\n", start) + 1
        return os.write(self._descriptor, memoryview(lines)[start:end])

    def _unblock(self) -> None:
        if self._blocked:
            get_running_loop().remove_writer(self._descriptor)
            self._blocked = False

    def _lose(self, lines: int) -> None:
        self._lost += lines
        self.counts.lost_lines += lines

    def _say_lost(self) -> None:
        if self._lost:
            log.warning(
                "event=access_log_lost lines=%d do='Let the reader of standard output read faster, or set access_log: off.'",
                self._lost,
            )
            self._lost = 0


def _never_blocking(descriptor: int) -> int:
    """Open a pipe again in non-blocking mode, which its other users do not share. Other descriptors are returned unchanged.

    Container runtimes pass pipes that block. A pipe that nobody reads would stop every request and the probes.
    """
    with suppress(OSError):  # the pipe belongs to another user
        if S_ISFIFO(os.fstat(descriptor).st_mode):
            return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK)
    return descriptor


def _room(descriptor: int) -> "select.poll | None":
    """A poll that tells whether PIPE_BUF bytes can be written at once, or None for a file, which never blocks."""
    with suppress(OSError):
        if not S_ISREG(os.fstat(descriptor).st_mode):
            room = select.poll()
            room.register(descriptor, select.POLLOUT)
            return room
    return None
