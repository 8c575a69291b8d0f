"""`drain`: tells a running sidecar to drain. For a preStop hook, so it imports next to nothing."""

import http.client
import json
import re
from urllib.parse import urlsplit

DEFAULT = "http://127.0.0.1:9901"
ANSWER_S = 5.0
MOST_BYTES = 65536


class CannotDrain(Exception):
    """Nothing drains; the text says why and what to do."""


def drain(admin: str) -> str:
    """Ask the admin listener at this URL; what happened, for people. ValueError for no such URL. Raises CannotDrain."""
    parts = urlsplit(admin)
    if parts.scheme != "http" or not re.fullmatch(r".+:[1-9][0-9]{0,4}", parts.netloc):
        raise ValueError(f"{admin} is not the URL of an admin listener, such as {DEFAULT}")
    connection = http.client.HTTPConnection(parts.netloc, timeout=ANSWER_S)
    try:
        connection.request("POST", "/drain", headers={"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = json.loads(answer.read(MOST_BYTES))
        return f"draining: not ready any more, still serving ({said['in_flight']} requests in flight)"
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
        raise CannotDrain(f"{admin}: no sidecar answers there; is that its admin.listen?") from error
    finally:
        connection.close()


def admin_url(host: str, port: int) -> str:
    """Where a sidecar with this admin.listen answers, asked from the same machine. ValueError when nobody can know."""
    if port == 0:
        raise ValueError("admin.listen has port 0, so only the start says which one it is; name it with --admin")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
