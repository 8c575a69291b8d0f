"""Headers that tell the backend about the client's connection: X-Forwarded-* and Forwarded (RFC 7239)."""

from collections.abc import Callable
from ipaddress import ip_address

from sidecar.http.request_head import RequestHead


class Forwarded:
    """One connection's peer, and whether its X-Forwarded-* headers count. Made once for a connection.

    `X-Forwarded-For`, `-Proto` and `-Host` are written anew. Values from a peer in `trusted_proxies` are kept and extended.
    """

    __slots__ = ("_is_trusted", "_lines", "_peer", "_scheme", "peer", "scheme", "trusted")

    def __init__(
        self, peer: str, scheme: str, trusted: bool, is_trusted: Callable[[str], bool] = lambda _address: False
    ) -> None:
        self.peer = peer
        self.scheme = scheme
        self.trusted = trusted
        self._is_trusted = is_trusted
        self._peer = peer.encode("ascii", "ignore")
        self._scheme = scheme.encode()
        self._lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: " % (self._peer, self._scheme)

    def client(self, head: RequestHead) -> tuple[str, str]:
        """The address and scheme of the client, as far as trusted proxies report them.

        The address is the last one that is not a trusted proxy's: clients can write any address before it. It has no zone, which
        may be any text.
        """
        address = self.peer
        said = b",".join(head.special.get("x-forwarded-for", ())).decode("latin-1").split(",") if self.trusted else []
        for text in reversed(said):
            try:
                told = ip_address(_without_port(text.strip()).partition("%")[0])
            except ValueError:
                break
            address = str(told)
            if not self._is_trusted(address):
                break
        scheme = head.special.get("x-forwarded-proto", [b""])[-1].decode("latin-1").lower() if self.trusted else ""
        return address, scheme if scheme in ("http", "https") else self.scheme

    def lines(self, host: bytes, head: RequestHead) -> bytes:
        """The header lines for one request to `host`."""
        if not self.trusted:
            return b"%b%b\r\n" % (self._lines, host)
        special = head.special
        said_for = b", ".join((*special.get("x-forwarded-for", ()), self._peer))
        said_scheme = special.get("x-forwarded-proto", [self._scheme])[-1]
        said_host = special.get("x-forwarded-host", [host])[-1]
        lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n" % (
            said_for,
            said_scheme,
            said_host,
        )
        if (
            "forwarded" in special
        ):  # RFC 7239 section 4; only extended, never added, since backends prefer it to X-Forwarded-*
            node = b'"[%b]"' % self._peer if b":" in self._peer else self._peer
            element = b"for=%b;proto=%b" % (node, self._scheme)
            lines += b"Forwarded: %b\r\n" % b", ".join((*special["forwarded"], element))
        return lines + head.from_front_proxy


def _without_port(text: str) -> str:
    """The address without the port that some proxies add: 192.0.2.7:1234, [2001:db8::7]:1234."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
