"""`make image-test`: the image, built without a registry and run as Pod Security "restricted" would have it.

Backend and sidecar are two containers that share one loopback and have no other network. Needs root, the Debian packages
debootstrap, buildah, podman and runc, and a mirror of Debian; what it builds stays in `build/image` for the next time.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sidecar.cli.dev.issuer import Issuer
from sidecar.gateway.signing_key import key_set

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "image"
BASE = "localhost/debian:trixie-slim"
IMAGE = "localhost/jwt-sidecar:test"
AGAIN = "localhost/jwt-sidecar:again"
EPOCH = 1767225600
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
PACKAGES = ("debootstrap", "buildah", "podman", "runc")
LARGEST_MB = 85
UNWANTED = {"sh", "bash", "dash", "busybox", "apt", "pip", "perl", "gcc", "cc", "as", "ld"}
STORES = ["--root", str(BUILD / "storage"), "--runroot", str(BUILD / "run")]
BUILDAH = ["buildah", *STORES]
PODMAN = ["podman", *STORES, "--runtime", "runc", "--cgroup-manager", "cgroupfs"]
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")  # those that this machine reaches its package index under
# The ulimits, because a machine may not be allowed to raise them to podman's defaults.
RESTRICTED = [
    *("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--user", "65532:65532"),
    *("--memory", "256m", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"),
]
AUTHORITIES_INSIDE = (
    "from sidecar.common.tls import system_context as trusted; print(trusted().cert_store_stats()['x509_ca'])"
)
REQUESTS = 2000
PATIENCE_S = 30


def said(*command: str, **options: Any) -> str:
    """The output of a command, which must succeed."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=False, **options
    )
    if done.returncode:
        sys.exit(f"{' '.join(command[:3])} ... failed with {done.returncode}:\n{done.stdout[-2000:]}")
    return done.stdout.strip()


def build() -> None:
    """The base, if it is not there from the last time, and the image."""
    BUILD.mkdir(parents=True, exist_ok=True)
    environ = os.environ | {"TMPDIR": str(BUILD)}
    if BASE not in said(*BUILDAH, "images", "--format", "{{.Name}}:{{.Tag}}"):
        shutil.rmtree(BUILD / "base", ignore_errors=True)
        said("debootstrap", "--variant=minbase", "trixie", str(BUILD / "base"))
        said("tar", "-C", str(BUILD / "base"), "-cf", str(BUILD / "base.tar"), ".")
        container = said(*BUILDAH, "from", "scratch")
        said(*BUILDAH, "add", container, str(BUILD / "base.tar"), "/", env=environ)
        said(*BUILDAH, "commit", "--quiet", container, BASE, env=environ)
    (BUILD / "pip.conf").write_text("[global]\ncert = /machine.crt\n")
    volumes = [f"--volume={AUTHORITIES}:/machine.crt:ro", f"--volume={BUILD}/pip.conf:/etc/pip.conf:ro"]
    ignored = ["--ignorefile", "deploy/Dockerfile.dockerignore", "--file", "deploy/Dockerfile"]
    arguments = ["--isolation=chroot", "--pull-never", "--no-cache", f"--build-arg=BASE={BASE}", *volumes, *ignored]
    arguments += [f"--build-arg=VERSION={VERSION}", "--build-arg=REVISION=test", f"--timestamp={EPOCH}"]
    for tag in (IMAGE, AGAIN):
        said(*BUILDAH, "build", *arguments, "--tag", tag, ".", cwd=ROOT, env=environ)


def digest(image: str) -> str:
    """Of the layers: the same for the same files."""
    return said(*BUILDAH, "inspect", "--type", "image", "--format", "{{.OCIv1.RootFS.DiffIDs}}", image)


