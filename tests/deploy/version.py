"""`python -m tests.deploy.version` writes the version of pyproject.toml wherever else one stands: images, charts, pages."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
NUMBER = r"[0-9]+\.[0-9]+\.[0-9]+(?:[a-z]+[0-9]+)?"
PLACES = {
    "deploy/Dockerfile": rf"(?:jwt-sidecar:|ARG VERSION=)({NUMBER})",
    "deploy/README.md": rf"jwt-sidecar:({NUMBER})",
    "deploy/compose.yaml": rf"image: jwt-sidecar:({NUMBER})",
    "deploy/helm/demo/Chart.yaml": rf"name: jwt-sidecar\n    version: ({NUMBER})",
    "deploy/helm/jwt-sidecar/Chart.yaml": rf"(?:version|appVersion): ({NUMBER})",
    "deploy/helm/jwt-sidecar/values.yaml": rf"tag: ({NUMBER})",
    "deploy/kustomize/component/sidecar.yaml": rf"image: jwt-sidecar:({NUMBER})",
    "deploy/kustomize/examples/everything/kustomization.yaml": rf"newTag: ({NUMBER})",
    "docs/start/kubernetes.md": rf"(?:jwt-sidecar:|jwt-sidecar, version: )({NUMBER})",
}


def found(place: str) -> list[str]:
    """The versions that a file names."""
    return re.findall(PLACES[place], (ROOT / place).read_text())


def write() -> None:
    """The one version everywhere."""
    for place, pattern in PLACES.items():
        file = ROOT / place
        text = re.sub(pattern, lambda match: match[0].replace(match[1], VERSION), file.read_text())
        file.write_text(text)


if __name__ == "__main__":
    write()
