"""Files that the sidecar reads again when they change. Bad content never replaces good content, and never ends the process."""

import asyncio
import errno
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Generic, Self, TypeVar

from sidecar.common.errors import Unusable, unforeseen
from sidecar.common.file_content import check_regular, content

POLL_S = 5.0  # between two checks of a file
MOST_BYTES = 16 * 1024 * 1024  # of a WatchedFile of one file: 50,000 API keys

log = logging.getLogger("sidecar.files")

Content = TypeVar("Content")
Stamp = tuple[int, int, int]


class Watch:
    """Detects changes of files since it was made. It follows links: a ConfigMap changes by a new link above its files."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._seen = self._last = _stamps(files)

    def add(self, files: Iterable[Path]) -> None:
        """Watch these files too."""
        self._last = self._seen = _stamps(files) | self._seen

    def differs(self) -> bool:
        """Has a file changed?"""
        return self._seen != _stamps(self._seen)

    def changed(self) -> bool:
        """The same, but not before two checks find the same content: a half-written file does not count."""
        last, self._last = self._last, _stamps(self._seen)
        return self._seen != self._last == last


class WatchedFile(Generic[Content]):
    """One file, or several that belong together. `value` is the last good content; `problem` says why the files cannot be used
    now, or is None. `reads` counts successful reads.

    `read` gets the previous value (None at first), and an event that is set when nobody waits for the content any more. It may
    raise Unusable, OSError, or ValueError with a text that may be logged. `secret`: log a warning when other users may read the
    file. Without `value` the files are read at once; raises Unusable.
    """

    def __init__(
        self,
        files: Iterable[Path | None],
        read: Callable[[Content | None, threading.Event], Content],
        value: Content | None = None,
        *,
        secret: bool = False,
    ) -> None:
        self.files = [file for file in files if file is not None]
        self.path = self.files[0] if self.files else Path()
        self.problem: str | None = None
        self.reads = 0
        self._read = read
        self._secret = secret
        self._one_at_a_time = asyncio.Lock()
        self._cancelled = threading.Event()
        self._watch: Watch | None = None
        self.value = self._content(None) if value is None else value

    @classmethod
    def of(cls, path: Path, parse: Callable[[bytes, Content | None], Content], *, secret: bool = False) -> Self:
        """One file, whose bytes `parse` gets with the previous value."""
        return cls([path], lambda before, _: parse(content(path, MOST_BYTES), before), secret=secret)

    def __repr__(self) -> str:
        return f"<WatchedFile {self.path}: {self.problem or 'good'}>"

    def load(self) -> bool:
        """Read the files if one has changed, and return whether one had. Raises Unusable."""
        if changed := bool(self.files) and (self._watch is None or self._watch.differs()):
            self.value = self._content(self.value)
            if self.reads > 1:
                log.info("event=file_read_again path=%s", self.path)
        self.problem = None
        return changed

    def look(self) -> bool:
        """The same, but a problem is logged once and kept in `problem`."""
        try:
            return self.load()
        except Unusable as error:
            if str(error) != self.problem:
                do = "Fix the file or its permissions; its previous content stays in use."
                log.error("event=file_kept_as_it_was why=%r do=%r", str(error), do)
            self.problem = str(error)
            return False

    async def in_thread(self, check: Callable[[], bool]) -> bool:
        """Run `load` or `look` without holding up the loop for a large file or a slow disk."""
        async with self._one_at_a_time:
            cancelled = self._cancelled = threading.Event()
            try:
                return await asyncio.to_thread(check)
            finally:
                cancelled.set()

    async def keep_fresh(self, poll_s: float = POLL_S) -> None:
        """Check the files every `poll_s` seconds until cancelled."""
        while True:
            await asyncio.sleep(poll_s)
            await self.in_thread(self.look)

    def _content(self, before: Content | None) -> Content:
        watch = Watch(self.files)  # before the content: a change in between is read at the next check
        try:
            for file in self.files:
                check_regular(file)
            value = self._read(before, self._cancelled)
            if self._secret and self.path.stat().st_mode & stat.S_IROTH:
                log.warning("event=file_readable_by_all path=%s do='Remove the permission: chmod o-r.'", self.path)
        except Unusable:
            raise
        except OSError as error:
            raise Unusable(unread(self.path, error)) from error
        except ValueError as error:
            raise Unusable(f"{self.path}: {error}") from None
        except Exception as error:  # a bug; it must not end a process that serves requests
            raise Unusable(f"{self.path}: {unforeseen(error)}") from error
        self._watch = watch
        self.reads += 1
        return value


def _stamps(files: Iterable[Path]) -> dict[Path, Stamp | None]:
    return {file: _stamp(file) for file in files}


def _stamp(path: Path) -> Stamp | None:
    """A stamp that changes with the file, also when a mount replaces it; None if the file cannot be read."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


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
