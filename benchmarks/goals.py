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
    Goal("mix", "envoy-cache", 0.55),
    Goal("warm", ENVOY, 0.28),
    Goal("warm", "envoy-cache", 0.48),
    Goal("warm", "haproxy", 0.45),
    Goal("warm", "nginx", 1.3),
    Goal("cold-rs256", ENVOY, 0.9),
    Goal("cold-es256", ENVOY, 0.9),
    Goal("reject-signature", ENVOY, 1.0),
    Goal("reject-expired", ENVOY, 0.8),
    Goal("rich-varied", ENVOY, 0.5),
    Goal("latency", ENVOY, 0.8),
    Goal("latency-share", ENVOY, 0.8),
    Goal("download", "nginx", 0.9),
    Goal("upload", "nginx", 0.9),
    Goal("memory", ENVOY, 0.8),
    Goal("start", ENVOY, 4.0),
    Goal("workers", "jwt-sidecar", 1.1),
)
