"""A file that the sidecar reads again when it changes. Bad content never replaces good content."""

import asyncio
import errno
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from sidecar.common.errors import Unusable, unforeseen

POLL_S = 5.0  # between two checks of the file
SMALL_BYTES = 64 * 1024  # a file up to this size is read on the loop: a thread would take longer to start

log = logging.getLogger("sidecar.followed")

Content = TypeVar("Content")
Stamp = tuple[int, int, int]


class FollowedFile(Generic[Content]):
    """`value` is the last good content, as `read` parsed it. `problem` says why the file cannot be used now, or is None.

    `read` gets the bytes and the previous value (None at first); it raises ValueError with a text that may be logged. `secret`:
    log a warning when other users may read the file. Raises Unusable when the file cannot be used at start.
    """

    def __init__(self, path: Path, read: Callable[[bytes, Content | None], Content], *, secret: bool = False) -> None:
        self.path = path
        self.problem: str | None = None
        self._read = read
        self._secret = secret
        self._stamp, self.value = self._load(None)

    def __repr__(self) -> str:
        return f"<FollowedFile {self.path}: {self.problem or 'good'}>"

    def look(self) -> bool:
        """Read the file if it has changed, and return whether it had. A problem is logged once and kept in `problem`."""
        try:
            if status(self.path)[0] == self._stamp:
                self.problem = None
                return False
            self._stamp, self.value = self._load(self.value)
        except Unusable as error:
            if str(error) != self.problem:
                log.error(
                    "event=file_kept_as_it_was why=%r do='Fix the file or its permissions; its previous content stays in use.'",
                    str(error),
                )
            self.problem = str(error)
            return False
        self.problem = None
        log.info("event=file_read_again path=%s", self.path)
        return True

    async def keep_fresh(self, poll_s: float = POLL_S) -> None:
        """Check the file every `poll_s` seconds until cancelled."""
        while True:
            await asyncio.sleep(poll_s)
            if self._stamp[2] <= SMALL_BYTES:
                self.look()
            else:
                await asyncio.to_thread(self.look)

    def _load(self, before: Content | None) -> tuple[Stamp, Content]:
        stamp, mode = status(self.path)  # before the content: a change in between is read at the next check
        try:
            value = self._read(self.path.read_bytes(), before)
        except OSError as error:
            raise Unusable(unread(self.path, error)) from error
        except ValueError as error:
            raise Unusable(f"{self.path}: {error}") from None
        except Exception as error:  # a bug; it must not end a process that serves requests
            raise Unusable(f"{self.path}: {unforeseen(error)}") from error
        if self._secret and mode & stat.S_IROTH:
            log.warning("event=file_readable_by_all path=%s do='Remove the permission: chmod o-r.'", self.path)
        return stamp, value


def status(path: Path) -> tuple[Stamp, int]:
    """(a stamp that changes with the file, also when a mount replaces it; its mode). Raises Unusable."""
    try:
        found = path.stat()
    except OSError as error:
        raise Unusable(unread(path, error)) from error
    return (found.st_mtime_ns, found.st_ino, found.st_size), found.st_mode


def unread(path: Path, error: OSError) -> str:
    """Why a file cannot be read. Without permission: also who the process is, and the mode and owner of the file."""
    why = f"{path}: cannot be read: {error.strerror}"
    if error.errno != errno.EACCES:
        return why
    try:
        found = path.stat()
    except OSError:
        place = "it may not enter a folder of this path"
    else:
        place = f"the file has mode {stat.S_IMODE(found.st_mode):04o}, uid {found.st_uid} and gid {found.st_gid}"
    return f"{why} (the sidecar has uid {os.geteuid()} and gid {os.getegid()}; {place})"


def stamp(path: Path) -> Stamp | None:
    """A stamp that changes with the file; None if the file cannot be read."""
    try:
        return status(path)[0]
    except Unusable:
        return None
