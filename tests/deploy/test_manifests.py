"""The output of every overlay and every ci/*-values.yaml: a cluster accepts it, and it fits the product."""

import re
import subprocess
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar import config
from sidecar.cli.main import main
from sidecar.config import Config
from tests.conftest import Need
from tests.deploy.conftest import CI_VALUES, DEPLOY, OVERLAYS, Manifests, Tool
from tests.deploy.pod_security import PROBES, violations

RENDERED = [*OVERLAYS, *CI_VALUES]
BARE = ["backend"]  # the overlay without a sidecar
VERSIONS = ["1.30", "1.34", "1.37"]
DRAIN = ["jwt-sidecar", "drain", "-c", "/etc/jwt-sidecar/config.yaml"]
NO_SCHEMA = {"PodMonitor", "PrometheusRule"}  # the kinds of operators


@dataclass
class Rendering:
    """The parts of one rendering with a sidecar."""

    manifests: Manifests
    pod: dict[str, Any]
    sidecar: dict[str, Any]
    text: str
    config: Config

    def of_kind(self, kind: str) -> dict[str, Any]:
        [manifest] = [manifest for manifest in self.manifests if manifest["kind"] == kind]
        return manifest


@pytest.fixture(params=[name for name in RENDERED if name not in BARE])
def rendering(request: pytest.FixtureRequest, renderings: dict[str, Manifests]) -> Rendering:
    manifests = renderings[request.param]
    [pod] = [manifest["spec"]["template"]["spec"] for manifest in manifests if manifest["kind"] == "Deployment"]
    containers = [*pod.get("initContainers", []), *pod["containers"]]
    [sidecar] = [container for container in containers if container["name"] == "jwt-sidecar"]
    [text] = [manifest["data"]["config.yaml"] for manifest in manifests if manifest["kind"] == "ConfigMap"]
    return Rendering(manifests, pod, sidecar, text, config.parse(text, environ={}))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_kubernetes_version_accepts_the_manifests(
    version: str, renderings: dict[str, Manifests], tool: Tool, tmp_path: Path
) -> None:
    kinds = {manifest["kind"] for manifests in renderings.values() for manifest in manifests}
    files = []
    for name, manifests in renderings.items():
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump_all(item for item in manifests if item["kind"] not in NO_SCHEMA))
        files.append(str(file))

    printed = tool("kubernetes-validate", "-k", version, "--strict", *files)

    assert "WARN" not in printed  # the warning means: no schema, so no check
    assert {kind.lower() for kind in kinds - NO_SCHEMA} == set(re.findall(r"resource (\w+)/", printed))


@pytest.mark.parametrize("name", RENDERED)
def test_every_pod_meets_pod_security_restricted(name: str, renderings: dict[str, Manifests]) -> None:
    pods = [item["spec"]["template"]["spec"] for item in renderings[name] if item["kind"] == "Deployment"]
    assert [list(violations(pod)) for pod in pods] == [[]]


@pytest.mark.parametrize("group", ["initContainers", "containers"])
def test_the_check_of_pod_security_reads_every_container(group: str, renderings: dict[str, Manifests]) -> None:
    pod = deepcopy(next(item for item in renderings["native"] if item["kind"] == "Deployment"))["spec"]["template"][
        "spec"
    ]
    del pod["securityContext"]
    del pod[group][0]["securityContext"]
    rules = {violation.partition(": ")[2] for violation in violations(pod) if pod[group][0]["name"] in violation}
    assert rules == {"allowPrivilegeEscalation", "capabilities.drop", "runAsNonRoot", "seccompProfile"}


@pytest.mark.parametrize("name", ["openshift", "openshift-values.yaml"])
def test_the_manifests_for_openshift_set_no_user(name: str, renderings: dict[str, Manifests]) -> None:
    [pod] = [item["spec"]["template"]["spec"] for item in renderings[name] if item["kind"] == "Deployment"]
    assert not {"runAsUser", "runAsGroup"} & pod["initContainers"][0]["securityContext"].keys()


