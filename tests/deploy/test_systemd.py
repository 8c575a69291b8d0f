"""deploy/systemd: systemd reads the unit, and finds it well locked down."""

import subprocess
from pathlib import Path

from tests.conftest import Need
from tests.deploy.conftest import DEPLOY

UNIT = DEPLOY / "systemd" / "jwt-sidecar.service"


def test_systemd_accepts_the_unit(need: Need, tmp_path: Path) -> None:
    program = tmp_path / "jwt-sidecar"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/jwt-sidecar/bin/jwt-sidecar", str(program)))

    command = [need("systemd-analyze"), "verify", "--man=no", str(unit)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)

    assert [
        line for line in done.stdout.splitlines() if UNIT.name in line
    ] == []  # other lines are about other units of this machine
    assert done.returncode == 0


def test_systemd_rates_the_unit_below_15_of_100(need: Need) -> None:
    command = [need("systemd-analyze"), "security", "--offline=true", "--threshold=15", str(UNIT)]  # of 100
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stdout
