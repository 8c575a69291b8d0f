"""The checks of Pod Security "restricted" (https://kubernetes.io/docs/concepts/security/pod-security-standards/)."""

from collections.abc import Iterator
from typing import Any

PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
VOLUMES = frozenset(
    ("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret")
)


def violations(pod: dict[str, Any]) -> Iterator[str]:
    """`container: rule` for each rule that a pod breaks, init containers included."""
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        own = container.get("securityContext", {})
        context = pod.get("securityContext", {}) | own
        capabilities = own.get("capabilities", {})
        rules = {
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "capabilities.drop": "ALL" in capabilities.get("drop", []),
            "capabilities.add": set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"},
            "privileged": not own.get("privileged"),
            "runAsNonRoot": context.get("runAsNonRoot") is True,
            "runAsUser": context.get("runAsUser") != 0,
            "seccompProfile": context.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "hostPort": not any("hostPort" in port for port in container.get("ports", [])),
            "probe host": not any("host" in container.get(probe, {}).get("httpGet", {}) for probe in PROBES),
        }
        yield from (f"{container['name']}: {rule}" for rule, kept in rules.items() if not kept)
    yield from (
        f"volume {volume['name']}" for volume in pod.get("volumes", []) if not volume.keys() - {"name"} <= VOLUMES
    )
    yield from (name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name))
