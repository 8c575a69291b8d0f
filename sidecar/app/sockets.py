"""Opens listening sockets, one for each address of a host. `[::]` also accepts IPv4 on every system."""

import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from errno import EADDRINUSE
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

from sidecar.app.local_socket import CannotAsk, running
from sidecar.common.errors import Unusable
from sidecar.config import Address
from sidecar.proxy.resources import KERNEL_UNSENT_BYTES

BACKLOG = 1024


def listening_sockets(key: str, addresses: Iterable[Address]) -> list[socket.socket]:
    """Open listening sockets. `key` is the key of the configuration. Raises Unusable."""
    sockets = _bound(key, addresses)
    for opened in sockets:
        opened.listen(BACKLOG)
    return sockets


def listening_sockets_for(number: int, key: str, addresses: Iterable[Address]) -> list[list[socket.socket]]:
    """Open listening sockets for several processes; the kernel distributes connections among them. Raises Unusable."""
    sockets = _bound(key, addresses)  # without SO_REUSEPORT first: another sidecar would share its port silently
    addresses = bound(sockets)
    for opened in sockets:
        opened.close()
    shared = [_bound(key, addresses, shared=True) for _ in range(number)]
    for opened in chain.from_iterable(shared):
        opened.listen(BACKLOG)
    return shared


def bound(sockets: Iterable[socket.socket]) -> list[Address]:
    """The addresses with their real ports."""
    return [Address(*opened.getsockname()[:2]) for opened in sockets]


def _bound(key: str, addresses: Iterable[Address], *, shared: bool = False) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    for address in addresses:
        try:
            flags = socket.AI_PASSIVE
            for found in dict.fromkeys(socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=flags)):
                sockets.append(socket.socket(*found[:3]))
                _bind(sockets[-1], found[4], shared=shared)
        except OSError as error:
            for opened in sockets:
                opened.close()
            why = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
            text = f"{key}: cannot listen on {address}: {why}; choose another address, or port 0 for a free port"
            if error.errno == EADDRINUSE:
                text += _who_has(address.port)
            raise Unusable(text) from error
    return sockets


def _bind(opened: socket.socket, address: tuple[Any, ...], *, shared: bool) -> None:
    opened.setblocking(False)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Accepted connections inherit it.
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, KERNEL_UNSENT_BYTES)
    if shared:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if opened.family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address[0] != "::")
    opened.bind(address)


def _who_has(port: int) -> str:
    """The sidecar that has this port, and the remedy; empty if it is another program."""
    for one in [one for one in running() if one.pid != os.getpid()]:
        with suppress(CannotAsk, KeyError, TypeError):
            about = one.ask("GET", "/sidecar")
            if port in {urlsplit(url).port for url in (*about["listens"].split(", "), about["health"], about["admin"])}:
                file = about["configuration"]["file"] or "without a file, as dev is"
                pid = one.pid
                return f". Another sidecar uses it (pid {pid}, {file}); stop it, or see jwt-sidecar status --pid {pid}"
    return ""
