"""The request for `explain`."""

import json
import re
from typing import NamedTuple
from urllib.parse import quote

from sidecar.config import Config
from sidecar.config.identity import TokenSource
from sidecar.gateway.api_keys import LIKE_A_KEY
from sidecar.jwt.examination import shown


class CannotExplain(Exception):
    """The request cannot be explained; the text says why."""


class Question(NamedTuple):
    """A request to explain. `token` None: it has no token, unless the `headers` have one."""

    method: str
    path: str
    token: bytes | None
    host: str = "localhost"
    headers: tuple[tuple[str, str], ...] = ()

    def check(self) -> None:
        """Check that a client could send the request. Raises CannotExplain."""
        token = b"" if self.token is None else self.token
        for name, text in (("method", self.method), ("path", self.path), ("host", self.host)):
            if not text or re.search(r"[\x00-\x20\x7f]", text):
                raise CannotExplain(f"the {name} must not be empty or hold spaces or control characters")
        for name, text in self.headers:
            if re.search(r"[\x00-\x1f\x7f]", name + text):
                raise CannotExplain(f"the header {shown(name)} must be one line of text")
        if re.search(rb"[\x00-\x1f\x7f]", token):
            raise CannotExplain("the token must be one line of text")

    def bytes_for(self, config: Config) -> bytes:
        """The bytes of the request, with the token in the first configured place, or an API key in its header."""
        target = self.path.encode("utf-8", "surrogateescape")
        lines = [b"Host: " + self.host.encode()]
        lines += [f"{name}: {text}".encode() for name, text in self.headers]
        if (token := self.token) is not None:
            place, keys = config.token_sources[0], config.api_keys
            if keys is not None and LIKE_A_KEY.fullmatch(token) is not None:
                place = TokenSource(header=keys.header, prefix=keys.scheme)
            if place.header is not None:
                scheme = place.scheme.encode() + b" " if place.scheme else b""
                lines.append(b"%b: %b%b" % (place.header.encode(), scheme, token))
            elif place.cookie is not None:
                if place.json_member is not None:
                    document = json.dumps({place.json_member: token.decode("latin-1")})
                    token = quote(document).encode()
                lines.append(b"Cookie: %b=%b" % (place.cookie.replace("*", "x").encode(), token))
            elif place.subprotocol is not None:
                lines.append(b"Sec-WebSocket-Protocol: %b, %b" % (place.subprotocol.encode(), token))
            elif place.query is not None:
                target += b"%b%b=%b" % (b"&" if b"?" in target else b"?", place.query.encode(), token)
        return b"%b %b HTTP/1.1\r\n%b\r\n\r\n" % (self.method.encode(), target, b"\r\n".join(lines))
