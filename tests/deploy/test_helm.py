"""The charts: lint, and what values.schema.json refuses."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import Need
from tests.deploy.conftest import CI_VALUES, Tool
from tests.deploy.tools import BIN, CURE


@pytest.mark.parametrize("values", CI_VALUES)
def test_helm_lint_finds_nothing(values: str, tool: Tool, demo: Path) -> None:
    assert "0 chart(s) failed" in tool("helm", "lint", "--strict", str(demo), "--values", str(demo / "ci" / values))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("config: []", "/config"),
        ("config: {issuers: {zuplo: null}}", "/config"),
        ("config: {upstream: null}", "upstream"),
        ("config: {listen: '0.0.0.0:80'}", "/config/listen"),
        ("config: {listen: []}", "/config/listen"),
        ("imagee: {}", "imagee"),
        ("image: {digest: latest}", "/image/digest"),
        ("resources: {limits: {memory: null}}", "/resources/limits"),
        ("resources: {requests: null}", "/resources"),
        ("volumeMounts: [{name: a, mountPath: /a, subPath: b}]", "/volumeMounts/0"),
        ("native: 'no'", "/native"),
        ("openshift: 'yes'", "/openshift"),
        ("podMonitor: {interval: 30}", "/podMonitor/interval"),
        ("prometheusRule: {labels: [release]}", "/prometheusRule/labels"),
    ],
)
def test_invalid_values_are_refused_by_the_schema(
    wrong: str, said: str, need: Need, demo: Path, tmp_path: Path
) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"jwt-sidecar": yaml.safe_load(wrong)}))
    command = [need(str(BIN / "helm"), CURE), "template", "shop", str(demo), "--values", str(file)]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode != 0
    assert "don't meet the specifications of the schema" in done.stderr
    assert said in done.stderr


def test_two_releases_in_one_namespace_share_no_object_and_no_pod(tool: Tool, demo: Path) -> None:
    values = str(demo / "ci" / "everything-values.yaml")
    one, other = (
        [item for item in yaml.safe_load_all(tool("helm", "template", name, str(demo), "--values", values)) if item]
        for name in ("orders", "shop")
    )
    names = [{(item["kind"], item["metadata"]["name"]) for item in items} for items in (one, other)]
    assert names[0] & names[1] == set()
    assert ("ConfigMap", "orders-demo-jwt-sidecar") in names[0]
    labels = next(item for item in one if item["kind"] == "Deployment")["spec"]["template"]["metadata"]["labels"]
    specs = [item["spec"] for item in other if "spec" in item and item["kind"] != "PrometheusRule"]
    selectors = [spec.get("podSelector") or spec["selector"] for spec in specs]
    assert len(selectors) == 5
    for selector in selectors:
        assert not selector.get("matchLabels", selector).items() <= labels.items()
