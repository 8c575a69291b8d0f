"""Programs that are installed on the machine."""

import shutil
import subprocess

from benchmarks.peers import Missing


def find(program: str) -> str:
    """Its path; also where only root's PATH leads. Raises `Missing`."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Missing(f"{program} is not installed")
    return found


def first_line(*argv: str) -> str:
    """The first line that a command prints, on whichever stream."""
    run = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return run.stdout.partition("\n")[0].strip()
