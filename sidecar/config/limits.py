"""How long and how much, in the configuration."""

from typing import Annotated

from pydantic import Field, StrictInt

from sidecar.config.struct import Struct, key
from sidecar.config.values import Bytes, PositiveSeconds, Seconds, Size

Count = Annotated[StrictInt, Field(ge=1)]


class Timeouts(Struct):
    """How long to wait for what. A request as a whole has no limit."""

    connect_s: PositiveSeconds = key("For a connection to the upstream, which is next door.", 2.0, "connect")
    response_headers_s: PositiveSeconds = key("For the upstream's answer to begin.", 60.0, "response_headers")
    idle_s: PositiveSeconds = key("Between two pieces of a body or of a WebSocket, in either direction.", 300.0, "idle")
    request_headers_s: PositiveSeconds = key("For a client's whole request header.", 10.0, "request_headers")
    keep_alive_s: PositiveSeconds = key("For a client's next request; load balancers wait 60s.", 75.0, "keep_alive")
    drain_delay_s: Seconds = key("Still accepting after SIGTERM, until routers know of it.", 5.0, "drain_delay")
    shutdown_s: Seconds = key("For the requests in flight after that.", 30.0, "shutdown")


class TokenCache(Struct):
    """How many verified tokens are remembered. What an entry takes is in docs/understand/performance.md."""

    entries: Count = key("Tokens; users whose token is in use at the same time.", 10000)
    most_bytes: Bytes = key("Memory for them, about; whichever is reached first counts.", Size(32 << 20), "bytes")


class Limits(Struct):
    """How much of what at once."""

    header_bytes: Count = key("Of a request's header; tokens of some issuers are large.", 32768)
    headers: Count = key("Headers of a request; no honest client sends more.", 100)
    connections: Count = key(
        "Connections of clients; where all are taken, the one that is idle longest makes room.", 10000
    )
    in_flight: Count = key("Requests at work; more are answered 503.", 1000)
    upstream_connections: Count = key("Connections to each upstream; as many as slow clients may hold.", 1000)
    upstream_header_bytes: Count = key("Of all headers of an answer together.", 65536)
    upstream_headers: Count = key("Headers of an answer.", 128)
    identity_header_bytes: Count = key("Of one identity header; larger ones are answered 403.", 4096)
    claims_header_bytes: Count = key("Of claims_header, which has all claims in base64url.", 8192)
    identity_headers_bytes: Count = key("Of all identity headers together; many backends read no more.", 16384)
    buffered_bytes: Count = key(
        "That wait for a slow peer or the end of a head; beyond it new requests are answered 503.", 67108864
    )
