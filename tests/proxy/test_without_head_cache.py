"""Remembered heads and lines make no difference: the wire tests pass without them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

WIRE = ("test_wire.py", "test_wire_answers.py", "test_equal_heads.py", "test_pipelining.py")


@pytest.mark.parametrize("file", WIRE)
def test_the_wire_tests_pass_without_remembered_heads(file: str) -> None:
    path = str(Path(__file__).with_name(file))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", path]
    run = subprocess.run(command, env={**os.environ, "JWT_SIDECAR_FORGETFUL": "1"}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-4000:]
