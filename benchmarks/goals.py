"""The goals: ratios of jwt-sidecar to a peer in one run."""

from dataclasses import dataclass

ENVOY, CACHED = "envoy", "envoy-cache"


@dataclass(frozen=True)
class Goal:
    """`result` is the name of a table; jwt-sidecar's `column` in it, divided by that of `peer`, is to be at most `most`.

    Without a name it is the leading column.
    """

    result: str
    peer: str
    most: float
    column: str = ""


GOALS = (
    Goal("mix", CACHED, 0.55),
    Goal("mix-tls", CACHED, 0.7),
    Goal("warm", ENVOY, 0.28),
    Goal("warm", CACHED, 0.48),
    Goal("warm", "haproxy", 0.45),
    Goal("warm", "nginx", 1.3),
    Goal("cold-rs256", ENVOY, 0.9),
    Goal("cold-es256", ENVOY, 0.9),
    Goal("forged", ENVOY, 1.0),
    Goal("expired", ENVOY, 0.8),
    Goal("none", ENVOY, 0.9),
    Goal("post", CACHED, 0.7),
    Goal("gateway-eddsa", "sidecar", 1.1),
    Goal("gateway-rs256", "sidecar", 1.1),
    Goal("download", "nginx", 0.9),
    Goal("upload", "nginx", 0.9),
    Goal("websocket", ENVOY, 0.8),
    Goal("latency", ENVOY, 0.8, "p50 ms"),
    Goal("latency", ENVOY, 0.8, "p99 ms"),
    Goal("latency-share", ENVOY, 0.8, "p50 ms"),
    Goal("latency-share", ENVOY, 0.8, "p99 ms"),
    Goal("memory", CACHED, 0.8),
    Goal("start", ENVOY, 4.0),
    Goal("workers", "jwt-sidecar", 1.1),
)
