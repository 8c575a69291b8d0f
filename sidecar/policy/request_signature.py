"""Signs requests: an HMAC over method, target and identity headers, for a backend that shares a secret.

`t=SECONDS,v1=HEX`: the Unix time of the signature, and HMAC-SHA256 with the secret over these lines, each with a line feed:

    the time, as in the header
    the method
    the target as sent: path and query
    name:value of each identity header, the names in lower case, sorted

Identity headers are X-JWT-Status, those of `identity_headers`, the claims header and the assertion. Every character of a name
other than a letter or digit is written as `-`, as backends read it. The body is not signed.
"""

import hmac

from cachetools import LRUCache

from sidecar.common.clock import Clock
from sidecar.common.folding import fold

REMEMBERED = 1024  # remembered sets of identity headers, a few hundred bytes each


class Signature:
    """Signs requests to the backend. `header` is the name of the signature's header."""

    def __init__(self, header: str, secret: bytes, clock: Clock) -> None:
        self._header = header
        self._secret = secret
        self._clock = clock
        self._sorted: LRUCache[bytes, bytes] = LRUCache(REMEMBERED)

    def line(self, method: str, target: bytes, identity: bytes) -> bytes:
        """The signature's header line for a request with these lines of identity headers."""
        signed = self._sorted.get(identity)
        if signed is None:
            signed = self._sorted[identity] = _sorted_lines(identity)
        t = int(self._clock.wall())
        message = b"%d\n%b\n%b\n%b" % (t, method.encode(), target, signed)
        return f"{self._header}: t={t},v1={hmac.digest(self._secret, message, 'sha256').hex()}\r\n".encode()


def _sorted_lines(identity: bytes) -> bytes:
    lines = [line.partition(b": ") for line in identity.split(b"\r\n")[:-1]]
    return b"".join(
        b"%b:%b\n" % (name, value) for name, value in sorted((fold(n.decode()).encode(), v) for n, _, v in lines)
    )