@pytest.mark.parametrize("name", ["everything", "everything-values.yaml"])
def test_the_egress_policy_allows_dns_and_https(name: str, renderings: dict[str, Manifests]) -> None:
    [policy] = [item["spec"] for item in renderings[name] if item["metadata"]["name"].endswith("jwt-sidecar-egress")]
    names, issuers = policy["egress"]
    assert policy["policyTypes"] == ["Egress"]
    assert {(port["port"], port["protocol"]) for port in names["ports"]} == {(53, "UDP"), (53, "TCP")}
    assert issuers == {"ports": [{"port": 443, "protocol": "TCP"}]}


def test_every_root_file_system_is_read_only(rendering: Rendering) -> None:
    containers = [*rendering.pod.get("initContainers", []), *rendering.pod["containers"]]
    assert all(container["securityContext"]["readOnlyRootFilesystem"] for container in containers)


def test_only_the_init_container_has_restart_policy_always(rendering: Rendering) -> None:
    native = rendering.sidecar in rendering.pod.get("initContainers", [])
    assert rendering.sidecar.get("restartPolicy") == ("Always" if native else None)


def test_the_backend_is_the_first_container(rendering: Rendering) -> None:
    assert rendering.pod["containers"][0]["name"] == "backend"


def test_the_backend_listens_on_loopback_at_the_upstreams_port(rendering: Rendering) -> None:
    upstream = rendering.config.upstreams[rendering.config.default_upstream]
    backend = rendering.pod["containers"][0]
    assert upstream.host == "127.0.0.1"
    assert f"tcp://127.0.0.1:{upstream.port}" in backend["args"]
    assert not {"ports", *PROBES} & backend.keys()


def test_the_probes_of_the_container_have_their_endpoints(rendering: Rendering) -> None:
    assert {probe: rendering.sidecar[probe]["httpGet"] for probe in PROBES} == {
        "startupProbe": {"path": "/startupz", "port": "jwt-health"},
        "readinessProbe": {"path": "/readyz/upstream", "port": "jwt-health"},
        "livenessProbe": {"path": "/livez", "port": "jwt-health"},
    }


def test_the_container_has_the_ports_of_the_configuration(rendering: Rendering) -> None:
    assert rendering.sidecar["ports"] == [
        {"name": "jwt-sidecar", "containerPort": rendering.config.listen[0].port},
        {"name": "jwt-health", "containerPort": rendering.config.health.listen.port},
    ]


def test_the_service_leads_to_the_sidecar(rendering: Rendering) -> None:
    service = rendering.of_kind("Service")["spec"]
    labels = rendering.of_kind("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert [(port["targetPort"], port["appProtocol"]) for port in service["ports"]] == [
        (rendering.config.listen[0].port, "http")
    ]
    assert service["selector"].items() <= labels.items()


def test_ports_are_numbers_except_for_the_kubelet(rendering: Rendering) -> None:
    def found(node: Any) -> Iterator[Any]:
        for key, value in node.items() if isinstance(node, dict) else []:
            if key in ("port", "targetPort", "containerPort", "portNumber"):
                yield value
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
            yield from found(child)

    ports = list(found([item for item in rendering.manifests if item["kind"] != "ConfigMap"]))
    assert len(ports) >= 7
    assert {port for port in ports if not isinstance(port, int)} == {"jwt-health"}  # the probes of the container


def test_the_configuration_is_mounted_without_sub_path(rendering: Rendering) -> None:
    [mount] = [mount for mount in rendering.sidecar["volumeMounts"] if mount["mountPath"] == "/etc/jwt-sidecar"]
    [volume] = [volume for volume in rendering.pod["volumes"] if volume["name"] == mount["name"]]
    assert volume["configMap"] == {"name": rendering.of_kind("ConfigMap")["metadata"]["name"]}
    assert [mount for mount in rendering.sidecar["volumeMounts"] if mount.keys() & {"subPath", "subPathExpr"}] == []


