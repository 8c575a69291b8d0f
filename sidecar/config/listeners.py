"""The other listeners and questions, in the configuration: health, admin, front proxies."""

from typing import Literal

from pydantic import StrictBool

from sidecar.config.addresses import Address, ListenAddress, ResourceUrl
from sidecar.config.struct import Later, Struct, check, key
from sidecar.config.values import Name, PathPrefix, PositiveSeconds, RequestPath, Text, nearest
from sidecar.config.yaml_source import Section


class Probe(Struct):
    """A health check of a backend."""

    path: RequestPath = key("The path for a GET; only the status is passed on.")
    upstream: str | None = key("The upstream. Left out: the default one.", None)
    timeout_s: PositiveSeconds = key("The time limit of the whole answer; a kubelet waits 1s.", 1.0, "timeout")


class Health(Struct):
    """The listener for kubelets and Prometheus."""

    listen: ListenAddress = key("Probes (/livez, /readyz ...) and /metrics: read only.", Address("0.0.0.0", 8081))  # noqa: S104
    probes: dict[Name, Later[Probe]] = key(
        "/probe/NAME: health checks of backends on loopback, which a kubelet cannot reach.", {}
    )
    ready_probes: tuple[str, ...] = key("The probes that must succeed for readiness.", ())
    fail_ready_when_stale: StrictBool = key("true: not ready while no issuer has trusted keys.", False)

    @check("probes", "ready_probes")
    def _waits_for_probes_that_there_are(self, section: Section) -> None:
        known = list(self.probes)
        for item, name in enumerate(self.ready_probes):
            if name not in known:
                choices = f"one of: {', '.join(known)}{nearest(name, known)}" if known else "there are none"
                section.report(f"{{input}} is not among the probes; {choices}", "ready_probes", item)


class Admin(Struct):
    """The listener for operators."""

    listen: ListenAddress = key(
        "Its address; everyone who can reach it can control the proxy.", Address("127.0.0.1", 9901)
    )


class ForwardAuth(Struct):
    """Questions of front proxies."""

    path: PathPrefix = key("The path of the questions.", "/auth")
    original: Literal["x-forwarded", "x-original", "path"] = key(
        "The source of the original request: X-Forwarded-Method, -Uri, -Host; X-Original-Method, -URI; or the rest of the path."
    )


class ResourceMetadata(Struct):
    """The metadata that tells clients where to get a token (RFC 9728)."""

    resource: ResourceUrl = key("The URL of this API for clients; the metadata is on the same host.")
    resource_name: Text | None = key("Its name for people. Left out: no name.", None)
