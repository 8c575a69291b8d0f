"""Reads files of operators. A FIFO or a device could be read for ever, and everybody would wait."""

import errno
import os
import stat
from pathlib import Path

from sidecar.common.errors import Unusable

MOST_BYTES = 1024 * 1024  # of a file with keys, a secret or a token


def content(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """The bytes of a regular file. Raises OSError, also for another kind of file, or a larger one."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        _check(os.fstat(descriptor).st_mode)
        with open(descriptor, "rb", closefd=False) as file:
            found = file.read(most_bytes + 1)
    finally:
        os.close(descriptor)
    if len(found) > most_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {most_bytes // 1024**2} MiB")
    return found


def check_regular(path: Path) -> None:
    """Raises Unusable for anything but a regular file. A file that cannot be found is left to its reader."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    try:
        _check(mode)
    except OSError as error:
        raise Unusable(f"{path}: cannot be read: {error.strerror}") from None


def _check(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