def test_check_accepts_every_rendered_configuration(rendering: Rendering, tmp_path: Path) -> None:
    (tmp_path / "denied.yaml").write_text("[]")
    file = tmp_path / "config.yaml"
    file.write_text(rendering.text.replace("/etc/denied/", f"{tmp_path}/"))
    assert main(["check", "-c", str(file)]) == 0


def test_the_sidecar_requests_cpu_and_memory_and_limits_only_memory(rendering: Rendering) -> None:
    assert rendering.sidecar["resources"] == {
        "requests": {"cpu": "50m", "memory": "96Mi"},
        "limits": {"memory": "256Mi"},
    }


def test_the_grace_period_of_the_pod_covers_drain_and_shutdown(rendering: Rendering) -> None:
    sleep = rendering.pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    timeouts = rendering.config.timeouts
    assert sleep >= timeouts.drain_delay_s  # the backend runs while the sidecar drains
    assert rendering.sidecar["lifecycle"]["preStop"]["exec"]["command"] == DRAIN
    assert rendering.pod["terminationGracePeriodSeconds"] > sleep + timeouts.drain_delay_s + timeouts.shutdown_s


def test_the_pods_status_shows_a_configuration_error(rendering: Rendering) -> None:
    assert rendering.sidecar["terminationMessagePolicy"] == "FallbackToLogsOnError"


@pytest.mark.parametrize("name", ["everything", "everything-values.yaml"])
def test_the_network_policy_opens_only_the_sidecars_ports(name: str, renderings: dict[str, Manifests]) -> None:
    kinds = {item["kind"]: item for item in reversed(renderings[name])}  # the first of the policies
    labels = kinds["Deployment"]["spec"]["template"]["metadata"]["labels"]
    policy = kinds["NetworkPolicy"]["spec"]
    monitor = kinds["PodMonitor"]["spec"]
    settings = config.parse(kinds["ConfigMap"]["data"]["config.yaml"], environ={})

    assert policy["policyTypes"] == ["Ingress"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    proxy, health = policy["ingress"]
    assert proxy == {"ports": [{"port": settings.listen[0].port, "protocol": "TCP"}]}
    assert health["ports"] == [{"port": settings.health.listen.port, "protocol": "TCP"}]
    assert health["from"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    [endpoint] = monitor["podMetricsEndpoints"]
    assert (endpoint["portNumber"], endpoint["path"]) == (settings.health.listen.port, "/metrics")


@pytest.mark.parametrize("name", ["everything", "everything-values.yaml"])
def test_the_rendered_alerts_equal_the_rules_and_promtool_accepts_them(
    name: str, renderings: dict[str, Manifests], need: Need, tmp_path: Path
) -> None:
    [rule] = [item for item in renderings[name] if item["kind"] == "PrometheusRule"]
    assert rule["apiVersion"] == "monitoring.coreos.com/v1"
    assert rule["metadata"]["name"] == next(
        item["metadata"]["name"] for item in renderings[name] if item["kind"] == "PodMonitor"
    )
    assert rule["spec"] == yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump(rule["spec"]))
    said = subprocess.run([need("promtool"), "check", "rules", file], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.parametrize("name", [name for name in RENDERED if not name.startswith("everything")])
def test_objects_of_operators_are_only_there_on_request(name: str, renderings: dict[str, Manifests]) -> None:
    assert not {item["kind"] for item in renderings[name]} & NO_SCHEMA


def test_objects_for_operators_have_the_configured_labels(renderings: dict[str, Manifests]) -> None:
    found = [item for item in renderings["everything-values.yaml"] if item["kind"] in NO_SCHEMA]
    assert [item["metadata"]["labels"] for item in found] == [{"release": "kube-prometheus-stack"}] * 2
