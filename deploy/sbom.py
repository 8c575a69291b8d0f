"""The bill of materials of the image (CycloneDX 1.6), and what scanners read there: dpkg's status of each package that it holds.

`python3 sbom.py ROOTFS VERSION`, in the build stage, where the packages are installed. Only the standard library.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path

SBOM = "usr/share/sbom/jwt-sidecar.cdx.json"
STATUS = "var/lib/dpkg/status.d"  # one file a package, as images without dpkg have it
RELEASE = "etc/os-release"


def debian_packages(rootfs: Path) -> list[dict[str, str]]:
    """The packages whose files were copied: name, version, architecture, and the paragraph of dpkg's status."""
    files = [path.relative_to(rootfs) for path in rootfs.rglob("*") if not path.is_dir() and "opt" not in path.parts]
    spelled = sorted({f"/{file}" for file in files} | {os.path.realpath(f"/{file}") for file in files})
    # Some files are in no package; dpkg-query exits with 1 for them.
    listed = subprocess.run(["dpkg-query", "--search", *spelled], capture_output=True, text=True, check=False)
    owners = {owner for line in listed.stdout.splitlines() for owner in line.partition(": ")[0].split(", ")}
    owners.add("ca-certificates")  # its bundle is made from its other files at the installation
    return [_status(owner) for owner in sorted(owners) if not owner.startswith("diversion")]


def _status(name: str) -> dict[str, str]:
    text = subprocess.run(["dpkg-query", "--status", name], capture_output=True, text=True, check=True).stdout
    fields = dict(re.findall(r"^(Package|Version|Architecture|Source): (.*)$", text, re.MULTILINE))
    return fields | {"Status": text}


def python_packages(rootfs: Path) -> list[Distribution]:
    """What is installed beside the interpreter."""
    places = [str(path) for path in (rootfs / "opt").rglob("site-packages")]
    return sorted(distributions(path=places), key=lambda found: found.name.lower())


def components(debian: list[dict[str, str]], python: list[Distribution]) -> Iterator[dict[str, object]]:
    """Each package with the purl by which scanners know it."""
    suite = re.search(r'VERSION_ID="?([0-9]+)', Path("/", RELEASE).read_text())
    distro = f"debian-{suite[1]}" if suite else "debian"
    for fields in debian:
        name, version = fields["Package"], fields["Version"]
        place = f"pkg:deb/debian/{name}@{version.replace(':', '%3A').replace('+', '%2B')}"
        yield _component(name, version, f"{place}?arch={fields['Architecture']}&distro={distro}")
    for found in python:
        name = re.sub("[-_.]+", "-", found.name).lower()
        licenses = found.metadata.get_all("License-Expression", [])
        yield _component(name, found.version, f"pkg:pypi/{name}@{found.version}", licenses)


def _component(name: str, version: str, purl: str, licenses: Sequence[str] = ()) -> dict[str, object]:
    told = {"licenses": [{"expression": one} for one in licenses]} if licenses else {}
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, **told}


def main(rootfs: Path, version: str) -> None:
    """Write all of it into the file system of the image."""
    debian, python = debian_packages(rootfs), python_packages(rootfs)
    product = {"type": "container", "bom-ref": "image", "name": "jwt-sidecar", "version": version}
    listed = list(components(debian, python))
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": product},
        "components": listed,
        "dependencies": [{"ref": "image", "dependsOn": [component["bom-ref"] for component in listed]}],
    }
    _write(rootfs / SBOM, json.dumps(bom, indent=1) + "\n")
    for fields in debian:
        _write(rootfs / STATUS / fields["Package"], fields["Status"])
    _write(rootfs / RELEASE, Path("/", RELEASE).read_text())


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
