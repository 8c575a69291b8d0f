"""Timeouts and limits in the configuration."""

from typing import Annotated

from pydantic import Field, StrictInt

from sidecar.config.struct import Struct, key
from sidecar.config.values import Bytes, PositiveSeconds, Seconds, Size

Count = Annotated[StrictInt, Field(ge=1)]


class Timeouts(Struct):
    """The time limits. A request as a whole has none."""

    connect_s: PositiveSeconds = key(
        "For a connection to the backend, which is usually on the same machine.", 2.0, "connect"
    )
    response_headers_s: PositiveSeconds = key("For the beginning of the backend's answer.", 60.0, "response_headers")
    idle_s: PositiveSeconds = key("Between two pieces of a body or of a WebSocket, in either direction.", 300.0, "idle")
    request_headers_s: PositiveSeconds = key("For all headers of a request.", 10.0, "request_headers")
    keep_alive_s: PositiveSeconds = key(
        "For the next request on a connection; load balancers wait 60s.", 75.0, "keep_alive"
    )
    drain_delay_s: Seconds = key(
        "How long connections are accepted after SIGTERM, while load balancers learn of it.", 5.0, "drain_delay"
    )
    shutdown_s: Seconds = key("For requests in flight after that.", 30.0, "shutdown")


class TokenCache(Struct):
    """The limits of the cache of verified tokens. docs/understand/performance.md has the size of an entry."""

    entries: Count = key("The number of tokens: as many as there are users at the same time.", 10000)
    most_bytes: Bytes = key(
        "The approximate memory for them. The limit that is reached first counts.", Size(32 << 20), "bytes"
    )


class Limits(Struct):
    """The limits of sizes and numbers."""

    header_bytes: Count = key(
        "Bytes of one header line of a request, or of its request line; all lines together may have twice that.", 32768
    )
    headers: Count = key("Headers of a request.", 100)
    connections: Count = key(
        "Connections of clients; at the limit the longest idle one is closed for a new one.", 10000
    )
    in_flight: Count = key("Requests in flight; further ones get a 503.", 1000)
    upstream_connections: Count = key("Connections to each backend; slow clients may hold as many.", 1000)
    upstream_header_bytes: Count = key("Bytes of all headers of an answer.", 65536)
    upstream_headers: Count = key("Headers of an answer.", 128)
    identity_header_bytes: Count = key("Bytes of one identity header; a larger one is a 403.", 4096)
    claims_header_bytes: Count = key("Bytes of claims_header, which has all claims in base64url.", 8192)
    identity_headers_bytes: Count = key("Bytes of all identity headers; many backends accept no more.", 16384)
    buffered_bytes: Count = key(
        "Bytes that wait for a slow peer or the end of a head; beyond it new requests get a 503.", 67108864
    )
