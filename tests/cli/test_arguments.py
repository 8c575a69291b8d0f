"""The arguments of the command: its version, and completion in a shell."""

import subprocess

import pytest

from sidecar.cli.main import main

Said = pytest.CaptureFixture[str]


def test_the_version_is_printed(capsys: Said) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("jwt-sidecar 0.")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete_the_commands(shell: str, capsys: Said) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "undrain" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
