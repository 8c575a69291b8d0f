"""Closes the connection of a client that may still be sending (RFC 9112 section 9.6).

An immediate close would reset the connection before the client can read the answer. So the sidecar closes its sending side, and
drops further bytes until the client closes too.
"""

import asyncio
from contextlib import suppress
from typing import Protocol

from sidecar.proxy.client_limits import LINGER_S


class Ending(Protocol):
    """The client's connection."""

    is_open: bool
    transport: asyncio.Transport
    write_paused: bool

    def wait_for(self, within_s: float) -> None:
        """Set the deadline for the client's next step."""


class LingeringClose:
    """Drops the bytes of a connection without an exchange. `owes_body`: the client still sends an unwanted body."""

    def __init__(self, connection: Ending, idle_s: float, *, owes_body: bool) -> None:
        self._connection = connection
        self._idle_s = idle_s
        self._owes_body = owes_body
        if not connection.write_paused:
            self.client_writable()

    def from_client(self, _data: bytes) -> None:
        """Drop the bytes."""

    def from_upstream(self, _data: bytes) -> None:
        """Not called: there is no backend."""

    def client_writable(self) -> None:
        """The client has read all sent bytes: close the sending side."""
        connection = self._connection
        if not connection.is_open:
            return
        connection.wait_for(LINGER_S)
        if connection.transport.can_write_eof():
            with suppress(OSError):  # the client has reset the connection, and the loop does not know yet
                connection.transport.write_eof()
        elif not self._owes_body:  # TLS cannot close one direction only, and still holds bytes to send
            connection.wait_for(self._idle_s)
            connection.transport.close()

    def upstream_writable(self) -> None:
        """Not called: there is no backend."""

    def ended(self) -> None:
        """The client has closed."""
