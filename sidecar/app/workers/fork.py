"""Makes worker processes: by a fork of a process in which everything is imported and nothing has begun.

A fork of the supervisor itself would copy an event loop, threads and connections in the middle of their work. A fresh process
would import everything again, in ten times the time, and share none of that memory with the others. So `Forker` forks once,
before there is a loop, and that process does nothing but fork again when it is asked to.
"""

import gc
import os
import signal
import socket
from collections.abc import Callable
from typing import NoReturn


class Forker:
    """Asks the process that forks. `work` is what a worker does with its end of a socketpair; it returns the exit code."""

    def __init__(self, work: Callable[[socket.socket], int]) -> None:
        self._asking, answering = socket.socketpair()
        gc.collect()
        gc.freeze()  # what is shared stays shared: no collector touches it
        self._pid = os.fork()
        if self._pid == 0:
            self._asking.close()
            _fork_when_asked(answering, work)
        answering.close()

    def fork(self) -> socket.socket:
        """A new worker; the other end of its socketpair. Raises OSError when nobody is there to make one."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._asking, [b"\0"], [theirs.fileno()])
        return ours

    def close(self) -> None:
        """No more workers."""
        self._asking.close()
        if self._pid:
            os.waitpid(self._pid, 0)
            self._pid = 0


def _fork_when_asked(asked: socket.socket, work: Callable[[socket.socket], int]) -> NoReturn:
    # A terminal's Ctrl-C goes to all processes; only the supervisor decides what becomes of it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    while True:
        _, descriptors, _, _ = socket.recv_fds(asked, 1, 1)
        if not descriptors:
            os._exit(0)  # the supervisor has gone
        if os.fork() == 0:
            asked.close()
            code = 1
            try:
                code = work(socket.socket(fileno=descriptors[0]))
            finally:
                os._exit(code)
        os.close(descriptors[0])
