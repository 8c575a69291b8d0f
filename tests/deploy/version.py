"""The version and the addresses of pyproject.toml, wherever else they stand.

`python -m tests.deploy.version` writes them into images, charts and pages. `python -m tests.deploy.version v0.2.0` says what is
missing for a release with this tag.
"""

import re
import sys
import tomllib
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSION: str = PROJECT["version"]
SOURCE: str = PROJECT["urls"]["Source"]
MAIL: str = PROJECT["maintainers"][0]["email"]
NUMBER = r"[0-9]+\.[0-9]+\.[0-9]+(?:[a-z]+[0-9]+)?"
PLACES = [  # a file, a pattern whose group stands for the value, the value
    ("SECURITY.md", r"<(\S+)/security/advisories/new>", SOURCE),
    ("SECURITY.md", r"<(\S+@\S+)>", MAIL),
    ("deploy/Dockerfile", rf"(?:jwt-sidecar:|ARG VERSION=)({NUMBER})", VERSION),
    ("deploy/README.md", rf"jwt-sidecar:({NUMBER})", VERSION),
    ("deploy/compose.yaml", rf"image: jwt-sidecar:({NUMBER})", VERSION),
    ("deploy/helm/demo/Chart.yaml", rf"name: jwt-sidecar\n    version: ({NUMBER})", VERSION),
    ("deploy/helm/jwt-sidecar/Chart.yaml", rf"(?:version|appVersion): ({NUMBER})", VERSION),
    ("deploy/helm/jwt-sidecar/values.yaml", rf"tag: ({NUMBER})", VERSION),
    ("deploy/kustomize/component/sidecar.yaml", rf"image: jwt-sidecar:({NUMBER})", VERSION),
    ("deploy/kustomize/examples/everything/kustomization.yaml", rf"newTag: ({NUMBER})", VERSION),
    ("docs/start/kubernetes.md", rf"(?:jwt-sidecar:|jwt-sidecar, version: )({NUMBER})", VERSION),
]


def write() -> None:
    """Write each value into its places."""
    for place, pattern, value in PLACES:
        file = ROOT / place
        file.write_text(re.sub(pattern, partial(_replaced, value), file.read_text()))


def _replaced(value: str, match: re.Match[str]) -> str:
    return match[0].replace(match[1], value)


def missing(tag: str, version: str, addresses: str, changelog: str) -> list[str]:
    """Sentences that say what a release with this tag lacks."""
    newest = next((line for line in changelog.splitlines() if line.startswith("## ")), "")
    problems = {
        f"The tag is {tag}, the version in pyproject.toml is {version}.": tag != f"v{version}",
        f"CHANGELOG.md begins with {newest!r}. Write ## [{version}] - and the date.": not re.fullmatch(
            rf"## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d", newest
        ),
        "pyproject.toml names no owner. Replace YOUR-ORGANISATION, then run python -m tests.deploy.version.": (
            "YOUR-ORGANISATION" in addresses
        ),
    }
    return [problem for problem, true in problems.items() if true]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit("\n".join(missing(sys.argv[1], VERSION, SOURCE + MAIL, (ROOT / "CHANGELOG.md").read_text())) or None)
    write()
