"""What is aimed at: ratios of jwt-sidecar to a peer in one run."""

from dataclasses import dataclass

ENVOY = "envoy"


@dataclass(frozen=True)
class Goal:
    """`result` is the name of a table; jwt-sidecar's column in it, divided by that of `peer`, is to be at most `most`."""

    result: str
    peer: str
    most: float


GOALS = (
    Goal("warm", ENVOY, 0.35),
    Goal("warm", "envoy-cache", 0.55),
    Goal("warm", "haproxy", 0.75),
    Goal("warm", "nginx", 2.0),
    Goal("warm", "fastify", 0.28),
    Goal("cold-rs256", ENVOY, 0.65),
    Goal("cold-es256", ENVOY, 0.65),
    Goal("reject-signature", ENVOY, 0.5),
    Goal("reject-expired", ENVOY, 0.5),
    Goal("rich", ENVOY, 0.5),
    Goal("rich-varied", ENVOY, 0.5),
    Goal("latency", ENVOY, 1.0),
    Goal("latency-share", ENVOY, 1.0),
    Goal("download", "nginx", 1.1),
    Goal("upload", "nginx", 1.1),
    Goal("memory", ENVOY, 1.0),
    Goal("start", "fastify", 1.0),
    Goal("start", ENVOY, 5.0),
    Goal("workers", "jwt-sidecar", 1.1),
)
