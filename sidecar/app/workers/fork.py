"""Makes worker processes by forks of a process that has imported everything and started nothing.

A fork of the supervisor itself would copy a running event loop, threads and connections. A new process would import everything
again and share no memory: 45 MiB for each worker in place of 8. So `ForkServer` forks once before there is a loop, and that
process only forks, waits for its children, and kills them.
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
REAPS = (signal.SIGCHLD, signal.SIGCONT)  # signals that let the process that forks look for ended workers


class Gone(Exception):
    """The process that forks has ended."""


class Process:
    """A forked process. `ended` has its exit code, in the form of subprocess."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()


class ForkServer:
    """The client of the process that forks. `work` is the worker's function of its begin; it returns the exit code.

    All of them end with this process. `gone` ends when the process that forks has ended.
    """

    def __init__(self, work: Callable[[Any], int]) -> None:
        ours, theirs = socket.socketpair()
        gc.collect()
        gc.freeze()  # shared memory stays shared: the collector does not touch it
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
        """Connect it to this loop."""
        reader, self._writer = await asyncio.open_unix_connection(sock=self._end)
        self.gone = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Read lines: the pid of a new process, or a pid and its exit code."""
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
        """Fork a worker. Raises Gone, also if it takes too long."""
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
        """Kill a process that has not ended."""
        self._writer.write(pickle.dumps(("kill", process.pid)))

    def go_on(self) -> None:
        """Let the process that forks go on if something has stopped it, and look for ended workers.

        Nobody else tells of a worker's end, and Python notices a signal late that comes just before a wait for input.
        """
        os.kill(self._pid, signal.SIGCONT)

    def close(self) -> None:
        """End all of them at once."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def end_with(parent: int) -> None:
    """Let the kernel kill this process when its parent with this pid ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended meanwhile
        os._exit(1)


def _fork_when_asked(asked: socket.socket, work: Callable[[Any], int]) -> NoReturn:
    # Signals to all processes of a terminal or container are for the supervisor, which decides about the workers.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    running: set[int] = set()

    def tell(*numbers: int) -> None:
        with suppress(OSError):
            asked.sendall(b"%s\n" % b" ".join(b"%d" % number for number in numbers))

    def reap(*_: object) -> None:
        for pid in list(running):
            try:
                ended, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue  # the handler of the other signal has its end: one of the two interrupted the other
            if ended:
                running.discard(pid)
                tell(pid, os.waitstatus_to_exitcode(status))

    for number in REAPS:
        signal.signal(number, reap)
    stream, parent = asked.makefile("rb"), os.getpid()
    with suppress(EOFError, OSError):
        while True:
            what, value = pickle.load(stream)  # noqa: S301  # from the supervisor; no other process has this pipe
            signal.pthread_sigmask(signal.SIG_BLOCK, REAPS)  # so that the start of a process is reported before its end
            if what == "kill" and value in running:
                os.kill(value, signal.SIGKILL)
            elif what == "fork":
                pid = os.fork()
                if pid == 0:
                    end_with(parent)
                    asked.close()
                    for number in REAPS:
                        signal.signal(number, signal.SIG_DFL)
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, REAPS)
                    _work(work, value)
                running.add(pid)
                tell(pid)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, REAPS)
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
