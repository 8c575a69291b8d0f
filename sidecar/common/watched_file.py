"""A file of our own that is used, and read again when it changes. What cannot be used replaces nothing."""

import asyncio
import logging
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from sidecar.common.errors import Unusable, unforeseen

POLL_S = 5.0  # between two looks at the file
SMALL_BYTES = 64 * 1024  # read sooner than a thread begins to

log = logging.getLogger("sidecar.followed")

Content = TypeVar("Content")
Stamp = tuple[int, int, int]


class FollowedFile(Generic[Content]):
    """`value` is what `read` made of the file's bytes the last time that it could; `problem` says why it cannot now, or is None.

    `read` is given the value before, None at first, and raises ValueError in words that may be logged. `secret`: whoever reads
    the file can do harm with it, so it is said when others may. Raises Unusable when it cannot be used to begin with.
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
        """Read the file if it has changed; says whether it had. What is wrong with it is logged once, and kept in `problem`."""
        try:
            if _status(self.path)[0] == self._stamp:
                self.problem = None
                return False
            self._stamp, self.value = self._load(self.value)
        except Unusable as error:
            if str(error) != self.problem:
                log.error(
                    "event=file_kept_as_it_was why=%r do='Mend the file; what it held before is in use.'", str(error)
                )
            self.problem = str(error)
            return False
        self.problem = None
        log.info("event=file_read_again path=%s", self.path)
        return True

    async def keep_fresh(self, poll_s: float = POLL_S) -> None:
        """For ever: look at the file."""
        while True:
            await asyncio.sleep(poll_s)
            if self._stamp[2] <= SMALL_BYTES:
                self.look()
            else:
                await asyncio.to_thread(self.look)

    def _load(self, before: Content | None) -> tuple[Stamp, Content]:
        stamp, mode = _status(self.path)  # before the content: what changes in between is read again at the next look
        try:
            value = self._read(self.path.read_bytes(), before)
        except OSError as error:
            raise Unusable(f"{self.path}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise Unusable(f"{self.path}: {error}") from None
        except Exception as error:  # a bug; a file that is read while requests are served ends nothing
            raise Unusable(f"{self.path}: {unforeseen(error)}") from error
        if self._secret and mode & stat.S_IROTH:
            log.warning("event=file_readable_by_all path=%s do='Take that right away: chmod o-r.'", self.path)
        return stamp, value


def _status(path: Path) -> tuple[Stamp, int]:
    """(what changes with a file, also with a mounted one that is exchanged under its name; its mode). Raises Unusable."""
    try:
        found = path.stat()
    except OSError as error:
        raise Unusable(f"{path}: cannot be read: {error.strerror}") from error
    return (found.st_mtime_ns, found.st_ino, found.st_size), found.st_mode
