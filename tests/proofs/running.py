"""`jwt-sidecar run` as a process to measure, and the figures of /proc for a process."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sidecar.cli.dev.issuer import Issuer
from sidecar.gateway.signing_key import key_set

AUDIENCE = "proofs"
START_S = 30.0
MIB = 1 << 20


class Sidecar:
    """The process: its addresses and its costs."""

    def __init__(self, pid: int, proxy: tuple[str, int], health: tuple[str, int], log: Path) -> None:
        self.pid = pid
        self.proxy = proxy
        self.health = health
        self.log = log

    def bugs(self) -> list[str]:
        """The lines of its log that report a bug."""
        return [line for line in self.log.read_text().splitlines() if "event=bug" in line or "Traceback" in line]


@contextmanager
def running(backend: str, issuer: Issuer, **settings: Any) -> Iterator[Sidecar]:
    """Run the sidecar before a backend (its URL) with these settings, and end it politely."""
    with tempfile.TemporaryDirectory(prefix="proof-") as directory:
        keys, file, log = (Path(directory, name) for name in ("keys.json", "config.yaml", "output.log"))
        keys.write_text(json.dumps(key_set(issuer.keys)))
        config = {
            "listen": "127.0.0.1:0",
            "health": {"listen": "127.0.0.1:0"},
            "admin": {"listen": "127.0.0.1:0"},
            "issuers": {"main": {"issuer": issuer.issuer, "audiences": [AUDIENCE], "jwks_file": str(keys)}},
            "upstream": backend,
            "access_log": "off",
            "timeouts": {"drain_delay": "0s"},
        }
        file.write_text(json.dumps(config | settings))  # JSON is YAML
        command = [str(Path(sys.executable).with_name("jwt-sidecar")), "run", "-c", str(file)]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            proxy, health = _listening(process, log)
            yield Sidecar(process.pid, proxy, health, log)
        finally:
            process.terminate()
            process.wait()


def _listening(process: "subprocess.Popen[bytes]", log: Path) -> tuple[tuple[str, int], tuple[str, int]]:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        output = log.read_text()
        if "keys_loaded" in output and "listening admin" in output:
            addresses = dict(re.findall(r"listening (\w+) http://127\.0\.0\.1:(\d+)", output))
            return ("127.0.0.1", int(addresses["proxy"])), ("127.0.0.1", int(addresses["health"]))
        time.sleep(0.01)
    raise RuntimeError(f"the sidecar did not start: {log.read_text()}")


def memory_mib(pid: int | str, which: str) -> float:
    """A line of /proc/PID/status: VmRSS is what it holds now, VmHWM the most that it ever held (since `forget_peak`)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{which}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(which)


def forget_peak(pid: int) -> None:
    """Reset VmHWM to the present memory."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def descriptors(pid: int) -> int:
    """The number of open files and sockets."""
    return len(os.listdir(f"/proc/{pid}/fd"))
