"""A short form of `make fuzz-config`: files that are nearly right end no process and cause no traceback."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_files_that_are_nearly_right_are_refused_or_used() -> None:
    """In a process of its own, which has no network."""
    command = [sys.executable, "-m", "tests.proofs.config_fuzz", "--cases", "600", "--seed", "short"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "600 cases" in done.stdout
