"""Proofs that take too long for `make test`: plain programs; the last line is PASS or FAIL, and the exit code says the same."""

import hashlib
from importlib.metadata import version
from pathlib import Path
from platform import python_version

import sidecar


def subject(package: Path = Path(sidecar.__file__).parent) -> str:
    """The subject of a proof: the versions, a digest of the sources that it ran, and whether they were compiled."""
    files = sorted(package.rglob("*.py"))
    sources = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
    names = ("jwt-sidecar", "aiohttp", "uvloop")
    compiled = ", compiled" if any(package.rglob("*.so")) else ""
    return f"{', '.join(f'{name} {version(name)}' for name in names)}, Python {python_version()}, sources {sources}{compiled}"


def verdict(failures: int) -> int:
    """Print the result. Return the exit code."""
    print("FAIL" if failures else "PASS", flush=True)
    return 1 if failures else 0
