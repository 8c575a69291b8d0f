"""`make release-check`: builds the release from the committed files alone, and tries it like a new user.

The source distribution and the pure wheel are built in an empty environment; the wheel once more from the source distribution,
which has to give the same files. Then, on every Python from 3.11 that is here: a new environment, the lock, the wheel, and
README's commands in an empty directory. Compiled wheels in dist/ (`make wheel` makes one) are tried on their interpreter.
"""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.deploy.version import ROOT, VERSION

DIST = ROOT / "dist"
OLDEST = (3, 11)
PATIENCE_S = 60.0
BUILD = "from setuptools import build_meta; print(build_meta.{}({!r}))"


def said(*command: str | Path, cwd: Path = ROOT, code: int = 0, **environ: str) -> str:
    """The output of a command on stdout and stderr. It must end with this code."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != code:
        sys.exit(f"{' '.join(map(str, command))}: ended with {done.returncode}\n{done.stdout[-3000:]}")
    return done.stdout


def environment(python: Path | str, directory: Path, *locks: str) -> Path:
    """A new virtual environment with what the locks name; its bin."""
    said(python, "-m", "venv", directory)
    quietly = ["--quiet", "--disable-pip-version-check", "--no-deps"]
    pip: list[str | Path] = [directory / "bin/python", "-m", "pip", "install", *quietly]
    for lock in locks:
        said(*pip, "--require-hashes", "-r", ROOT / lock)
    return directory / "bin"


def build(work: Path) -> list[Path]:
    """The source distribution and the pure wheel, in dist/."""
    source = work / "source"
    source.mkdir()
    committed = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    subprocess.run(["tar", "-x"], cwd=source, input=committed.stdout, check=True)
    python = environment(sys.executable, work / "build", "deploy/requirements-build.txt") / "python"
    DIST.mkdir(exist_ok=True)
    said(python, "-c", BUILD.format("build_sdist", str(DIST)), cwd=source)
    said(python, "-c", BUILD.format("build_wheel", str(DIST)), cwd=source)
    sdist, wheel = DIST / f"jwt_sidecar-{VERSION}.tar.gz", DIST / f"jwt_sidecar-{VERSION}-py3-none-any.whl"
    unpacked, again = work / "unpacked", work / "again"
    unpacked.mkdir()
    said("tar", "-xzf", sdist, "-C", unpacked, "--strip-components=1")
    said(python, "-c", BUILD.format("build_wheel", str(again)), cwd=unpacked)
    assert files(again / wheel.name) == files(wheel), "the source distribution makes another wheel"
    assert all(name.startswith(("sidecar/", f"jwt_sidecar-{VERSION}.dist-info/")) for name in files(wheel))
    assert {"sidecar/app/admin/static/index.html", f"jwt_sidecar-{VERSION}.dist-info/licenses/LICENSE"} <= files(
        wheel
    ).keys()
    return [sdist, wheel]


def files(wheel: Path) -> dict[str, bytes]:
    """Name -> content."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pythons() -> Iterator[Path]:
    """Every interpreter from 3.11 on that is here, one of each minor version."""
    seen: set[tuple[int, int]] = set()
    places = [Path(place) for place in os.environ["PATH"].split(":")]
    places += sorted(Path.home().glob(".pyenv/versions/*/bin"))
    asked = "import sys; print(sys.version_info[0], sys.version_info[1], sys.prefix == sys.base_prefix)"
    for place in places:
        for python in sorted(place.glob("python3.[0-9]*")):
            if not re.fullmatch(r"python3\.\d+", python.name):
                continue
            done = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=False)
            major, minor, real = (done.stdout.split() or ["0", "0", "False"])[:3]
            version = int(major), int(minor)
            if done.returncode == 0 and real == "True" and version >= OLDEST and version not in seen:
                seen.add(version)
                yield python


def fits(wheel: Path, python: Path) -> bool:
    """Is it for this interpreter?"""
    tag = python.name.replace("python", "cp").replace(".", "")
    return wheel.name.endswith("-py3-none-any.whl") or f"-{tag}-" in wheel.name


def free_ports(number: int) -> list[int]:
    """Ports that nobody has now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def smoke(bin_: Path, directory: Path) -> None:
    """README's commands, in an empty directory with nothing of this checkout but config.minimal.yaml."""
    program = bin_ / "jwt-sidecar"
    assert said(program, "--version", cwd=directory).split()[1] == VERSION
    minimal = (ROOT / "config.minimal.yaml").read_text()
    (directory / "my.yaml").write_text(minimal)
    said(program, "check", "-c", "my.yaml", cwd=directory)
    explained = said(program, "explain", "-c", "my.yaml", "--path", "/public/x", cwd=directory)
    assert "auth none" in explained, explained
    for port, free in zip(("8080", "8081", "9400", "9292"), free_ports(4), strict=True):
        minimal = minimal.replace(f":{port}", f":{free}")
    (directory / "config.yaml").write_text(f"{minimal}admin: {{listen: 127.0.0.1:0}}\n")
    log = directory / "dev.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "dev", "-c", "config.yaml"], cwd=directory, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        until = time.monotonic() + PATIENCE_S
        while not (lines := re.findall(r'curl -i -H "Authorization: Bearer (\S+)" (\S+)', log.read_text())):
            if process.poll() is not None or time.monotonic() > until:
                sys.exit(log.read_text())
            time.sleep(0.05)
        token, url = lines[0]
        with urlopen(Request(url, headers={"Authorization": f"Bearer {token}"}), timeout=10) as answer:
            assert b"Access granted" in answer.read()
        try:
            urlopen(url, timeout=10)
            code, text = 200, b""
        except HTTPError as error:
            code, text = error.code, error.read()
        assert (code, b"token_missing" in text) == (401, True)
    finally:
        process.terminate()
    assert process.wait(PATIENCE_S) == 0, log.read_text()


def main() -> None:
    """Build, and try on every interpreter."""
    with tempfile.TemporaryDirectory(prefix="release-") as name:
        work = Path(name)
        for built in build(work):
            print(f"{built.name}: {built.stat().st_size / 1000:.0f} kB", flush=True)
        tried = 0
        for python in pythons():
            for wheel in [wheel for wheel in sorted(DIST.glob(f"*-{VERSION}-*.whl")) if fits(wheel, python)]:
                directory = work / f"{python.name}-{tried}"
                directory.mkdir()
                bin_ = environment(python, directory / "venv", "requirements.txt")
                said(
                    bin_ / "python",
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                    "--no-deps",
                    wheel,
                )
                (directory / "here").mkdir()
                smoke(bin_, directory / "here")
                tried += 1
                print(f"{python.name}: {wheel.name} installs, checks, explains, serves, refuses and ends", flush=True)
        assert tried


if __name__ == "__main__":
    main()
