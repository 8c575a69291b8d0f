"""The end of a client's connection that may still be sending (RFC 9112 section 9.6).

To close at once would destroy the answer on its way to it. So the sidecar says no more, and drops what comes until the client
closes too.
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
        """The client has so long to do what is waited for."""


class LingeringClose:
    """Takes what comes in place of an exchange. `owes_body`: the client still sends a body that nobody wants."""

    def __init__(self, connection: Ending, idle_s: float, *, owes_body: bool) -> None:
        self._connection = connection
        self._idle_s = idle_s
        self._owes_body = owes_body
        if not connection.write_paused:
            self.client_writable()

    def from_client(self, _data: bytes) -> None:
        """Nobody wants it."""

    def from_upstream(self, _data: bytes) -> None:
        """There is no backend any more."""

    def client_writable(self) -> None:
        """The client has taken all that it was sent: say that this is the end."""
        connection = self._connection
        if not connection.is_open:
            return
        connection.wait_for(LINGER_S)
        if connection.transport.can_write_eof():
            connection.is_open = False
            with suppress(OSError):  # the client has left by a reset, of which the loop has not heard yet
                connection.transport.write_eof()
        elif not self._owes_body:  # TLS cannot close one direction only, and still holds what it has been given
            connection.is_open = False
            connection.wait_for(self._idle_s)
            connection.transport.close()

    def upstream_writable(self) -> None:
        """There is no backend any more."""

    def ended(self) -> None:
        """The client has closed."""
