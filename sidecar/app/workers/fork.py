"""Makes worker processes, by a fork of a process in which everything is imported and nothing has begun.

A fork of the supervisor itself would copy an event loop, threads and connections in the middle of their work. A fresh process
would import everything again, and share none of that memory: 45 MiB a worker in place of 8. So `Forker` forks once, before there
is a loop, and that process does nothing but fork, wait for what it has forked, and kill it.
"""

import asyncio
import ctypes
import gc
import os
import pickle
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

FORK_S = 10.0  # a fork takes milliseconds
PR_SET_PDEATHSIG = 1  # of Linux's <sys/prctl.h>


class Gone(Exception):
    """The process that forks is not there any more."""


class Process:
    """A process that was forked. `ended` has its exit code, as subprocess writes it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()


class Forker:
    """Asks the process that forks. `work` is what a worker does with what it begins with; it returns the exit code.

    All of them end with this process, however that ends. `gone` ends when the process that forks has.
    """

    def __init__(self, work: Callable[[Any], int]) -> None:
        ours, theirs = socket.socketpair()
        gc.collect()
        gc.freeze()  # what is shared stays shared: no collector touches it
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            ours.close()
            end_with(parent)
            _fork_when_asked(theirs, work)
        theirs.close()
        self._end = ours
        self._writer: asyncio.StreamWriter
        self._asked: deque[asyncio.Future[Process]] = deque()
        self._running: dict[int, Process] = {}
        self.gone: asyncio.Task[None]

    async def begin(self) -> None:
        """Use it in this loop."""
        reader, self._writer = await asyncio.open_unix_connection(sock=self._end)
        self.gone = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Lines: the pid of what was forked, or a pid and its exit code."""
        with suppress(OSError):
            async for line in reader:
                pid, *code = map(int, line.split())
                if code:
                    self._running.pop(pid).ended.set_result(code[0])
                else:
                    self._running[pid] = Process(pid)
                    self._asked.popleft().set_result(self._running[pid])
        for asked in self._asked:
            asked.set_exception(Gone())
        for process in self._running.values():
            process.ended.set_result(-signal.SIGKILL)

    async def fork(self, begins_with: object) -> Process:
        """A new worker. Raises Gone, also when it takes too long."""
        asked: asyncio.Future[Process] = asyncio.get_running_loop().create_future()
        if self.gone.done():
            raise Gone
        self._asked.append(asked)
        self._writer.write(pickle.dumps(("fork", begins_with)))
        try:
            async with asyncio.timeout(FORK_S):
                return await asked
        except TimeoutError:
            raise Gone from None

    def kill(self, process: Process) -> None:
        """End it at once, if it has not ended."""
        self._writer.write(pickle.dumps(("kill", process.pid)))

    def go_on(self) -> None:
        """Let the process that forks go on, if something has stopped it: nobody else tells of a worker's end, or makes one."""
        os.kill(self._pid, signal.SIGCONT)

    def close(self) -> None:
        """End all of them at once."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def end_with(parent: int) -> None:
    """Let the kernel kill this process when its parent, of this pid, ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended meanwhile
        os._exit(1)


def _fork_when_asked(asked: socket.socket, work: Callable[[Any], int]) -> NoReturn:
    # What is sent to all processes of a terminal or a container is for the supervisor, which decides what becomes of these.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    running: set[int] = set()

    def tell(*numbers: int) -> None:
        with suppress(OSError):
            asked.sendall(b"%s\n" % b" ".join(b"%d" % number for number in numbers))

    def reap(*_: object) -> None:
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                running.discard(pid)
                tell(pid, os.waitstatus_to_exitcode(status))

    signal.signal(signal.SIGCHLD, reap)
    stream, parent = asked.makefile("rb"), os.getpid()
    with suppress(EOFError, OSError):
        while True:
            what, value = pickle.load(stream)  # noqa: S301  # of the supervisor, which nobody else can be here
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # no end is told before its beginning
            if what == "kill" and value in running:
                os.kill(value, signal.SIGKILL)
            elif what == "fork":
                pid = os.fork()
                if pid == 0:
                    end_with(parent)
                    asked.close()
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
                    _work(work, value)
                running.add(pid)
                tell(pid)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    os._exit(0)


def _work(work: Callable[[Any], int], begins_with: object) -> NoReturn:
    code = 1
    try:
        code = work(begins_with)
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
