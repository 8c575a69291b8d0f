"""Who may ask the sidecar itself, in the configuration: a cluster, operators, and front proxies."""

from typing import Literal

from pydantic import StrictBool

from sidecar.config.addresses import Address, ListenAddress, ResourceUrl
from sidecar.config.struct import Struct, check, key
from sidecar.config.values import Name, PathPrefix, PositiveSeconds, RequestPath, Text, nearest
from sidecar.config.yaml_source import Section


class Probe(Struct):
    """A path of a backend that says how it is."""

    path: RequestPath = key("Asked with GET; only its status is passed on.")
    upstream: str | None = key("Whose path it is. Left out: the default upstream's.", None)
    timeout_s: PositiveSeconds = key("For the whole answer; a kubelet waits 1s.", 1.0, "timeout")


class Health(Struct):
    """The listener for kubelets and Prometheus."""

    listen: ListenAddress = key("/livez, /readyz, /metrics: read only.", Address("0.0.0.0", 8081))  # noqa: S104
    probes: dict[Name, Probe] = key("/probe/NAME: for backends that a kubelet cannot reach, being on loopback.", {})
    ready_probes: tuple[str, ...] = key("Not ready unless these of them succeed.", ())
    fail_ready_when_stale: StrictBool = key("Not ready while no issuer's keys may be believed any more.", False)

    @check("probes", "ready_probes")
    def _waits_for_probes_that_there_are(self, section: Section) -> None:
        known = list(self.probes)
        for item, name in enumerate(self.ready_probes):
            if name not in known:
                choices = f"one of: {', '.join(known)}{nearest(name, known)}" if known else "there are none"
                section.report(f"{{input}} is not among the probes; {choices}", "ready_probes", item)


class Admin(Struct):
    """The listener for operators."""

    listen: ListenAddress = key("Whoever reaches it can change what the proxy does.", Address("127.0.0.1", 9901))


class ForwardAuth(Struct):
    """The question of a front proxy."""

    path: PathPrefix = key("Where it is asked.", "/auth")
    original: Literal["x-forwarded", "x-original", "path"] = key(
        "What says which request it is about: X-Forwarded-Method, -Uri, -Host; X-Original-Method, -URI; or what follows path."
    )


class ResourceMetadata(Struct):
    """What clients are told about where to get a token (RFC 9728)."""

    resource: ResourceUrl = key("The URL of this API as clients know it; its metadata is below the same host.")
    resource_name: Text | None = key("Its name for people. Left out: none is told.", None)
