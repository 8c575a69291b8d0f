"""The deployment examples: a cluster that enforces Pod Security "restricted" takes them, and they fit the product."""

import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar import config

DEPLOY = Path(__file__).parents[1] / "deploy"
KUBERNETES = (DEPLOY / "kubernetes.yaml").read_text()
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
MANIFESTS = {manifest["kind"]: manifest for manifest in yaml.safe_load_all(KUBERNETES)}
POD = MANIFESTS["Deployment"]["spec"]["template"]["spec"]
SIDECAR = next(container for container in POD["initContainers"] if container["name"] == "jwt-sidecar")
BACKEND = next(container for container in POD["containers"] if container["name"] == "backend")
CONFIG = config.parse(MANIFESTS["ConfigMap"]["data"]["config.yaml"])
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def violations(pod: dict[str, Any]) -> Iterator[str]:
    """What Pod Security "restricted" refuses in a pod (https://kubernetes.io/docs/concepts/security/pod-security-standards/)."""
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
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    yield from (
        f"volume {volume['name']}" for volume in pod.get("volumes", []) if not volume.keys() - {"name"} <= allowed
    )
    yield from (name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name))


def test_pod_security_restricted_is_kept() -> None:
    assert list(violations(POD)) == []


@pytest.mark.parametrize("container", ["initContainers", "containers"])
def test_the_check_of_pod_security_sees_every_container(container: str) -> None:
    pod = deepcopy(POD)
    del pod["securityContext"]
    del pod[container][0]["securityContext"]
    rules = {violation.partition(": ")[2] for violation in violations(pod) if pod[container][0]["name"] in violation}
    assert rules == {"allowPrivilegeEscalation", "capabilities.drop", "runAsNonRoot", "seccompProfile"}


def test_the_root_is_read_only_everywhere() -> None:
    assert SIDECAR["securityContext"]["readOnlyRootFilesystem"]
    assert BACKEND["securityContext"]["readOnlyRootFilesystem"]


def test_the_sidecar_is_native_and_starts_before_the_backend() -> None:
    assert SIDECAR["restartPolicy"] == "Always"


def test_the_backend_listens_on_loopback_where_the_sidecar_looks_for_it() -> None:
    upstream = CONFIG.upstreams[CONFIG.default_upstream]
    assert upstream.host == "127.0.0.1"
    assert f"tcp://127.0.0.1:{upstream.port}" in BACKEND["args"]
    assert "ports" not in BACKEND


def test_probes_ask_the_health_port_and_nothing_else() -> None:
    assert {SIDECAR[probe]["httpGet"]["port"] for probe in PROBES} == {CONFIG.health.listen.port}
    assert [probe for probe in PROBES if probe in BACKEND] == []


def test_neither_start_nor_life_of_the_sidecar_waits_for_an_issuer_or_the_backend() -> None:
    assert {probe: SIDECAR[probe]["httpGet"]["path"] for probe in PROBES} == {
        "startupProbe": "/startupz",
        "readinessProbe": "/readyz",
        "livenessProbe": "/livez",
    }


def test_ports_are_numbers() -> None:
    ports = re.findall(r"\b(?:port|targetPort|containerPort): *(.*)", KUBERNETES, re.IGNORECASE)
    assert ports
    assert [port for port in ports if not port.isdecimal()] == []


def test_the_service_leads_to_the_sidecar() -> None:
    service = MANIFESTS["Service"]["spec"]
    assert [port["targetPort"] for port in service["ports"]] == [CONFIG.listen.port]
    assert service["selector"].items() <= MANIFESTS["Deployment"]["spec"]["template"]["metadata"]["labels"].items()


def test_the_configuration_is_mounted_as_a_directory_that_follows_its_configmap() -> None:
    mount = next(mount for mount in SIDECAR["volumeMounts"] if mount["mountPath"] == "/etc/jwt-sidecar")
    volume = next(volume for volume in POD["volumes"] if volume["name"] == mount["name"])
    assert volume["configMap"]["name"] == MANIFESTS["ConfigMap"]["metadata"]["name"]
    assert "subPath" not in KUBERNETES
    assert '"/etc/jwt-sidecar/config.yaml"' in DOCKERFILE


def test_the_pod_outlives_its_requests() -> None:
    needed_s = (
        BACKEND["lifecycle"]["preStop"]["sleep"]["seconds"] + CONFIG.timeouts.drain_delay_s + CONFIG.timeouts.shutdown_s
    )
    assert POD["terminationGracePeriodSeconds"] > needed_s


def test_the_image_runs_as_a_user_that_run_as_non_root_can_check() -> None:
    assert re.findall(r"^USER (.*)", DOCKERFILE, re.MULTILINE) == ["65532:65532"]


def test_kubernetes_probes_and_not_the_image() -> None:
    assert "HEALTHCHECK" not in DOCKERFILE
