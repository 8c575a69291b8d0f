"""The component applied to Deployments of different forms, not only to the example."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.conftest import DEPLOY, Manifests
from tests.deploy.pod_security import PROBES

KUSTOMIZE = DEPLOY / "kustomize"
Kustomize = Callable[[Path], Manifests]
Overlay = Callable[..., dict[str, dict[str, Any]]]


def deployment(name: str, labels: dict[str, str] | None = None, kind: str = "Deployment", **pod: Any) -> dict[str, Any]:
    selector = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {"labels": selector},
                "spec": {"containers": [{"name": name, "image": name}], **pod},
            },
        },
    }


def service(
    name: str, labels: dict[str, str] | None = None, ports: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    ports = ports or [{"name": "http", "port": 80, "targetPort": "http"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"selector": {"app": name}, "ports": ports},
    }


@pytest.fixture
def overlay(kustomize: Kustomize, tmp_path: Path) -> Overlay:
    """``overlay(manifest, ..., components=[...])``: kind/name -> the manifest with the component applied."""

    def render(
        *manifests: dict[str, Any],
        components: tuple[str, ...] = ("component",),
        literals: tuple[str, ...] = ("application=orders",),
        generator: dict[str, Any] | None = None,
    ) -> dict[str, dict[str, Any]]:
        (tmp_path / "found.yaml").write_text(yaml.safe_dump_all(manifests))
        (tmp_path / "config.yaml").write_text("issuers: {}\n")
        where = [os.path.relpath(KUSTOMIZE / name, tmp_path) for name in components]
        kustomization = {
            "resources": ["found.yaml"],
            "components": where,
            "configMapGenerator": [{"name": "jwt-sidecar", "files": ["config.yaml"], "literals": list(literals)}],
            "generatorOptions": generator or {},
        }
        (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return {f"{item['kind']}/{item['metadata']['name']}": item for item in kustomize(tmp_path)}

    return render


def containers(manifest: dict[str, Any]) -> tuple[list[str], list[str]]:
    pod = manifest["spec"]["template"]["spec"]
    return [item["name"] for item in pod.get("initContainers", [])], [item["name"] for item in pod["containers"]]


def test_every_backend_gets_a_sidecar_unless_labelled(overlay: Overlay) -> None:
    out = {"jwt-sidecar/inject": "false"}
    found = overlay(
        deployment("shop"),
        service("shop"),
        deployment("logs", kind="DaemonSet"),
        deployment("mails", kind="StatefulSet"),
        deployment("postgres", out, kind="StatefulSet"),
        service("postgres", out),
    )
    assert containers(found["Deployment/shop"]) == (["jwt-sidecar"], ["shop"])
    assert containers(found["DaemonSet/logs"]) == (["jwt-sidecar"], ["logs"])
    assert containers(found["StatefulSet/mails"]) == (["jwt-sidecar"], ["mails"])
    assert containers(found["StatefulSet/postgres"]) == ([], ["postgres"])
    assert found["Service/shop"]["spec"]["ports"] == [
        {"name": "http", "port": 80, "targetPort": 8080, "appProtocol": "http"}
    ]
    assert found["Service/postgres"]["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]


def test_the_sidecar_starts_before_other_init_containers(overlay: Overlay) -> None:
    found = overlay(deployment("shop", initContainers=[{"name": "migrate", "image": "shop"}]))
    assert containers(found["Deployment/shop"]) == (["jwt-sidecar", "migrate"], ["shop"])


def test_the_volumes_of_the_deployment_are_kept(overlay: Overlay) -> None:
    found = overlay(deployment("shop", volumes=[{"name": "uploads", "emptyDir": {}}]))
    volumes = found["Deployment/shop"]["spec"]["template"]["spec"]["volumes"]
    assert {volume["name"] for volume in volumes} == {"jwt-sidecar", "uploads"}


def test_a_plain_container_comes_last_and_keeps_the_init_containers(overlay: Overlay) -> None:
    found = overlay(
        deployment("shop", initContainers=[{"name": "migrate", "image": "shop"}]),
        components=("component", "plain-container"),
    )
    assert containers(found["Deployment/shop"]) == (["migrate"], ["shop", "jwt-sidecar"])


def test_a_changed_configuration_gets_a_new_configmap(kustomize: Kustomize, overlay: Overlay, tmp_path: Path) -> None:
    def name(found: dict[str, dict[str, Any]]) -> str:
        return str(found["Deployment/shop"]["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"])

    first = overlay(deployment("shop"))
    (tmp_path / "config.yaml").write_text("issuers: {other: {}}\n")
    second = {f"{item['kind']}/{item['metadata']['name']}": item for item in kustomize(tmp_path)}

    assert name(first) != name(second)
    assert {f"ConfigMap/{name(first)}"} <= first.keys()
    assert {f"ConfigMap/{name(second)}"} <= second.keys()


def test_an_argo_rollout_gets_a_sidecar_if_it_loses_no_container(overlay: Overlay) -> None:
    rollout = deployment("shop", kind="Rollout") | {"apiVersion": "argoproj.io/v1alpha1"}
    assert containers(overlay(rollout)["Rollout/shop"]) == (["jwt-sidecar"], ["shop"])
    rollout["spec"]["template"]["spec"]["volumes"] = [{"name": "uploads", "emptyDir": {}}]
    with pytest.raises(AssertionError, match="testing value /spec/template/spec/volumes failed"):
        overlay(rollout)


@pytest.mark.parametrize("generator", [{}, {"disableNameSuffixHash": True}])
def test_two_applications_in_one_namespace_share_no_object_and_no_pod(
    overlay: Overlay, generator: dict[str, Any]
) -> None:
    components = ("component", "network-policy", "network-policy-egress", "pod-monitor")
    one, other = (
        overlay(deployment(name), components=components, literals=(f"application={name}",), generator=generator)
        for name in ("orders", "shop")
    )
    assert one.keys() & other.keys() == set()
    assert len(one) == len(other) == 5  # also with an equal configuration
    labels = one["Deployment/orders"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        item["spec"].get("podSelector") or item["spec"]["selector"] for item in other.values() if "spec" in item
    ]
    assert len(selectors) == 4
    assert not any(selector["matchLabels"].items() <= labels.items() for selector in selectors)


def test_a_kustomization_without_the_applications_name_fails(overlay: Overlay) -> None:
    with pytest.raises(AssertionError, match=r"fieldPath `data.application` is missing"):
        overlay(deployment("orders"), literals=())


@pytest.mark.parametrize(
    "ports",
    [
        [{"port": 80, "targetPort": 9292}],
        [{"name": "metrics", "port": 9, "targetPort": 9}, {"name": "http", "port": 80, "targetPort": 9292}],
    ],
)
def test_a_service_without_http_as_its_first_port_is_refused(overlay: Overlay, ports: list[dict[str, Any]]) -> None:
    with pytest.raises(AssertionError, match="testing value /spec/ports/0/name failed"):
        overlay(deployment("orders"), service("orders", ports=ports))


def test_only_the_port_http_leads_to_the_sidecar(overlay: Overlay) -> None:
    ports = [{"name": "http", "port": 80, "targetPort": "web"}, {"name": "metrics", "port": 9, "targetPort": 9}]
    found = overlay(deployment("orders"), service("orders", ports=ports), service("orders-internal", ports=ports))
    for name in ("orders", "orders-internal"):
        http, metrics = found[f"Service/{name}"]["spec"]["ports"]
        assert (http["targetPort"], http["appProtocol"], metrics) == (8080, "http", ports[1])


def test_the_backend_sleeps_before_it_stops(overlay: Overlay) -> None:
    [backend] = overlay(deployment("orders"))["Deployment/orders"]["spec"]["template"]["spec"]["containers"]
    assert backend["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}


def test_a_pre_stop_hook_of_the_backend_is_kept_on_request(overlay: Overlay) -> None:
    hooks = {"preStop": {"exec": {"command": ["sleep", "7"]}}}
    containers = [{"name": "orders", "image": "orders", "lifecycle": hooks}]
    with pytest.raises(AssertionError, match="testing value /spec/template/spec/containers/0/lifecycle failed"):
        overlay(deployment("orders", containers=containers))
    found = overlay(deployment("orders", {"jwt-sidecar/pre-stop": "own"}, containers=containers))
    assert found["Deployment/orders"]["spec"]["template"]["spec"]["containers"][0]["lifecycle"] == hooks


def test_changed_ports_reach_every_object(overlay: Overlay) -> None:
    found = overlay(
        deployment("orders"),
        service("orders"),
        components=("component", "network-policy", "pod-monitor", "ports"),
        literals=("application=orders", "port=9080", "health_port=9081"),
    )
    sidecar = found["Deployment/orders"]["spec"]["template"]["spec"]["initContainers"][0]
    assert [port["containerPort"] for port in sidecar["ports"]] == [9080, 9081]
    assert {sidecar[probe]["httpGet"]["port"] for probe in PROBES} == {sidecar["ports"][1]["name"]}
    assert found["Service/orders"]["spec"]["ports"][0]["targetPort"] == 9080
    ingress = found["NetworkPolicy/orders-jwt-sidecar"]["spec"]["ingress"]
    assert [rule["ports"][0]["port"] for rule in ingress] == [9080, 9081]
    assert found["PodMonitor/orders-jwt-sidecar"]["spec"]["podMetricsEndpoints"][0]["portNumber"] == 9081
