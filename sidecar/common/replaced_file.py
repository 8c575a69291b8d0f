"""How a file is replaced: whole or not at all, whoever reads it meanwhile."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def replace(path: Path, content: bytes, *, precious: bool) -> None:
    """Exchange a file for one that is for its owner alone. Raises OSError.

    `precious`: it keeps the mode and the owner of the one before, and is on the disk when this returns, which may take a while.
    """
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # its mode is 0600
    try:
        with open(number, "wb") as file:
            if precious and path.exists():
                before = path.stat()
                os.fchown(number, before.st_uid, before.st_gid)
                os.fchmod(number, before.st_mode & 0o777)
            file.write(content)
            if precious:
                file.flush()
                os.fsync(number)
        os.replace(name, path)
    except OSError:
        with suppress(OSError):
            os.unlink(name)
        raise
