"""What holds for the connections of clients.

| what is waited for            | until                                             | and then            |
| ----------------------------- | ------------------------------------------------- | ------------------- |
| a TLS handshake               | timeouts.request_headers                          | closed              |
| the first byte of a request   | timeouts.keep_alive                               | closed              |
| the end of a head             | timeouts.request_headers from its first byte      | closed              |
| a piece of a request's body   | timeouts.idle                                     | the request ends    |
| the client, to read an answer | timeouts.idle                                     | reset               |
| the client, to close          | LINGER_S                                          | closed              |
"""

from collections.abc import Collection
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

BLANK_LINES = 4  # accepted before a request
LINGER_S = 5.0  # a body that nobody wants is read for this long, so that its sender reads our answer


class ClientLimits(NamedTuple):
    """What the configuration says of them; `trusted` are the networks of proxies that are believed."""

    request_headers_s: float
    idle_s: float
    keep_alive_s: float
    header_bytes: int
    headers: int
    connections: int
    buffered_bytes: int
    trusted: Collection[IPv4Network | IPv6Network]

    @property
    def head_bytes(self) -> int:
        """Of all headers together: one may be as long as a token, the others are short."""
        return 2 * self.header_bytes