def told(root: Path) -> int:
    """The scanners' results: the system, Debian's packages, Python's, and a bill of all of them. Returns their number."""
    assert "VERSION_CODENAME=trixie" in (root / "etc/os-release").read_text()
    debian = {path.name for path in (root / "var/lib/dpkg/status.d").iterdir()}
    assert {"libc6", "libssl3t64", "libstdc++6", "libpython3.13-stdlib", "ca-certificates"} <= debian, debian
    bom = json.loads((root / "usr/share/sbom/jwt-sidecar.cdx.json").read_text())
    names = {component["name"] for component in bom["components"]}
    assert debian | {"aiohttp", "cryptography", "google-re2", "python-jose", "jwt-sidecar"} <= names
    assert not {"ecdsa", "rsa", "pyasn1", "six"} & names  # docs/project/python-jose.md
    assert all(component["purl"].startswith(("pkg:deb/debian/", "pkg:pypi/")) for component in bom["components"])
    assert bom["metadata"]["component"]["version"] == VERSION
    return len(names)


def unpacked() -> tuple[int, int]:
    """Bytes of all files in the image, and how many packages it tells of.

    No file is a shell, a package manager, a compiler or a header, and each Python module has its bytecode."""
    container = said(*BUILDAH, "from", "--pull-never", IMAGE)
    root = Path(said(*BUILDAH, "mount", container))
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not UNWANTED & {path.name for path in files}
    assert [path for path in files if path.suffix in (".c", ".h")] == []
    modules = [path for path in files if path.suffix == ".py" and path.parent.name not in ("bin", "__pycache__")]
    assert len(modules) > 500
    assert [module for module in modules if not bytecode(module).exists()] == []
    size = sum(path.stat().st_size for path in files)
    packages = told(root)
    said(*BUILDAH, "rm", container)
    return size, packages


def bytecode(module: Path) -> Path:
    return module.parent / "__pycache__" / f"{module.stem}.cpython-313.pyc"


@contextmanager
def pod(directory: Path) -> Iterator[dict[str, Any]]:
    """The backend, then the sidecar in its network. What `podman inspect` says of the sidecar, and when it was asked for."""
    backend = ["--name", "backend", "--network", "none", f"--volume={ROOT}/deploy/examples/python:/app:ro"]
    sidecar = ["--name", "jwt-sidecar", "--network", "container:backend", f"--volume={directory}:/etc/jwt-sidecar:ro"]
    python = "/opt/jwt-sidecar/bin/python"
    try:
        said(*PODMAN, "run", "--detach", *RESTRICTED, *backend, "--entrypoint", python, IMAGE, "/app/backend.py")
        network = of("backend")["State"]["Pid"]
        waiting = subprocess.Popen(within(network, "wait"), stdout=subprocess.PIPE, text=True, cwd=ROOT)
        said(*PODMAN, "run", "--detach", *RESTRICTED, *sidecar, IMAGE)
        ready, _ = waiting.communicate()
        if not ready:
            sys.exit(
                f"it was not ready within {PATIENCE_S} s:\n{said(*PODMAN, 'logs', 'jwt-sidecar', stderr=subprocess.STDOUT)}"
            )
        yield {"network": network, "ready": float(ready), "sidecar": of("jwt-sidecar")}
    finally:
        subprocess.run(
            [*PODMAN, "rm", "--force", "--ignore", "--depend", "--time", "0", "backend"], stdout=subprocess.DEVNULL
        )


def of(name: str) -> dict[str, Any]:
    [inspected] = json.loads(said(*PODMAN, "inspect", name))
    assert isinstance(inspected, dict)
    return inspected


def within(network: int, *arguments: str) -> list[str]:
    """This module, in the network of a container."""
    return ["nsenter", "--net", "--target", str(network), sys.executable, "-m", "tests.deploy.image", *arguments]


def restricted(process: int) -> dict[str, str]:
    """The kernel's status of the process."""
    lines = (line.partition(":\t") for line in Path(f"/proc/{process}/status").read_text().splitlines())
    status = {name: value.strip() for name, _, value in lines}
    assert status["Uid"].split() == ["65532"] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    mounts = [line.split() for line in Path(f"/proc/{process}/mountinfo").read_text().splitlines()]
    assert [mount[5].split(",")[0] for mount in mounts if mount[4] == "/"] == ["ro"]
    return status


