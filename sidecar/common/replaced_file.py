"""Replaces a file atomically, so that no reader sees a part of it."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def replace(path: Path, content: bytes, *, precious: bool) -> None:
    """Replace a file by one that only its owner may read. Raises OSError.

    `precious`: keep the mode and the owner of the previous file, and return only after the disk has the new one, which takes
    longer.
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
