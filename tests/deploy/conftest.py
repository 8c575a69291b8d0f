"""Renders every combination of deploy/ with the programs that cluster operators use."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Need
from tests.deploy.tools import BIN, CURE

DEPLOY = Path(__file__).parents[2] / "deploy"
OVERLAYS = sorted(path.parent.name for path in DEPLOY.glob("kustomize/examples/*/kustomization.yaml"))
CI_VALUES = sorted(path.name for path in DEPLOY.glob("helm/demo/ci/*-values.yaml"))

Manifests = list[dict[str, Any]]
Tool = Callable[..., str]


@pytest.fixture(scope="session")
def tool(need: Need) -> Tool:
    """``tool("helm", "lint", ...)``: the output of the program, which must exit with 0."""

    def run(program: str, *arguments: str) -> str:
        command = [need(str(BIN / program), CURE), *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


@pytest.fixture(scope="session")
def demo(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo chart with its dependency, in a new directory."""
    charts = tmp_path_factory.mktemp("charts") / "helm"
    shutil.copytree(DEPLOY / "helm", charts)
    tool("helm", "dependency", "build", str(charts / "demo"))
    return charts / "demo"


@pytest.fixture(scope="session")
def kustomize(tool: Tool) -> Callable[[Path], Manifests]:
    """``kustomize(directory)``: the manifests that `kubectl kustomize` makes of it."""
    return lambda directory: list(yaml.safe_load_all(tool("kubectl", "kustomize", str(directory))))


@pytest.fixture(scope="session")
def helm(tool: Tool, demo: Path) -> Callable[[Path], Manifests]:
    """``helm(values)``: the manifests of the demo chart with a file of values."""

    def render(values: Path) -> Manifests:
        rendered = tool("helm", "template", "shop", str(demo), "--values", str(values))
        return [manifest for manifest in yaml.safe_load_all(rendered) if manifest]

    return render


@pytest.fixture(scope="session")
def renderings(
    kustomize: Callable[[Path], Manifests], helm: Callable[[Path], Manifests], demo: Path
) -> dict[str, Manifests]:
    """All shipped overlays and values, rendered."""
    overlays = {name: kustomize(DEPLOY / "kustomize" / "examples" / name) for name in OVERLAYS}
    return overlays | {name: helm(demo / "ci" / name) for name in CI_VALUES}
