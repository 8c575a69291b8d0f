"""Sockets to listen on, one for each address of a host. `[::]` is IPv4 too, whatever this system's default is."""

import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from errno import EADDRINUSE
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

from sidecar.app.running import CannotAsk, running
from sidecar.common.errors import Unusable
from sidecar.config import Address

BACKLOG = 1024
UNSENT_BYTES = 128 * 1024  # that the kernel takes for a client that reads slowly, where it is ready to take megabytes


def listening_sockets(key: str, addresses: Iterable[Address]) -> list[socket.socket]:
    """Sockets that listen. `key` is where the configuration names them. Raises Unusable."""
    sockets = _bound(key, addresses)
    for opened in sockets:
        opened.listen(BACKLOG)
    return sockets


def listening_sockets_for(number: int, key: str, addresses: Iterable[Address]) -> list[list[socket.socket]]:
    """The same for so many processes, each with sockets of its own, which the kernel gives its part of the connections."""
    sockets = _bound(key, addresses)  # alone at first: another sidecar there would share its port without a word
    addresses = bound(sockets)
    for opened in sockets:
        opened.close()
    shared = [_bound(key, addresses, shared=True) for _ in range(number)]
    for opened in chain.from_iterable(shared):
        opened.listen(BACKLOG)
    return shared


def bound(sockets: Iterable[socket.socket]) -> list[Address]:
    """Where they are, which port 0 does not say."""
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
            text = f"{key}: cannot listen on {address}: {why}; choose another, or port 0 for a free one"
            if error.errno == EADDRINUSE:
                text += _who_has(address.port)
            raise Unusable(text) from error
    return sockets


def _bind(opened: socket.socket, address: tuple[Any, ...], *, shared: bool) -> None:
    opened.setblocking(False)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES
    )  # of each connection that comes in here
    if shared:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if opened.family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address[0] != "::")
    opened.bind(address)


def _who_has(port: int) -> str:
    """Which other sidecar has this port, and what to do about it; nothing where it is none."""
    for one in [one for one in running() if one.pid != os.getpid()]:
        with suppress(CannotAsk, KeyError, TypeError):
            about = one.ask("GET", "/sidecar")
            if port in {urlsplit(url).port for url in (*about["listens"].split(", "), about["health"], about["admin"])}:
                file = about["configuration"]["file"] or "without a file, as dev is"
                pid = one.pid
                return f". Another sidecar has it (pid {pid}, {file}): end it, or ask it with jwt-sidecar status --pid {pid}"
    return ""
