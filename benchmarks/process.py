"""A process under measurement: started in a session of its own on given cores, measured, and always stopped."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_CORES = sorted(os.sched_getaffinity(0))
PROXY_CORE = str(_CORES[0])
"""The core of whatever is measured, as taskset writes it."""
LOAD_CORE = str(_CORES[-1])
"""The core of everything else: load generator, origin, issuer. The same one where the machine has only one."""
TWO_CORES = ",".join(map(str, _CORES[:2]))
"""For what is to use more than one, and shares the other with the load."""

STOP_S = 5.0
"""How long a process may take to end after SIGTERM before its whole session is killed."""


class Process:
    """One program and everything that it starts."""

    def __init__(
        self, argv: Sequence[str], directory: Path, cores: str, environ: Mapping[str, str] | None = None
    ) -> None:
        """Start `argv` in `directory` pinned to `cores`; its output goes to `output.log` there."""
        self.output = directory / "output.log"
        # Pinned by taskset and not afterwards: threads that exist already would keep their cores.
        pinned = ["taskset", "-c", cores, *argv] if shutil.which("taskset") else list(argv)
        with self.output.open("wb") as output:
            self._popen = subprocess.Popen(
                pinned,
                cwd=directory,
                env=None if environ is None else dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def alive(self) -> bool:
        """Whether the first process of the tree still runs."""
        return self._popen.poll() is None

    def pids(self) -> list[int]:
        """Every process of the session: the tree, also where a parent has gone."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    fields = _stat(entry.name)
                    if int(fields[3]) == self.pid and fields[0] != "Z":
                        found.append(int(entry.name))
        return found

    def cpu_s(self) -> float:
        """User plus system time of the tree so far, in seconds, from the CPU clock of each process."""
        return sum(_process_cpu_s(pid) for pid in self.pids())

    def system_s(self) -> float:
        """The system time of the tree so far, in seconds, in steps of 10 ms; the kernel samples it."""
        return sum(int(_stat(str(pid))[12]) for pid in self.pids()) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """Resident memory (VmRSS) of the tree; a page that several of its processes share counts for each of them."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.pids())
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> None:
        """End the tree: politely, then not."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()


@contextlib.contextmanager
def running(
    argv: Sequence[str], directory: Path, cores: str, environ: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """A `Process` that is stopped whatever happens."""
    process = Process(argv, directory, cores, environ)
    try:
        yield process
    finally:
        process.stop()


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A port of 127.0.0.1 for a program that cannot choose one itself: until the end of the block nobody else gets it.

    A socket holds it and does not listen. A listener needs SO_REUSEADDR, which servers set.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def _stat(pid: str) -> list[str]:
    """The fields of /proc/PID/stat after the name, which is in brackets and may hold blanks: proc(5), field 3 is the first."""
    return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()


def _process_cpu_s(pid: int) -> float:
    # clock_getcpuclockid(3) of a process: the sum of utime and stime in /proc/PID/stat, but in ns and not in 10 ms.
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:  # it ended meanwhile
        return 0.0