def main() -> None:
    """Build, look inside, run, ask, drain; print the figures."""
    missing = [package for package in PACKAGES if shutil.which(package) is None]
    if missing or os.geteuid() != 0:
        sys.exit(f"needs root and the Debian packages {' '.join(PACKAGES)}; missing: {' '.join(missing) or 'root'}")
    build()
    size, packages = unpacked()
    assert digest(IMAGE) == digest(AGAIN), "two builds of the same sources are not the same"
    labels = json.loads(said(*BUILDAH, "inspect", "--type", "image", IMAGE))["OCIv1"]["config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == VERSION
    issuer = Issuer("https://issuer.test", audience="api")
    directory = BUILD / "config"
    directory.mkdir(exist_ok=True)
    trusted = {"issuer": issuer.issuer, "audiences": ["api"], "jwks_file": "keys.json"}
    (directory / "keys.json").write_text(json.dumps(key_set(issuer.keys)))
    settings = {"issuers": {"main": trusted}, "upstream": "http://127.0.0.1:9292"}
    (directory / "config.yaml").write_text(json.dumps(settings))
    with pod(directory) as running:
        process = running["sidecar"]["State"]["Pid"]
        started = time_of(running["sidecar"]["State"]["StartedAt"])
        idle = restricted(process)["VmRSS"]
        ticks = sum(map(int, Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]))
        said(*within(running["network"], "ask", issuer.mint("RS256", sub="user-1")), cwd=ROOT)
        after = restricted(process)["VmRSS"]
        authorities = int(said(*PODMAN, "exec", "jwt-sidecar", "/opt/jwt-sidecar/bin/python", "-c", AUTHORITIES_INSIDE))
        assert authorities > 100, f"{authorities} certificate authorities"
        version = said(*PODMAN, "exec", "jwt-sidecar", "jwt-sidecar", "--version")
        assert re.fullmatch(rf"jwt-sidecar {re.escape(VERSION)} \(Python 3[.]13[.]\d+, compiled\)", version), version
        said(*PODMAN, "exec", "jwt-sidecar", "jwt-sidecar", "drain", "-c", "/etc/jwt-sidecar/config.yaml")
        said(*PODMAN, "stop", "--time", "45", "jwt-sidecar")
        exit_code = of("jwt-sidecar")["State"]["ExitCode"]
        assert exit_code == 0, exit_code
    print(version)
    print(f"unpacked: {size / 1e6:.1f} MB in one layer, no shell; {packages} packages in its bill of materials")
    print(f"two builds in a row: the same layer, {digest(IMAGE)}")
    print(f"authorities that vouch for https issuers: {authorities}")
    print(f"container start to /readyz 200: {(running['ready'] - started) * 1000:.0f} ms")
    print(f"processor time by then: {ticks / os.sysconf('SC_CLK_TCK') * 1000:.0f} ms")
    print(f"resident memory: {idle} at rest, {after} after {REQUESTS} requests")
    print(
        "uid 65532, no capability, no new privileges, seccomp, read-only root, 256 MiB: as Pod Security restricted has it"
    )
    for package in ("buildah", "podman", "runc"):
        print(said(package, "--version").splitlines()[0])
    assert size < LARGEST_MB * 1e6, f"larger than {LARGEST_MB} MB"


def time_of(text: str) -> float:
    """2026-11-23 18:00:00.123456789 +0000 UTC, or ISO 8601 -> seconds since 1970."""
    return float(said("date", "--date", text.removesuffix(" UTC"), "+%s.%N"))


def wait() -> None:
    """Print the time at which the sidecar is ready, or nothing."""
    from http.client import HTTPConnection

    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        connection = HTTPConnection("127.0.0.1", 8081)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                print(time.time())
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.005)


def ask(token: str) -> None:
    """The backend is reached with a good token, with its claims; and without one not at all."""
    from http.client import HTTPConnection

    connection = HTTPConnection("127.0.0.1", 8080)
    for number in range(REQUESTS):
        good = number % 10 > 0
        connection.request("GET", "/protected", headers={"Authorization": f"Bearer {token}"} if good else {})
        answer = connection.getresponse()
        body = json.load(answer)
        if good:
            assert (answer.status, body["sub"], body["user"]["sub"]) == (200, "user-1", "user-1"), body
        else:
            assert (answer.status, body["code"]) == (401, "token_missing"), body


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["wait"]:
            wait()
        case ["ask", token]:
            ask(token)
        case _:
            main()
