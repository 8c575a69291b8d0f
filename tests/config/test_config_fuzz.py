"""A short form of `make fuzz-config`: nearly valid files end no process and cause no traceback."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_nearly_valid_files_are_refused_or_used() -> None:
    """It runs in a separate process without network."""
    command = [sys.executable, "-m", "tests.proofs.config_fuzz", "--cases", "600", "--seed", "short"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "600 cases" in done.stdout
