"""The component put beside Deployments as they are found, not as our example has them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.conftest import DEPLOY, Manifests

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


def service(name: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    ports = [{"port": 80, "targetPort": "http"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"selector": {"app": name}, "ports": ports},
    }


@pytest.fixture
def overlay(kustomize: Kustomize, tmp_path: Path) -> Overlay:
    """``overlay(manifest, ..., components=[...])``: kind/name -> what becomes of them with the two lines."""

    def render(*manifests: dict[str, Any], components: tuple[str, ...] = ("component",)) -> dict[str, dict[str, Any]]:
        (tmp_path / "found.yaml").write_text(yaml.safe_dump_all(manifests))
        (tmp_path / "config.yaml").write_text("issuers: {}\n")
        where = [os.path.relpath(KUSTOMIZE / name, tmp_path) for name in components]
        kustomization = {
            "resources": ["found.yaml"],
            "components": where,
            "configMapGenerator": [{"name": "jwt-sidecar", "files": ["config.yaml"]}],
        }
        (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return {f"{item['kind']}/{item['metadata']['name']}": item for item in kustomize(tmp_path)}

    return render


def containers(manifest: dict[str, Any]) -> tuple[list[str], list[str]]:
    pod = manifest["spec"]["template"]["spec"]
    return [item["name"] for item in pod.get("initContainers", [])], [item["name"] for item in pod["containers"]]


def test_every_backend_gets_one_and_what_is_labelled_does_not(overlay: Overlay) -> None:
    out = {"jwt-sidecar/inject": "false"}
    found = overlay(
        deployment("shop"),
        service("shop"),
        deployment("mails", kind="StatefulSet"),
        deployment("postgres", out, kind="StatefulSet"),
        service("postgres", out),
    )
    assert containers(found["Deployment/shop"]) == (["jwt-sidecar"], ["shop"])
    assert containers(found["StatefulSet/mails"]) == (["jwt-sidecar"], ["mails"])
    assert containers(found["StatefulSet/postgres"]) == ([], ["postgres"])
    assert found["Service/shop"]["spec"]["ports"] == [{"port": 80, "targetPort": 8080}]
    assert found["Service/postgres"]["spec"]["ports"] == [{"port": 80, "targetPort": "http"}]


def test_it_starts_before_the_init_containers_that_were_there(overlay: Overlay) -> None:
    found = overlay(deployment("shop", initContainers=[{"name": "migrate", "image": "shop"}]))
    assert containers(found["Deployment/shop"]) == (["jwt-sidecar", "migrate"], ["shop"])


def test_volumes_that_were_there_stay(overlay: Overlay) -> None:
    found = overlay(deployment("shop", volumes=[{"name": "uploads", "emptyDir": {}}]))
    volumes = found["Deployment/shop"]["spec"]["template"]["spec"]["volumes"]
    assert {volume["name"] for volume in volumes} == {"jwt-sidecar", "uploads"}


def test_a_plain_container_comes_last_and_leaves_other_init_containers_alone(overlay: Overlay) -> None:
    found = overlay(
        deployment("shop", initContainers=[{"name": "migrate", "image": "shop"}]),
        components=("component", "plain-container"),
    )
    assert containers(found["Deployment/shop"]) == (["migrate"], ["shop", "jwt-sidecar"])


def test_another_configuration_is_another_configmap(kustomize: Kustomize, overlay: Overlay, tmp_path: Path) -> None:
    def name(found: dict[str, dict[str, Any]]) -> str:
        return str(found["Deployment/shop"]["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"])

    first = overlay(deployment("shop"))
    (tmp_path / "config.yaml").write_text("issuers: {other: {}}\n")
    second = {f"{item['kind']}/{item['metadata']['name']}": item for item in kustomize(tmp_path)}

    assert name(first) != name(second)
    assert {f"ConfigMap/{name(first)}"} <= first.keys()
    assert {f"ConfigMap/{name(second)}"} <= second.keys()
