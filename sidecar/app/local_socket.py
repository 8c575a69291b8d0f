"""Finds the running sidecars on this machine without a configuration: each also answers operators on a local socket.

The socket's name is in Linux's abstract namespace. It needs no directory, so it works in a read-only container. It disappears
with its process, and the kernel tells the owner. Other systems have no such names; there the commands use the admin listener.
"""

import http.client
import json
import os
import re
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from sidecar.common.loopback import from_here

NAME = "jwt-sidecar"
DEFAULT = "http://127.0.0.1:9901"  # where the admin listener is unless the configuration says otherwise
ANSWER_S = 5.0
MOST_BYTES = 16 * 1024 * 1024


class CannotAsk(Exception):
    """No sidecar was found, or it did not answer; the text says why and what to do."""


class Running:
    """A running sidecar. `connect` opens a connection to it; `pid` is its process if known.

    `silent` is the error text if it does not answer, with the remedy.
    """

    def __init__(
        self, where: str, connect: Callable[[], socket.socket], pid: int | None = None, silent: str | None = None
    ) -> None:
        self.where = where
        self.pid = pid
        self.silent = silent or f"no sidecar answers at {where}; check that this is its admin.listen"
        self._connect = connect

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Send a request; returns the JSON of the answer. Raises CannotAsk, with the sidecar's error text if it refuses."""
        connection = http.client.HTTPConnection("localhost", timeout=ANSWER_S)
        try:
            connection.sock = self._connect()
            headers = {"Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            said = json.loads(answer.read(MOST_BYTES))
            status = answer.status
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise CannotAsk(self.silent) from error
        finally:
            connection.close()
        if status >= 400:
            raise CannotAsk(f"{self.where}: {said.get('error', status) if isinstance(said, dict) else status}")
        return said


def at(url: str, silent: str | None = None) -> Running:
    """The sidecar whose admin listener is at a URL. Raises ValueError for an invalid URL."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not re.fullmatch(r".+:[1-9][0-9]{0,4}", parts.netloc):
        raise ValueError(f"{url} is not the URL of an admin listener, such as {DEFAULT}")
    return Running(
        url, lambda: socket.create_connection((parts.hostname or "", parts.port or 0), ANSWER_S), silent=silent
    )


def own_socket() -> socket.socket | None:
    """The local socket of this process. None on systems without abstract names."""
    if sys.platform != "linux":
        return None
    own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    own.bind(f"\0{NAME}/{os.getpid()}/{os.urandom(4).hex()}")
    own.setblocking(False)
    return own


def running() -> list[Running]:
    """The sidecars in this container or on this machine that belong to the user; for root, those of every user."""
    found = []
    for name in sorted(set(_names())):
        try:
            with _connected(name) as connection:
                pid, uid = owner(connection)
        except OSError:
            continue  # it has just ended
        if pid and (os.geteuid() in (0, uid) or uid == 0):  # pid 0: it is in another container of this pod
            found.append(Running(f"pid {pid}", lambda name=name: _connected(name), pid))  # type: ignore[misc]
    return found


def _names() -> Iterator[str]:
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name = line.split()[-1]
                if name.startswith(f"@{NAME}/"):
                    yield "\0" + name[1:]
    except OSError:
        return


def _connected(name: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(ANSWER_S)
    try:
        connection.connect(name)
    except OSError:
        connection.close()
        raise
    return connection


def owner(connection: socket.socket) -> tuple[int, int]:
    """The process and user id of the other end, from the kernel."""
    pid, uid, _ = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    )
    return pid, uid


def health(listener: str, path: str) -> tuple[bool, str]:
    """Ask a health listener: (is the answer a success, its text). Raises CannotAsk, or ValueError for an invalid URL."""
    parts = urlsplit(listener)
    if parts.scheme != "http" or parts.hostname is None:
        raise ValueError(f"{listener} is not the URL of a health listener, such as http://127.0.0.1:8081")
    connection = http.client.HTTPConnection(from_here(parts.hostname), parts.port or 80, timeout=ANSWER_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status == 200, answer.read(MOST_BYTES).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        raise CannotAsk(f"no sidecar answers at {listener}; check that this is its health.listen") from error
    finally:
        connection.close()
