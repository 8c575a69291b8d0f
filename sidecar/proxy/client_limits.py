"""The limits and timeouts of client connections.

| waits for                     | until                                             | then                |
| ----------------------------- | ------------------------------------------------- | ------------------- |
| a TLS handshake               | timeouts.request_headers                          | closed              |
| the first byte of a request   | timeouts.keep_alive                               | closed              |
| the end of a head             | timeouts.request_headers from its first byte      | closed              |
| a piece of a request's body   | timeouts.idle                                     | the request ends    |
| the client, to read an answer | timeouts.idle                                     | reset               |
| the client, to close          | LINGER_S                                          | closed              |
"""

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

BLANK_LINES = 4  # accepted before a request
LINGER_S = 5.0  # how long an unwanted body is read, so that the client reads the answer


@dataclass(slots=True)
class ClientLimits:
    """The configured limits; `trusted` are the networks of trusted proxies."""

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
        """The limit of all headers together: one may hold a token, the others are short."""
        return 2 * self.header_bytes
